// Reads any file that ComfyUI writes: the editor's JSON of version 0.4 and 1, and the API's. Lenient, as files are.

import { freshId } from "./ids.ts";
import { alignValues } from "./align.ts";
import { type Json, type JsonObject, asList, asObject, asText, without } from "./json.ts";
import {
  type Control, type Doc, type Group, type GraphNode, OUTPUT_BORDER, type Port, ROOT, type Reroute, type Scope, type Slot,
  type Wire, emptyNode, emptyScope,
} from "./model.ts";
import { readPrompt } from "./readPrompt.ts";
import type { Specs } from "./specs.ts";
import { typeName } from "./types.ts";
import { THROUGH, VALUE, isVirtual } from "./virtual.ts";

/** Reads a file. Throws an error with a sentence for the user when it is no graph. */
export function readDoc(json: Json, specs: Specs): Doc {
  const object = asObject(json);
  if (!object) throw new Error("this file is no graph: it should hold an object");
  if (Array.isArray(object["nodes"])) return readWorkflow(object, specs);
  const wrapped = asObject(object["prompt"]);
  if (wrapped && Object.values(wrapped).some((node) => asObject(node)?.["class_type"])) return readPrompt(wrapped, specs);
  if (Object.values(object).some((node) => asObject(node)?.["class_type"] !== undefined)) return readPrompt(object, specs);
  throw new Error("this file is no graph: it has neither `nodes` nor entries with a `class_type`");
}

function readWorkflow(json: JsonObject, specs: Specs): Doc {
  const scopes: Record<string, Scope> = { [ROOT]: readScope(json, ROOT, specs) };
  const define = (holder: JsonObject) => {
    for (const entry of asList(asObject(holder["definitions"])?.["subgraphs"])) {
      const definition = asObject(entry);
      const id = asText(definition?.["id"]);
      if (!definition || !id || scopes[id]) continue;
      scopes[id] = readScope(definition, id, specs);
      define(definition);
    }
  };
  define(json);
  const own = asObject(asObject(json["extra"])?.["paraflow"]);
  return {
    id: asText(json["id"]) ?? freshId(),
    scopes,
    exposed: asList(own?.["form"]).filter((it): it is string => typeof it === "string"),
    rest: without(json, "id", "nodes", "links", "groups", "reroutes", "last_node_id", "last_link_id", "state", "definitions", "version"),
  };
}

function readScope(json: JsonObject, id: string, specs: Specs): Scope {
  const scope = emptyScope(id, asText(json["name"]));
  const nodes: Record<string, GraphNode> = {};
  for (const entry of asList(json["nodes"])) {
    const node = asObject(entry) && readNode(asObject(entry)!, specs);
    if (node) nodes[node.id] = node;
  }
  const outputs = asList(json["outputs"]).map(readPort);
  const inputSlots = new Map(asList(json["nodes"]).map((entry) => [idText(asObject(entry)?.["id"]), asList(asObject(entry)?.["inputs"])]));
  return {
    ...scope, nodes, outputs,
    inputs: id === ROOT ? [] : asList(json["inputs"]).map(readPort),
    wires: readWires(json, inputSlots, outputs),
    groups: asList(json["groups"]).map(readGroup),
    reroutes: readReroutes(json),
    rest: id === ROOT ? {} : without(json, "id", "name", "nodes", "links", "groups", "reroutes", "inputs", "outputs", "state", "definitions", "version"),
  };
}

/** Ids are numbers or texts. */
export function idText(id: unknown): string {
  return typeof id === "number" || typeof id === "bigint" || typeof id === "string" ? String(id) : "";
}

function pair(value: unknown): readonly [number, number] | undefined {
  const object = asObject(value);
  const [x, y] = object ? [object["0"], object["1"]] : asList(value);
  return typeof x === "number" && typeof y === "number" ? [x, y] : undefined;
}

function readSlot(entry: Json): Slot {
  const slot = asObject(entry) ?? {};
  const label = asText(slot["label"]) ?? undefined;
  return {
    name: asText(slot["name"]) ?? "",
    type: typeName(slot["type"]),
    ...(label ? { label } : {}),
    ...(asObject(slot["widget"]) ? { widget: true } : {}),
    rest: without(slot, "name", "type", "label", "link", "links", "slot_index"),
  };
}

function readNode(json: JsonObject, specs: Specs): GraphNode | undefined {
  const id = idText(json["id"]);
  const type = asText(json["type"]);
  if (!id || type === undefined) return undefined;
  const flags = asObject(json["flags"]) ?? {};
  const properties = asObject(json["properties"]) ?? {};
  const named = asObject(asObject(properties["paraflow"])?.["values"]) ?? {};
  const stored = json["widgets_values"];
  const base = emptyNode(id, type, pair(json["pos"]) ?? [0, 0]);
  const node: GraphNode = {
    ...base, flags, properties: without(properties, "paraflow"),
    mode: typeof json["mode"] === "number" ? json["mode"] : 0,
    collapsed: flags["collapsed"] === true,
    unfolded: json["showAdvanced"] === true,
    inputs: asList(json["inputs"]).map(readSlot),
    outputs: asList(json["outputs"]).map(readSlot),
    rest: without(json, "id", "type", "pos", "size", "flags", "mode", "inputs", "outputs", "properties", "widgets_values", "title", "color", "order", "showAdvanced"),
    ...definedTexts(json),
    ...(pair(json["size"]) ? { size: pair(json["size"])! } : {}),
  };
  return { ...node, ...readValues(node, stored, named, specs) };
}

function definedTexts(json: JsonObject): { title?: string; color?: string } {
  const title = asText(json["title"]);
  const color = asText(json["color"]);
  return { ...(title !== undefined ? { title } : {}), ...(color ? { color } : {}) };
}

function readValues(node: GraphNode, stored: Json | undefined, named: JsonObject, specs: Specs): Partial<GraphNode> {
  const spec = specs.get(node.type);
  if (spec) return alignValues(spec, stored, named);
  if (isVirtual(node.type)) {
    const [value, control] = Array.isArray(stored) ? stored : [asObject(stored)?.[VALUE] ?? asObject(stored)?.["text"]];
    return {
      values: value === undefined || value === null ? {} : { [VALUE]: value },
      control: typeof control === "string" ? { [VALUE]: control as Control } : {},
    };
  }
  const values = asObject(stored) ?? named;
  return { values, ...(stored !== undefined ? { stored } : {}) };
}

function readPort(entry: Json): Port {
  const port = asObject(entry) ?? {};
  const label = asText(port["label"]);
  return {
    id: asText(port["id"]) ?? freshId(),
    name: asText(port["name"]) ?? "",
    type: typeName(port["type"]),
    ...(label ? { label } : {}),
    rest: without(port, "id", "name", "type", "label", "linkIds"),
  };
}

/** Links as lists (0.4) or objects (1); the slot of the target becomes the name of the input. */
function readWires(json: JsonObject, slots: Map<string, Json[]>, outputs: readonly Port[]): Record<string, Wire> {
  const parents = new Map(
    asList(asObject(json["extra"])?.["linkExtensions"]).map((it) => [idText(asObject(it)?.["id"]), idText(asObject(it)?.["parentId"])]),
  );
  const wires: Record<string, Wire> = {};
  for (const entry of asList(json["links"])) {
    const object = asObject(entry);
    const [id, from, out, to, slot, type] = object
      ? [object["id"], object["origin_id"], object["origin_slot"], object["target_id"], object["target_slot"], object["type"]]
      : asList(entry);
    const target = idText(to);
    const input = target === OUTPUT_BORDER ? outputs[Number(slot)]?.name : inputName(slots.get(target), idText(id), Number(slot));
    if (input === undefined || !idText(from)) continue;
    const parent = idText(object?.["parentId"]) || parents.get(idText(id));
    wires[idText(id)] = {
      id: idText(id), from: idText(from), out: Number(out), to: target, input, type: typeName(type), ...(parent ? { parent } : {}),
    };
  }
  return wires;
}

/** The input that names the link, else the one at the slot: editors renumber slots on saving, and some forget. */
function inputName(inputs: Json[] | undefined, link: string, slot: number): string | undefined {
  const slots = inputs?.map(asObject) ?? [];
  const found = slots.find((it) => it && idText(it["link"]) === link) ?? slots[slot];
  return found ? (asText(found["name"]) ?? THROUGH) : undefined;
}

function readReroutes(json: JsonObject): Record<string, Reroute> {
  const list = [...asList(json["reroutes"]), ...asList(asObject(json["extra"])?.["reroutes"])];
  return Object.fromEntries(
    list.flatMap((entry) => {
      const it = asObject(entry);
      if (!it) return [];
      const id = idText(it["id"]);
      const parent = idText(it["parentId"]);
      return [[id, { id, pos: pair(it["pos"]) ?? [0, 0], ...(parent ? { parent } : {}), rest: without(it, "id", "pos", "parentId", "linkIds") }]];
    }),
  );
}

function readGroup(entry: Json, index: number): Group {
  const group = asObject(entry) ?? {};
  const [x = 0, y = 0, width = 200, height = 120] = asList(group["bounding"]).map(Number);
  const color = asText(group["color"]);
  return {
    id: idText(group["id"]) || String(index + 1),
    title: asText(group["title"]) ?? "",
    bounds: [x, y, width, height],
    ...(color ? { color } : {}),
    rest: without(group, "id", "title", "bounding", "color"),
  };
}
