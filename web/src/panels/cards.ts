// What the start page says of the graphs that ship: their order, their titles, and a line for each. A graph that is not
// named here has its place after the others.

import { estimateSize } from "../graph/layout.ts";
import { type Doc, ROOT } from "../graph/model.ts";
import { portsOf } from "../graph/ports.ts";
import { type Specs, inputsOf } from "../graph/specs.ts";
import { typeColor } from "../graph/types.ts";

const LINES: Readonly<Record<string, string>> = {
  "text-to-image": "A picture from a few words",
  "image-to-image": "A picture painted anew, after a few words",
  "inpaint": "A hole in a picture, filled after a few words",
  "train-para": "Teach the model one individual, and watch it learn",
  "para-then-lora": "An individual, and a style on top: before and after",
  "two-subjects": "Two individuals, merged into one",
  "edit-one-image": "One picture is learnt, then told in other words",
  "para-vs-lora": "One individual taught in two ways, side by side",
  "export-para": "A PaRa turned into a LoRA for other programs",
  "sdxl-text-to-image": "A large picture from a few words",
  "sdxl-train-para": "Teach Stable Diffusion XL one individual",
  "sdxl-para-then-lora": "An individual and a style, on Stable Diffusion XL",
};
const ORDER = Object.keys(LINES);
const SPELT: Readonly<Record<string, string>> = { sdxl: "SDXL", para: "PaRa", lora: "LoRA" };

export const lineOf = (name: string): string | undefined => LINES[name];

/** `para-then-lora` as it is read: PaRa then LoRA. */
export function titleOf(name: string): string {
  const words = name.split(/[-_ ]+/).map((word) => SPELT[word.toLowerCase()] ?? word).join(" ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** In the order of the lines above; others behind, by name. */
export function inOrder<T extends { name: string }>(cards: readonly T[]): T[] {
  const rank = (card: T) => (ORDER.indexOf(card.name) + ORDER.length + 1) % (ORDER.length + 1);
  return [...cards].sort((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1));
}

/** Files of models that the graph names and that are not here, with their folders. */
export function neededFiles(doc: Doc, specs: Specs): string[] {
  const found = Object.values(doc.scopes).flatMap((scope) => Object.values(scope.nodes)).flatMap((node) => {
    const spec = specs.get(node.type);
    return (spec ? inputsOf(spec, node, new Set()) : []).flatMap((input) => {
      const value = node.values[input.name];
      const here = input.widget?.kind !== "choice" || value === undefined || input.widget.choices.includes(value);
      return input.folder === undefined || here ? [] : [`${input.folder}/${String(value)}`];
    });
  });
  return [...new Set(found)];
}

export interface Sketch {
  width: number;
  height: number;
  boxes: readonly { x: number; y: number; width: number; height: number }[];
  lines: readonly { from: readonly [number, number]; to: readonly [number, number]; color: string }[];
}

/** A graph as boxes and wires, for a card without a picture. */
export function sketchOf(doc: Doc, specs: Specs): Sketch {
  const scope = doc.scopes[ROOT]!;
  const boxes = new Map(Object.values(scope.nodes).map((node) => {
    const [width, height] = estimateSize(node, specs);
    return [node.id, { x: node.pos[0], y: node.pos[1], width, height }];
  }));
  const [left, top] = [Math.min(...[...boxes.values()].map((box) => box.x)), Math.min(...[...boxes.values()].map((box) => box.y))];
  const placed = new Map([...boxes].map(([id, box]) => [id, { ...box, x: box.x - left, y: box.y - top }]));
  const lines = Object.values(scope.wires).flatMap((wire) => {
    const [from, to] = [placed.get(wire.from), placed.get(wire.to)];
    const source = scope.nodes[wire.from];
    const type = source ? portsOf(doc, scope, source, specs).outputs[wire.out]?.type : undefined;
    return from && to ? [{ from: [from.x + from.width, from.y + 46 + wire.out * 24] as const, to: [to.x, to.y + 50] as const, color: typeColor(type ?? wire.type) }] : [];
  });
  const all = [...placed.values()];
  return { width: Math.max(1, ...all.map((box) => box.x + box.width)), height: Math.max(1, ...all.map((box) => box.y + box.height)), boxes: all, lines };
}
