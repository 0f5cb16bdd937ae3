// Places nodes: in columns from left to right, each node right of all it reads; and lines up a selection.

import { foldable, shownInputs } from "./fold.ts";
import { type GraphNode, type NodeId, type Scope, incoming } from "./model.ts";
import { type Specs, inputsOf } from "./specs.ts";
import { isNote, REROUTE } from "./virtual.ts";

export const NODE_WIDTH = 230;
const NOTHING: ReadonlySet<string> = new Set();
const GAP_X = 70;
const GAP_Y = 34;

/** Whether a text of several lines has its name over it: that of a prompt says nothing that its node does not. */
export const isCaptioned = (name: string): boolean => name !== "text";

/** About how large a node is drawn. */
export function estimateSize(node: GraphNode, specs: Specs): [number, number] {
  if (node.collapsed) return [node.size?.[0] ?? NODE_WIDTH, 34];
  if (node.type === REROUTE) return [34, 24];
  if (isNote(node.type)) return [node.size?.[0] ?? NODE_WIDTH, node.size?.[1] ?? 120];
  const spec = specs.get(node.type);
  const inputs = spec ? shownInputs(node, inputsOf(spec, node, NOTHING), NOTHING) : [];
  const folds = spec ? foldable(node, spec.inputs, NOTHING).length > 0 : false;
  const sockets = Math.max(inputs.filter((input) => !input.widget).length, spec?.outputs.length ?? 1);
  const widgets = inputs.filter((input) => input.widget);
  const tall = widgets.filter((input) => input.widget?.kind === "text" && input.widget.multiline).length;
  const captions = widgets.filter((input) => input.widget?.kind === "text" && input.widget.multiline && isCaptioned(input.name)).length;
  const controls = widgets.filter((input) => input.control).length;
  const pictures = widgets.some((input) => input.upload) || spec?.sink ? NODE_WIDTH - 10 : 0;
  const height = 44 + sockets * 24 + (widgets.length - tall + controls) * 30 + tall * 92 + captions * 20 + pictures + (folds ? 28 : 0);
  return [Math.max(node.size?.[0] ?? 0, NODE_WIDTH), Math.max(height, node.size?.[1] ?? 0)];
}

/** The scope with all nodes in columns, or only those that are named. */
export function layered(scope: Scope, specs: Specs, only?: ReadonlySet<NodeId>, measured?: ReadonlyMap<NodeId, readonly [number, number]>): Scope {
  const nodes = Object.values(scope.nodes).filter((node) => !only || only.has(node.id));
  if (nodes.length === 0) return scope;
  const columns = columnsOf(scope, nodes);
  const size = (node: GraphNode) => measured?.get(node.id) ?? estimateSize(node, specs);
  const left = only ? Math.min(...nodes.map((node) => node.pos[0])) : 40;
  const top = only ? Math.min(...nodes.map((node) => node.pos[1])) : 40;
  const moved: Record<NodeId, GraphNode> = { ...scope.nodes };
  const middle = new Map<NodeId, number>();
  let x = left;
  for (const column of columns) {
    column.sort((a, b) => weight(scope, a, middle) - weight(scope, b, middle) || Number(a.id) - Number(b.id));
    let y = top;
    for (const node of column) {
      moved[node.id] = { ...node, pos: [Math.round(x), Math.round(y)] };
      middle.set(node.id, y + size(node)[1] / 2);
      y += size(node)[1] + GAP_Y;
    }
    x += Math.max(...column.map((node) => size(node)[0])) + GAP_X;
  }
  return { ...scope, nodes: moved };
}

/** Where a node's sources lie, on average. */
function weight(scope: Scope, node: GraphNode, middle: Map<NodeId, number>): number {
  const sources = (incoming(scope).get(node.id) ?? []).map((wire) => middle.get(wire.from)).filter((y) => y !== undefined);
  return sources.length ? sources.reduce((sum, y) => sum + y, 0) / sources.length : Number(node.id) || 0;
}

/** Nodes by the longest way that leads to them; those that nothing leads to stand just before what they feed. */
function columnsOf(scope: Scope, nodes: readonly GraphNode[]): GraphNode[][] {
  const into = incoming(scope);
  const ids = new Set(nodes.map((node) => node.id));
  const depth = new Map<NodeId, number>();
  const open = new Set<NodeId>();
  const visit = (id: NodeId): number => {
    const known = depth.get(id);
    if (known !== undefined) return known;
    if (open.has(id)) return 0;
    open.add(id);
    const sources = (into.get(id) ?? []).filter((wire) => ids.has(wire.from));
    const found = sources.reduce((deepest, wire) => Math.max(deepest, visit(wire.from) + 1), 0);
    open.delete(id);
    depth.set(id, found);
    return found;
  };
  for (const node of nodes) visit(node.id);
  for (const node of nodes) {
    if ((into.get(node.id) ?? []).length > 0) continue;
    const readers = Object.values(scope.wires).filter((wire) => wire.from === node.id && depth.has(wire.to));
    if (readers.length) depth.set(node.id, Math.max(0, Math.min(...readers.map((wire) => depth.get(wire.to)!)) - 1));
  }
  const columns: GraphNode[][] = [];
  for (const node of nodes) (columns[depth.get(node.id) ?? 0] ??= []).push(node);
  return columns.filter((column) => column?.length);
}

export type Side = "left" | "right" | "top" | "bottom";
export interface Box { id: NodeId; x: number; y: number; width: number; height: number }

/** Where boxes go to share one side. */
export function aligned(boxes: readonly Box[], side: Side): Map<NodeId, [number, number]> {
  const right = Math.max(...boxes.map((box) => box.x + box.width));
  const bottom = Math.max(...boxes.map((box) => box.y + box.height));
  const left = Math.min(...boxes.map((box) => box.x));
  const top = Math.min(...boxes.map((box) => box.y));
  return new Map(
    boxes.map((box) => {
      switch (side) {
        case "left": return [box.id, [left, box.y]];
        case "right": return [box.id, [right - box.width, box.y]];
        case "top": return [box.id, [box.x, top]];
        case "bottom": return [box.id, [box.x, bottom - box.height]];
      }
    }),
  );
}
