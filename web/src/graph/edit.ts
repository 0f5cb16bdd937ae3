// Every change to a scope, as a function from the old to the new one.

import type { Json } from "./json.ts";
import { type Control, type Doc, type Group, type GraphNode, type NodeId, type Scope, type Wire, emptyNode, incoming, nextId, outgoing } from "./model.ts";
import { outputType, portsOf, wireRefusal } from "./ports.ts";
import { type NodeSpec, type Specs, initialControl, initialValue, inputsOf } from "./specs.ts";
import { fits } from "./types.ts";
import { isNote, REROUTE, THROUGH, VALUE } from "./virtual.ts";

export function withScope(doc: Doc, scope: Scope): Doc {
  return doc.scopes[scope.id] === scope ? doc : { ...doc, scopes: { ...doc.scopes, [scope.id]: scope } };
}

/** A node with some fields replaced. */
export function updateNode(scope: Scope, id: NodeId, change: (node: GraphNode) => GraphNode): Scope {
  const node = scope.nodes[id];
  if (!node) return scope;
  const changed = change(node);
  return changed === node ? scope : { ...scope, nodes: { ...scope.nodes, [id]: changed } };
}

export function updateNodes(scope: Scope, ids: Iterable<NodeId>, change: (node: GraphNode) => GraphNode): Scope {
  const nodes = { ...scope.nodes };
  let changed = false;
  for (const id of ids) {
    const node = nodes[id];
    if (!node) continue;
    nodes[id] = change(node);
    changed ||= nodes[id] !== node;
  }
  return changed ? { ...scope, nodes } : scope;
}

export function setValue(scope: Scope, id: NodeId, input: string, value: Json): Scope {
  return updateNode(scope, id, (node) => (node.values[input] === value ? node : { ...node, values: { ...node.values, [input]: value } }));
}

export function setControl(scope: Scope, id: NodeId, input: string, control: Control): Scope {
  return updateNode(scope, id, (node) => ({ ...node, control: { ...node.control, [input]: control } }));
}

export function moveNodes(scope: Scope, places: ReadonlyMap<NodeId, readonly [number, number]>): Scope {
  return updateNodes(scope, places.keys(), (node) => {
    const [x, y] = places.get(node.id)!;
    return node.pos[0] === x && node.pos[1] === y ? node : { ...node, pos: [x, y] };
  });
}

/** A new node of a class, with what it holds at first. */
export function newNode(scope: Scope, type: string, spec: NodeSpec | undefined, pos: readonly [number, number]): GraphNode {
  const node = emptyNode(nextId(Object.keys(scope.nodes)), type, [Math.round(pos[0]), Math.round(pos[1])]);
  if (isNote(type)) return { ...node, values: { [VALUE]: "" }, size: [230, 130] };
  if (type === REROUTE) return { ...node, size: [34, 24] };
  if (!spec) return node;
  const values: Record<string, Json> = {};
  const control: Record<string, Control> = {};
  for (const input of inputsOf(spec, node, new Set())) {
    const initial = initialValue(input);
    if (initial !== undefined) values[input.name] = initial;
    if (input.control) control[input.name] = initialControl(input);
  }
  return { ...node, values, control };
}

export function addNode(scope: Scope, node: GraphNode): Scope {
  return { ...scope, nodes: { ...scope.nodes, [node.id]: node } };
}

/** Joins two sockets; an input holds one wire, so an earlier one goes. */
export function connect(scope: Scope, from: NodeId, out: number, to: NodeId, input: string, type: string): Scope {
  const wires: Record<string, Wire> = {};
  for (const [id, wire] of Object.entries(scope.wires)) if (wire.to !== to || wire.input !== input) wires[id] = wire;
  const id = nextId(Object.keys(scope.wires));
  wires[id] = { id, from, out, to, input, type };
  return { ...scope, wires };
}

export function disconnect(scope: Scope, ids: Iterable<string>): Scope {
  const gone = new Set(ids);
  const wires = Object.fromEntries(Object.entries(scope.wires).filter(([id]) => !gone.has(id)));
  return { ...scope, wires };
}

/** Takes nodes out with their wires. `heal` joins what they joined, where that fits. */
export function removeNodes(scope: Scope, ids: ReadonlySet<NodeId>, heal = false, types?: { doc: Doc; specs: Specs }): Scope {
  let healed = scope;
  if (heal && types) for (const id of ids) healed = healAround(healed, id, types.doc, types.specs);
  const nodes = Object.fromEntries(Object.entries(healed.nodes).filter(([id]) => !ids.has(id)));
  const wires = Object.fromEntries(Object.entries(healed.wires).filter(([, wire]) => !ids.has(wire.from) && !ids.has(wire.to)));
  return { ...healed, nodes, wires };
}

function healAround(scope: Scope, id: NodeId, doc: Doc, specs: Specs): Scope {
  let result = scope;
  for (const leaving of outgoing(scope).get(id) ?? []) {
    const source = (incoming(scope).get(id) ?? []).find((wire) => fits(outputType(doc, scope, wire.from, wire.out, specs) ?? "", leaving.type));
    if (source) result = connect(result, source.from, source.out, leaving.to, leaving.input, leaving.type);
  }
  return result;
}

/** Puts a node into the middle of a wire, if it has an input and an output that fit. */
export function insertOnWire(doc: Doc, scope: Scope, specs: Specs, node: NodeId, wireId: string): Scope {
  const wire = scope.wires[wireId];
  const target = scope.nodes[node];
  if (!wire || !target || wire.from === node || wire.to === node) return scope;
  const ports = portsOf(doc, scope, target, specs);
  const type = outputType(doc, scope, wire.from, wire.out, specs) ?? wire.type;
  const input = ports.inputs.find((it) => fits(type, it.type) && !it.widget);
  const out = target.type === REROUTE ? 0 : ports.outputs.findIndex((it) => fits(it.type, type));
  if (!input || out < 0) return scope;
  const without = disconnect(scope, [wireId]);
  const first = connect(without, wire.from, wire.out, node, input.name, type);
  return connect(first, node, out, wire.to, wire.input, wire.type);
}

/** A reroute in the middle of a wire. */
export function addReroute(scope: Scope, wireId: string, pos: readonly [number, number]): { scope: Scope; id: NodeId } | undefined {
  const wire = scope.wires[wireId];
  if (!wire) return undefined;
  const node = newNode(scope, REROUTE, undefined, [pos[0] - 17, pos[1] - 12]);
  const added = disconnect(addNode(scope, node), [wireId]);
  const first = connect(added, wire.from, wire.out, node.id, THROUGH, wire.type);
  return { scope: connect(first, node.id, 0, wire.to, wire.input, wire.type), id: node.id };
}

/** Where a new wire from (or to) a socket can go on a node: the first free input, else the first, that takes it. */
export function bestInput(doc: Doc, scope: Scope, specs: Specs, from: NodeId, out: number, to: NodeId): string | undefined {
  const node = scope.nodes[to];
  if (!node) return undefined;
  const wired = new Set((incoming(scope).get(to) ?? []).map((wire) => wire.input));
  const possible = portsOf(doc, scope, node, specs).inputs.filter((input) => !wireRefusal(doc, scope, specs, from, out, to, input.name));
  const rank = (input: (typeof possible)[number]) => (input.widget ? 2 : 0) + (wired.has(input.name) ? 1 : 0);
  return [...possible].sort((a, b) => rank(a) - rank(b))[0]?.name;
}

export function bestOutput(doc: Doc, scope: Scope, specs: Specs, from: NodeId, to: NodeId, input: string): number | undefined {
  const node = scope.nodes[from];
  if (!node) return undefined;
  const found = portsOf(doc, scope, node, specs).outputs.findIndex((_, out) => !wireRefusal(doc, scope, specs, from, out, to, input));
  return found < 0 ? undefined : found;
}

export function addGroup(scope: Scope, bounds: Group["bounds"], title = "Group"): Scope {
  const id = nextId(scope.groups.map((group) => group.id));
  return { ...scope, groups: [...scope.groups, { id, title, bounds, color: "#3f5b8c", rest: { font_size: 24, flags: {} } }] };
}

export function updateGroup(scope: Scope, id: string, change: (group: Group) => Group): Scope {
  return { ...scope, groups: scope.groups.map((group) => (group.id === id ? change(group) : group)) };
}

export function removeGroups(scope: Scope, ids: ReadonlySet<string>): Scope {
  return { ...scope, groups: scope.groups.filter((group) => !ids.has(group.id)) };
}

/** Nodes whose middle lies in a group. */
export function nodesWithin(scope: Scope, group: Group, size: (node: GraphNode) => readonly [number, number]): NodeId[] {
  const [x, y, width, height] = group.bounds;
  return Object.values(scope.nodes).filter((node) => {
    const [w, h] = size(node);
    const [cx, cy] = [node.pos[0] + w / 2, node.pos[1] + Math.min(h, 60) / 2];
    return cx > x && cx < x + width && cy > y && cy < y + height;
  }).map((node) => node.id);
}
