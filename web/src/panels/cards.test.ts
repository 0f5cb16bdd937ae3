import { readFileSync, readdirSync } from "node:fs";
import { expect, it } from "vitest";
import { sampleDoc, SPECS } from "../graph/testing.ts";
import { readDoc } from "../graph/read.ts";
import { readSpecs } from "../graph/specs.ts";
import { inOrder, lineOf, neededFiles, sketchOf, titleOf } from "./cards.ts";

const graphs = readdirSync(new URL("../../../graphs", import.meta.url)).filter((name) => name.endsWith(".json")).map((name) => name.replace(".json", ""));

it("every graph that ships has a line, and a picture unless it is for a model of the user's", () => {
  const pictures = readdirSync(new URL("../../public/cards", import.meta.url)).map((name) => name.replace(".webp", ""));
  for (const name of graphs) {
    expect(lineOf(name), name).toBeTruthy();
    const text = readFileSync(new URL(`../../../graphs/${name}.json`, import.meta.url), "utf8");
    expect(pictures.includes(name) || !text.includes("toyland.safetensors"), `a picture for ${name}`).toBe(true);
  }
});

it("titles are spelt, and those that are known come first", () => {
  expect(titleOf("sdxl-para-then-lora")).toBe("SDXL PaRa then LoRA");
  expect(titleOf("text-to-image")).toBe("Text to image");
  expect(inOrder([{ name: "a-new-one" }, { name: "train-para" }, { name: "text-to-image" }]).map((it) => it.name)).toEqual(["text-to-image", "train-para", "a-new-one"]);
});

it("tells which files of models are not here", () => {
  const specs = readSpecs({ Load: { input: { required: { name: [["a.safetensors"], { model_folder: "checkpoints" }] } }, output: ["MODEL"] } } as never);
  const doc = (name: string) => readDoc({ 1: { class_type: "Load", inputs: { name } } }, specs);
  expect(neededFiles(doc("a.safetensors"), specs)).toEqual([]);
  expect(neededFiles(doc("sdxl.safetensors"), specs)).toEqual(["checkpoints/sdxl.safetensors"]);
});

it("draws the graph itself where there is no picture", () => {
  const sketch = sketchOf(sampleDoc(), SPECS);
  expect(sketch.boxes).toHaveLength(5);
  expect(sketch.lines).toHaveLength(5);
  expect(Math.min(...sketch.boxes.map((box) => box.x))).toBe(0);
});
