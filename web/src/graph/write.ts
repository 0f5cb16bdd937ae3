// Writes a document as ComfyUI's editor does (version 0.4), so that it and `paraflow run` take the file as it is.
//
// The same document gives the same text: nodes, wires and keys have a fixed order. Values go twice, by place for
// ComfyUI and by name for everything that outlives a change of a class.

import { listValues } from "./align.ts";
import { type Json, type JsonObject, formatJson } from "./json.ts";
import { type Doc, type GraphNode, INPUT_BORDER, OUTPUT_BORDER, ROOT, type Scope, type Wire, incoming, outgoing } from "./model.ts";
import { type Ports, portsOf } from "./ports.ts";
import type { Specs } from "./specs.ts";
import { VALUE, isNote, isVirtual } from "./virtual.ts";

/** The file's text. */
export function writeText(doc: Doc, specs: Specs): string {
  return formatJson(writeDoc(doc, specs), 2) + "\n";
}

/** The file as JSON. */
export function writeDoc(doc: Doc, specs: Specs): JsonObject {
  const root = doc.scopes[ROOT]!;
  const body = writeScope(doc, root, specs, false);
  const subgraphs = Object.values(doc.scopes).filter((scope) => scope.id !== ROOT).sort((a, b) => (a.id < b.id ? -1 : 1));
  const extra = { ...((doc.rest["extra"] as JsonObject | undefined) ?? {}) };
  delete extra["reroutes"];
  delete extra["linkExtensions"];
  delete extra["paraflow"];
  const points = writeReroutes(root);
  if (points.length) extra["reroutes"] = points;
  const parents = sortedWires(root).filter((wire) => wire.parent);
  if (parents.length) extra["linkExtensions"] = parents.map((wire) => ({ id: idValue(wire.id), parentId: idValue(wire.parent!) }));
  if (doc.exposed.length) extra["paraflow"] = { form: [...doc.exposed] };
  const definitions: JsonObject = subgraphs.length ? { definitions: { subgraphs: subgraphs.map((scope) => writeSubgraph(doc, scope, specs)) } } : {};
  const { revision = 0, config = {}, extra: _extra, ...others } = doc.rest;
  return {
    id: doc.id, revision,
    last_node_id: highest(Object.keys(root.nodes)),
    last_link_id: highest(Object.keys(root.wires)),
    ...body, ...definitions, config, extra,
    ...others, version: 0.4,
  };
}

function writeSubgraph(doc: Doc, scope: Scope, specs: Specs): JsonObject {
  const { revision = 0, config = {}, extra = {}, ...others } = scope.rest;
  const wires = Object.values(scope.wires);
  const links = (test: (wire: Wire) => boolean) => wires.filter(test).map((wire) => idValue(wire.id));
  const reroutes = writeReroutes(scope);
  return {
    id: scope.id, version: 1,
    state: {
      lastGroupId: highest(scope.groups.map((group) => group.id)),
      lastNodeId: highest(Object.keys(scope.nodes)),
      lastLinkId: highest(Object.keys(scope.wires)),
      lastRerouteId: highest(Object.keys(scope.reroutes)),
    },
    revision, config, name: scope.name,
    inputs: scope.inputs.map((port, slot) => ({
      id: port.id, name: port.name, type: port.type, linkIds: links((wire) => wire.from === INPUT_BORDER && wire.out === slot),
      ...(port.label ? { label: port.label } : {}), ...port.rest,
    })),
    outputs: scope.outputs.map((port) => ({
      id: port.id, name: port.name, type: port.type, linkIds: links((wire) => wire.to === OUTPUT_BORDER && wire.input === port.name),
      ...(port.label ? { label: port.label } : {}), ...port.rest,
    })),
    ...writeScope(doc, scope, specs, true),
    ...(reroutes.length ? { reroutes } : {}),
    extra, ...others,
  };
}

/** Nodes, links and groups; the links as objects inside subgraphs. */
function writeScope(doc: Doc, scope: Scope, specs: Specs, objects: boolean): JsonObject {
  const order = executionOrder(scope);
  const nodes = Object.values(scope.nodes).sort((a, b) => compareIds(a.id, b.id));
  const slots = new Map(nodes.map((node) => [node.id, inputSlots(doc, scope, node, portsOf(doc, scope, node, specs))]));
  const links = sortedWires(scope).map((wire): Json => {
    const slot = wire.to === OUTPUT_BORDER ? scope.outputs.findIndex((port) => port.name === wire.input) : (slots.get(wire.to) ?? []).findIndex((it) => it["name"] === wire.input);
    const ends = [idValue(wire.id), idValue(wire.from), wire.out, idValue(wire.to), slot, wire.type] as const;
    if (!objects) return [...ends];
    const [id, origin_id, origin_slot, target_id, target_slot, type] = ends;
    return { id, origin_id, origin_slot, target_id, target_slot, type, ...(wire.parent ? { parentId: idValue(wire.parent) } : {}) };
  });
  return {
    nodes: nodes.map((node) => writeNode(doc, scope, node, specs, slots.get(node.id) ?? [], order.get(node.id) ?? 0)),
    links,
    groups: scope.groups.map((group) => ({
      id: idValue(group.id), title: group.title, bounding: [...group.bounds], ...(group.color ? { color: group.color } : {}), ...group.rest,
    })),
  };
}

/** Sockets for wires: all that take only a wire, and those of widgets that are wired. */
function inputSlots(doc: Doc, scope: Scope, node: GraphNode, ports: Ports): JsonObject[] {
  const wires = new Map((incoming(scope).get(node.id) ?? []).map((wire) => [wire.input, wire]));
  return ports.inputs.flatMap((input) => {
    const wire = wires.get(input.name);
    if (input.widget && (!wire || doc.scopes[node.type])) return [];
    const stored = node.inputs.find((slot) => slot.name === input.name);
    const kept = { ...stored?.rest };
    delete kept["widget"];
    return [{
      ...kept, name: input.name, type: stored && !ports.known ? stored.type : input.type, ...(stored?.label ? { label: stored.label } : {}),
      link: wire ? idValue(wire.id) : null,
      ...(input.widget || stored?.widget ? { widget: { name: input.name } } : {}),
    }];
  });
}

function writeNode(doc: Doc, scope: Scope, node: GraphNode, specs: Specs, inputs: JsonObject[], order: number): JsonObject {
  const ports = portsOf(doc, scope, node, specs);
  const leaving = outgoing(scope).get(node.id) ?? [];
  const outputs = ports.outputs.map((output, slot) => {
    const links = leaving.filter((wire) => wire.out === slot).map((wire) => Number(wire.id)).sort((a, b) => a - b);
    const stored = node.outputs[slot];
    return { ...stored?.rest, name: output.name, type: output.type, ...(stored?.label ? { label: stored.label } : {}), links: links.length ? links : null };
  });
  const flags = { ...node.flags };
  delete flags["collapsed"];
  if (node.collapsed) flags["collapsed"] = true;
  const { values, named } = writeValues(node, specs);
  return {
    id: idValue(node.id), type: node.type, pos: [...node.pos], size: [...(node.size ?? [230, 100])], flags, order, mode: node.mode,
    inputs, outputs,
    ...(node.title !== undefined ? { title: node.title } : {}),
    properties: { ...node.properties, ...(named ? { paraflow: { values: named } } : {}) },
    ...(values !== undefined ? { widgets_values: values } : {}),
    ...(node.color ? { color: node.color } : {}),
    ...(node.unfolded ? { showAdvanced: true } : {}),
    ...node.rest,
  };
}

function writeValues(node: GraphNode, specs: Specs): { values?: Json; named?: JsonObject } {
  const spec = specs.get(node.type);
  if (spec) {
    const keys = Object.keys(node.values).sort();
    return { values: listValues(spec, node), named: keys.length ? Object.fromEntries(keys.map((key) => [key, node.values[key]!])) : undefined };
  }
  if (isVirtual(node.type)) {
    const value = node.values[VALUE];
    if (value === undefined) return isNote(node.type) ? { values: [""] } : {};
    return { values: node.control[VALUE] ? [value, node.control[VALUE]] : [value] };
  }
  if (node.stored !== undefined) return { values: node.stored };
  return Object.keys(node.values).length ? { values: { ...node.values } } : {};
}

function writeReroutes(scope: Scope): JsonObject[] {
  return Object.values(scope.reroutes).sort((a, b) => compareIds(a.id, b.id)).map((point) => ({
    id: idValue(point.id),
    ...(point.parent ? { parentId: idValue(point.parent) } : {}),
    pos: [...point.pos],
    linkIds: sortedWires(scope).filter((wire) => passes(scope, wire, point.id)).map((wire) => idValue(wire.id)),
    ...point.rest,
  }));
}

/** Whether a wire goes through a point. */
function passes(scope: Scope, wire: Wire, point: string): boolean {
  let at = wire.parent;
  for (let steps = 0; at !== undefined && steps < 1000; steps++) {
    if (at === point) return true;
    at = scope.reroutes[at]?.parent;
  }
  return false;
}

function sortedWires(scope: Scope): Wire[] {
  return Object.values(scope.wires).sort((a, b) => compareIds(a.id, b.id));
}

export function compareIds(a: string, b: string): number {
  return Number(a) - Number(b) || (a < b ? -1 : a > b ? 1 : 0);
}

/** A number again, where the text is one. */
export function idValue(id: string): Json {
  return /^-?\d{1,15}$/.test(id) ? Number(id) : id;
}

function highest(ids: readonly string[]): number {
  return ids.reduce((most, id) => Math.max(most, Number(id) || 0), 0);
}

/** Each node after all that it reads; else by id. */
export function executionOrder(scope: Scope): Map<string, number> {
  const order = new Map<string, number>();
  const open = new Set<string>();
  const ids = Object.keys(scope.nodes).sort(compareIds);
  const visit = (id: string) => {
    if (order.has(id) || open.has(id) || !scope.nodes[id]) return;
    open.add(id);
    for (const wire of incoming(scope).get(id) ?? []) visit(wire.from);
    order.set(id, order.size);
  };
  ids.forEach(visit);
  return order;
}
