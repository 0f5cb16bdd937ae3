// `(words:1.1)` in prompts: Ctrl+Up and Ctrl+Down change how much the selected words weigh.

export interface Edited {
  text: string;
  start: number;
  end: number;
}

/** The text with the weight of the selection, or of the word at the caret, changed by `delta`. */
export function changeWeight(text: string, start: number, end: number, delta: number): Edited {
  let [from, to] = start === end ? wordAt(text, start) : trimmed(text, start, end);
  if (from === to) return { text, start, end };
  const weighted = enclosing(text, from, to);
  if (weighted) {
    const weight = round(weighted.weight + delta);
    const inner = text.slice(weighted.inner[0], weighted.inner[1]);
    const replaced = weight === 1 ? inner : `(${inner}:${weight})`;
    const offset = weight === 1 ? 0 : 1;
    return { text: text.slice(0, weighted.outer[0]) + replaced + text.slice(weighted.outer[1]), start: weighted.outer[0] + offset, end: weighted.outer[0] + offset + inner.length };
  }
  const weight = round(1 + delta);
  return { text: `${text.slice(0, from)}(${text.slice(from, to)}:${weight})${text.slice(to)}`, start: from + 1, end: to + 1 };
}

function round(weight: number): number {
  return Math.round(weight * 100) / 100;
}

function wordAt(text: string, at: number): [number, number] {
  let [from, to] = [at, at];
  while (from > 0 && /[^\s,.()[\]{}|:]/.test(text[from - 1]!)) from--;
  while (to < text.length && /[^\s,.()[\]{}|:]/.test(text[to]!)) to++;
  return [from, to];
}

function trimmed(text: string, start: number, end: number): [number, number] {
  while (start < end && /\s/.test(text[start]!)) start++;
  while (end > start && /\s/.test(text[end - 1]!)) end--;
  return [start, end];
}

/** The `(…:weight)` that is selected, or that just surrounds the selection. */
function enclosing(text: string, from: number, to: number): { outer: [number, number]; inner: [number, number]; weight: number } | undefined {
  for (const match of text.matchAll(/\(([^()]*):(-?\d+(?:\.\d+)?)\)/g)) {
    const outer: [number, number] = [match.index, match.index + match[0].length];
    const inner: [number, number] = [outer[0] + 1, outer[0] + 1 + match[1]!.length];
    if (from >= outer[0] && to <= outer[1]) return { outer, inner, weight: Number(match[2]) };
  }
  return undefined;
}
