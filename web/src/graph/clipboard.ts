// Copies parts of a scope with the wires between them, and puts them into a scope under new ids.

import { type Json, asObject, formatJson, parseJson } from "./json.ts";
import { type Group, type GraphNode, type NodeId, type Scope, type Wire, nextId } from "./model.ts";

/** What lies on the clipboard. */
export interface Fragment {
  nodes: GraphNode[];
  wires: Wire[];
  groups: Group[];
}

/** The nodes, the wires between them and the wires that feed them from outside. */
export function cut(scope: Scope, ids: ReadonlySet<NodeId>, groups: ReadonlySet<string> = new Set()): Fragment {
  return {
    nodes: Object.values(scope.nodes).filter((node) => ids.has(node.id)),
    wires: Object.values(scope.wires).filter((wire) => ids.has(wire.to)),
    groups: scope.groups.filter((group) => groups.has(group.id)),
  };
}

const MARK = "paraflow/fragment";

export function fragmentText(fragment: Fragment): string {
  return formatJson({ kind: MARK, ...fragment });
}

/** The fragment that a text holds, or nothing. */
export function readFragment(text: string): Fragment | undefined {
  if (!text.includes(MARK)) return undefined;
  try {
    const json = asObject(parseJson(text) as Json);
    if (json?.["kind"] !== MARK) return undefined;
    return json as unknown as Fragment;
  } catch {
    return undefined;
  }
}

/** Adds a fragment under new ids. Wires from outside are kept where their source is there and `outside` is set. */
export function paste(scope: Scope, fragment: Fragment, offset: readonly [number, number], outside: boolean): { scope: Scope; ids: NodeId[] } {
  const nodes: Record<NodeId, GraphNode> = { ...scope.nodes };
  const wires: Record<string, Wire> = { ...scope.wires };
  const fresh = new Map<NodeId, NodeId>();
  let last = Number(nextId(Object.keys(nodes))) - 1;
  for (const node of fragment.nodes) {
    const id = String(++last);
    fresh.set(node.id, id);
    nodes[id] = { ...node, id, pos: [node.pos[0] + offset[0], node.pos[1] + offset[1]] };
  }
  let lastWire = Number(nextId(Object.keys(wires))) - 1;
  for (const { parent: _parent, ...wire } of fragment.wires) {
    const to = fresh.get(wire.to);
    const from = fresh.get(wire.from) ?? (outside && scope.nodes[wire.from] ? wire.from : undefined);
    if (!to || !from) continue;
    const id = String(++lastWire);
    wires[id] = { ...wire, id, from, to };
  }
  let lastGroup = Number(nextId(scope.groups.map((group) => group.id))) - 1;
  const groups = fragment.groups.map((group) => ({
    ...group, id: String(++lastGroup),
    bounds: [group.bounds[0] + offset[0], group.bounds[1] + offset[1], group.bounds[2], group.bounds[3]] as const,
  }));
  return { scope: { ...scope, nodes, wires, groups: [...scope.groups, ...groups] }, ids: [...fresh.values()] };
}

/** The upper left corner of a fragment. */
export function corner(fragment: Fragment): [number, number] {
  const places = [...fragment.nodes.map((node) => node.pos), ...fragment.groups.map((group) => group.bounds)];
  return [Math.min(...places.map((it) => it[0])), Math.min(...places.map((it) => it[1]))];
}
