// A large graph as one bitmap that lies on the canvas and moves with it. It is drawn anew only when something
// changed or the view leaves what it covers, so that panning costs no drawing at all.

import { ViewportPortal, useStoreApi } from "@xyflow/react";
import { useEffect, useRef } from "react";
import { type Area, type Scene, boundsOf, inkOf, paint, seen } from "./paint.ts";

/** How much more than the view is drawn, on each side, as a part of it. */
const MARGIN = 0.5;
const MOST_PIXELS = 8_000_000;
/** While the wheel turns the old bitmap is stretched; the new one is drawn when it rests. */
const REST_MS = 110;

interface Drawn extends Area {
  zoom: number;
}

export function Overview({ scene, theme, without }: { scene: () => Scene; theme: string; without: Area | undefined }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const store = useStoreApi();
  useEffect(() => {
    let drawn: Drawn | undefined;
    let frame = 0;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const draw = () => {
      frame = 0;
      drawn = canvas.current ? drawInto(canvas.current, scene(), store.getState(), without) : undefined;
    };
    const soon = () => (frame ||= requestAnimationFrame(draw));
    const moved = () => {
      const { transform, width, height } = store.getState();
      if (!drawn || !covers(drawn, transform, width, height)) soon();
      else if (drawn.zoom !== transform[2]) {
        clearTimeout(timer);
        timer = setTimeout(soon, REST_MS);
      }
    };
    soon();
    const stop = store.subscribe(moved);
    return () => {
      stop();
      cancelAnimationFrame(frame);
      clearTimeout(timer);
    };
  }, [scene, store, theme, without]);
  return <ViewportPortal><canvas ref={canvas} className="overview" aria-hidden /></ViewportPortal>;
}

interface View {
  transform: [number, number, number];
  width: number;
  height: number;
}

function covers(drawn: Drawn, transform: View["transform"], width: number, height: number): boolean {
  const view = seen(transform, width, height, 0);
  return view.x >= drawn.x && view.y >= drawn.y && view.x + view.width <= drawn.x + drawn.width && view.y + view.height <= drawn.y + drawn.height;
}

function overlap(a: Area, b: Area): Area {
  const [x, y] = [Math.max(a.x, b.x), Math.max(a.y, b.y)];
  return { x, y, width: Math.max(1, Math.min(a.x + a.width, b.x + b.width) - x), height: Math.max(1, Math.min(a.y + a.height, b.y + b.height) - y) };
}

/** Draws what is seen and a margin; gives what the bitmap stands for, which is more where there is nothing to draw. */
function drawInto(canvas: HTMLCanvasElement, scene: Scene, { transform, width, height }: View, without: Area | undefined): Drawn {
  const zoom = transform[2];
  const wide = seen(transform, width, height, MARGIN);
  const bounds = boundsOf(scene.boxes, 200) ?? wide;
  const area = overlap(wide, bounds);
  const wanted = zoom * devicePixelRatio;
  const scale = wanted * Math.min(1, Math.sqrt(MOST_PIXELS / (area.width * area.height * wanted * wanted)));
  canvas.width = Math.ceil(area.width * scale);
  canvas.height = Math.ceil(area.height * scale);
  Object.assign(canvas.style, { left: `${area.x}px`, top: `${area.y}px`, width: `${canvas.width / scale}px`, height: `${canvas.height / scale}px` });
  const context = canvas.getContext("2d");
  if (context) paint(context, scene, area, scale, inkOf(canvas), without);
  return { ...grown(area, bounds), zoom };
}

const FAR_AWAY = 1e9;

/** A side at which all of the graph is drawn has nothing beyond it. */
function grown(area: Area, bounds: Area): Area {
  const left = area.x <= bounds.x ? -FAR_AWAY : area.x;
  const top = area.y <= bounds.y ? -FAR_AWAY : area.y;
  const right = area.x + area.width >= bounds.x + bounds.width ? FAR_AWAY : area.x + area.width;
  const bottom = area.y + area.height >= bounds.y + bounds.height ? FAR_AWAY : area.y + area.height;
  return { x: left, y: top, width: right - left, height: bottom - top };
}
