// The graph that is open as boxes and wires, from what xyflow knows of its nodes and what runs.

import type { Edge, InternalNode } from "@xyflow/react";
import { type GraphNode, MODE } from "../graph/model.ts";
import type { Run } from "../graph/run.ts";
import type { Specs } from "../graph/specs.ts";
import { isVirtual } from "../graph/virtual.ts";
import { type EdgeData, type FlowNode, boxOf } from "./flow.ts";
import type { Box, Line, Scene } from "./paint.ts";

export interface Situation {
  specs: Specs;
  /** Names of the subgraphs by their class. */
  inner: Readonly<Record<string, { name: string }>>;
  run: Run | undefined;
  /** Ids of nodes with faults, as the prompt has them. */
  faults: Readonly<Record<string, readonly unknown[]>> | undefined;
  /** What ids in the prompt begin with. */
  prefix: string;
}

export function sceneOf(nodes: readonly FlowNode[], edges: readonly Edge<EdgeData>[], lookup: ReadonlyMap<string, InternalNode>, at: Situation): Scene {
  const boxes = nodes.filter((node) => node.type !== "frame").map((node) => boxFor(node, at));
  const byId = new Map(boxes.map((box) => [box.id, box]));
  return { boxes, lines: edges.flatMap((edge) => lineFor(edge, byId, lookup)) };
}

function boxFor(node: FlowNode, at: Situation): Box {
  const graph = node.data["node"] as GraphNode | undefined;
  const area = boxOf(node);
  if (!graph) return { id: node.id, ...area, title: "", faint: false };
  const known = at.specs.has(graph.type) || graph.type in at.inner || isVirtual(graph.type);
  const title = node.type === "reroute" ? "" : (graph.title ?? at.inner[graph.type]?.name ?? at.specs.get(graph.type)?.title ?? graph.type);
  const path = at.prefix + graph.id;
  const state = at.run?.nodes[path]?.state ?? (at.run?.current?.startsWith(`${path}:`) ? "running" : undefined);
  const mark = at.faults?.[path]?.length ? "failed" : state === "running" || state === "failed" ? state : node.selected ? "selected" : known ? state : "missing";
  return { id: node.id, ...area, title, color: graph.color, mark, faint: graph.mode === MODE.muted || graph.mode === MODE.bypassed };
}

/** From socket to socket as xyflow measured them, else from side to side. */
function lineFor(edge: Edge<EdgeData>, boxes: ReadonlyMap<string, Box>, lookup: ReadonlyMap<string, InternalNode>): Line[] {
  const [from, to] = [boxes.get(edge.source), boxes.get(edge.target)];
  if (!from || !to) return [];
  const out = lookup.get(edge.source)?.internals.handleBounds?.source?.find((it) => it.id === edge.sourceHandle);
  const into = lookup.get(edge.target)?.internals.handleBounds?.target?.find((it) => it.id === edge.targetHandle);
  const start = [from.x + from.width, from.y + (out ? out.y + out.height / 2 : from.height / 2)] as const;
  const end = [to.x, to.y + (into ? into.y + into.height / 2 : to.height / 2)] as const;
  return [{ id: edge.id, color: edge.data?.color ?? "#888", stops: [start, ...(edge.data?.points ?? []), end] }];
}
