// Classes and graphs for tests.

import type { Json } from "./json.ts";
import { type Doc, ROOT, emptyDoc, emptyScope } from "./model.ts";
import { addNode, connect, newNode } from "./edit.ts";
import { type Specs, readSpecs } from "./specs.ts";

const info = (required: Record<string, Json>, output: string[], more: Record<string, Json> = {}): Json => ({ input: { required }, output, output_name: output, output_is_list: output.map(() => false), category: "test", ...more });

export const SPECS: Specs = readSpecs({
  Load: info({ name: [["a.safetensors", "b.safetensors"]] }, ["MODEL", "CLIP"]),
  Encode: info({ text: ["STRING", { multiline: true, dynamicPrompts: true }], clip: ["CLIP"] }, ["COND"]),
  Sample: info({ model: ["MODEL"], seed: ["INT", { default: 0, min: 0, max: 18446744073709551615n }], steps: ["INT", { default: 20, min: 1, max: 100 }], cfg: ["FLOAT", { default: 8, min: 0, max: 100, step: 0.1, round: 0.01 }], positive: ["COND"] }, ["LATENT"]),
  Decode: info({ samples: ["LATENT"] }, ["IMAGE"]),
  Save: info({ images: ["IMAGE"], prefix: ["STRING", { default: "out" }] }, [], { output_node: true }),
  Picture: info({ image: [["x.png"], { image_upload: true }] }, ["IMAGE", "MASK"]),
  Adapt: info({ model: ["MODEL"], strength: ["FLOAT", { default: 1, min: 0, max: 2 }] }, ["MODEL"]),
  Batch: info({ images: ["COMFY_AUTOGROW_V3", { template: { input: { required: { image: ["IMAGE", {}] } }, prefix: "image", min: 2, max: 4 } }] }, ["IMAGE"]),
  Resize: info({ how: ["COMFY_DYNAMICCOMBO_V3", { options: [{ key: "by", inputs: { required: { factor: ["FLOAT", { default: 2 }] } } }, { key: "to", inputs: { required: { width: ["INT", { default: 64 }], height: ["INT", { default: 64 }] } } }] }], image: ["IMAGE"] }, ["IMAGE"]),
});

/** Load → Encode and Sample → Decode → Save, ids 1 to 5 in that order. */
export function sampleDoc(): Doc {
  let scope = emptyScope(ROOT);
  for (const type of ["Load", "Encode", "Sample", "Decode", "Save"]) scope = addNode(scope, newNode(scope, type, SPECS.get(type), [Object.keys(scope.nodes).length * 300, 0]));
  scope = connect(scope, "1", 1, "2", "clip", "CLIP");
  scope = connect(scope, "1", 0, "3", "model", "MODEL");
  scope = connect(scope, "2", 0, "3", "positive", "COND");
  scope = connect(scope, "3", 0, "4", "samples", "LATENT");
  scope = connect(scope, "4", 0, "5", "images", "IMAGE");
  return { ...emptyDoc(), id: "doc", scopes: { [ROOT]: scope } };
}
