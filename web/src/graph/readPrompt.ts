// Reads an API prompt: nodes with named inputs and no places, so they are laid out.

import { type Json, type JsonObject, asObject, asText, without } from "./json.ts";
import { layered } from "./layout.ts";
import { type Doc, type GraphNode, ROOT, type Wire, emptyDoc, emptyNode, emptyScope } from "./model.ts";
import { type Specs, initialControl, initialValue, inputsOf } from "./specs.ts";

export function readPrompt(json: JsonObject, specs: Specs): Doc {
  const nodes: Record<string, GraphNode> = {};
  const wires: Record<string, Wire> = {};
  for (const [id, entry] of Object.entries(json)) {
    const object = asObject(entry);
    const type = asText(object?.["class_type"]);
    if (!object || !type) continue;
    const node = emptyNode(id, type, [0, 0]);
    const values: Record<string, Json> = {};
    for (const [name, value] of Object.entries(asObject(object["inputs"]) ?? {})) {
      const link = asLink(value);
      if (!link) values[name] = asObject(value)?.["__value__"] ?? value;
      else {
        const wire = String(Object.keys(wires).length + 1);
        wires[wire] = { id: wire, from: link[0], out: link[1], to: id, input: name, type: specs.get(asText(asObject(json[link[0]])?.["class_type"]) ?? "")?.outputs[link[1]]?.type ?? "*" };
      }
    }
    nodes[id] = withTitle(complete({ ...node, values }, specs), object);
  }
  fillSlots(nodes, wires, specs);
  const scope = { ...emptyScope(ROOT), nodes, wires };
  return { ...emptyDoc(), scopes: { [ROOT]: layered(scope, specs) } };
}

function asLink(value: Json): [string, number] | undefined {
  return Array.isArray(value) && value.length === 2 && typeof value[0] === "string" && typeof value[1] === "number" ? [value[0], value[1]] : undefined;
}

/** Widgets that the prompt leaves out get what a new node has; a seed in a prompt was meant. */
function complete(node: GraphNode, specs: Specs): GraphNode {
  const spec = specs.get(node.type);
  if (!spec) return node;
  const values = { ...node.values };
  const control = { ...node.control };
  for (const input of inputsOf(spec, node, new Set())) {
    const initial = initialValue(input);
    if (values[input.name] === undefined && initial !== undefined) values[input.name] = initial;
    if (input.control) control[input.name] = input.name in node.values ? "fixed" : initialControl(input);
  }
  return { ...node, values, control };
}

function withTitle(node: GraphNode, object: JsonObject): GraphNode {
  const title = asText(asObject(object["_meta"])?.["title"]);
  const rest = without(object, "class_type", "inputs", "_meta", "is_changed");
  return { ...node, ...(title ? { title } : {}), ...(Object.keys(rest).length ? { rest: { api: rest } } : {}) };
}

/** Classes that we do not have show the sockets that wires tell of. */
function fillSlots(nodes: Record<string, GraphNode>, wires: Record<string, Wire>, specs: Specs): void {
  for (const wire of Object.values(wires)) {
    const [from, to] = [nodes[wire.from], nodes[wire.to]];
    if (to && !specs.has(to.type)) nodes[to.id] = { ...to, inputs: [...to.inputs, { name: wire.input, type: wire.type }] };
    if (from && !specs.has(from.type) && from.outputs.length <= wire.out) {
      const outputs = Array.from({ length: wire.out + 1 }, (_, index) => from.outputs[index] ?? { name: `output ${index}`, type: "*" });
      nodes[from.id] = { ...from, outputs };
    }
  }
}
