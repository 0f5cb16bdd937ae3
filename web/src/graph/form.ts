// The inputs that a form shows, and the name of each as `paraflow run --set` takes it.

import { type Doc, type GraphNode, MODE, ROOT, incoming } from "./model.ts";
import { type InputSpec, type Specs, inputsOf } from "./specs.ts";
import { compareIds } from "./write.ts";

export interface FormInput {
  /** `Prompt.text`: title, class or id, whichever is the only one of its kind. */
  name: string;
  label: string;
  node: GraphNode;
  input: InputSpec;
}

/** What the graph exposes; where it says nothing, the inputs that people change. */
export function formInputs(doc: Doc, specs: Specs): FormInput[] {
  const scope = doc.scopes[ROOT]!;
  const nodes = Object.values(scope.nodes).filter((node) => specs.has(node.type) && node.mode === MODE.always).sort((a, b) => compareIds(a.id, b.id));
  const all = nodes.flatMap((node) => {
    const wired = new Set((incoming(scope).get(node.id) ?? []).map((wire) => wire.input));
    const inputs = inputsOf(specs.get(node.type)!, node, wired).filter((input) => input.widget && !wired.has(input.name));
    return inputs.map((input): FormInput => ({ node, input, name: `${settableName(nodes, node, specs)}.${input.name}`, label: label(node, input, specs) }));
  });
  if (doc.exposed.length === 0) return all.filter(({ input }) => isUsual(input));
  const order = new Map(doc.exposed.map((name, index) => [name, index]));
  return all.filter((it) => order.has(key(it))).sort((a, b) => order.get(key(a))! - order.get(key(b))!);
}

const key = (it: FormInput) => `${it.node.id}.${it.input.name}`;

function label(node: GraphNode, input: InputSpec, specs: Specs): string {
  const title = node.title ?? specs.get(node.type)?.title ?? node.type;
  return input.widget?.kind === "text" && input.widget.multiline ? title : `${title}: ${input.name.replaceAll("_", " ")}`;
}

/** Texts, pictures, seeds, sizes and counts: not the choice of an algorithm. */
function isUsual(input: InputSpec): boolean {
  if (input.advanced) return false;
  const kind = input.widget?.kind;
  return (kind === "text" && input.widget?.kind === "text" && input.widget.multiline) || input.upload !== undefined || input.control || kind === "int" || kind === "toggle" || kind === "color";
}

/** A title that no other node has, else a class that no other node has, else the id. */
export function settableName(nodes: readonly GraphNode[], node: GraphNode, specs: Specs): string {
  const title = (it: GraphNode) => it.title ?? specs.get(it.type)?.title ?? it.type;
  const only = (read: (it: GraphNode) => string) => nodes.filter((it) => read(it) === read(node)).length === 1;
  const clash = nodes.some((it) => it.id === title(node));
  if (node.title !== undefined && only(title) && !clash) return node.title;
  if (only((it) => it.type)) return node.type;
  return node.id;
}
