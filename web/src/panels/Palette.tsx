// Searching: for a node to add, for what a wire may go to, for a command.

import { type KeyboardEvent, type ReactNode, useEffect, useMemo, useRef, useState } from "react";
import { COMMANDS, showKeys } from "../commands/commands.ts";
import { focusCanvasNode, goTo, place } from "../commands/graph.ts";
import { connect, disconnect } from "../graph/edit.ts";
import { type Doc, type GraphNode, ROOT, type Scope, type Wire } from "../graph/model.ts";
import { portsOf, wireRefusal } from "../graph/ports.ts";
import { type Searchable, search } from "../graph/search.ts";
import type { Specs } from "../graph/specs.ts";
import { fits, typeColor } from "../graph/types.ts";
import { MARKDOWN_NOTE, NOTE, REROUTE } from "../graph/virtual.ts";
import { activeTab, app, currentScope, edit, select, show, uses, type WireEnd } from "../state/app.ts";

interface Item extends Searchable {
  detail?: string;
  color?: string;
  badge?: string;
  run(): void;
}

interface Props {
  label: string;
  placeholder: string;
  items: readonly Item[];
  ranked?: boolean;
  at?: readonly [number, number];
  empty: string;
  note?: ReactNode;
}

function Palette({ label, placeholder, items, ranked, at, empty, note }: Props) {
  const [query, setQuery] = useState("");
  const [index, setIndex] = useState(0);
  const list = useRef<HTMLUListElement>(null);
  const counts = useMemo(() => (ranked ? uses() : {}), [ranked]);
  const found = useMemo(() => search(query, items, counts).slice(0, 80), [query, items, counts]);
  useEffect(() => {
    // Newer browsers return a promise here, which is no clean-up.
    void list.current?.children[index]?.scrollIntoView({ block: "nearest" });
  }, [index, found]);
  const choose = (item: Item | undefined) => {
    if (!item) return;
    show(undefined);
    item.run();
  };
  const onKey = (event: KeyboardEvent) => {
    event.stopPropagation();
    if (event.key === "Escape") show(undefined);
    else if (event.key === "ArrowDown" || (event.key === "Tab" && !event.shiftKey)) setIndex(Math.min(index + 1, found.length - 1));
    else if (event.key === "ArrowUp" || event.key === "Tab") setIndex(Math.max(index - 1, 0));
    else if (event.key === "Enter") choose(found[index]);
    else return;
    event.preventDefault();
  };
  const style = at ? { left: Math.max(8, Math.min(at[0], innerWidth - 400)), top: Math.max(8, Math.min(at[1], innerHeight - 430)) } : undefined;
  return (
    <div className="shade light" onPointerDown={(event) => event.target === event.currentTarget && show(undefined)}>
      <div className={`palette${at ? " at" : ""}`} style={style} role="dialog" aria-label={label} onKeyDown={onKey}>
        <input autoFocus role="combobox" aria-expanded aria-controls="palette-list" aria-activedescendant={found[index] ? `palette-${index}` : undefined} aria-label={label} placeholder={placeholder} value={query} onChange={(event) => { setQuery(event.target.value); setIndex(0); }} spellCheck={false} />
        {note}
        <ul id="palette-list" role="listbox" ref={list} aria-label={label}>
          {found.map((item, position) => (
            <li key={item.name} id={`palette-${position}`} role="option" aria-selected={position === index} onPointerMove={() => setIndex(position)} onClick={() => choose(item)}>
              {item.color && <i style={{ background: item.color }} />}
              <span>{item.title}</span>
              {item.badge && <kbd>{item.badge}</kbd>}
              <small>{item.detail ?? item.category}</small>
            </li>
          ))}
        </ul>
        {found.length === 0 && <p className="quiet">{empty}</p>}
      </div>
    </div>
  );
}

/** All that can be put on the canvas: classes, subgraphs of this graph, notes and reroutes. */
function nodeItems(specs: Specs, doc: Doc | undefined, at: readonly [number, number] | undefined, wire: WireEnd | undefined): Item[] {
  const classes = [...specs.values()].filter((spec) => !spec.deprecated && takes(wire, spec.inputs, spec.outputs));
  const items = classes.map((spec): Item => ({
    name: spec.name, title: spec.title, category: spec.category, color: typeColor(spec.outputs[0]?.type ?? "*"),
    ...(spec.experimental ? { badge: "beta" } : {}), run: () => void place(spec.name, at, wire),
  }));
  const inner = Object.values(doc?.scopes ?? {}).filter((scope) => scope.id !== ROOT && takes(wire, scope.inputs, scope.outputs));
  for (const scope of inner) items.push({ name: scope.id, title: scope.name, category: "subgraph", color: "var(--accent)", run: () => void place(scope.id, at, wire) });
  const extras: [string, string][] = wire ? [[REROUTE, "Reroute"]] : [[REROUTE, "Reroute"], [NOTE, "Note"], [MARKDOWN_NOTE, "Markdown note"]];
  for (const [name, title] of extras) items.push({ name, title, category: "canvas", color: "var(--muted)", run: () => void place(name, at, wire) });
  return items;
}

function takes(wire: WireEnd | undefined, inputs: readonly { type: string }[], outputs: readonly { type: string }[]): boolean {
  if (!wire) return true;
  return "from" in wire ? inputs.some((input) => fits(wire.type, input.type)) : outputs.some((output) => fits(output.type, wire.type));
}

export function NodePalette({ at, wire }: { at?: readonly [number, number]; wire?: WireEnd }) {
  const items = useMemo(() => nodeItems(app.get().specs, activeTab()?.doc, at, wire), [at, wire]);
  const label = wire ? `Nodes that ${"from" in wire ? "take" : "give"} ${wire.type}` : "Add a node";
  return <Palette label={label} placeholder={wire ? `${label}…` : "Search nodes…"} items={items} ranked at={at} empty={app.get().specs.size ? "no node of that name" : "the server told of no nodes"} />;
}

export function CommandPalette() {
  const items = useMemo(() => COMMANDS.filter((it) => it.id !== "commands" && (!it.when || it.when())).map((it): Item => ({ name: it.id, title: it.label, category: it.group, ...(it.keys ? { badge: showKeys(it.keys[0]!) } : {}), run: () => void it.run() })), []);
  return <Palette label="All commands" placeholder="What shall happen?" items={items} empty="no such command" />;
}

/** To a node of the scope that is open, by its title, class or id. */
export function FindPalette() {
  const items = useMemo(() => {
    const tab = activeTab();
    const { specs } = app.get();
    return Object.values(tab ? currentScope(tab).nodes : {}).map((node): Item => {
      const known = specs.get(node.type);
      const title = node.title ?? tab?.doc.scopes[node.type]?.name ?? known?.title ?? node.type;
      return { name: `${node.type} ${node.id}`, title: title || node.type, detail: `${known?.title ?? node.type} ${node.id}`, color: typeColor(known?.outputs[0]?.type ?? "*"), run: () => goTo(node.id) };
    });
  }, []);
  return <Palette label="Go to a node" placeholder="Title, class or id…" items={items} empty="no such node here" />;
}

/** For the keyboard: every wire that the node can get, then to nodes that are not there yet. */
export function ConnectPalette({ node }: { node: string }) {
  const items = useMemo(() => connectItems(node), [node]);
  return <Palette label="Wire this node" placeholder="From socket, to socket…" items={items} empty="nothing here fits its sockets" />;
}

function connectItems(id: string): Item[] {
  const tab = activeTab();
  const node = tab && currentScope(tab).nodes[id];
  if (!tab || !node) return [];
  const { specs } = app.get();
  const scope = currentScope(tab);
  const ports = portsOf(tab.doc, scope, node, specs);
  const others = Object.values(scope.nodes).filter((it) => it.id !== id);
  const name = (it: typeof node) => it.title ?? specs.get(it.type)?.title ?? it.type;
  const join = (from: string, out: number, to: string, input: string, type: string) => () => {
    edit("connect", (it) => connect(it, from, out, to, input, type));
    select([id]);
    focusCanvasNode(id);
  };
  const items: Item[] = [];
  const allowed = (from: string, out: number, to: string, input: string) => !wireRefusal(tab.doc, scope as Scope, specs, from, out, to, input);
  for (const other of others) {
    const there = portsOf(tab.doc, scope, other, specs);
    ports.inputs.forEach((input) => there.outputs.forEach((output, out) => {
      if ((input.widget && output.type === "*") || !allowed(other.id, out, id, input.name)) return;
      items.push({ name: `in ${input.name} ${other.id} ${out}`, title: `${input.name} ← ${name(other)}`, detail: `${output.name}${input.widget ? " (value)" : ""}`, category: output.type, color: typeColor(output.type), run: join(other.id, out, id, input.name, output.type) });
    }));
    ports.outputs.forEach((output, out) => there.inputs.forEach((input) => {
      if ((input.widget && output.type === "*") || !allowed(id, out, other.id, input.name)) return;
      items.push({ name: `out ${out} ${other.id} ${input.name}`, title: `${output.name} → ${name(other)}`, detail: input.name, category: output.type, color: typeColor(output.type), run: join(id, out, other.id, input.name, output.type) });
    }));
  }
  ports.outputs.forEach((output, out) => items.push({ name: `new out ${out}`, title: `${output.name} → a new node…`, detail: output.type, color: typeColor(output.type), run: () => show({ kind: "palette", wire: { from: id, out, type: output.type } }) }));
  ports.inputs.filter((input) => !input.widget).forEach((input) => items.push({ name: `new in ${input.name}`, title: `${input.name} ← a new node…`, detail: input.type, color: typeColor(input.type), run: () => show({ kind: "palette", wire: { to: id, input: input.name, type: input.type } }) }));
  for (const wire of Object.values(scope.wires).filter((it) => it.from === id || it.to === id)) items.push(takeOff(scope, wire, id, name));
  return items;
}

function takeOff(scope: Scope, wire: Wire, id: string, name: (node: GraphNode) => string): Item {
  const other = scope.nodes[wire.to === id ? wire.from : wire.to];
  const [here, arrow] = wire.to === id ? [wire.input, "←"] : [wire.type, "→"];
  const run = () => {
    edit("take a wire off", (it) => disconnect(it, [wire.id]));
    select([id]);
    focusCanvasNode(id);
  };
  return { name: `off ${wire.id}`, title: `Take off: ${here} ${arrow} ${other ? name(other) : "the border"}`, category: wire.type, color: "var(--bad)", run };
}
