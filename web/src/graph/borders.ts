// The ports on a subgraph's border: made by wiring, named, taken away; and a subgraph put back as the nodes in it.

import { connect } from "./edit.ts";
import { type Doc, type GraphNode, INPUT_BORDER, type NodeId, OUTPUT_BORDER, type Port, ROOT, type Scope, type Wire, nextId, scopeOf } from "./model.ts";
import { NEW_PORT, inputType, outputType } from "./ports.ts";
import type { Specs } from "./specs.ts";
import { newPort } from "./subgraph.ts";

export type Side = "inputs" | "outputs";

/** Joins two sockets; the open socket of a border becomes a port, named after what it is wired to. */
export function join(doc: Doc, scope: Scope, specs: Specs, from: NodeId, out: number, to: NodeId, input: string): Scope {
  if (from === INPUT_BORDER && out === scope.inputs.length) {
    const port = newPort(input || "input", inputType(doc, scope, to, input, specs) ?? "*", scope.inputs);
    return connect({ ...scope, inputs: [...scope.inputs, port] }, from, out, to, input, port.type);
  }
  const type = outputType(doc, scope, from, out, specs) ?? "*";
  if (to !== OUTPUT_BORDER || input !== NEW_PORT) return connect(scope, from, out, to, input, type);
  const port = newPort(type.toLowerCase() || "output", type, scope.outputs);
  return connect({ ...scope, outputs: [...scope.outputs, port] }, from, out, to, port.name, type);
}

/** Another name for a port to be seen by; its own stays, as wires and files know it by that. */
export function relabel(scope: Scope, side: Side, id: string, label: string): Scope {
  const named = ({ label: _old, ...port }: Port): Port => (label && label !== port.name ? { ...port, label } : port);
  return { ...scope, [side]: scope[side].map((port) => (port.id === id ? named(port) : port)) };
}

/** Takes a port away, with its wires inside and at every instance. */
export function removePort(doc: Doc, scopeId: string, side: Side, id: string): Doc {
  const scope = scopeOf(doc, scopeId);
  const slot = scope[side].findIndex((port) => port.id === id);
  const port = scope[side][slot];
  if (!port) return doc;
  const closed = (wires: Scope["wires"], isItsInput: (wire: Wire) => boolean, isOutputOf: (wire: Wire) => boolean): Scope["wires"] =>
    Object.fromEntries(Object.entries(wires).flatMap(([key, wire]): [string, Wire][] => {
      if (isItsInput(wire) || (isOutputOf(wire) && wire.out === slot)) return [];
      return [[key, isOutputOf(wire) && wire.out > slot ? { ...wire, out: wire.out - 1 } : wire]];
    }));
  const isInput = side === "inputs";
  const scopes = Object.values(doc.scopes).map((it): Scope => {
    const isInstance = (node: NodeId) => it.nodes[node]?.type === scopeId;
    const outside = closed(it.wires, (wire) => isInput && isInstance(wire.to) && wire.input === port.name, (wire) => !isInput && isInstance(wire.from));
    if (it.id !== scopeId) return { ...it, wires: outside };
    const inside = closed(outside, (wire) => !isInput && wire.to === OUTPUT_BORDER && wire.input === port.name, (wire) => isInput && wire.from === INPUT_BORDER);
    return { ...it, wires: inside, [side]: it[side].filter((other) => other.id !== id) };
  });
  return { ...doc, scopes: Object.fromEntries(scopes.map((it) => [it.id, it])) };
}

/** An instance replaced by the nodes of its subgraph; the definition goes with its last instance. */
export function unpack(doc: Doc, scopeId: string, instance: NodeId): { doc: Doc; nodes: NodeId[] } {
  const scope = scopeOf(doc, scopeId);
  const node = scope.nodes[instance];
  const inner = node && doc.scopes[node.type];
  if (!node || !inner || inner.id === ROOT) return { doc, nodes: [] };
  const ids = freshIds(scope, inner);
  const [left, top] = [Math.min(...Object.values(inner.nodes).map((it) => it.pos[0])), Math.min(...Object.values(inner.nodes).map((it) => it.pos[1]))];
  const placed = Object.values(inner.nodes).map((it): GraphNode => ({ ...it, id: ids.get(it.id)!, mode: node.mode || it.mode, pos: [node.pos[0] + it.pos[0] - left, node.pos[1] + it.pos[1] - top] }));
  const { [instance]: _gone, ...others } = scope.nodes;
  const open: Scope = { ...scope, nodes: { ...others, ...Object.fromEntries(placed.map((it) => [it.id, it])) }, wires: Object.fromEntries(Object.entries(scope.wires).filter(([, wire]) => wire.from !== instance && wire.to !== instance)) };
  const scopes = { ...doc.scopes, [scope.id]: throughWires(scope, inner, instance, ids).reduce((it, wire) => connect(it, wire.from, wire.out, wire.to, wire.input, wire.type), open) };
  const isUsed = Object.values(scopes).some((it) => Object.values(it.nodes).some((some) => some.type === inner.id));
  return { doc: { ...doc, scopes: isUsed ? scopes : Object.fromEntries(Object.entries(scopes).filter(([key]) => key !== inner.id)) }, nodes: [...ids.values()] };
}

function freshIds(scope: Scope, inner: Scope): Map<NodeId, NodeId> {
  let fresh = Number(nextId(Object.keys(scope.nodes)));
  return new Map(Object.keys(inner.nodes).map((id) => [id, String(fresh++)]));
}

type Joint = Omit<Wire, "id" | "parent">;

/** The wires of a subgraph between the nodes outside and in, those through its border joined to what lies beyond. */
function throughWires(scope: Scope, inner: Scope, instance: NodeId, ids: ReadonlyMap<NodeId, NodeId>): Joint[] {
  const outer = Object.values(scope.wires);
  return Object.values(inner.wires).flatMap((wire): Joint[] => {
    const port = inner.inputs[wire.out];
    const before = outer.find((it) => it.to === instance && it.input === port?.name);
    const source = wire.from === INPUT_BORDER ? before && { from: before.from, out: before.out } : { from: ids.get(wire.from) ?? "", out: wire.out };
    if (!source) return [];
    if (wire.to !== OUTPUT_BORDER) return [{ ...source, to: ids.get(wire.to) ?? "", input: wire.input, type: wire.type }];
    const slot = inner.outputs.findIndex((it) => it.name === wire.input);
    return outer.filter((it) => it.from === instance && it.out === slot).map((it) => ({ ...source, to: it.to, input: it.input, type: wire.type }));
  });
}
