// From the scope to what xyflow draws. Objects stay the same as long as what they show does.

import { type Edge, type Node, Position } from "@xyflow/react";
import { shownInputs } from "../graph/fold.ts";
import { estimateSize } from "../graph/layout.ts";
import { type Doc, type Group, type GraphNode, INPUT_BORDER, OUTPUT_BORDER, ROOT, type Scope, type Wire, incoming } from "../graph/model.ts";
import { portsOf } from "../graph/ports.ts";
import type { Specs } from "../graph/specs.ts";
import { typeColor } from "../graph/types.ts";
import { isNote, REROUTE } from "../graph/virtual.ts";

export type NodeData = { node: GraphNode };
export type GroupData = { group: Group };
export type FlowNode = Node<Record<string, unknown>>;

const GROUP = "group:";
export const groupNodeId = (id: string) => GROUP + id;
export const asGroupId = (id: string) => (id.startsWith(GROUP) ? id.slice(GROUP.length) : undefined);

export const inHandle = (name: string) => `in:${name}`;
export const outHandle = (index: number) => `out:${index}`;
export const handleInput = (handle: string | null | undefined) => (handle?.startsWith("in:") ? handle.slice(3) : undefined);
export const handleOutput = (handle: string | null | undefined) => (handle?.startsWith("out:") ? Number(handle.slice(4)) : undefined);

function kind(node: GraphNode): string {
  if (isNote(node.type)) return "note";
  if (node.type === REROUTE) return "reroute";
  return "node";
}

const made = new WeakMap<GraphNode, FlowNode>();

function flowNode(node: GraphNode): FlowNode {
  let found = made.get(node);
  if (!found) {
    const width = node.size ? Math.max(node.size[0], 180) : undefined;
    const size = kind(node) === "reroute" || node.collapsed ? {} : { width: width ?? 240, ...(node.size && kind(node) === "note" ? { height: node.size[1] } : {}) };
    found = { id: node.id, type: kind(node), position: { x: node.pos[0], y: node.pos[1] }, data: { node }, ...size, dragHandle: kind(node) === "reroute" ? undefined : ".grip" };
    made.set(node, found);
  }
  return found;
}

const madeGroups = new WeakMap<Group, FlowNode>();

function flowGroup(group: Group): FlowNode {
  let found = madeGroups.get(group);
  if (!found) {
    const [x, y, width, height] = group.bounds;
    found = { id: groupNodeId(group.id), type: "frame", position: { x, y }, width, height, data: { group }, zIndex: -10, dragHandle: ".grip", selectable: true };
    madeGroups.set(group, found);
  }
  return found;
}

/** Where the border of a subgraph stands, from its file or beside its nodes. */
function borders(scope: Scope): FlowNode[] {
  if (scope.id === ROOT) return [];
  const xs = Object.values(scope.nodes).map((node) => node.pos[0]);
  const ys = Object.values(scope.nodes).map((node) => node.pos[1]);
  const place = (key: string, x: number) => {
    const bounding = (scope.rest[key] as { bounding?: unknown } | undefined)?.bounding;
    const [bx, by] = Array.isArray(bounding) ? bounding.map(Number) : [];
    return { x: bx ?? x, y: by ?? Math.min(0, ...ys) };
  };
  const make = (id: string, key: string, x: number): FlowNode => ({ id, type: "border", position: place(key, x), data: { scope }, deletable: false, dragHandle: ".grip" });
  return [make(INPUT_BORDER, "inputNode", Math.min(0, ...xs) - 220), make(OUTPUT_BORDER, "outputNode", Math.max(0, ...xs) + 360)];
}

/** From so many nodes on, those that were never drawn get a size and sockets by estimate: xyflow draws whatever it has
 * not measured, which would be all of them at once. */
export const MANY = 120;
/** Of so many nodes the beginning is shown first: of all of them nothing could be read. */
export const HUGE = 1000;

const incomingNames = (scope: Scope, id: string) => new Set((incoming(scope).get(id) ?? []).map((wire) => wire.input));

const estimated = new WeakMap<GraphNode, FlowNode>();

function withEstimates(base: FlowNode, doc: Doc, scope: Scope, specs: Specs): FlowNode {
  const node = base.data["node"] as GraphNode | undefined;
  if (!node) return base;
  let found = estimated.get(node);
  if (!found) {
    const [width, height] = estimateSize(node, specs);
    const ports = portsOf(doc, scope, node, specs);
    const sockets = ports.inputs.filter((input) => !input.widget);
    const rows = Math.max(sockets.length, ports.outputs.length);
    const seen = shownInputs(node, ports.inputs, incomingNames(scope, node.id));
    const inputs = [...sockets.map((input, index) => [input.name, 45 + index * 24] as const), ...seen.filter((input) => input.widget).map((input, index) => [input.name, 50 + rows * 24 + index * 31] as const)];
    const flat = node.collapsed || base.type === "reroute";
    const size = { width: 12, height: 12 };
    const handles = [
      ...inputs.map(([name, y]) => ({ id: inHandle(name), type: "target" as const, position: Position.Left, x: -6, y: flat ? 6 : y, ...size })),
      ...ports.outputs.map((_, index) => ({ id: outHandle(index), type: "source" as const, position: Position.Right, x: width - 6, y: flat ? 6 : 45 + index * 24, ...size })),
    ];
    found = { ...base, handles, measured: { width, height } };
    estimated.set(node, found);
  }
  return found;
}

/** Where a node lies and how large it is, measured or as the file has it. */
export function boxOf(node: FlowNode): { x: number; y: number; width: number; height: number } {
  return { ...node.position, width: node.measured?.width ?? node.width ?? 34, height: node.measured?.height ?? node.height ?? 24 };
}

/** A node as xyflow knows it already: what it measured counts from now on, not the estimate. */
export function settled(node: FlowNode): FlowNode {
  if (!node.handles) return node;
  const { handles: _handles, ...rest } = node;
  return rest;
}

/** What is drawn for a scope; what xyflow measured and marked is taken over from before. */
export function flowNodes(scope: Scope, selected: ReadonlySet<string>, groups: ReadonlySet<string>, before: ReadonlyMap<string, FlowNode>, doc: Doc, specs: Specs): FlowNode[] {
  const nodes = Object.values(scope.nodes).map(flowNode);
  const sized = nodes.length > MANY ? nodes.map((node) => (before.has(node.id) ? node : withEstimates(node, doc, scope, specs))) : nodes;
  const wanted = [...scope.groups.map(flowGroup), ...borders(scope), ...sized];
  return wanted.map((base) => {
    const old = before.get(base.id);
    const group = asGroupId(base.id);
    const isSelected = group === undefined ? selected.has(base.id) : groups.has(group);
    const same = old && old.data["node"] === base.data["node"] && old.data["group"] === base.data["group"] && old.data["scope"] === base.data["scope"];
    if (same && (old.selected ?? false) === isSelected) return old;
    if (same) return { ...settled(old), selected: isSelected };
    return { ...base, selected: isSelected, ...(old?.measured ? { measured: old.measured } : {}) };
  });
}

const unseen = new WeakMap<FlowNode, FlowNode>();

/** A node that xyflow knows of and does not draw. */
export function asHidden(node: FlowNode): FlowNode {
  let found = unseen.get(node);
  if (!found) unseen.set(node, (found = { ...node, hidden: true }));
  return found;
}

export interface EdgeData extends Record<string, unknown> {
  color: string;
  points: readonly (readonly [number, number])[];
}

const madeEdges = new WeakMap<Wire, { edge: Edge<EdgeData>; type: string; reroutes: object }>();

/** The wires of a scope; those to collapsed or unknown ends are drawn too. */
export function flowEdges(doc: Doc, scope: Scope, typeOf: (wire: Wire) => string): Edge<EdgeData>[] {
  void doc;
  return Object.values(scope.wires).map((wire) => {
    const type = typeOf(wire);
    const known = madeEdges.get(wire);
    if (known && known.type === type && known.reroutes === scope.reroutes) return known.edge;
    const edge: Edge<EdgeData> = {
      id: wire.id, source: wire.from, target: wire.to, sourceHandle: outHandle(wire.out), targetHandle: inHandle(wire.input), type: "wire",
      data: { color: typeColor(type), points: pointsOf(scope, wire) },
    };
    madeEdges.set(wire, { edge, type, reroutes: scope.reroutes });
    return edge;
  });
}

/** The reroute points of a wire, from its source on. */
function pointsOf(scope: Scope, wire: Wire): (readonly [number, number])[] {
  const points: (readonly [number, number])[] = [];
  let at = wire.parent === undefined ? undefined : scope.reroutes[wire.parent];
  for (let steps = 0; at && steps < 200; steps++) {
    points.unshift(at.pos);
    at = at.parent === undefined ? undefined : scope.reroutes[at.parent];
  }
  return points;
}
