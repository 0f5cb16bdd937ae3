import { expect, it } from "vitest";
import { join, relabel, removePort, unpack } from "./borders.ts";
import { withScope } from "./edit.ts";
import { INPUT_BORDER, OUTPUT_BORDER, ROOT, incoming } from "./model.ts";
import { portsOf } from "./ports.ts";
import { toPrompt } from "./prompt.ts";
import { toSubgraph } from "./subgraph.ts";
import { sampleDoc, SPECS } from "./testing.ts";

/** The encoder and the sampler in a subgraph: MODEL and CLIP come in, LATENT goes out. */
const packed = () => {
  const { doc, instance } = toSubgraph(sampleDoc(), ROOT, new Set(["2", "3"]), SPECS);
  return { doc, instance, id: doc.scopes[ROOT]!.nodes[instance]!.type };
};

it("a wire from the border's open socket makes a port of it, in and out", () => {
  const { doc, id, instance } = packed();
  const inner = doc.scopes[id]!;
  const more = join(doc, inner, SPECS, INPUT_BORDER, inner.inputs.length, "3", "steps");
  expect(more.inputs.at(-1)).toMatchObject({ name: "steps", type: "INT" });
  const both = join(doc, more, SPECS, "2", 0, OUTPUT_BORDER, "+");
  expect(both.outputs.map((port) => [port.name, port.type])).toEqual([["latent", "LATENT"], ["cond", "COND"]]);
  const changed = withScope(doc, both);
  const ports = portsOf(changed, changed.scopes[ROOT]!, changed.scopes[ROOT]!.nodes[instance]!, SPECS);
  expect(ports.inputs.map((port) => port.name)).toContain("steps");
  expect(ports.outputs).toHaveLength(2);
});

it("a port's name is for the eye; wires and files keep its own", () => {
  const { doc, id } = packed();
  const port = doc.scopes[id]!.inputs[0]!;
  const named = relabel(doc.scopes[id]!, "inputs", port.id, "the model");
  expect(named.inputs[0]).toMatchObject({ name: port.name, label: "the model" });
  expect(relabel(named, "inputs", port.id, port.name).inputs[0]).not.toHaveProperty("label");
});

it("a port that is taken away takes its wires along, and later ones move up", () => {
  const { doc, id, instance } = packed();
  const before = doc.scopes[id]!.inputs.map((port) => port.name);
  const after = removePort(doc, id, "inputs", doc.scopes[id]!.inputs[0]!.id);
  expect(after.scopes[id]!.inputs.map((port) => port.name)).toEqual(before.slice(1));
  expect(incoming(after.scopes[ROOT]!).get(instance)!.map((wire) => wire.input)).toEqual(before.slice(1));
  expect(Object.values(after.scopes[id]!.wires).filter((wire) => wire.from === INPUT_BORDER).map((wire) => wire.out)).toEqual([0]);
  const closed = removePort(doc, id, "outputs", doc.scopes[id]!.outputs[0]!.id);
  expect(Object.values(closed.scopes[ROOT]!.wires).some((wire) => wire.from === instance)).toBe(false);
  expect(Object.values(closed.scopes[id]!.wires).some((wire) => wire.to === OUTPUT_BORDER)).toBe(false);
});

it("unpacked, it runs as it did before it was packed", () => {
  const { doc, instance, id } = packed();
  const { doc: open, nodes } = unpack(doc, ROOT, instance);
  expect(nodes).toHaveLength(2);
  expect(open.scopes).not.toHaveProperty(id);
  const shape = (it: typeof doc) => Object.values(toPrompt(it, SPECS)).map((node) => [node.class_type, Object.entries(node.inputs).map(([name, value]) => (Array.isArray(value) ? `${name} ← ${toPrompt(it, SPECS)[String(value[0])]!.class_type} ${String(value[1])}` : `${name} = ${String(value)}`)).sort()]).sort();
  expect(shape(open)).toEqual(shape(sampleDoc()));
});
