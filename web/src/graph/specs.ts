// What `/object_info` says of the classes, in one shape: the classic form, the schema form and dynamic inputs.

import { type Json, type JsonObject, asList, asObject, asText } from "./json.ts";
import type { Control, GraphNode } from "./model.ts";
import { typeName } from "./types.ts";

export type Widget =
  | { kind: "int" | "float"; min: number | bigint; max: number | bigint; step: number; decimals: number; slider: boolean }
  | { kind: "toggle"; on: string; off: string }
  | { kind: "text"; multiline: boolean; dynamic: boolean; placeholder: string }
  | { kind: "choice"; choices: readonly Json[]; multiple: boolean }
  | { kind: "color" };

export interface InputSpec {
  name: string;
  /** What is shown in place of the name. */
  label?: string;
  type: string;
  required: boolean;
  /** How a value is entered; nothing when it only comes by wire. */
  widget?: Widget;
  /** Followed by a choice of how it moves after a run. */
  control: boolean;
  /** The kind of file that may be uploaded into it. */
  upload?: "image" | "audio" | "video";
  /** The folder of models that its value names a file in; the server has pictures of those. */
  folder?: string;
  default: Json | undefined;
  tooltip?: string;
  advanced: boolean;
  /** Once had an entry among the values of a file although it only comes by wire. */
  forced: boolean;
  options: JsonObject;
}

export interface OutputSpec {
  name: string;
  /** What is shown in place of the name. */
  label?: string;
  type: string;
  list: boolean;
  tooltip?: string;
}

export interface NodeSpec {
  name: string;
  title: string;
  category: string;
  description: string;
  inputs: readonly InputSpec[];
  outputs: readonly OutputSpec[];
  /** Something is to be seen or kept: a run begins from such nodes. */
  sink: boolean;
  deprecated: boolean;
  experimental: boolean;
  source: string;
}

export type Specs = ReadonlyMap<string, NodeSpec>;

/** Reads the answer of `/object_info`. Entries that make no sense are left out. */
export function readSpecs(info: Json): Specs {
  const specs = new Map<string, NodeSpec>();
  for (const [name, entry] of Object.entries(asObject(info) ?? {})) {
    const object = asObject(entry);
    if (object) specs.set(name, nodeSpec(name, object));
  }
  return specs;
}

function nodeSpec(name: string, info: JsonObject): NodeSpec {
  const groups = asObject(info["input"]) ?? {};
  const order = asObject(info["input_order"]) ?? {};
  const inputs = (["required", "optional"] as const).flatMap((group) => readInputs(groups[group], order[group], group === "required"));
  const names = asList(info["output_name"]);
  const lists = asList(info["output_is_list"]);
  const tips = asList(info["output_tooltips"]);
  const outputs = asList(info["output"]).map((type, index) => ({
    name: asText(names[index]) ?? typeName(type),
    type: typeName(type),
    list: lists[index] === true,
    ...(asText(tips[index]) ? { tooltip: asText(tips[index])! } : {}),
  }));
  return {
    name, inputs, outputs,
    title: asText(info["display_name"]) || name,
    category: asText(info["category"]) ?? "",
    description: asText(info["description"]) ?? "",
    sink: info["output_node"] === true,
    deprecated: info["deprecated"] === true,
    experimental: info["experimental"] === true,
    source: asText(info["python_module"]) ?? "",
  };
}

/** The inputs of one group, in the order that is given for them. */
function readInputs(group: Json | undefined, order: Json | undefined, required: boolean): InputSpec[] {
  const object = asObject(group) ?? {};
  const listed = asList(order).filter((name): name is string => typeof name === "string" && name in object);
  const names = [...listed, ...Object.keys(object).filter((name) => !listed.includes(name))];
  return names.map((name) => inputSpec(name, object[name] ?? null, required));
}

/** One input, as `[type]` or `[type, options]`. */
export function inputSpec(name: string, declaration: Json, required: boolean): InputSpec {
  const [type, second] = Array.isArray(declaration) ? declaration : [declaration];
  const options = asObject(second) ?? {};
  const forced = options["forceInput"] === true;
  const widget = forced ? undefined : widgetOf(type ?? null, options);
  const tooltip = asText(options["tooltip"]);
  const folder = asText(options["model_folder"]);
  const upload = (["image", "audio", "video"] as const).find((kind) => options[`${kind}_upload`] === true);
  return {
    name, required, options, forced,
    type: typeName(type),
    default: options["default"],
    advanced: options["advanced"] === true,
    control: hasControl(name, widget, options),
    ...(widget ? { widget } : {}),
    ...(tooltip ? { tooltip } : {}),
    ...(upload ? { upload } : {}),
    ...(folder ? { folder } : {}),
  };
}

function hasControl(name: string, widget: Widget | undefined, options: JsonObject): boolean {
  if (!widget) return false;
  if (widget.kind === "int" && (name === "seed" || name === "noise_seed")) return true;
  const asked = options["control_after_generate"];
  return (asked === true || typeof asked === "string") && (widget.kind === "int" || widget.kind === "choice");
}

function widgetOf(type: Json, options: JsonObject): Widget | undefined {
  if (Array.isArray(type)) return { kind: "choice", choices: type, multiple: false };
  switch (type) {
    case "INT":
    case "FLOAT":
      return numberWidget(type, options);
    case "BOOLEAN":
      return { kind: "toggle", on: asText(options["label_on"]) ?? "on", off: asText(options["label_off"]) ?? "off" };
    case "STRING":
      return {
        kind: "text", multiline: options["multiline"] === true, dynamic: options["dynamicPrompts"] === true,
        placeholder: asText(options["placeholder"]) ?? "",
      };
    case "COMBO":
      return { kind: "choice", choices: asList(options["options"]), multiple: options["multiselect"] === true };
    case "COMFY_DYNAMICCOMBO_V3":
      return { kind: "choice", choices: asList(options["options"]).map((it) => asObject(it)?.["key"] ?? null), multiple: false };
    case "COLOR":
      return { kind: "color" };
    default:
      return undefined;
  }
}

function numberWidget(type: "INT" | "FLOAT", options: JsonObject): Widget {
  const whole = type === "INT";
  const bound = (value: Json | undefined, otherwise: number) => (typeof value === "number" || typeof value === "bigint" ? value : otherwise);
  const step = Number(bound(options["step"], whole ? 1 : 0.01)) || 1;
  const round = typeof options["round"] === "number" ? options["round"] : step;
  return {
    kind: whole ? "int" : "float", step,
    min: bound(options["min"], whole ? -2147483648 : -1e9),
    max: bound(options["max"], whole ? 2147483647 : 1e9),
    decimals: whole ? 0 : Math.min(6, Math.max(1, decimalsOf(round), decimalsOf(step))),
    slider: options["display"] === "slider",
  };
}

function decimalsOf(value: number): number {
  const [, decimals = ""] = value.toFixed(8).replace(/0+$/, "").split(".");
  return decimals.length;
}

/** What a new node holds in an input. */
export function initialValue(input: InputSpec): Json | undefined {
  if (!input.widget) return undefined;
  if (input.default !== undefined) return input.default;
  switch (input.widget.kind) {
    case "int":
    case "float":
      return Number(input.widget.min) > 0 ? input.widget.min : 0;
    case "toggle":
      return false;
    case "text":
      return "";
    case "choice":
      return input.widget.multiple ? [] : (input.widget.choices[0] ?? "");
    case "color":
      return "#000000";
  }
}

/** How a new seed moves. */
export function initialControl(input: InputSpec): Control {
  const asked = input.options["control_after_generate"];
  return typeof asked === "string" ? (asked as Control) : "randomize";
}

/** The inputs that a node has now: those that grow with wires and those of the chosen branch are spelt out. */
export function inputsOf(spec: NodeSpec, node: Pick<GraphNode, "values">, wired: { has(name: string): boolean }): InputSpec[] {
  return spec.inputs.flatMap((input) => spread(input, node, wired));
}

function spread(input: InputSpec, node: Pick<GraphNode, "values">, wired: { has(name: string): boolean }): InputSpec[] {
  if (input.type === "COMFY_AUTOGROW_V3") return grown(input, wired);
  if (input.type !== "COMFY_DYNAMICCOMBO_V3") return [input];
  const chosen = node.values[input.name] ?? initialValue(input);
  const branch = asList(input.options["options"]).map(asObject).find((it) => it?.["key"] === chosen);
  const groups = asObject(branch?.["inputs"]) ?? {};
  const inner = (["required", "optional"] as const).flatMap((group) => readInputs(groups[group], undefined, group === "required"));
  return [input, ...inner.flatMap((it) => spread({ ...it, name: `${input.name}.${it.name}` }, node, wired))];
}

/** One more socket than there are wires, within the bounds that the template gives. */
function grown(input: InputSpec, wired: { has(name: string): boolean }): InputSpec[] {
  const template = asObject(input.options["template"]) ?? {};
  const inner = asObject(asObject(template["input"])?.["required"]) ?? asObject(asObject(template["input"])?.["optional"]) ?? {};
  const declaration = Object.values(inner)[0] ?? ["*"];
  const listed = asList(template["names"]).filter((name): name is string => typeof name === "string");
  const prefix = asText(template["prefix"]) ?? "";
  const min = Number(template["min"] ?? 0);
  const max = listed.length || Number(template["max"] ?? 100);
  const name = (index: number) => `${input.name}.${listed[index] ?? `${prefix}${index}`}`;
  let last = -1;
  for (let index = 0; index < max; index++) if (wired.has(name(index))) last = index;
  const count = Math.min(max, Math.max(min, last + 2, 1));
  return Array.from({ length: count }, (_, index) => inputSpec(name(index), declaration, index < min));
}
