import { expect, test } from "vitest";
import { alignValues, listValues } from "./align.ts";
import { setValue, updateNode, withScope, addNode, connect, newNode } from "./edit.ts";
import { formatJson, parseJson, type Json, type JsonObject } from "./json.ts";
import { MODE, ROOT, emptyNode } from "./model.ts";
import { chooseBranches, toPrompt } from "./prompt.ts";
import { readDoc } from "./read.ts";
import { toSubgraph } from "./subgraph.ts";
import { SPECS, sampleDoc } from "./testing.ts";
import { writeDoc, writeText } from "./write.ts";

const root = (doc: ReturnType<typeof sampleDoc>) => doc.scopes[ROOT]!;

test("whole numbers of 64 bits come and go", () => {
  const text = '{"seed":18446744073709551615,"s":"18446744073709551615","x":1.5,"n":null,"low":-9223372036854775808}';
  expect(formatJson(parseJson(text))).toBe(text);
  const fraction = '[0.12345678901234567,-0.4321098765432109,1.5e-7,12345678901234567.5,-12345678901234567890]';
  expect(parseJson(fraction)).toEqual([0.12345678901234567, -0.4321098765432109, 1.5e-7, 12345678901234567.5, -12345678901234567890n]);
  expect(parseJson('{"a": NaN, "b": -Infinity, "c": "NaN"}')).toEqual({ a: null, b: null, c: "NaN" });
});

test("a document survives its file, and the file is the same again", () => {
  const doc = sampleDoc();
  const text = writeText(withScope(doc, setValue(root(doc), "3", "seed", 18446744073709551615n)), SPECS);
  const again = readDoc(parseJson(text), SPECS);
  expect(root(again).nodes["3"]!.values["seed"]).toBe(18446744073709551615n);
  expect(Object.values(root(again).wires).map(({ from, out, to, input }) => [from, out, to, input])).toEqual([["1", 1, "2", "clip"], ["1", 0, "3", "model"], ["2", 0, "3", "positive"], ["3", 0, "4", "samples"], ["4", 0, "5", "images"]]);
  expect(writeText(again, SPECS)).toBe(text);
});

test("values lie in the file by place, with the entries of the editor between them, and by name", () => {
  const file = writeDoc(sampleDoc(), SPECS);
  const node = (file["nodes"] as JsonObject[]).find((it) => it["id"] === 3)!;
  expect(node["widgets_values"]).toEqual([0, "randomize", 20, 8]);
  expect((node["properties"] as JsonObject)["paraflow"]).toEqual({ values: { cfg: 8, seed: 0, steps: 20 } });
  expect(node["inputs"]).toEqual([{ name: "model", type: "MODEL", link: 2 }, { name: "positive", type: "COND", link: 3 }]);
});

test("a list that does not fit the class gives way to the values by name", () => {
  const spec = SPECS.get("Sample")!;
  expect(alignValues(spec, [5, "fixed", 30, 7]).values).toEqual({ seed: 5, steps: 30, cfg: 7 });
  expect(alignValues(spec, [5, "fixed", 30, 7]).control).toEqual({ seed: "fixed" });
  expect(alignValues(spec, [5, 30], { seed: 9, steps: 31, cfg: 2 }).values).toEqual({ seed: 9, steps: 31, cfg: 2 });
  expect(alignValues(spec, { steps: 3 }).values).toEqual({ seed: 0, steps: 3, cfg: 8 });
  expect(listValues(SPECS.get("Picture")!, newNode(root(sampleDoc()), "Picture", SPECS.get("Picture"), [0, 0]))).toEqual(["x.png", "image"]);
});

test("the inputs of a chosen branch have their places too", () => {
  const spec = SPECS.get("Resize")!;
  expect(alignValues(spec, ["to", 640, 480]).values).toEqual({ how: "to", "how.width": 640, "how.height": 480 });
});

test("a prompt has literals, links and titles", () => {
  const prompt = toPrompt(sampleDoc(), SPECS);
  expect(prompt["3"]).toEqual({ inputs: { seed: 0, steps: 20, cfg: 8, model: ["1", 0], positive: ["2", 0] }, class_type: "Sample", _meta: { title: "Sample" } });
  expect(prompt["5"]!.inputs).toEqual({ prefix: "out", images: ["4", 0] });
});

test("muted nodes are left out with what they feed, bypassed ones are followed through", () => {
  const doc = sampleDoc();
  let scope = addNode(root(doc), newNode(root(doc), "Adapt", SPECS.get("Adapt"), [0, 0]));
  scope = connect(connect(scope, "1", 0, "6", "model", "MODEL"), "6", 0, "3", "model", "MODEL");
  const mode = (id: string, value: number) => toPrompt(withScope(doc, updateNode(scope, id, (node) => ({ ...node, mode: value }))), SPECS);
  expect(mode("6", MODE.always)["3"]!.inputs["model"]).toEqual(["6", 0]);
  expect(mode("6", MODE.bypassed)["3"]!.inputs["model"]).toEqual(["1", 0]);
  expect(mode("6", MODE.bypassed)["6"]).toBeUndefined();
  expect(mode("2", MODE.muted)["3"]!.inputs).not.toHaveProperty("positive");
});

test("a subgraph runs like the nodes in it, and survives its file", () => {
  const { doc, instance } = toSubgraph(sampleDoc(), ROOT, new Set(["2", "3"]), SPECS);
  expect(Object.keys(root(doc).nodes).sort()).toEqual(["1", "4", "5", instance]);
  const check = (it: typeof doc) => {
    const prompt = toPrompt(it, SPECS);
    expect(Object.keys(prompt).sort()).toEqual(["1", "4", "5", `${instance}:2`, `${instance}:3`]);
    expect(prompt[`${instance}:3`]!.inputs).toEqual({ seed: 0, steps: 20, cfg: 8, model: ["1", 0], positive: [`${instance}:2`, 0] });
    expect(prompt["4"]!.inputs["samples"]).toEqual([`${instance}:3`, 0]);
  };
  check(doc);
  const text = writeText(doc, SPECS);
  const again = readDoc(parseJson(text), SPECS);
  check(again);
  expect(writeText(again, SPECS)).toBe(text);
});

test("a node of an unknown class keeps its values, sockets and wires", () => {
  const json: Json = {
    id: "x", version: 0.4, last_node_id: 2, last_link_id: 1, groups: [], config: {}, extra: { other: [1] }, strange: { kept: true },
    nodes: [
      { id: 1, type: "Load", pos: [0, 0], size: [200, 80], flags: {}, order: 0, mode: 0, inputs: [], outputs: [{ name: "MODEL", type: "MODEL", links: [1] }], properties: {}, widgets_values: ["a.safetensors"] },
      { id: 2, type: "Nobody", pos: { 0: 5, 1: 6 }, size: [200, 80], flags: { pinned: true }, order: 1, mode: 0, inputs: [{ name: "m", type: "MODEL", link: 1, shape: 7 }], outputs: [{ name: "o", type: "ODD", links: null }], properties: { cnr_id: "z" }, widgets_values: [1, "two", null], bgcolor: "#123" },
    ],
    links: [[1, 1, 0, 2, 0, "MODEL"]],
  };
  const doc = readDoc(json, SPECS);
  const file = writeDoc(doc, SPECS);
  const node = (file["nodes"] as JsonObject[])[1]!;
  expect(node).toMatchObject({ type: "Nobody", pos: [5, 6], flags: { pinned: true }, widgets_values: [1, "two", null], bgcolor: "#123", properties: { cnr_id: "z" }, inputs: [{ name: "m", type: "MODEL", link: 1, shape: 7 }], outputs: [{ name: "o", type: "ODD", links: null }] });
  expect(file["strange"]).toEqual({ kept: true });
  expect(file["extra"]).toEqual({ other: [1] });
  expect(file["links"]).toEqual([[1, 1, 0, 2, 0, "MODEL"]]);
});

test("version 1 has links as objects, and reroutes on the way", () => {
  const doc = readDoc({
    version: 1, state: { lastNodeId: 2 }, nodes: [{ id: 1, type: "Load", pos: [0, 0], outputs: [] }, { id: 2, type: "Adapt", pos: [9, 9], inputs: [{ name: "model", type: "MODEL", link: 7 }] }],
    links: [{ id: 7, origin_id: 1, origin_slot: 0, target_id: 2, target_slot: 0, type: "MODEL", parentId: 3 }], reroutes: [{ id: 3, pos: [4, 5], linkIds: [7] }],
  }, SPECS);
  expect(root(doc).wires["7"]).toEqual({ id: "7", from: "1", out: 0, to: "2", input: "model", type: "MODEL", parent: "3" });
  const file = writeDoc(doc, SPECS);
  expect(file["extra"]).toEqual({ reroutes: [{ id: 3, pos: [4, 5], linkIds: [7] }], linkExtensions: [{ id: 7, parentId: 3 }] });
});

test("an API prompt is laid out from left to right and gives the same prompt again", () => {
  const prompt = toPrompt(sampleDoc(), SPECS);
  const doc = readDoc(prompt as unknown as Json, SPECS);
  const x = (id: string) => root(doc).nodes[id]!.pos[0];
  expect(x("1") < x("2") && x("2") < x("3") && x("3") < x("4") && x("4") < x("5")).toBe(true);
  expect(root(doc).nodes["3"]!.control["seed"]).toBe("fixed");
  expect(toPrompt(doc, SPECS)).toEqual(prompt);
});

test("primitives and reroutes are followed through", () => {
  const doc = sampleDoc();
  let scope = addNode(addNode(root(doc), { ...emptyNode("6", "PrimitiveNode", [0, 0]), values: { value: 44 } }), emptyNode("7", "Reroute", [0, 0]));
  scope = connect(connect(connect(scope, "6", 0, "3", "steps", "INT"), "1", 0, "7", "", "MODEL"), "7", 0, "3", "model", "MODEL");
  const prompt = toPrompt(withScope(doc, scope), SPECS);
  expect(prompt["3"]!.inputs).toMatchObject({ steps: 44, model: ["1", 0] });
  expect(Object.keys(prompt)).not.toContain("6");
});

test("dynamic prompts lose comments and take one branch", () => {
  expect(chooseBranches("a {b|c {d|e}} f // no\nx /* y */z \\{q\\}", () => 0.99)).toBe("a c e f \nx z {q}");
  expect(chooseBranches("{a|b}", () => 0)).toBe("a");
});

test("what is no graph is refused with a sentence", () => {
  expect(() => readDoc({ a: 1 }, SPECS)).toThrow(/neither `nodes` nor/);
  expect(() => readDoc([], SPECS)).toThrow(/should hold an object/);
});
