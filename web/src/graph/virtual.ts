// Nodes that exist in files only: the server never hears of them. Their names are part of the file format.

import type { GraphNode, Scope } from "./model.ts";
import { incoming } from "./model.ts";

export const NOTE = "Note";
export const MARKDOWN_NOTE = "MarkdownNote";
export const REROUTE = "Reroute";
export const PRIMITIVE = "PrimitiveNode";

export function isNote(type: string): boolean {
  return type === NOTE || type === MARKDOWN_NOTE;
}

export function isVirtual(type: string): boolean {
  return isNote(type) || type === REROUTE || type === PRIMITIVE;
}

/** The name under which a virtual node's only value is kept. */
export const VALUE = "value";

/** The only input of a reroute has no name in the file. */
export const THROUGH = "";

/** Where what a reroute passes on comes from, through any number of them. */
export function throughReroutes(scope: Scope, from: string, out: number): { from: string; out: number } | undefined {
  let [node, slot] = [from, out];
  for (let steps = 0; steps < 1000; steps++) {
    if (scope.nodes[node]?.type !== REROUTE) return { from: node, out: slot };
    const wire = incoming(scope).get(node)?.[0];
    if (!wire) return undefined;
    [node, slot] = [wire.from, wire.out];
  }
  return undefined;
}

/** The kind of value that a virtual node gives, as far as its file says. */
export function virtualOutput(node: GraphNode): string {
  return node.outputs[0]?.type ?? "*";
}
