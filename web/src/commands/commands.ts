// Everything that can be done, as data: the keyboard, menus, the command list and the help sheet read this one table.

import { cancelCurrent, queueRun } from "../state/running.ts";
import { activeTab, app, closeTab, currentScope, editDoc, leaveScope, newTab, openScope, pathPrefix, redoStep, select, show, tabOf, undoStep, update } from "../state/app.ts";
import { chooseFile, downloadGraph, exportApi, save } from "../state/files.ts";
import { view } from "../canvas/view.ts";
import { COLORS } from "./colors.ts";
import * as graph from "./graph.ts";

export interface Command {
  id: string;
  label: string;
  group: "Run" | "Edit" | "Nodes" | "View" | "File";
  /** Such as `Ctrl+Z`; on a Mac, Ctrl is the command key. */
  keys?: readonly string[];
  /** Whether it makes sense now. */
  when?(): boolean;
  run(event?: KeyboardEvent): unknown;
}

const hasTab = () => activeTab() !== undefined && app.get().view === "canvas";
const hasSelection = () => hasTab() && (activeTab()!.selected.size > 0 || activeTab()!.selectedGroups.size > 0);
const hasNodes = () => hasTab() && activeTab()!.selected.size > 0;
const several = () => hasTab() && activeTab()!.selected.size > 1;

/** Nodes whose result a run up to the selection needs, as ids of the prompt. */
function targets(): string[] {
  const tab = activeTab();
  return tab ? [...tab.selected].map((id) => pathPrefix(tab) + id) : [];
}

export const COMMANDS: readonly Command[] = [
  { id: "run", label: "Run", group: "Run", keys: ["Ctrl+Enter"], when: () => activeTab() !== undefined, run: () => queueRun() },
  { id: "run-to", label: "Run up to the selected nodes", group: "Run", keys: ["Ctrl+Shift+Enter"], when: hasNodes, run: () => queueRun(targets()) },
  { id: "cancel", label: "Cancel what runs", group: "Run", keys: ["Ctrl+Alt+Enter"], run: () => cancelCurrent() },
  { id: "queue", label: "Show the queue", group: "Run", keys: ["Q"], run: () => togglePanel("queue") },
  { id: "report", label: "Times and memory of the last run", group: "Run", keys: ["T"], when: hasTab, run: () => show({ kind: "why" }) },
  { id: "gallery", label: "Show the results", group: "Run", keys: ["G"], run: () => togglePanel("gallery") },

  { id: "undo", label: "Undo", group: "Edit", keys: ["Ctrl+Z"], when: hasTab, run: undoStep },
  { id: "redo", label: "Redo", group: "Edit", keys: ["Ctrl+Shift+Z", "Ctrl+Y"], when: hasTab, run: redoStep },
  { id: "copy", label: "Copy", group: "Edit", keys: ["Ctrl+C"], when: hasSelection, run: graph.copy },
  { id: "cut", label: "Cut", group: "Edit", keys: ["Ctrl+X"], when: hasSelection, run: graph.cutOut },
  { id: "duplicate", label: "Duplicate with wires", group: "Edit", keys: ["Ctrl+D"], when: hasSelection, run: graph.duplicate },
  { id: "delete", label: "Delete", group: "Edit", keys: ["Delete", "Backspace"], when: () => hasSelection() || view.selectedWires.size > 0, run: () => graph.remove(false) },
  { id: "delete-heal", label: "Delete and join what it joined", group: "Edit", keys: ["Ctrl+Delete", "Ctrl+Backspace"], when: hasNodes, run: () => graph.remove(true) },
  { id: "select-all", label: "Select all", group: "Edit", keys: ["Ctrl+A"], when: hasTab, run: graph.selectAll },
  { id: "deselect", label: "Select nothing", group: "Edit", keys: ["Escape"], when: hasTab, run: () => { select([]); view.unmarkWires?.(); } },

  { id: "add", label: "Add a node", group: "Nodes", keys: ["/", "Tab"], when: hasTab, run: () => show({ kind: "palette" }) },
  { id: "connect", label: "Wire the selected node", group: "Nodes", keys: ["W"], when: () => hasTab() && activeTab()!.selected.size === 1, run: () => show({ kind: "connect", node: [...activeTab()!.selected][0]! }) },
  { id: "enter", label: "Edit the selected node's values", group: "Nodes", keys: ["Enter"], when: () => hasTab() && activeTab()!.selected.size === 1, run: graph.focusWidget },
  { id: "next", label: "Select the next node", group: "Nodes", keys: ["N"], when: hasTab, run: () => graph.selectNext(1) },
  { id: "previous", label: "Select the node before", group: "Nodes", keys: ["Shift+N"], when: hasTab, run: () => graph.selectNext(-1) },
  ...(["Left", "Right", "Up", "Down"] as const).map((side): Command => ({ id: `move-${side.toLowerCase()}`, label: `Move ${side.toLowerCase()} (Shift: farther)`, group: "Nodes", keys: [`Arrow${side}`, `Shift+Arrow${side}`], when: hasNodes, run: (event) => graph.nudge(side, event?.shiftKey ?? false) })),
  { id: "rename", label: "Rename", group: "Nodes", keys: ["F2"], when: hasNodes, run: graph.rename },
  { id: "mute", label: "Mute, or no more", group: "Nodes", keys: ["Ctrl+M", "M"], when: hasNodes, run: graph.mute },
  { id: "bypass", label: "Bypass, or no more", group: "Nodes", keys: ["Ctrl+B", "B"], when: hasNodes, run: graph.bypass },
  { id: "collapse", label: "Fold, or unfold", group: "Nodes", keys: ["Alt+C", "C"], when: hasNodes, run: graph.collapse },
  { id: "unfold", label: "Show seldom used values, or fold them away", group: "Nodes", keys: ["A"], when: hasNodes, run: graph.unfold },
  { id: "group", label: "Put a group around", group: "Nodes", keys: ["Ctrl+G"], when: hasTab, run: graph.group },
  { id: "note", label: "Add a note", group: "Nodes", keys: ["Shift+T"], when: hasTab, run: graph.note },
  { id: "subgraph", label: "Turn into a subgraph", group: "Nodes", keys: ["Ctrl+Shift+E"], when: hasNodes, run: graph.intoSubgraph },
  { id: "unpack-subgraph", label: "Put the subgraph's nodes in its place", group: "Nodes", keys: ["Ctrl+Shift+U"], when: () => hasNodes() && [...activeTab()!.selected].some(graph.isInstance), run: graph.unpackSubgraph },
  { id: "open-subgraph", label: "Open the subgraph", group: "Nodes", keys: ["Ctrl+ArrowDown"], when: () => openable() !== undefined, run: () => openable() && openScope(...openable()!) },
  { id: "leave-subgraph", label: "Leave the subgraph", group: "Nodes", keys: ["Ctrl+ArrowUp"], when: () => hasTab() && activeTab()!.path.length > 0, run: () => leaveScope(activeTab()!.path.length - 1) },
  { id: "layout", label: "Lay out", group: "Nodes", keys: ["L"], when: hasTab, run: graph.layout },
  { id: "align-left", label: "Align left", group: "Nodes", keys: ["Alt+ArrowLeft"], when: several, run: () => graph.align("left") },
  { id: "align-right", label: "Align right", group: "Nodes", keys: ["Alt+ArrowRight"], when: several, run: () => graph.align("right") },
  { id: "align-top", label: "Align at the top", group: "Nodes", keys: ["Alt+ArrowUp"], when: several, run: () => graph.align("top") },
  { id: "align-bottom", label: "Align at the bottom", group: "Nodes", keys: ["Alt+ArrowDown"], when: several, run: () => graph.align("bottom") },
  ...COLORS.map(([name, color]): Command => ({ id: `color-${name}`, label: `Colour: ${name}`, group: "Nodes", when: hasNodes, run: () => graph.recolor(color) })),
  { id: "expose", label: "Show the values in the form, or no more", group: "Nodes", keys: ["F"], when: hasNodes, run: graph.expose },

  { id: "fit", label: "See all", group: "View", keys: ["."], when: hasTab, run: () => view.flow?.fitView({ padding: 0.15, maxZoom: 1.2, duration: motion(), includeHiddenNodes: true }) },
  { id: "fit-selection", label: "See the selection", group: "View", keys: ["Shift+."], when: hasNodes, run: () => view.flow?.fitView({ padding: 0.3, maxZoom: 1.5, duration: motion(), includeHiddenNodes: true, nodes: [...activeTab()!.selected].map((id) => ({ id })) }) },
  { id: "find", label: "Go to a node", group: "View", keys: ["Ctrl+F"], when: hasTab, run: () => show({ kind: "find" }) },
  { id: "zoom-in", label: "Nearer", group: "View", keys: ["+", "="], when: hasTab, run: () => view.flow?.zoomIn({ duration: motion() }) },
  { id: "zoom-out", label: "Farther", group: "View", keys: ["-"], when: hasTab, run: () => view.flow?.zoomOut({ duration: motion() }) },
  { id: "snap", label: "Snap to the grid, or no more", group: "View", keys: ["Shift+G"], run: () => { update({ snap: !app.get().snap }); localStorage.setItem("paraflow.snap", app.get().snap ? "on" : "off"); } },
  { id: "minimap", label: "Show the overview, or hide it", group: "View", keys: ["Shift+M"], run: () => { update({ minimap: !app.get().minimap }); localStorage.setItem("paraflow.minimap", app.get().minimap ? "on" : "off"); } },
  { id: "form", label: "Form or canvas", group: "View", keys: ["Shift+F"], when: () => activeTab() !== undefined, run: () => update({ view: app.get().view === "form" ? "canvas" : "form" }) },
  { id: "start", label: "Start page", group: "View", keys: ["Shift+H"], run: () => update({ view: "start" }) },
  { id: "theme", label: "Dark or light", group: "View", run: toggleTheme },
  { id: "help", label: "Keys and help", group: "View", keys: ["?", "F1"], run: () => show({ kind: "help" }) },
  { id: "commands", label: "All commands", group: "View", keys: ["Ctrl+K", "Ctrl+Shift+P"], run: () => show({ kind: "commands" }) },

  { id: "new", label: "New graph", group: "File", keys: ["Alt+N"], run: () => newTab() },
  { id: "open", label: "Open…", group: "File", keys: ["Ctrl+O"], run: () => show({ kind: "files", saveAs: false }) },
  { id: "open-disk", label: "Open from this computer…", group: "File", run: chooseFile },
  { id: "save", label: "Save", group: "File", keys: ["Ctrl+S"], when: () => activeTab() !== undefined, run: save },
  { id: "save-as", label: "Save as…", group: "File", keys: ["Ctrl+Shift+S"], when: () => activeTab() !== undefined, run: () => show({ kind: "files", saveAs: true }) },
  { id: "download", label: "Download the graph", group: "File", when: () => activeTab() !== undefined, run: downloadGraph },
  { id: "export-api", label: "Export for the API", group: "File", when: () => activeTab() !== undefined, run: exportApi },
  { id: "close", label: "Close the tab", group: "File", keys: ["Alt+W"], when: () => activeTab() !== undefined, run: () => closeTab(app.get().active) },
  { id: "next-tab", label: "Next tab", group: "File", keys: ["Alt+PageDown"], run: () => turnTab(1) },
  { id: "previous-tab", label: "Tab before", group: "File", keys: ["Alt+PageUp"], run: () => turnTab(-1) },
];

function motion(): number {
  return matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 200;
}

function togglePanel(panel: "gallery" | "queue"): void {
  update({ panel: app.get().panel === panel ? "none" : panel });
}

/** The subgraph of the selected instance. */
function openable(): [string, string] | undefined {
  const tab = activeTab();
  const id = tab && tab.selected.size === 1 ? [...tab.selected][0]! : undefined;
  const type = id === undefined ? undefined : currentScope(tab!).nodes[id]?.type;
  return type && tab!.doc.scopes[type] ? [type, id!] : undefined;
}

function turnTab(by: number): void {
  const { tabs, active } = app.get();
  const next = tabs[(tabs.findIndex((tab) => tab.key === active) + by + tabs.length) % tabs.length];
  if (next) update({ active: next.key, view: "canvas" });
}

export function toggleTheme(): void {
  const dark = document.documentElement.dataset["theme"] === "dark";
  update({ theme: dark ? "light" : "dark" });
  localStorage.setItem("paraflow.theme", dark ? "light" : "dark");
}

export function command(id: string): Command | undefined {
  return COMMANDS.find((it) => it.id === id);
}

const isMac = /Mac|iPhone|iPad/.test(navigator.userAgent);

/** A key combination as it is shown. */
export function showKeys(keys: string): string {
  const words: Record<string, string> = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", Delete: "Del" };
  return keys.split(/\+(?=.)/).map((key) => (isMac && key === "Ctrl" ? "⌘" : (words[key] ?? key))).join("+");
}

/** Whether a key event is a combination. */
export function isKeys(event: KeyboardEvent, keys: string): boolean {
  const parts = keys.split(/\+(?=.)/);
  const key = parts.at(-1)!;
  const symbol = !/^[A-Z]$|^[A-Z][a-zA-Z0-9]+$/.test(key);
  const shift = parts.includes("Shift");
  const modifiers = (event.ctrlKey || event.metaKey) === parts.includes("Ctrl") && event.altKey === parts.includes("Alt");
  if (!modifiers) return false;
  if (symbol && key !== ".") return event.key === key;
  if (event.shiftKey !== shift) return false;
  if (key === ".") return event.code === "Period" || event.key === ".";
  return event.key.toLowerCase() === key.toLowerCase() || (/^[A-Z]$/.test(key) && event.code === `Key${key}` && event.altKey);
}

const inText = (target: EventTarget | null) => target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) && !["checkbox", "range", "color", "file"].includes((target as HTMLInputElement).type);

/** Runs the command that a key event stands for. */
export function onKey(event: KeyboardEvent): void {
  if (event.defaultPrevented) return;
  const typing = inText(event.target);
  if (app.get().overlay && event.key !== "Enter") {
    if (event.key === "Escape") show(undefined);
    return;
  }
  for (const it of COMMANDS) {
    const keys = it.keys?.find((combination) => isKeys(event, combination));
    if (!keys) continue;
    const everywhere = ["run", "run-to", "cancel", "save", "save-as", "help", "commands"].includes(it.id) && /Ctrl|F1/.test(keys);
    if (typing && !everywhere) continue;
    if (it.id === "enter" && !onCanvas(event.target)) continue;
    if (it.id === "add" && keys === "Tab" && !event.isTrusted) continue;
    if (keys === "Tab") continue;
    if (it.when && !it.when()) continue;
    event.preventDefault();
    void it.run(event);
    return;
  }
}

const onCanvas = (target: EventTarget | null) => target === document.body || (target instanceof HTMLElement && (target.classList.contains("react-flow__node") || target.classList.contains("react-flow__pane")));

export { editDoc, tabOf };
