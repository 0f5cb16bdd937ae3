// Draws a whole graph small: boxes and wires onto a bitmap, for the view from afar and for the overview in the corner.
// Knows no nodes of the page, so that its cost is that of a few hundred lines and rectangles.

/** A node as it looks from afar. */
export interface Box {
  id: string;
  x: number;
  y: number;
  width: number;
  height: number;
  title: string;
  /** Of its head. */
  color?: string;
  /** How its run goes, or what is special about it. */
  mark?: "running" | "failed" | "done" | "cached" | "selected" | "missing";
  faint: boolean;
}

/** A wire, with the points that it passes through. */
export interface Line {
  id: string;
  color: string;
  stops: readonly (readonly [number, number])[];
}

export interface Scene {
  boxes: readonly Box[];
  lines: readonly Line[];
}

/** The colours of the page, as it is dark or light now. */
export interface Ink {
  body: string;
  head: string;
  border: string;
  text: string;
  accent: string;
  good: string;
  bad: string;
  /** How much darker wires are: on a light page, `45%`. */
  wireDark: string;
}

export function inkOf(element: Element): Ink {
  const style = getComputedStyle(element);
  const read = (name: string) => style.getPropertyValue(name).trim();
  return { body: read("--node"), head: read("--node-head"), border: read("--node-border"), text: read("--text"), accent: read("--accent"), good: read("--good"), bad: read("--bad"), wireDark: read("--wire-dark") || "0%" };
}

export interface Area {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** What all boxes cover, with a margin. */
export function boundsOf(boxes: readonly Area[], margin = 0): Area | undefined {
  if (boxes.length === 0) return undefined;
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const box of boxes) {
    left = Math.min(left, box.x);
    top = Math.min(top, box.y);
    right = Math.max(right, box.x + box.width);
    bottom = Math.max(bottom, box.y + box.height);
  }
  return { x: left - margin, y: top - margin, width: right - left + 2 * margin, height: bottom - top + 2 * margin };
}

/** The part of the canvas that a view shows, with a margin on each side as a part of the view. */
export function seen([tx, ty, zoom]: readonly [number, number, number], width: number, height: number, margin: number): Area {
  return { x: (-tx - width * margin) / zoom, y: (-ty - height * margin) / zoom, width: (width * (1 + 2 * margin)) / zoom, height: (height * (1 + 2 * margin)) / zoom };
}

export const touches = (a: Area, b: Area) => a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;

/** The topmost box at a point of the canvas. */
export function boxAt(boxes: readonly Box[], x: number, y: number): Box | undefined {
  return boxes.findLast((box) => x >= box.x && x <= box.x + box.width && y >= box.y && y <= box.y + box.height);
}

/** The wire that passes a point at no more than `reach`, the nearest if there are several. */
export function lineAt(lines: readonly Line[], x: number, y: number, reach: number): Line | undefined {
  const here = { x: x - reach, y: y - reach, width: 2 * reach, height: 2 * reach };
  let [best, found]: [number, Line | undefined] = [reach, undefined];
  for (const line of lines) {
    if (!mayTouch(line, here)) continue;
    const distance = distanceTo(line, x, y);
    if (distance <= best) [best, found] = [distance, line];
  }
  return found;
}

const PIECES = 24;

/** From a point to a wire, taken as short straight pieces. */
function distanceTo({ stops }: Line, x: number, y: number): number {
  let best = Infinity;
  for (let index = 1; index < stops.length; index++) {
    const [a, b] = [stops[index - 1]!, stops[index]!];
    const reach = bend(a, b);
    let before = a;
    for (let piece = 1; piece <= PIECES; piece++) {
      const t = piece / PIECES;
      const [p, q, r, s] = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t ** 3];
      const after = [p * a[0] + q * (a[0] + reach) + r * (b[0] - reach) + s * b[0], (p + q) * a[1] + (r + s) * b[1]] as const;
      best = Math.min(best, distanceToPiece(before, after, x, y));
      before = after;
    }
  }
  return best;
}

function distanceToPiece(a: readonly [number, number], b: readonly [number, number], x: number, y: number): number {
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const along = Math.max(0, Math.min(1, ((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(x - a[0] - along * dx, y - a[1] - along * dy);
}

/** How far a curve leaves its ends sideways. */
export function bend(a: readonly [number, number], b: readonly [number, number]): number {
  return Math.max(24, Math.min(160, Math.abs(b[0] - a[0]) * 0.5, Math.hypot(b[0] - a[0], b[1] - a[1]) * 0.5));
}

/** Draws what lies in `area`, `scale` pixels to a unit of the canvas, onto a bitmap that was cleared. Boxes that touch
 * `without` are left out: they are on the page themselves. */
export function paint(context: CanvasRenderingContext2D, scene: Scene, area: Area, scale: number, ink: Ink, without?: Area): void {
  context.setTransform(scale, 0, 0, scale, -area.x * scale, -area.y * scale);
  paintLines(context, scene.lines, area, scale, ink);
  for (const box of scene.boxes) if (touches(box, area) && !(without && touches(box, without))) paintBox(context, box, scale, ink);
}

const HEAD = 32;
/** Titles are drawn where so many pixels are there for them. */
const READABLE = 58;

function paintBox(context: CanvasRenderingContext2D, box: Box, scale: number, ink: Ink): void {
  context.globalAlpha = box.faint ? 0.45 : 1;
  context.fillStyle = ink.body;
  context.fillRect(box.x, box.y, box.width, box.height);
  context.fillStyle = box.color ?? ink.head;
  context.fillRect(box.x, box.y, box.width, Math.min(HEAD, box.height));
  const { style, wide } = borderOf(box, ink);
  context.strokeStyle = style;
  context.lineWidth = wide / scale;
  context.strokeRect(box.x, box.y, box.width, box.height);
  if (box.title && box.width * scale >= READABLE) paintTitle(context, box, scale, ink);
  context.globalAlpha = 1;
}

function borderOf(box: Box, ink: Ink): { style: string; wide: number } {
  switch (box.mark) {
    case "running": return { style: ink.good, wide: 3 };
    case "failed": return { style: ink.bad, wide: 3 };
    case "missing": return { style: ink.bad, wide: 1.5 };
    case "selected": return { style: ink.accent, wide: 2.5 };
    case "done": return { style: ink.good, wide: 1 };
    default: return { style: ink.border, wide: 1 };
  }
}

function paintTitle(context: CanvasRenderingContext2D, box: Box, scale: number, ink: Ink): void {
  const size = Math.max(13, 10 / scale);
  context.save();
  context.beginPath();
  context.rect(box.x, box.y, box.width, box.height);
  context.clip();
  context.fillStyle = ink.text;
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "top";
  context.fillText(box.title, box.x + 5 / scale, box.y + 3 / scale);
  context.restore();
}

/** Curves by colour, many in one stroke. */
function paintLines(context: CanvasRenderingContext2D, lines: readonly Line[], area: Area, scale: number, ink: Ink): void {
  const byColor = new Map<string, Line[]>();
  for (const line of lines) {
    if (!mayTouch(line, area)) continue;
    const some = byColor.get(line.color);
    if (some) some.push(line);
    else byColor.set(line.color, [line]);
  }
  context.lineWidth = Math.max(1, 2.2 * scale) / scale;
  for (const [color, some] of byColor) {
    context.strokeStyle = color;
    // A browser that cannot mix them leaves the colour as it was set before.
    context.strokeStyle = `color-mix(in srgb, ${color}, #000 ${ink.wireDark})`;
    context.beginPath();
    for (const { stops } of some) {
      context.moveTo(stops[0]![0], stops[0]![1]);
      for (let index = 1; index < stops.length; index++) {
        const [[ax, ay], [bx, by]] = [stops[index - 1]!, stops[index]!];
        const reach = bend([ax, ay], [bx, by]);
        context.bezierCurveTo(ax + reach, ay, bx - reach, by, bx, by);
      }
    }
    context.stroke();
  }
}

function mayTouch({ stops }: Line, area: Area): boolean {
  const [xs, ys] = [stops.map(([x]) => x), stops.map(([, y]) => y)];
  const [left, top] = [Math.min(...xs) - 160, Math.min(...ys)];
  return touches({ x: left, y: top, width: Math.max(...xs) + 160 - left, height: Math.max(...ys) - top + 1 }, area);
}
