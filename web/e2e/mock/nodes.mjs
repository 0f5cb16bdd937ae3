// The classes that the mock server tells of: the recorded declarations of stock nodes, in ComfyUI's shape, and a few
// toys for what the recording lacks.

import { readFileSync } from "node:fs";

const recorded = JSON.parse(readFileSync(new URL("../../../tests/golden/nodes/object_info.json", import.meta.url), "utf8"));

/** Options that the recording leaves to the machine: names of files. */
const FILES = { ckpt_name: ["plain.safetensors", "toyland.safetensors"], image: ["bear.png", "bear-cut-out.png"] };

function input({ name, kind, required: _required, choices, ...options }) {
  if (kind !== "COMBO") return [kind, options];
  return [choices ?? FILES[name] ?? ["a", "b"], { ...options, ...(name === "ckpt_name" ? { model_folder: "checkpoints" } : {}) }];
}

function info(name, { inputs, outputs, ...rest }) {
  const group = (required) => inputs.filter((it) => it.required === required);
  const named = (list) => Object.fromEntries(list.map((it) => [it.name, input(it)]));
  return {
    input: { required: named(group(true)), optional: named(group(false)) },
    input_order: { required: group(true).map((it) => it.name), optional: group(false).map((it) => it.name) },
    output: outputs.map((it) => it.kind), output_name: outputs.map((it) => it.name), output_is_list: outputs.map((it) => it.is_list),
    name, description: "", python_module: "nodes", ...rest,
  };
}

const toy = (name, display_name, inputs, outputs, output_node = false) =>
  info(name, { display_name, category: "toys", output_node, deprecated: false, inputs, outputs: outputs.map((kind) => ({ kind, name: kind, is_list: false })) });

const int = (name, value, more = {}) => ({ name, kind: "INT", required: true, default: value, min: 1, max: 10000, ...more });

export const OBJECT_INFO = {
  ...Object.fromEntries(Object.entries(recorded).map(([name, it]) => [name, info(name, it)])),
  ToyTrain: toy("ToyTrain", "Toy training", [{ name: "model", kind: "MODEL", required: true }, int("steps", 200), int("rank", 4), { name: "sample", kind: "STRING", required: true, multiline: true, default: "a photo of it" }, int("warmup", 5, { advanced: true }), { name: "decay", kind: "FLOAT", required: true, default: 0.1, min: 0, max: 1, step: 0.01, advanced: true }, int("often", 3, { advanced: true })], ["TOY_ADAPTER", "LOSS"], true),
  ToyApply: toy("ToyApply", "Toy apply", [{ name: "model", kind: "MODEL", required: true }, { name: "adapter", kind: "TOY_ADAPTER", required: true }, { name: "strength", kind: "FLOAT", required: true, default: 1, min: 0, max: 2, step: 0.05 }], ["MODEL"]),
  ToyWidgets: toy("ToyWidgets", "Toy widgets", [{ name: "on", kind: "BOOLEAN", required: true, default: true, label_on: "yes", label_off: "no" }, { name: "tint", kind: "COLOR", required: true, default: "#ff8800" }, { name: "line", kind: "STRING", required: true, default: "words" }, int("count", 3, { max: 8 })], ["INT"]),
};
