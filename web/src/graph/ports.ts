// The sockets of a node: from its class, from its subgraph, or, for a class we do not have, from its file.

import { type Json, asList } from "./json.ts";
import { type Doc, type GraphNode, INPUT_BORDER, OUTPUT_BORDER, type Scope, incoming } from "./model.ts";
import { type InputSpec, type OutputSpec, type Specs, inputsOf } from "./specs.ts";
import { fits } from "./types.ts";
import { PRIMITIVE, REROUTE, THROUGH, isNote, throughReroutes, virtualOutput } from "./virtual.ts";

export interface Ports {
  inputs: readonly InputSpec[];
  outputs: readonly OutputSpec[];
  /** The class is known, or is a subgraph or a kind of note. */
  known: boolean;
}

const plain = (name: string, type: string): InputSpec => ({
  name, type, required: false, control: false, default: undefined, advanced: false, forced: false, options: {},
});

/** The sockets of a node in a scope. Wires to inputs that its class does not declare keep their socket. */
export function portsOf(doc: Doc, scope: Scope, node: GraphNode, specs: Specs): Ports {
  const wired = new Set((incoming(scope).get(node.id) ?? []).map((wire) => wire.input));
  const inner = doc.scopes[node.type];
  if (inner && node.type) return subgraphPorts(inner, node, specs, doc);
  if (isNote(node.type)) return { inputs: [], outputs: [], known: true };
  if (node.type === REROUTE) return reroutePorts(scope, node, specs, doc);
  if (node.type === PRIMITIVE) return { inputs: [], outputs: [{ name: "value", type: virtualOutput(node), list: false }], known: true };
  const spec = specs.get(node.type);
  if (!spec) return missingPorts(node, wired);
  const inputs = inputsOf(spec, node, wired);
  const extra = [...wired].filter((name) => !inputs.some((input) => input.name === name)).map((name) => plain(name, "*"));
  return { inputs: [...inputs, ...extra], outputs: spec.outputs, known: true };
}

function missingPorts(node: GraphNode, wired: Set<string>): Ports {
  const inputs = node.inputs.map((slot) => plain(slot.name, slot.type));
  const extra = [...wired].filter((name) => !inputs.some((input) => input.name === name)).map((name) => plain(name, "*"));
  return {
    inputs: [...inputs, ...extra],
    outputs: node.outputs.map((slot) => ({ name: slot.name, type: slot.type, list: false })),
    known: false,
  };
}

function reroutePorts(scope: Scope, node: GraphNode, specs: Specs, doc: Doc): Ports {
  const wire = incoming(scope).get(node.id)?.[0];
  const origin = wire && throughReroutes(scope, wire.from, wire.out);
  const type = origin ? (outputType(doc, scope, origin.from, origin.out, specs) ?? "*") : "*";
  return { inputs: [plain(THROUGH, "*")], outputs: [{ name: "", type, list: false }], known: true };
}

/** A widget of an inner node that is shown on the instance. */
export interface Promoted {
  node: string;
  input: InputSpec;
  value: Json | undefined;
}

/** The inner widgets that an instance shows, `properties.proxyWidgets`. */
export function promotedOf(doc: Doc, node: GraphNode, specs: Specs): Promoted[] {
  const inner = doc.scopes[node.type];
  if (!inner) return [];
  return asList(node.properties["proxyWidgets"]).flatMap((entry) => {
    const [id, name] = asList(entry).map(String);
    const target = id === undefined ? undefined : inner.nodes[id];
    const spec = target && specs.get(target.type);
    const input = spec && inputsOf(spec, target, new Set()).find((it) => it.name === name);
    return input && target ? [{ node: target.id, input, value: target.values[input.name] }] : [];
  });
}

function subgraphPorts(inner: Scope, node: GraphNode, specs: Specs, doc: Doc): Ports {
  const inputs = inner.inputs.map((port) => ({ ...plain(port.name, port.type), ...(port.label ? { label: port.label } : {}) }));
  const promoted = promotedOf(doc, node, specs).map(({ node: id, input }) => ({ ...input, name: `${id}:${input.name}`, required: false }));
  return { inputs: [...inputs, ...promoted], outputs: inner.outputs.map((port) => ({ name: port.name, type: port.type, list: false, ...(port.label ? { label: port.label } : {}) })), known: true };
}

/** The socket on the border of a subgraph that becomes a port when it is wired. */
export const NEW_PORT = "+";

/** The kind that an output gives. */
export function outputType(doc: Doc, scope: Scope, id: string, out: number, specs: Specs): string | undefined {
  if (id === INPUT_BORDER) return out === scope.inputs.length ? "*" : scope.inputs[out]?.type;
  const node = scope.nodes[id];
  return node && portsOf(doc, scope, node, specs).outputs[out]?.type;
}

/** The kind that an input takes. */
export function inputType(doc: Doc, scope: Scope, id: string, name: string, specs: Specs): string | undefined {
  if (id === OUTPUT_BORDER && name === NEW_PORT) return "*";
  if (id === OUTPUT_BORDER) return scope.outputs.find((port) => port.name === name)?.type;
  const node = scope.nodes[id];
  return node && portsOf(doc, scope, node, specs).inputs.find((input) => input.name === name)?.type;
}

/** Why a wire is refused, or nothing. */
export function wireRefusal(doc: Doc, scope: Scope, specs: Specs, from: string, out: number, to: string, input: string): string | undefined {
  const source = outputType(doc, scope, from, out, specs);
  const target = inputType(doc, scope, to, input, specs);
  if (source === undefined || target === undefined) return "there is no such socket";
  if (from === to) return "a node cannot feed itself";
  if (!fits(source, target)) return `\`${input}\` takes ${target}, this is ${source}${bridge(specs, source, target)}`;
  if (reaches(scope, to, from)) return "this would close a circle: the node reads, by way of others, what it makes";
  return undefined;
}

/** A class that turns one kind into the other, as a way out. */
function bridge(specs: Specs, source: string, target: string): string {
  for (const spec of specs.values()) {
    const takes = spec.inputs.some((input) => !input.widget && input.required && input.type === source);
    if (takes && spec.outputs[0]?.type === target && !spec.deprecated) return ` — put \`${spec.title}\` between them`;
  }
  return "";
}

/** Whether something flows from one node to another. */
export function reaches(scope: Scope, from: string, to: string): boolean {
  const into = incoming(scope);
  const seen = new Set<string>();
  const open = [to];
  for (let id = open.pop(); id !== undefined; id = open.pop()) {
    if (id === from) return true;
    if (seen.has(id)) continue;
    seen.add(id);
    for (const wire of into.get(id) ?? []) open.push(wire.from);
  }
  return false;
}
