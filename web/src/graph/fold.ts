// Which values of a node are folded away: those that its class calls seldom set, as long as they stand at their default.

import { sameJson } from "./json.ts";
import type { GraphNode } from "./model.ts";
import { type InputSpec, initialValue } from "./specs.ts";

/** One alone would take as much room folded as it does unfolded. */
const FEWEST = 2;

/** The inputs that could be folded away now. A wired one is never among them, nor one of a subgraph, which was chosen to be seen. */
export function foldable(node: Pick<GraphNode, "values">, inputs: readonly InputSpec[], seen: { has(name: string): boolean }): InputSpec[] {
  const idle = inputs.filter((input) => input.advanced && input.widget && !input.name.includes(":") && !seen.has(input.name) && atDefault(node, input));
  return idle.length >= FEWEST ? idle : [];
}

/** The inputs that are drawn. `seen` are those that must be: wired ones, and those with a fault. */
export function shownInputs(node: Pick<GraphNode, "values" | "unfolded">, inputs: readonly InputSpec[], seen: { has(name: string): boolean }): readonly InputSpec[] {
  if (node.unfolded) return inputs;
  const away = new Set(foldable(node, inputs, seen));
  return away.size ? inputs.filter((input) => !away.has(input)) : inputs;
}

function atDefault(node: Pick<GraphNode, "values">, input: InputSpec): boolean {
  const value = node.values[input.name];
  return value === undefined || sameJson(value, initialValue(input));
}
