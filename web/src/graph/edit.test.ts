import { expect, test } from "vitest";
import { cut, fragmentText, paste, readFragment } from "./clipboard.ts";
import { addNode, addReroute, bestInput, insertOnWire, newNode, removeNodes } from "./edit.ts";
import { formInputs } from "./form.ts";
import { emptyLog, record, redo, undo } from "./history.ts";
import { aligned, layered } from "./layout.ts";
import { ROOT, emptyNode } from "./model.ts";
import { clamp, nextSeed, parseNumber, showNumber, stepBy } from "./numbers.ts";
import { portsOf, wireRefusal } from "./ports.ts";
import { matchRank, search } from "./search.ts";
import { asSeries, smooth, thinned } from "./series.ts";
import { inputsOf, type Widget } from "./specs.ts";
import { SPECS, sampleDoc } from "./testing.ts";
import { fits, typeColor } from "./types.ts";
import { changeWeight } from "./weights.ts";

const doc = sampleDoc();
const scope = doc.scopes[ROOT]!;

test("types fit when equal, when either takes all, or when unions share one", () => {
  expect(fits("IMAGE", "IMAGE") && fits("*", "IMAGE") && fits("IMAGE", "*") && fits("MASK", "IMAGE,MASK")).toBe(true);
  expect(fits("IMAGE", "MASK") || fits("image", "IMAGE") || fits("LATENT", "IMAGE, MASK")).toBe(false);
  expect(typeColor("ODD")).toBe(typeColor("ODD"));
});

test("a wire is refused with what is wrong and what would help", () => {
  expect(wireRefusal(doc, scope, SPECS, "3", 0, "5", "images")).toBe("`images` takes IMAGE, this is LATENT — put `Decode` between them");
  expect(wireRefusal(doc, scope, SPECS, "3", 0, "3", "model")).toBe("a node cannot feed itself");
  const loop = addNode(scope, emptyNode("9", "Adapt", [0, 0]));
  expect(wireRefusal(doc, loop, SPECS, "1", 0, "9", "model")).toBeUndefined();
  const circle = { ...loop, wires: { ...loop.wires, a: { id: "a", from: "9", out: 0, to: "8", input: "model", type: "MODEL" } }, nodes: { ...loop.nodes, 8: emptyNode("8", "Adapt", [0, 0]) } };
  expect(wireRefusal(doc, circle, SPECS, "8", 0, "9", "model")).toMatch(/circle/);
});

test("deleting can join what the node joined", () => {
  const types = { doc, specs: SPECS };
  const adapted = addNode(scope, newNode(scope, "Adapt", SPECS.get("Adapt"), [0, 0]));
  const wire = Object.values(adapted.wires).find((it) => it.to === "3" && it.input === "model")!;
  const inserted = insertOnWire({ ...doc, scopes: { [ROOT]: adapted } }, adapted, SPECS, "6", wire.id);
  const ends = (it: typeof scope) => Object.values(it.wires).filter((w) => w.to === "3" && w.input === "model").map((w) => w.from);
  expect(ends(inserted)).toEqual(["6"]);
  expect(ends(removeNodes(inserted, new Set(["6"])))).toEqual([]);
  expect(ends(removeNodes(inserted, new Set(["6"]), true, { ...types, doc: { ...doc, scopes: { [ROOT]: inserted } } }))).toEqual(["1"]);
});

test("a reroute goes into a wire", () => {
  const wire = Object.values(scope.wires).find((it) => it.input === "samples")!;
  const made = addReroute(scope, wire.id, [10, 10])!;
  expect(Object.values(made.scope.wires).filter((it) => it.from === made.id || it.to === made.id).map((it) => [it.from, it.to])).toEqual([["3", made.id], [made.id, "4"]]);
});

test("a wire dropped on a node goes to the free socket that takes it", () => {
  expect(bestInput(doc, scope, SPECS, "1", 0, "3")).toBe("model");
  expect(bestInput(doc, scope, SPECS, "1", 1, "5")).toBeUndefined();
});

test("a copy has new ids, its own wires, and outside wires if wanted", () => {
  const fragment = readFragment(fragmentText(cut(scope, new Set(["2", "3"]))))!;
  const alone = paste(scope, fragment, [10, 20], false);
  expect(alone.ids).toEqual(["6", "7"]);
  const inside = (it: typeof scope) => Object.values(it.wires).filter((w) => Number(w.to) > 5).map((w) => [w.from, w.to, w.input]);
  expect(inside(alone.scope)).toEqual([["6", "7", "positive"]]);
  expect(inside(paste(scope, fragment, [0, 0], true).scope)).toEqual([["1", "6", "clip"], ["1", "7", "model"], ["6", "7", "positive"]]);
  expect(readFragment("{}")).toBeUndefined();
});

test("undo and redo walk the log; what follows at once is one step", () => {
  let log = record(emptyLog<number>(), "a", 0, 1, 0);
  log = record(log, "type", 1, 2, 5000, "k");
  log = record(log, "type", 2, 3, 5100, "k");
  expect(log.steps).toHaveLength(2);
  const first = undo(log)!;
  expect([first.value, first.label]).toEqual([1, "type"]);
  expect(redo(first.log)!.value).toBe(3);
  expect(undo(undo(first.log)!.log)).toBeUndefined();
  expect(redo(record(first.log, "b", 1, 9, 9000))).toBeUndefined();
});

test("search ranks starts before middles, and what is used before what is not", () => {
  const items = ["Load Checkpoint", "Save Image", "Load Image", "Image Scale"].map((title) => ({ title, name: title.replace(" ", "") }));
  const titles = (query: string, uses = {}) => search(query, items, uses).map((it) => it.title);
  expect(titles("image")).toEqual(["Image Scale", "Load Image", "Save Image"].sort((a, b) => (a === "Image Scale" ? -1 : b === "Image Scale" ? 1 : a.length - b.length || (a < b ? -1 : 1))));
  expect(titles("load", { LoadImage: 6 })[0]).toBe("Load Image");
  expect(titles("lc")[0]).toBe("Load Checkpoint");
  expect(titles("zzz")).toEqual([]);
  expect(matchRank("chkp", "Load Checkpoint")).toBe(7);
});

test("weights go around the word, change, and go away at one", () => {
  const up = changeWeight("a red bear", 3, 3, 0.05);
  expect(up.text).toBe("a (red:1.05) bear");
  expect(up.text.slice(up.start, up.end)).toBe("red");
  expect(changeWeight(up.text, up.start, up.end, 0.05).text).toBe("a (red:1.1) bear");
  expect(changeWeight(up.text, up.start, up.end, -0.05).text).toBe("a red bear");
  expect(changeWeight("a big red bear", 2, 9, -0.1).text).toBe("a (big red:0.9) bear");
  expect(changeWeight("  ", 1, 1, 0.1).text).toBe("  ");
});

test("numbers are read, held to their bounds and stepped on their grid", () => {
  const int: Extract<Widget, { kind: "int" | "float" }> = { kind: "int", min: 0, max: 18446744073709551615n, step: 1, decimals: 0, slider: false };
  const float = { ...int, kind: "float" as const, max: 1, step: 0.05, decimals: 2 };
  expect(parseNumber("512+64", int)).toBe(576);
  expect(parseNumber("18446744073709551615", int)).toBe(18446744073709551615n);
  expect(parseNumber("1,5", float)).toBe(1.5);
  expect(parseNumber("x", int)).toBeUndefined();
  expect(clamp(1.5, float)).toBe(1);
  expect(stepBy(0.1, 2, float)).toBe(0.2);
  expect(stepBy(0.99, 5, float)).toBe(1);
  expect(showNumber(0.30000000000000004, float)).toBe("0.3");
});

test("seeds move as they are told to", () => {
  const seed = SPECS.get("Sample")!.inputs.find((input) => input.name === "seed")!;
  expect(nextSeed(5, "increment", seed)).toBe(6);
  expect(nextSeed(0, "decrement", seed)).toBe(0);
  expect(nextSeed(18446744073709551614n, "increment", seed)).toBe(18446744073709551615n);
  expect(nextSeed(5, "fixed", seed)).toBe(5);
  expect(nextSeed(5, "randomize", seed, () => 0.5)).toBe(2 ** 49);
});

test("inputs grow with their wires, and follow the chosen branch", () => {
  const names = (type: string, values: Record<string, string>, wired: string[]) => inputsOf(SPECS.get(type)!, { values }, new Set(wired)).map((it) => it.name);
  expect(names("Batch", {}, [])).toEqual(["images.image0", "images.image1"]);
  expect(names("Batch", {}, ["images.image1"])).toEqual(["images.image0", "images.image1", "images.image2"]);
  expect(names("Batch", {}, ["images.image3"])).toHaveLength(4);
  expect(names("Resize", {}, [])).toEqual(["how", "how.factor", "image"]);
  expect(names("Resize", { how: "to" }, [])).toEqual(["how", "how.width", "how.height", "image"]);
});

test("a layout has no two nodes in one place; alignment shares a side", () => {
  const places = Object.values(layered(scope, SPECS).nodes).map((node) => node.pos.join());
  expect(new Set(places).size).toBe(5);
  const right = aligned([{ id: "a", x: 0, y: 0, width: 10, height: 5 }, { id: "b", x: 20, y: 9, width: 30, height: 5 }], "right");
  expect([...right]).toEqual([["a", [40, 0]], ["b", [20, 9]]]);
});

test("a form names inputs as --set does", () => {
  const titled = { ...doc, scopes: { [ROOT]: { ...scope, nodes: { ...scope.nodes, 2: { ...scope.nodes["2"]!, title: "Prompt" } } } } };
  expect(formInputs(titled, SPECS).map((it) => it.name)).toEqual(["Prompt.text", "Sample.seed", "Sample.steps"]);
  expect(formInputs({ ...titled, exposed: ["3.cfg", "2.text"] }, SPECS).map((it) => it.name)).toEqual(["Sample.cfg", "Prompt.text"]);
});

test("curves are found in numbers, pairs and points", () => {
  expect(asSeries({ loss: [4, 3, 2, 1] })).toEqual([{ name: "loss", points: [[1, 4], [2, 3], [3, 2], [4, 1]] }]);
  expect(asSeries({ points: [{ step: 1, loss: 2, lr: 3 }, { step: 5, loss: 1, lr: 3 }] }).map((it) => it.name)).toEqual(["loss", "lr"]);
  expect(asSeries({ images: [{ filename: "a.png" }], text: ["x"] })).toEqual([]);
  expect(thinned(Array.from({ length: 1000 }, (_, x) => [x, 1] as const), 10)).toHaveLength(10);
  expect(smooth([[0, 5], [1, 5]], 0.9).map(([, y]) => Math.round(y))).toEqual([5, 5]);
});

test("a class that is not known has the sockets of its file", () => {
  const missing = { ...emptyNode("9", "Nobody", [0, 0]), inputs: [{ name: "m", type: "MODEL" }], outputs: [{ name: "o", type: "ODD" }] };
  const ports = portsOf(doc, addNode(scope, missing), missing, SPECS);
  expect([ports.known, ports.inputs.map((it) => it.name), ports.outputs.map((it) => it.type)]).toEqual([false, ["m"], ["ODD"]]);
});
