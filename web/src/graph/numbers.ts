// Numbers as they are typed, dragged and stepped; and seeds between runs.

import type { Json } from "./json.ts";
import type { Control } from "./model.ts";
import type { InputSpec, Widget } from "./specs.ts";

type NumberWidget = Extract<Widget, { kind: "int" | "float" }>;
export type Num = number | bigint;

/** The number as short as it may be written. */
export function showNumber(value: Json | undefined, widget: NumberWidget): string {
  if (typeof value === "bigint") return value.toString();
  if (typeof value !== "number") return value === undefined || value === null ? "" : String(value);
  if (widget.kind === "int") return String(value);
  return String(Number(value.toFixed(Math.max(widget.decimals, 2))));
}

/** What was typed: a number, or a small sum like `512+64`. Nothing when it is neither. */
export function parseNumber(text: string, widget: NumberWidget): Num | undefined {
  const trimmed = text.trim().replace(",", ".");
  if (/^-?\d+$/.test(trimmed) && widget.kind === "int") return narrow(BigInt(trimmed));
  const sum = /^(-?\d*\.?\d+)\s*([-+*/])\s*(-?\d*\.?\d+)$/.exec(trimmed);
  const value = sum ? calculate(Number(sum[1]), sum[2]!, Number(sum[3])) : trimmed === "" ? NaN : Number(trimmed);
  if (!Number.isFinite(value)) return undefined;
  return widget.kind === "int" ? Math.round(value) : value;
}

function calculate(a: number, operator: string, b: number): number {
  switch (operator) {
    case "+": return a + b;
    case "-": return a - b;
    case "*": return a * b;
    default: return a / b;
  }
}

function narrow(value: bigint): Num {
  return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
}

/** The nearest number that the bounds allow. */
export function clamp(value: Num, widget: NumberWidget): Num {
  if (value < widget.min) return widget.min;
  if (value > widget.max) return widget.max;
  return value;
}

/** The number moved by a count of steps, on the grid that starts at zero. */
export function stepBy(value: Json | undefined, steps: number, widget: NumberWidget): Num {
  if (typeof value === "bigint") return clamp(narrow(value + BigInt(Math.round(steps * widget.step))), widget);
  const from = typeof value === "number" ? value : 0;
  const moved = from + steps * widget.step;
  const rounded = widget.kind === "int" ? Math.round(moved) : Number(moved.toFixed(Math.max(widget.decimals, 2)));
  return clamp(rounded, widget);
}

/** The value of a seed for the next run. */
export function nextSeed(value: Json | undefined, control: Control, input: InputSpec, random: () => number = Math.random): Json | undefined {
  const widget = input.widget;
  if (widget?.kind === "choice") return nextChoice(value, control, widget.choices, random);
  if (widget?.kind !== "int") return value;
  const whole = typeof value === "bigint" ? value : BigInt(Math.trunc(Number(value ?? 0)) || 0);
  switch (control) {
    case "increment":
    case "increment-wrap":
      return clamp(narrow(whole + 1n), widget);
    case "decrement":
      return clamp(narrow(whole - 1n), widget);
    case "randomize":
      return randomSeed(widget, random);
    case "fixed":
      return value;
  }
}

/** Up to 2^50, so that the number survives every editor. */
function randomSeed(widget: NumberWidget, random: () => number): number {
  const min = Math.max(Number(widget.min), 0);
  const max = Math.min(Number(widget.max), 2 ** 50);
  return Math.floor(min + random() * (max - min + 1));
}

function nextChoice(value: Json | undefined, control: Control, choices: readonly Json[], random: () => number): Json | undefined {
  const at = choices.indexOf(value ?? null);
  if (choices.length === 0 || control === "fixed") return value;
  if (control === "randomize") return choices[Math.floor(random() * choices.length)];
  if (control === "decrement") return choices[Math.max(0, at - 1)];
  if (control === "increment-wrap") return choices[(at + 1) % choices.length];
  return choices[Math.min(choices.length - 1, at + 1)];
}
