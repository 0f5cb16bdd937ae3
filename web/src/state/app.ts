// The documents that are open, what is selected in them, and what is shown over them. Every edit goes through `edit`.

import { sameJson, type Json } from "../graph/json.ts";
import { type Doc, type NodeId, ROOT, type Scope, emptyDoc, scopeOf } from "../graph/model.ts";
import { type Log, emptyLog, record, redo, undo } from "../graph/history.ts";
import { setValue, withScope } from "../graph/edit.ts";
import { type Specs, readSpecs } from "../graph/specs.ts";
import { createStore, useStore } from "./store.ts";

export interface Tab {
  key: string;
  name: string;
  doc: Doc;
  /** The document as it is in its file. */
  saved: Doc | undefined;
  /** The file's name on the server, and its version. */
  file?: string;
  etag?: string;
  log: Log<Doc>;
  /** The instances of subgraphs that are opened one in another. */
  path: readonly { scope: string; node: NodeId }[];
  selected: ReadonlySet<NodeId>;
  selectedGroups: ReadonlySet<string>;
}

/** What is shown over the canvas. */
export type Overlay =
  | { kind: "palette"; at?: readonly [number, number]; wire?: WireEnd }
  | { kind: "commands" }
  | { kind: "find" }
  | { kind: "connect"; node: NodeId }
  | { kind: "help" }
  | { kind: "menu"; x: number; y: number; node?: NodeId; group?: string; wire?: string }
  | { kind: "viewer"; items: readonly Shown[]; index: number; compare?: number }
  | { kind: "mask"; node: NodeId; input: string; value: string }
  | { kind: "files"; saveAs: boolean }
  | { kind: "why"; node?: NodeId };

/** A wire that is being drawn: from an output, or backwards from an input. */
export type WireEnd = { from: NodeId; out: number; type: string } | { to: NodeId; input: string; type: string };

/** A picture with where it comes from. */
export interface Shown {
  url: string;
  name: string;
  run?: string;
}

export type View = "canvas" | "start" | "form";
export type Panel = "none" | "gallery" | "queue";

export interface Toast {
  key: number;
  text: string;
  kind: "info" | "error";
  hint?: string;
}

export interface AppState {
  tabs: readonly Tab[];
  active: string;
  view: View;
  panel: Panel;
  overlay?: Overlay;
  toasts: readonly Toast[];
  specs: Specs;
  /** Whether the classes are known by now; until then no file is read. */
  ready: boolean;
  batch: number;
  theme: "dark" | "light" | "system";
  snap: boolean;
  minimap: boolean;
  /** The kind that is being wired, so that sockets show whether they fit. */
  wiring?: WireEnd;
}

export const app = createStore<AppState>({
  tabs: [], active: "", view: "start", panel: "none", toasts: [], specs: new Map(), ready: false, batch: 1,
  theme: (localStorage.getItem("paraflow.theme") as AppState["theme"] | null) ?? "system",
  snap: localStorage.getItem("paraflow.snap") === "on", minimap: localStorage.getItem("paraflow.minimap") !== "off",
});

export const useApp = <P>(select: (state: AppState) => P): P => useStore(app, select);

export function update(change: Partial<AppState>): void {
  app.set((state) => ({ ...state, ...change }));
}

export function setSpecs(info: Json): void {
  update({ specs: readSpecs(info) });
}

export function tabOf(state: AppState): Tab | undefined {
  return state.tabs.find((tab) => tab.key === state.active);
}

export function activeTab(): Tab | undefined {
  return tabOf(app.get());
}

export function scopeId(tab: Tab): string {
  return tab.path.at(-1)?.scope ?? ROOT;
}

export function currentScope(tab: Tab): Scope {
  return scopeOf(tab.doc, scopeId(tab));
}

/** What ids of the opened subgraph begin with in a prompt. */
export function pathPrefix(tab: Tab): string {
  return tab.path.map((step) => `${step.node}:`).join("");
}

export const useTab = <P>(select: (tab: Tab, state: AppState) => P): P | undefined =>
  useApp((state) => {
    const tab = tabOf(state);
    return tab && select(tab, state);
  });

function changeTab(key: string, change: (tab: Tab) => Tab): void {
  app.set((state) => ({ ...state, tabs: state.tabs.map((tab) => (tab.key === key ? change(tab) : tab)) }));
}

export function updateTab(change: (tab: Tab) => Tab, key = app.get().active): void {
  changeTab(key, change);
}

/** How a graph is shown first: on a phone, and if there is something to fill in, as a form. */
export function firstView(doc: Doc): View {
  return matchMedia("(max-width: 720px)").matches && Object.keys(scopeOf(doc, ROOT).nodes).length > 0 ? "form" : "canvas";
}

let lastKey = 0;

export function newTab(doc: Doc = emptyDoc(), name = "Untitled", rest: Partial<Tab> = {}): Tab {
  const tab: Tab = {
    key: `${Date.now().toString(36)}-${++lastKey}`, name, doc, saved: doc, log: emptyLog(), path: [], selected: new Set(), selectedGroups: new Set(), ...rest,
  };
  app.set((state) => ({ ...state, tabs: [...state.tabs, tab], active: tab.key, view: firstView(doc), overlay: undefined }));
  return tab;
}

export function closeTab(key: string): void {
  app.set((state) => {
    const index = state.tabs.findIndex((tab) => tab.key === key);
    const tabs = state.tabs.filter((tab) => tab.key !== key);
    const active = state.active === key ? (tabs[Math.min(index, tabs.length - 1)]?.key ?? "") : state.active;
    return { ...state, tabs, active, view: tabs.length ? state.view : "start" };
  });
}

export function isUnsaved(tab: Tab): boolean {
  return tab.doc !== tab.saved;
}

/** Changes the document and remembers how to take it back. */
export function editDoc(label: string, change: (doc: Doc) => Doc, merge?: string): void {
  const tab = activeTab();
  if (!tab) return;
  const after = change(tab.doc);
  if (after === tab.doc) return;
  changeTab(tab.key, (it) => ({ ...it, doc: after, log: record(it.log, label, it.doc, after, Date.now(), merge) }));
}

/** Changes the scope that is open. */
export function edit(label: string, change: (scope: Scope, doc: Doc, specs: Specs) => Scope, merge?: string): void {
  const tab = activeTab();
  if (tab) editDoc(label, (doc) => withScope(doc, change(scopeOf(doc, scopeId(tab)), doc, app.get().specs)), merge);
}

/** Changes a document without a step to take back: seeds that move between runs. */
export function amend(key: string, change: (doc: Doc) => Doc): void {
  changeTab(key, (tab) => {
    const doc = change(tab.doc);
    return doc === tab.doc ? tab : { ...tab, doc };
  });
}

export function undoStep(): void {
  step(undo, "undone");
}

export function redoStep(): void {
  step(redo, "redone");
}

function step(move: typeof undo<Doc>, word: string): void {
  const tab = activeTab();
  const moved = tab && move(tab.log);
  if (!tab || !moved) return;
  changeTab(tab.key, (it) => {
    const path = it.path.filter((part) => moved.value.scopes[part.scope]);
    const there = scopeOf(moved.value, path.at(-1)?.scope ?? ROOT).nodes;
    return { ...it, doc: moved.value, log: moved.log, path, selected: new Set([...it.selected].filter((id) => there[id])) };
  });
  announce(`${moved.label}: ${word}`);
}

/** Sets a value; that of a promoted widget (`7:seed`) lies in its inner node. */
export function setNodeValue(id: NodeId, input: string, value: Json): void {
  const tab = activeTab();
  if (!tab) return;
  const scope = currentScope(tab);
  const node = scope.nodes[id];
  if (!node || sameJson(node.values[input], value)) return;
  const inner = tab.doc.scopes[node.type];
  const [innerId, ...name] = input.split(":");
  if (inner && node.type && innerId && name.length) {
    editDoc("change a value", (doc) => withScope(doc, setValue(scopeOf(doc, inner.id), innerId, name.join(":"), value)), `value ${inner.id} ${input}`);
  } else {
    edit("change a value", (it) => setValue(it, id, input, value), `value ${id} ${input}`);
  }
}

export function select(ids: Iterable<NodeId>, groups: Iterable<string> = []): void {
  updateTab((tab) => ({ ...tab, selected: new Set(ids), selectedGroups: new Set(groups) }));
}

export function openScope(scope: string, node: NodeId): void {
  updateTab((tab) => ({ ...tab, path: [...tab.path, { scope, node }], selected: new Set(), selectedGroups: new Set() }));
}

export function leaveScope(depth: number): void {
  updateTab((tab) => ({ ...tab, path: tab.path.slice(0, depth), selected: new Set(), selectedGroups: new Set() }));
}

let lastToast = 0;

export function toast(text: string, kind: Toast["kind"] = "info", hint?: string): void {
  const key = ++lastToast;
  app.set((state) => ({ ...state, toasts: [...state.toasts.slice(-3), { key, text, kind, ...(hint ? { hint } : {}) }] }));
  setTimeout(() => dismiss(key), kind === "error" ? 9000 : 3500);
}

export function dismiss(key: number): void {
  app.set((state) => ({ ...state, toasts: state.toasts.filter((it) => it.key !== key) }));
}

/** Says something to those who listen to the screen. */
export function announce(text: string): void {
  const region = document.getElementById("announcements");
  if (region) region.textContent = text;
}

export function show(overlay: Overlay | undefined): void {
  update({ overlay });
}

/** How often each class was put onto a canvas. */
export function uses(): Record<string, number> {
  try {
    return JSON.parse(localStorage.getItem("paraflow.uses") ?? "{}") as Record<string, number>;
  } catch {
    return {};
  }
}

export function countUse(type: string): void {
  const counts = uses();
  counts[type] = (counts[type] ?? 0) + 1;
  localStorage.setItem("paraflow.uses", JSON.stringify(counts));
}
