// Curves of a training, live: drag to pan, wheel to zoom along the steps, double click for all; arrows and Home do the same.

import { useRef, useState } from "react";
import { type Series, smooth, thinned } from "../graph/series.ts";

const COLORS = ["#6d7cff", "#ffa931", "#5ecf8f", "#ff6e9c", "#64d2ff"];
const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [260, 130, 38, 18, 8];

/** A range moved by so much, no farther than the steps go. */
function shifted([a, b]: readonly [number, number], by: number, first: number, last: number): readonly [number, number] {
  const bounded = Math.max(first - a, Math.min(last - b, by));
  return [a + bounded, b + bounded];
}

export function Curves({ series }: { series: readonly Series[] }) {
  const [range, setRange] = useState<readonly [number, number]>();
  const drag = useRef<{ x: number; range: readonly [number, number] }>(undefined);
  const all = series.flatMap((it) => it.points);
  const first = Math.min(...all.map(([x]) => x));
  const last = Math.max(first + 1, ...all.map(([x]) => x));
  const [from, to] = range ?? [first, last];
  const seen = series.map((it) => ({ ...it, points: it.points.filter(([x]) => x >= from && x <= to) }));
  const ys = seen.flatMap((it) => it.points.map(([, y]) => y)).filter(Number.isFinite).sort((a, b) => a - b);
  const low = ys[0] ?? 0;
  const high = Math.max(ys[Math.floor(ys.length * 0.995)] ?? 1, low + 1e-9);
  const px = (x: number) => LEFT + ((x - from) / (to - from)) * (WIDTH - LEFT - 6);
  const py = (y: number) => TOP + (1 - (Math.min(y, high) - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const path = (points: Series["points"]) => thinned(points, 240).map(([x, y], index) => `${index ? "L" : "M"}${px(x).toFixed(1)},${py(y).toFixed(1)}`).join("");
  const latest = series.map((it) => `${it.name} ${it.points.at(-1)?.[1].toPrecision(3) ?? ""}`).join(", ");
  return (
    <figure className="curves nodrag nowheel">
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`Curve: ${latest} at step ${last}`}
        onWheel={(event) => {
          const middle = from + ((to - from) * (event.nativeEvent.offsetX / event.currentTarget.clientWidth));
          const factor = event.deltaY > 0 ? 1.25 : 0.8;
          setRange([Math.max(first, middle - (middle - from) * factor), Math.min(last, middle + (to - middle) * factor)]);
        }}
        onDoubleClick={() => setRange(undefined)}
        tabIndex={0}
        onKeyDown={(event) => {
          const [move, zoom] = [{ ArrowLeft: -0.1, ArrowRight: 0.1 }[event.key], { ArrowUp: 0.8, ArrowDown: 1.25 }[event.key]];
          if (event.ctrlKey || event.altKey || event.metaKey || (move === undefined && zoom === undefined && event.key !== "Home")) return;
          event.preventDefault();
          event.stopPropagation();
          if (event.key === "Home") setRange(undefined);
          else if (move !== undefined) setRange(shifted([from, to], move * (to - from), first, last));
          else setRange([Math.max(first, to - (to - from) * zoom!), to]);
        }}
        onPointerDown={(event) => {
          event.stopPropagation();
          event.currentTarget.setPointerCapture(event.pointerId);
          drag.current = { x: event.clientX, range: [from, to] };
        }}
        onPointerMove={(event) => {
          if (!drag.current) return;
          const [a, b] = drag.current.range;
          const shift = ((drag.current.x - event.clientX) / event.currentTarget.clientWidth) * (b - a);
          setRange(shifted([a, b], shift, first, last));
        }}
        onPointerUp={() => (drag.current = undefined)}
      >
        {[low, (low + high) / 2, high].map((y) => (
          <g key={y}><line x1={LEFT} x2={WIDTH - 6} y1={py(y)} y2={py(y)} className="rule" /><text x={LEFT - 4} y={py(y) + 3} textAnchor="end">{y.toPrecision(2)}</text></g>
        ))}
        <text x={LEFT} y={HEIGHT - 5}>{Math.round(from)}</text>
        <text x={WIDTH - 6} y={HEIGHT - 5} textAnchor="end">step {Math.round(to)}</text>
        {seen.map((it, index) => (
          <g key={it.name} style={{ stroke: COLORS[index % COLORS.length] }}>
            {it.points.length > 30 && <path d={path(it.points)} className="raw" />}
            <path d={path(it.points.length > 30 ? smooth(it.points, 0.9) : it.points)} className="line" />
          </g>
        ))}
      </svg>
      <figcaption>{series.map((it, index) => <span key={it.name}><i style={{ background: COLORS[index % COLORS.length] }} />{it.name} <b>{it.points.at(-1)?.[1].toPrecision(3)}</b></span>)}</figcaption>
    </figure>
  );
}
