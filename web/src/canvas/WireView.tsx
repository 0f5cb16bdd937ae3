// Wires, and the wire that is being drawn.

import { BaseEdge, type ConnectionLineComponentProps, type EdgeProps, type Edge } from "@xyflow/react";
import { memo } from "react";
import { typeColor } from "../graph/types.ts";
import { useApp } from "../state/app.ts";
import type { EdgeData } from "./flow.ts";
import { bend } from "./paint.ts";

/** The colour of a kind as a wire has it: darker on a light page. */
export const wireInk = (color: string) => `color-mix(in srgb, ${color}, #000 var(--wire-dark))`;

/** A curve that leaves to the right and arrives from the left, through points between. */
export function wirePath(from: readonly [number, number], to: readonly [number, number], points: readonly (readonly [number, number])[] = []): string {
  const stops = [from, ...points, to];
  let path = `M${from[0]},${from[1]}`;
  for (let index = 1; index < stops.length; index++) {
    const [a, b] = [stops[index - 1]!, stops[index]!];
    const reach = bend(a, b);
    path += `C${a[0] + reach},${a[1]} ${b[0] - reach},${b[1]} ${b[0]},${b[1]}`;
  }
  return path;
}

export const WireView = memo(function WireView({ sourceX, sourceY, targetX, targetY, data, selected }: EdgeProps<Edge<EdgeData>>) {
  const path = wirePath([sourceX, sourceY], [targetX, targetY], data?.points);
  return (
    <>
      <BaseEdge path={path} interactionWidth={14} style={{ stroke: data && wireInk(data.color), strokeWidth: selected ? 4 : 2.2 }} />
      {data?.points.map(([x, y]) => <circle key={`${x} ${y}`} cx={x} cy={y} r={5} style={{ fill: wireInk(data.color) }} />)}
    </>
  );
});

export function WireBeingDrawn({ fromX, fromY, toX, toY, fromHandle, connectionStatus }: ConnectionLineComponentProps) {
  const wiring = useApp((state) => state.wiring);
  const forward = fromHandle.type === "source";
  const path = forward ? wirePath([fromX, fromY], [toX, toY]) : wirePath([toX, toY], [fromX, fromY]);
  const refused = connectionStatus === "invalid";
  return (
    <g className={refused ? "drawn-wire refused" : "drawn-wire"}>
      <path d={path} fill="none" style={{ stroke: refused ? "var(--bad)" : wireInk(typeColor(wiring?.type ?? "*")) }} strokeWidth={2.5} />
      <circle cx={toX} cy={toY} r={4} style={{ fill: refused ? "var(--bad)" : wireInk(typeColor(wiring?.type ?? "*")) }} />
    </g>
  );
}
