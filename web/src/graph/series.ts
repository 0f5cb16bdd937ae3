// Curves in what a node shows: lists of numbers, or of points with a step and a value.

import { type Json, type JsonObject, asList, asObject } from "./json.ts";

export interface Series {
  name: string;
  points: readonly (readonly [number, number])[];
}

const X = ["step", "x", "epoch", "iteration"];

/** All curves in it, with names. A list of points with several values gives a curve each. */
export function asSeries(output: JsonObject): Series[] {
  return Object.entries(output).flatMap(([name, value]) => read(name, value));
}

function read(name: string, value: Json): Series[] {
  const list = asList(value);
  if (list.length === 1 && Array.isArray(list[0])) return read(name, list[0]);
  if (list.length > 3 && list.every((it) => typeof it === "number")) return [{ name, points: list.map((y, x) => [x + 1, Number(y)] as const) }];
  const pairs = list.map(asList);
  if (list.length > 1 && pairs.every((it) => it.length === 2 && it.every((part) => typeof part === "number"))) {
    return [{ name, points: pairs.map(([x, y]) => [Number(x), Number(y)] as const) }];
  }
  const objects = list.map(asObject);
  const first = objects[0];
  const x = first && X.find((key) => typeof first[key] === "number");
  if (!first || !x || list.length < 2) return [];
  const keys = Object.keys(first).filter((key) => key !== x && typeof first[key] === "number");
  return keys.map((key) => ({
    name: keys.length > 1 ? key : name,
    points: objects.flatMap((it) => (it && typeof it[x] === "number" && typeof it[key] === "number" ? [[it[x], it[key]] as const] : [])),
  }));
}

/** A curve with less noise: the mean of what came before, later values counting more. */
export function smooth(points: Series["points"], weight: number): Series["points"] {
  let mean = 0;
  let sum = 0;
  return points.map(([x, y]) => {
    mean = mean * weight + y * (1 - weight);
    sum = sum * weight + (1 - weight);
    return [x, mean / sum] as const;
  });
}

/** At most so many points, each the mean of those it stands for. */
export function thinned(points: Series["points"], most: number): Series["points"] {
  if (points.length <= most) return points;
  const size = points.length / most;
  return Array.from({ length: most }, (_, index) => {
    const part = points.slice(Math.floor(index * size), Math.max(Math.floor((index + 1) * size), Math.floor(index * size) + 1));
    const mean = (axis: 0 | 1) => part.reduce((total, point) => total + point[axis], 0) / part.length;
    return [mean(0), mean(1)] as const;
  });
}
