import { expect, it } from "vitest";
import { readDoc } from "./read.ts";
import { parseJson } from "./json.ts";
import { writeText } from "./write.ts";
import { foldable, shownInputs } from "./fold.ts";
import { readSpecs } from "./specs.ts";
import { estimateSize } from "./layout.ts";

const seldom = (type: string, value: unknown) => [type, { default: value, advanced: true }];
const SPECS = readSpecs({
  Train: { input: { required: { steps: ["INT", { default: 400 }], warmup: seldom("INT", 0), decay: seldom("FLOAT", 0.5), seed: seldom("INT", 0), kind: [["plain", "odd"], { advanced: true }] } }, output: [], output_node: true },
  Short: { input: { required: { steps: ["INT", { default: 1 }], one: seldom("INT", 0) } }, output: [] },
} as never);
const inputs = SPECS.get("Train")!.inputs;
const none = new Set<string>();
const names = (values: object, seen: ReadonlySet<string> = none, unfolded = false) => shownInputs({ values: values as never, unfolded }, inputs, seen).map((it) => it.name);

it("folds away what is seldom set and stands at its default", () => {
  expect(names({ steps: 3, warmup: 0, decay: 0.5, seed: 0n, kind: "plain" })).toEqual(["steps"]);
  expect(names({})).toEqual(["steps"]);
  expect(names({ decay: 0.25, kind: "odd" })).toEqual(["steps", "decay", "kind"]);
  expect(names({}, none, true)).toEqual(["steps", "warmup", "decay", "seed", "kind"]);
});

it("never hides a wire or a fault, and does not fold a single value", () => {
  expect(names({}, new Set(["warmup"]))).toEqual(["steps", "warmup"]);
  expect(foldable({ values: {} }, SPECS.get("Short")!.inputs, none)).toEqual([]);
});

it("is kept in the file as ComfyUI's editor keeps it, and left out where nothing is unfolded", () => {
  const file = (more: object) => JSON.stringify({ version: 0.4, nodes: [{ id: 1, type: "Train", pos: [0, 0], size: [200, 90], ...more }], links: [] });
  const doc = (more: object) => readDoc(parseJson(file(more)), SPECS);
  expect(doc({ showAdvanced: true }).scopes[""]!.nodes["1"]!.unfolded).toBe(true);
  expect(JSON.parse(writeText(doc({ showAdvanced: true }), SPECS)).nodes[0].showAdvanced).toBe(true);
  expect(JSON.parse(writeText(doc({}), SPECS)).nodes[0]).not.toHaveProperty("showAdvanced");
  const height = (more: object) => estimateSize(doc(more).scopes[""]!.nodes["1"]!, SPECS)[1];
  expect(height({ showAdvanced: true })).toBeGreaterThan(height({}));
});
