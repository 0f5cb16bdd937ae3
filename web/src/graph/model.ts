// The graph as the editor holds it: plain values that never change in place. Knows no classes of nodes and no screen.
//
// A document has scopes: the graph itself (`ROOT`) and the definition of each subgraph. Ids are texts in memory and
// become numbers again in the file where they were. Whatever a file holds beyond what is named here is kept in `rest`.

import { freshId } from "./ids.ts";
import type { Json, JsonObject } from "./json.ts";

export type NodeId = string;
export const ROOT = "";
/** Inside a subgraph, the ids that stand for its own border. */
export const INPUT_BORDER = "-10";
export const OUTPUT_BORDER = "-20";

/** Whether a node takes part. The numbers are the file's. */
export const MODE = { always: 0, muted: 2, bypassed: 4 } as const;

/** How a seed moves after each run. */
export type Control = "fixed" | "increment" | "decrement" | "randomize" | "increment-wrap";

/** A socket as the file describes it. */
export interface Slot {
  name: string;
  type: string;
  label?: string;
  /** The socket belongs to a widget. */
  widget?: boolean;
  rest?: JsonObject;
}

export interface GraphNode {
  id: NodeId;
  type: string;
  title?: string;
  pos: readonly [number, number];
  size?: readonly [number, number];
  mode: number;
  collapsed: boolean;
  /** Values that are seldom set are drawn too. */
  unfolded: boolean;
  color?: string;
  /** Values by the name of their input. */
  values: Readonly<Record<string, Json>>;
  control: Readonly<Record<string, Control>>;
  /** `widgets_values` as found, where the class is not known and the values have no names. */
  stored?: Json;
  inputs: readonly Slot[];
  outputs: readonly Slot[];
  properties: JsonObject;
  flags: JsonObject;
  rest: JsonObject;
}

/** From output `out` of node `from` to the input that is named `input` of node `to`. */
export interface Wire {
  id: string;
  from: NodeId;
  out: number;
  to: NodeId;
  input: string;
  type: string;
  /** The last reroute point on its way. */
  parent?: string;
}

/** A point that wires pass through. */
export interface Reroute {
  id: string;
  pos: readonly [number, number];
  parent?: string;
  rest: JsonObject;
}

export interface Group {
  id: string;
  title: string;
  bounds: readonly [number, number, number, number];
  color?: string;
  rest: JsonObject;
}

/** A socket on the border of a subgraph. */
export interface Port {
  id: string;
  name: string;
  type: string;
  label?: string;
  rest: JsonObject;
}

export interface Scope {
  id: string;
  name: string;
  nodes: Readonly<Record<NodeId, GraphNode>>;
  wires: Readonly<Record<string, Wire>>;
  groups: readonly Group[];
  reroutes: Readonly<Record<string, Reroute>>;
  inputs: readonly Port[];
  outputs: readonly Port[];
  rest: JsonObject;
}

export interface Doc {
  id: string;
  scopes: Readonly<Record<string, Scope>>;
  /** Inputs shown in the form, as `NODE.INPUT` with the node's id. */
  exposed: readonly string[];
  rest: JsonObject;
}

export function emptyScope(id: string, name = ""): Scope {
  return { id, name, nodes: {}, wires: {}, groups: [], reroutes: {}, inputs: [], outputs: [], rest: {} };
}

export function emptyDoc(): Doc {
  return { id: freshId(), scopes: { [ROOT]: emptyScope(ROOT) }, exposed: [], rest: {} };
}

export function emptyNode(id: NodeId, type: string, pos: readonly [number, number]): GraphNode {
  return {
    id, type, pos, mode: MODE.always, collapsed: false, unfolded: false, values: {}, control: {},
    inputs: [], outputs: [], properties: {}, flags: {}, rest: {},
  };
}

export function scopeOf(doc: Doc, id: string): Scope {
  return doc.scopes[id] ?? doc.scopes[ROOT] ?? emptyScope(ROOT);
}

/** The wires that end at a node, by input. */
export function wiresInto(scope: Scope, id: NodeId): Map<string, Wire> {
  return new Map((incoming(scope).get(id) ?? []).map((wire) => [wire.input, wire]));
}

const byTarget = new WeakMap<object, Map<NodeId, Wire[]>>();

/** All wires by the node they end at; found once for each set of wires. */
export function incoming(scope: Scope): Map<NodeId, Wire[]> {
  let found = byTarget.get(scope.wires);
  if (!found) {
    found = new Map();
    for (const wire of Object.values(scope.wires)) {
      const list = found.get(wire.to);
      if (list) list.push(wire);
      else found.set(wire.to, [wire]);
    }
    byTarget.set(scope.wires, found);
  }
  return found;
}

const bySource = new WeakMap<object, Map<NodeId, Wire[]>>();

/** All wires by the node they begin at. */
export function outgoing(scope: Scope): Map<NodeId, Wire[]> {
  let found = bySource.get(scope.wires);
  if (!found) {
    found = new Map();
    for (const wire of Object.values(scope.wires)) {
      const list = found.get(wire.from);
      if (list) list.push(wire);
      else found.set(wire.from, [wire]);
    }
    bySource.set(scope.wires, found);
  }
  return found;
}

/** The next free number among ids. */
export function nextId(ids: Iterable<string>, atLeast = 0): string {
  let highest = atLeast;
  for (const id of ids) {
    const number = Number(id);
    if (Number.isInteger(number) && number > highest) highest = number;
  }
  return String(highest + 1);
}
