// Which entry of a file's `widgets_values` belongs to which widget.
//
// The list is positional over the widgets in the order of the declaration, with further entries between them: how a
// seed moves, the filter of a list, the upload button.

import { type Json, asObject } from "./json.ts";
import type { Control, GraphNode } from "./model.ts";
import { type InputSpec, type NodeSpec, initialControl, initialValue, inputsOf } from "./specs.ts";

type Slot = { kind: "value" | "control"; input: InputSpec } | { kind: "filter" | "upload" | "forced" };

/** The entries of a class, in order. */
function slots(inputs: readonly InputSpec[], withForced: boolean): Slot[] {
  const list: Slot[] = [];
  for (const input of inputs) {
    if (input.widget) {
      list.push({ kind: "value", input });
      if (input.control) list.push({ kind: "control", input });
      if (input.control && input.widget.kind === "choice") list.push({ kind: "filter" });
    } else if (input.forced && withForced) list.push({ kind: "forced" });
  }
  if (inputs.some((input) => input.required && input.upload)) list.push({ kind: "upload" });
  return list;
}

export interface Aligned {
  values: Record<string, Json>;
  control: Record<string, Control>;
}

/** Values by name, from a list or from an object; `named` are those the file also keeps by name. */
export function alignValues(spec: NodeSpec, stored: Json | undefined, named: Record<string, Json> = {}): Aligned {
  const aligned: Aligned = { values: {}, control: {} };
  const object = asObject(stored);
  if (object) {
    Object.assign(aligned.values, object);
  } else if (Array.isArray(stored)) {
    readList(spec, stored, named, aligned);
  } else {
    Object.assign(aligned.values, named);
  }
  for (const input of inputsOf(spec, aligned, new Set())) {
    const initial = initialValue(input);
    if (aligned.values[input.name] === undefined && initial !== undefined) aligned.values[input.name] = initial;
    if (input.control) aligned.control[input.name] ??= initialControl(input);
  }
  return aligned;
}

/** A list that fits the class is right; one that does not gives way to the values by name. */
function readList(spec: NodeSpec, list: Json[], named: Record<string, Json>, into: Aligned): void {
  // Which inputs there are may depend on values that are read on the way.
  let inputs = inputsOf(spec, into, new Set());
  for (let round = 0; round < 4; round++) {
    const plain = slots(inputs, false);
    const forced = slots(inputs, true);
    const order = forced.length === list.length ? forced : plain;
    if (order.length !== list.length && Object.keys(named).length > 0) {
      Object.assign(into.values, named);
      return;
    }
    into.values = {};
    order.forEach((slot, index) => readEntry(slot, list[index], into));
    const now = inputsOf(spec, into, new Set());
    if (now.length === inputs.length && now.every((input, index) => input.name === inputs[index]?.name)) return;
    inputs = now;
  }
}

function readEntry(slot: Slot, value: Json | undefined, into: Aligned): void {
  if (value === undefined) return;
  if (slot.kind === "control" && typeof value === "string") into.control[slot.input.name] = value as Control;
  if (slot.kind !== "value") return;
  if (value === null && slot.input.widget?.kind === "text") into.values[slot.input.name] = "";
  else if (value !== null) into.values[slot.input.name] = value;
}

/** The list for the file. */
export function listValues(spec: NodeSpec, node: GraphNode): Json[] {
  const upload = spec.inputs.find((input) => input.required && input.upload);
  return slots(inputsOf(spec, node, new Set()), false).map((slot) => {
    switch (slot.kind) {
      case "value":
        return node.values[slot.input.name] ?? initialValue(slot.input) ?? null;
      case "control":
        return node.control[slot.input.name] ?? initialControl(slot.input);
      case "filter":
        return "";
      case "upload":
        return upload?.upload ?? "image";
      case "forced":
        return null;
    }
  });
}
