// Turns a document into the API prompt that the server runs: subgraphs are expanded, bypassed and virtual nodes
// followed through, muted ones left out.

import type { Json, JsonObject } from "./json.ts";
import { type Doc, type GraphNode, INPUT_BORDER, MODE, OUTPUT_BORDER, ROOT, type Scope, type Wire, incoming } from "./model.ts";
import { portsOf } from "./ports.ts";
import { type Specs, initialValue } from "./specs.ts";
import { fits } from "./types.ts";
import { PRIMITIVE, REROUTE, VALUE, isVirtual } from "./virtual.ts";
import { compareIds, executionOrder } from "./write.ts";

export type Prompt = Record<string, { class_type: string; inputs: JsonObject; _meta: { title: string } }>;

/** One use of a scope: the graph itself or an instance of a subgraph. */
interface Frame {
  scope: Scope;
  prefix: string;
  mode: number;
  /** The instance and where it stands. */
  outer?: { frame: Frame; node: GraphNode };
}

type Source = { link: [string, number] } | { value: Json };

/** The prompt of a document. `random` decides the branches of dynamic prompts. */
export function toPrompt(doc: Doc, specs: Specs, random: () => number = Math.random): Prompt {
  const prompt: Prompt = {};
  const root = doc.scopes[ROOT];
  if (root) addFrame(doc, specs, { scope: root, prefix: "", mode: MODE.always }, prompt, random, 0);
  for (const node of Object.values(prompt)) {
    for (const [name, value] of Object.entries(node.inputs)) {
      if (isLink(value) && !prompt[value[0]]) delete node.inputs[name];
    }
  }
  return prompt;
}

function isLink(value: Json): value is [string, number] {
  return Array.isArray(value) && value.length === 2 && typeof value[0] === "string" && typeof value[1] === "number";
}

function addFrame(doc: Doc, specs: Specs, frame: Frame, prompt: Prompt, random: () => number, depth: number): void {
  const order = executionOrder(frame.scope);
  const nodes = Object.values(frame.scope.nodes).sort((a, b) => (order.get(a.id) ?? 0) - (order.get(b.id) ?? 0) || compareIds(a.id, b.id));
  for (const node of nodes) {
    const mode = frame.mode || node.mode;
    const inner = node.type ? doc.scopes[node.type] : undefined;
    if (inner) {
      if (depth > 60) throw new Error(`the subgraph \`${inner.name}\` contains itself`);
      addFrame(doc, specs, { scope: inner, prefix: `${frame.prefix}${node.id}:`, mode: mode === MODE.muted || mode === MODE.bypassed ? mode : 0, outer: { frame, node } }, prompt, random, depth + 1);
    } else if (!isVirtual(node.type) && mode !== MODE.muted && mode !== MODE.bypassed) {
      prompt[frame.prefix + node.id] = {
        inputs: nodeInputs(doc, specs, frame, node, random),
        class_type: node.type,
        _meta: { title: node.title ?? specs.get(node.type)?.title ?? node.type },
      };
    }
  }
}

function nodeInputs(doc: Doc, specs: Specs, frame: Frame, node: GraphNode, random: () => number): JsonObject {
  const inputs: JsonObject = {};
  const spec = specs.get(node.type);
  if (!spec) Object.assign(inputs, node.values);
  for (const input of portsOf(doc, frame.scope, node, specs).inputs) {
    if (!input.widget) continue;
    const value = node.values[input.name] ?? initialValue(input);
    if (value === undefined) continue;
    const dynamic = input.widget.kind === "text" && input.widget.dynamic && typeof value === "string";
    inputs[input.name] = Array.isArray(value) ? { __value__: value } : dynamic ? chooseBranches(value, random) : value;
  }
  for (const wire of incoming(frame.scope).get(node.id) ?? []) {
    const target = portsOf(doc, frame.scope, node, specs).inputs.find((it) => it.name === wire.input)?.type ?? "*";
    const source = resolve(doc, specs, frame, wire, target, 0);
    if (source) inputs[wire.input] = "link" in source ? source.link : source.value;
  }
  return inputs;
}

/** What a wire brings in the end: an output of a node that runs, or a value. */
function resolve(doc: Doc, specs: Specs, frame: Frame, wire: Wire, target: string, steps: number): Source | undefined {
  if (steps > 1000) return undefined;
  const again = (next: Wire | undefined, at: Frame = frame) => next && resolve(doc, specs, at, next, target, steps + 1);
  const wireInto = (scope: Scope, id: string, input: string) => (incoming(scope).get(id) ?? []).find((it) => it.input === input);
  if (wire.from === INPUT_BORDER) {
    const outer = frame.outer;
    const port = frame.scope.inputs[wire.out];
    return outer && port && again(wireInto(outer.frame.scope, outer.node.id, port.name), outer.frame);
  }
  const node = frame.scope.nodes[wire.from];
  if (!node) return undefined;
  if (node.type === REROUTE) return again((incoming(frame.scope).get(node.id) ?? [])[0]);
  if (node.type === PRIMITIVE) return node.values[VALUE] === undefined ? undefined : { value: node.values[VALUE] };
  const mode = frame.mode || node.mode;
  if (mode === MODE.bypassed) {
    const input = bypassInput(doc, specs, frame.scope, node, wire.out, target);
    return input === undefined ? undefined : again(wireInto(frame.scope, node.id, input));
  }
  const inner = node.type ? doc.scopes[node.type] : undefined;
  if (inner) {
    const port = inner.outputs[wire.out];
    const next = port && wireInto(inner, OUTPUT_BORDER, port.name);
    return again(next, { scope: inner, prefix: `${frame.prefix}${node.id}:`, mode, outer: { frame, node } });
  }
  return { link: [frame.prefix + node.id, wire.out] };
}

/** The input that a bypassed node hands on as an output: the same place if it fits, else the first that does. */
function bypassInput(doc: Doc, specs: Specs, scope: Scope, node: GraphNode, out: number, target: string): string | undefined {
  const ports = portsOf(doc, scope, node, specs);
  const inputs = ports.inputs;
  const type = ports.outputs[out]?.type ?? "*";
  const same = inputs[out];
  if (type === "*" || type === "") return (same ?? inputs[0])?.name;
  if (same && fits(type, same.type) && fits(same.type, target)) return same.name;
  return (inputs.find((input) => input.type === type) ?? inputs.find((input) => fits(type, input.type)))?.name;
}

/** The text without comments and with one branch of each `{a|b}`. */
export function chooseBranches(text: string, random: () => number): string {
  const bare = text.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
  let at = 0;
  const read = (inside: boolean): string[] => {
    const branches = [""];
    while (at < bare.length) {
      const character = bare[at++]!;
      if (character === "\\" && "{}|".includes(bare[at] ?? " ")) branches[branches.length - 1] += bare[at++]!;
      else if (character === "{") {
        const choices = read(true);
        branches[branches.length - 1] += choices[Math.floor(random() * choices.length)] ?? "";
      } else if (character === "}" && inside) return branches;
      else if (character === "|" && inside) branches.push("");
      else branches[branches.length - 1] += character;
    }
    return branches;
  };
  return read(false).join("|");
}

/** The nodes of a prompt that some of its nodes need, those among them. */
export function neededFor(prompt: Prompt, ids: readonly string[]): ReadonlySet<string> {
  const found = new Set<string>();
  const open = [...ids];
  for (let id = open.pop(); id !== undefined; id = open.pop()) {
    const node = prompt[id];
    if (found.has(id) || !node) continue;
    found.add(id);
    for (const value of Object.values(node.inputs)) if (Array.isArray(value) && typeof value[0] === "string") open.push(value[0]);
  }
  return found;
}

/** Which inner nodes of the prompt stand for a node of the graph: itself, or all within an instance. */
export function promptIds(prompt: Prompt, path: string): string[] {
  return Object.keys(prompt).filter((id) => id === path || id.startsWith(`${path}:`));
}
