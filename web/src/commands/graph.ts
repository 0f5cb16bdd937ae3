// What commands do to the graph that is open.

import { measured, middle, somewhere, toCanvas, view } from "../canvas/view.ts";
import { type Fragment, corner, cut, fragmentText, paste, readFragment } from "../graph/clipboard.ts";
import { addGroup, addNode, connect, disconnect, newNode, removeGroups, removeNodes, updateNodes } from "../graph/edit.ts";
import { type Box, type Side, aligned, estimateSize, layered } from "../graph/layout.ts";
import { type GraphNode, MODE } from "../graph/model.ts";
import { unpack } from "../graph/borders.ts";
import { portsOf } from "../graph/ports.ts";
import { toSubgraph } from "../graph/subgraph.ts";
import { fits } from "../graph/types.ts";
import { NOTE, isVirtual } from "../graph/virtual.ts";
import { moveNodes } from "../graph/edit.ts";
import { compareIds } from "../graph/write.ts";
import { activeTab, announce, app, countUse, currentScope, edit, editDoc, scopeId, select, toast, updateTab, type WireEnd } from "../state/app.ts";
import { openFile, openText } from "../state/files.ts";

function selection(): ReadonlySet<string> {
  return activeTab()?.selected ?? new Set();
}

/** Puts a new node on the canvas, and on a wire that was being drawn. Gives its id. */
export function place(type: string, at: readonly [number, number] | undefined, wire?: WireEnd): string | undefined {
  const tab = activeTab();
  if (!tab) return undefined;
  const { specs } = app.get();
  const pos = at ? toCanvas(at) : freeSpot();
  const scope = currentScope(tab);
  const inner = tab.doc.scopes[type];
  const node = newNode(scope, type, specs.get(type), wire && "to" in wire ? [pos[0] - 240, pos[1] - 20] : at ? [pos[0], pos[1] - 14] : pos);
  edit(`add ${inner?.name ?? specs.get(type)?.title ?? type}`, (it, doc) => {
    const added = addNode(it, node);
    if (!wire) return added;
    const ports = portsOf(doc, added, node, specs);
    if ("from" in wire) {
      const input = ports.inputs.find((port) => !port.widget && fits(wire.type, port.type)) ?? ports.inputs.find((port) => fits(wire.type, port.type));
      return input ? connect(added, wire.from, wire.out, node.id, input.name, wire.type) : added;
    }
    const out = ports.outputs.findIndex((port) => fits(port.type, wire.type));
    return out < 0 ? added : connect(added, node.id, out, wire.to, wire.input, ports.outputs[out]!.type);
  });
  countUse(type);
  select([node.id]);
  if (!at) reveal(node);
  focusCanvasNode(node.id);
  return node.id;
}

/** Right of what is selected, else in the middle; moved down while something is there. */
function freeSpot(): [number, number] {
  const tab = activeTab()!;
  const scope = currentScope(tab);
  const chosen = [...tab.selected].map((id) => scope.nodes[id]).filter((node): node is GraphNode => node !== undefined);
  const sizes = measured();
  const size = (node: GraphNode) => sizes.get(node.id) ?? estimateSize(node, app.get().specs);
  const last = chosen.at(-1);
  const pointer = somewhere();
  let [x, y] = last ? [last.pos[0] + size(last)[0] + 60, last.pos[1]] : pointer;
  for (let round = 0; round < 60; round++) {
    const hit = Object.values(scope.nodes).find((node) => x < node.pos[0] + size(node)[0] + 20 && x + 240 > node.pos[0] - 20 && y < node.pos[1] + size(node)[1] + 20 && y + 160 > node.pos[1] - 20);
    if (!hit) break;
    y = hit.pos[1] + size(hit)[1] + 40;
  }
  return [x, y];
}

/** Gives the keyboard to a node, as soon as it is drawn. */
export function focusCanvasNode(id: string): void {
  let tries = 0;
  const attempt = () => {
    const element = document.querySelector<HTMLElement>(`.react-flow__node[data-id="${CSS.escape(id)}"]`);
    if (element) element.focus({ preventScroll: true });
    else if (tries++ < 20) requestAnimationFrame(attempt);
  };
  requestAnimationFrame(attempt);
}

export function focusWidget(): void {
  const id = [...selection()][0];
  const node = id && document.querySelector(`.react-flow__node[data-id="${CSS.escape(id)}"]`);
  const first = node ? node.querySelector<HTMLElement>(".widget input:not([type=color]), .widget button, textarea, .widget") : null;
  first?.focus();
}

/** Selects a node and brings it near. */
export function goTo(id: string): void {
  select([id]);
  void view.flow?.fitView({ padding: 0.3, maxZoom: 1.2, includeHiddenNodes: true, nodes: [{ id }] });
  focusCanvasNode(id);
}

export function rename(): void {
  const id = [...selection()][0];
  const header = id && document.querySelector(`.react-flow__node[data-id="${CSS.escape(id)}"] header .title`);
  if (header) header.dispatchEvent(new MouseEvent("dblclick", { bubbles: true }));
}

/** From node to node in the order of their places: columns, then rows. */
export function selectNext(by: number): void {
  const tab = activeTab();
  if (!tab) return;
  const nodes = Object.values(currentScope(tab).nodes).sort((a, b) => Math.round(a.pos[0] / 120) - Math.round(b.pos[0] / 120) || a.pos[1] - b.pos[1] || compareIds(a.id, b.id));
  if (nodes.length === 0) return;
  const at = nodes.findIndex((node) => tab.selected.has(node.id));
  const next = nodes[(at + by + nodes.length) % nodes.length] ?? nodes[0]!;
  select([next.id]);
  reveal(next);
  focusCanvasNode(next.id);
}

/** Moves the view to a node that is not to be seen, or only in part. */
function reveal(node: GraphNode): void {
  const [width, height] = measured().get(node.id) ?? [200, 60];
  const viewport = view.flow?.getViewport();
  const box = document.querySelector(".canvas")?.getBoundingClientRect();
  if (!viewport || !box) return;
  const x = node.pos[0] * viewport.zoom + viewport.x;
  const y = node.pos[1] * viewport.zoom + viewport.y;
  const inside = x > 0 && y > 0 && x + width * viewport.zoom < box.width && y + Math.min(height, 60) * viewport.zoom < box.height;
  if (!inside) void view.flow?.setCenter(node.pos[0] + width / 2, node.pos[1] + height / 2, { zoom: viewport.zoom });
}

export function selectAll(): void {
  const tab = activeTab();
  if (tab) select(Object.keys(currentScope(tab).nodes), currentScope(tab).groups.map((group) => group.id));
}

export function remove(heal: boolean): void {
  const tab = activeTab();
  if (!tab) return;
  const wires = new Set(view.selectedWires);
  const ids = tab.selected;
  edit(ids.size > 1 ? "delete nodes" : ids.size ? "delete a node" : "delete", (scope, doc, specs) => {
    const left = disconnect(removeGroups(scope, tab.selectedGroups), wires);
    return removeNodes(left, ids, heal, { doc, specs });
  });
  select([]);
}

let copied: Fragment | undefined;

function fragment(): Fragment | undefined {
  const tab = activeTab();
  return tab && cut(currentScope(tab), tab.selected, tab.selectedGroups);
}

export function copy(): void {
  copied = fragment();
  if (!copied) return;
  toClipboard(fragmentText(copied));
  announce(`${copied.nodes.length} copied`);
}

/** A page that came over the network without TLS has no clipboard of its own; the copy event has one everywhere. */
function toClipboard(text: string): void {
  if (navigator.clipboard) {
    void navigator.clipboard.writeText(text).catch(() => undefined);
    return;
  }
  const fill = (event: ClipboardEvent) => {
    event.clipboardData?.setData("text/plain", text);
    event.preventDefault();
  };
  document.addEventListener("copy", fill, { once: true });
  document.execCommand("copy");
  document.removeEventListener("copy", fill);
}

export function cutOut(): void {
  copy();
  remove(false);
}

/** Pastes what the clipboard holds: nodes, a whole workflow, a picture with one in it. */
export function onPaste(event: ClipboardEvent): void {
  const target = event.target as HTMLElement;
  if (/^(INPUT|TEXTAREA)$/.test(target.tagName) || app.get().view !== "canvas") return;
  const file = event.clipboardData?.files[0];
  const text = event.clipboardData?.getData("text/plain") ?? "";
  const found = readFragment(text) ?? (text === "" && !file ? copied : undefined);
  if (found) {
    event.preventDefault();
    insert(found, event instanceof ClipboardEvent && isShift ? true : false);
  } else if (file) void openFile(file, file.name || "pasted.png");
  else if (text.trim().startsWith("{")) {
    try {
      openText(text, "Pasted");
    } catch (error) {
      toast(error instanceof Error ? error.message : String(error), "error");
    }
  }
}

let isShift = false;
addEventListener("keydown", (event) => (isShift = event.shiftKey), true);
addEventListener("keyup", (event) => (isShift = event.shiftKey), true);

function insert(found: Fragment, outside: boolean): void {
  const [x, y] = somewhere();
  const [left, top] = corner(found);
  addFragment("paste", found, [Math.round(x - left), Math.round(y - top)], outside);
}

function addFragment(label: string, found: Fragment, offset: readonly [number, number], outside: boolean): void {
  let ids: string[] = [];
  edit(label, (scope) => {
    const pasted = paste(scope, found, offset, outside);
    ids = pasted.ids;
    return pasted.scope;
  });
  select(ids);
}

export function duplicate(): void {
  const found = fragment();
  if (found) addFragment("duplicate", found, [40, 40], true);
}

function toggleMode(label: string, mode: number): void {
  const tab = activeTab();
  if (!tab) return;
  const all = [...tab.selected].every((id) => currentScope(tab).nodes[id]?.mode === mode);
  edit(label, (scope) => updateNodes(scope, tab.selected, (node) => ({ ...node, mode: all ? MODE.always : mode })));
}

export const mute = () => toggleMode("mute", MODE.muted);
export const bypass = () => toggleMode("bypass", MODE.bypassed);

export function collapse(): void {
  const tab = activeTab();
  if (!tab) return;
  const all = [...tab.selected].every((id) => currentScope(tab).nodes[id]?.collapsed);
  edit("fold", (scope) => updateNodes(scope, tab.selected, (node) => ({ ...node, collapsed: !all })));
}

/** Shows the values that are seldom set, or folds them away where all are shown. */
export function unfold(): void {
  const tab = activeTab();
  if (!tab) return;
  const all = [...tab.selected].every((id) => currentScope(tab).nodes[id]?.unfolded);
  edit("fold values", (scope) => updateNodes(scope, tab.selected, (node) => ({ ...node, unfolded: !all })));
}

export function recolor(color: string | undefined): void {
  edit("colour", (scope) => updateNodes(scope, selection(), ({ color: _color, ...node }) => ({ ...node, ...(color ? { color } : {}) })));
}

function boxes(): Box[] {
  const tab = activeTab();
  if (!tab) return [];
  const sizes = measured();
  return [...tab.selected].flatMap((id) => {
    const node = currentScope(tab).nodes[id];
    if (!node) return [];
    const [width, height] = sizes.get(id) ?? estimateSize(node, app.get().specs);
    return [{ id, x: node.pos[0], y: node.pos[1], width, height }];
  });
}

/** A frame around the selection, or an empty one. */
export function group(): void {
  const around = boxes();
  const [x, y] = somewhere();
  const left = Math.min(...around.map((box) => box.x));
  const top = Math.min(...around.map((box) => box.y));
  const right = Math.max(...around.map((box) => box.x + box.width));
  const bottom = Math.max(...around.map((box) => box.y + box.height));
  const bounds = around.length ? ([left - 24, top - 56, right - left + 48, bottom - top + 80] as const) : ([x, y, 420, 260] as const);
  edit("group", (scope) => addGroup(scope, bounds.map(Math.round) as unknown as typeof bounds));
}

export function note(): void {
  place(NOTE, undefined);
}

/** Puts the nodes of the selected subgraphs in their places. */
export function unpackSubgraph(): void {
  const tab = activeTab();
  if (!tab) return;
  const instances = [...tab.selected].filter((id) => isInstance(id));
  let placed: string[] = [];
  editDoc("unpack a subgraph", (doc) => instances.reduce((it, id) => {
    const done = unpack(it, scopeId(tab), id);
    placed = [...placed, ...done.nodes];
    return done.doc;
  }, doc));
  select(placed);
}

/** Whether a node of the scope that is open stands for a subgraph. */
export function isInstance(id: string): boolean {
  const tab = activeTab();
  const type = tab && currentScope(tab).nodes[id]?.type;
  return type !== undefined && type !== "" && type in tab!.doc.scopes;
}

export function layout(): void {
  const tab = activeTab();
  if (!tab) return;
  const only = tab.selected.size > 1 ? tab.selected : undefined;
  edit("lay out", (scope, _, specs) => layered(scope, specs, only, measured()));
  if (!only) requestAnimationFrame(() => void view.flow?.fitView({ padding: 0.15, maxZoom: 1.2, includeHiddenNodes: true }));
}

/** Moves the selection by keys: a row of moves is one step to take back. */
export function nudge(side: "Left" | "Right" | "Up" | "Down", far: boolean): void {
  const tab = activeTab();
  if (!tab) return;
  const by = far ? 60 : 10;
  const [x, y] = { Left: [-by, 0], Right: [by, 0], Up: [0, -by], Down: [0, by] }[side] as [number, number];
  edit("move", (scope) => updateNodes(scope, tab.selected, (node) => ({ ...node, pos: [node.pos[0] + x, node.pos[1] + y] })), `nudge ${[...tab.selected].join()}`);
}

export function align(side: Side): void {
  const places = aligned(boxes(), side);
  edit("align", (scope) => moveNodes(scope, places));
}

/** The selection as one node that can be opened. */
export function intoSubgraph(): void {
  const tab = activeTab();
  if (!tab || tab.selected.size === 0) return;
  let made: string | undefined;
  editDoc("turn into a subgraph", (doc) => {
    const result = toSubgraph(doc, scopeId(tab), tab.selected, app.get().specs);
    made = result.instance;
    return result.doc;
  });
  if (made) select([made]);
}

/** Shows the values of the selected nodes in the form, or takes them out. */
export function expose(): void {
  const tab = activeTab();
  if (!tab || tab.path.length) return;
  const { specs } = app.get();
  const scope = currentScope(tab);
  const names = [...tab.selected].flatMap((id) => {
    const node = scope.nodes[id];
    return node && !isVirtual(node.type) ? portsOf(tab.doc, scope, node, specs).inputs.filter((input) => input.widget).map((input) => `${id}.${input.name}`) : [];
  });
  const all = names.every((name) => tab.doc.exposed.includes(name));
  editDoc("choose what the form shows", (doc) => ({ ...doc, exposed: all ? doc.exposed.filter((name) => !names.includes(name)) : [...new Set([...doc.exposed, ...names])] }));
  toast(all ? "taken out of the form" : "shown in the form", "info");
}

export { middle, updateTab };
