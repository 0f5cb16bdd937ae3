// Turns some nodes into a subgraph: wires that cross its border become its ports.

import { freshId } from "./ids.ts";
import { addNode } from "./edit.ts";
import { type Doc, type NodeId, INPUT_BORDER, OUTPUT_BORDER, type Port, type Scope, type Wire, emptyNode, emptyScope, nextId, scopeOf } from "./model.ts";
import { outputType } from "./ports.ts";
import type { Specs } from "./specs.ts";

export function toSubgraph(doc: Doc, scopeId: string, ids: ReadonlySet<NodeId>, specs: Specs, name = "Subgraph"): { doc: Doc; instance: NodeId } {
  const scope = scopeOf(doc, scopeId);
  const id = freshId();
  const inner: Record<string, Wire> = {};
  const outer: Record<string, Wire> = {};
  const inputs: Port[] = [];
  const outputs: Port[] = [];
  const inputSlots = new Map<string, number>();
  const outputSlots = new Map<string, Port>();
  const instance = nextId(Object.keys(scope.nodes));
  let fresh = Number(nextId(Object.keys(scope.wires)));
  for (const wire of Object.values(scope.wires)) {
    const [fromInside, toInside] = [ids.has(wire.from), ids.has(wire.to)];
    if (fromInside === toInside) {
      (fromInside ? inner : outer)[wire.id] = fromInside ? withoutParent(wire) : wire;
    } else if (toInside) {
      const key = `${wire.from} ${wire.out}`;
      let slot = inputSlots.get(key);
      if (slot === undefined) {
        slot = inputs.length;
        inputSlots.set(key, slot);
        const port = newPort(wire.input || "input", outputType(doc, scope, wire.from, wire.out, specs) ?? wire.type, inputs);
        inputs.push(port);
        outer[wire.id] = { ...withoutParent(wire), to: instance, input: port.name };
      }
      const inside = String(fresh++);
      inner[inside] = { ...withoutParent(wire), id: inside, from: INPUT_BORDER, out: slot };
    } else {
      const key = `${wire.from} ${wire.out}`;
      let port = outputSlots.get(key);
      if (!port) {
        port = newPort(wire.type.toLowerCase() || "output", wire.type, outputs);
        outputs.push(port);
        outputSlots.set(key, port);
        const inside = String(fresh++);
        inner[inside] = { ...withoutParent(wire), id: inside, to: OUTPUT_BORDER, input: port.name };
      }
      outer[wire.id] = { ...withoutParent(wire), from: instance, out: outputs.indexOf(port) };
    }
  }
  const nodes = Object.fromEntries(Object.entries(scope.nodes).filter(([key]) => ids.has(key)));
  const left = Object.fromEntries(Object.entries(scope.nodes).filter(([key]) => !ids.has(key)));
  const places = Object.values(nodes).map((node) => node.pos);
  const pos = [Math.round(mean(places.map((it) => it[0]))), Math.round(mean(places.map((it) => it[1])))] as const;
  const definition: Scope = { ...emptyScope(id, name), nodes, wires: inner, inputs, outputs };
  const outside: Scope = addNode({ ...scope, nodes: left, wires: outer }, emptyNode(instance, id, pos));
  return { doc: { ...doc, scopes: { ...doc.scopes, [scope.id]: outside, [id]: definition } }, instance };
}

function withoutParent({ parent: _parent, ...wire }: Wire): Wire {
  return wire;
}

/** A port under a name that is not taken. */
export function newPort(wanted: string, type: string, among: readonly Port[]): Port {
  let name = wanted;
  for (let count = 2; among.some((port) => port.name === name); count++) name = `${wanted}_${count}`;
  return { id: freshId(), name, type, rest: {} };
}

function mean(numbers: readonly number[]): number {
  return numbers.reduce((sum, it) => sum + it, 0) / (numbers.length || 1);
}
