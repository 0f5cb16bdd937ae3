// A node as it is drawn: title, sockets, widgets, what it shows, and how its run goes.

import { Handle, NodeResizeControl, Position, type Node, type NodeProps, useStore as useFlow } from "@xyflow/react";
import { memo, useMemo, useState } from "react";
import { updateNode } from "../graph/edit.ts";
import { foldable, shownInputs } from "../graph/fold.ts";
import { type Side, relabel, removePort } from "../graph/borders.ts";
import { type Port as BorderSocket, type Doc, type GraphNode, INPUT_BORDER, MODE, type Scope, incoming } from "../graph/model.ts";
import { NEW_PORT, type Ports, portsOf, promotedOf } from "../graph/ports.ts";
import type { InputSpec, OutputSpec, Specs } from "../graph/specs.ts";
import type { NodeRun } from "../graph/run.ts";
import { fits, typeColor } from "../graph/types.ts";
import { MARKDOWN_NOTE, PRIMITIVE, REROUTE, VALUE } from "../graph/virtual.ts";
import { activeTab, app, currentScope, edit, editDoc, openScope, pathPrefix, scopeId, setNodeValue, show, useApp, useTab } from "../state/app.ts";
import { faults, outputOf, shownRun, useRuns } from "../state/running.ts";
import { useStore } from "../state/store.ts";
import { Control, WidgetView } from "../widgets/Widget.tsx";
import { type NodeData, inHandle, outHandle } from "./flow.ts";
import { Output, Preview, Training } from "./Output.tsx";

/** Nodes far away are drawn without what could not be read. */
const FAR = 0.28;

export const NodeView = memo(function NodeView({ id, data, selected }: NodeProps<Node<NodeData>>) {
  const { node } = data;
  const far = useFlow((state) => state.transform[2] < FAR);
  const ports = usePorts(node);
  const prefix = useTab(pathPrefix) ?? "";
  const path = prefix + id;
  const doc = useTab((tab) => tab.doc.id) ?? "";
  const isInstance = useTab((tab) => node.type !== "" && node.type in tab.doc.scopes) ?? false;
  const state = useRuns((all) => stateOf(shownRun(all, doc), path, isInstance));
  const errors = useStore(faults, (all) => all[doc]?.[path] ?? shownInner(all[doc], path));
  const title = useTitle(node);
  const classes = ["pf-node", far && "is-far", selected && "selected", node.mode === MODE.muted && "muted", node.mode === MODE.bypassed && "bypassed", !ports.known && "missing", state && `is-${state.state}`, errors && "has-errors"];
  const color = node.color ? ({ "--node-tint": node.color } as React.CSSProperties) : undefined;
  return (
    <div className={classes.filter(Boolean).join(" ")} style={color} role="group" aria-label={`${title}${state ? `, ${state.state}` : ""}`} data-node-type={node.type}>
      <Header node={node} title={title} known={ports.known} time={state?.ms} steps={state?.state === "running" && state.max > 1 ? `${state.value}/${state.max}` : undefined} cached={state?.state === "cached"} path={path} />
      {state?.state === "running" && <div className="node-progress" role="progressbar" aria-valuenow={state.value} aria-valuemax={state.max}><i style={{ transform: `scaleX(${state.max > 1 ? state.value / state.max : 0})` }} className={state.max > 1 ? "" : "unknown"} /></div>}
      {node.collapsed ? <CollapsedPorts ports={ports} /> : far ? <FarBody node={node} ports={ports} /> : <Body node={node} ports={ports} path={path} doc={doc} errors={errors} />}
      {errors && !far && <div className="node-errors" role="alert">{errors.map((error, index) => <p key={index}><b>{error.input ? `${error.input}: ` : ""}</b>{error.message}{error.hint && <em>{error.hint}</em>}</p>)}</div>}
      {selected && !node.collapsed && <Resize node={node} />}
    </div>
  );
});

function Resize({ node }: { node: GraphNode }) {
  return (
    <NodeResizeControl
      minWidth={180} minHeight={40} position="bottom-right" className="resize"
      onResizeEnd={(_, size) => edit("resize", (scope) => updateNode(scope, node.id, (it) => ({ ...it, size: [Math.round(size.width), Math.round(size.height)] })), `size ${node.id}`)}
    />
  );
}

function shownInner(all: Readonly<Record<string, readonly { message: string; input?: string; hint?: string }[]>> | undefined, path: string) {
  if (!all) return undefined;
  const inner = Object.keys(all).find((key) => key.startsWith(`${path}:`));
  const found = all[path] ?? (inner ? all[inner] : undefined);
  return found?.length ? found : undefined;
}

const instances = new WeakMap<object, Map<string, NodeRun | undefined>>();

/** The state of a node, or that of an instance from those within it. */
function stateOf(run: ReturnType<typeof shownRun>, path: string, isInstance: boolean): NodeRun | undefined {
  if (!run) return undefined;
  if (!isInstance) return run.nodes[path];
  if (run.current?.startsWith(`${path}:`)) return run.nodes[run.current];
  let known = instances.get(run.nodes);
  if (!known) instances.set(run.nodes, (known = new Map()));
  if (!known.has(path)) known.set(path, together(Object.entries(run.nodes).filter(([id]) => id.startsWith(`${path}:`)).map(([, it]) => it)));
  return known.get(path);
}

/** Nodes within an instance as one: what failed, else what ran, else what was there. */
function together(inner: readonly NodeRun[]): NodeRun | undefined {
  const worst = inner.find((it) => it.state === "failed") ?? inner.find((it) => it.state !== "cached") ?? inner[0];
  return worst && { ...worst, ...(worst.state === "cached" ? {} : { ms: inner.reduce((sum, it) => sum + (it.state === "cached" ? 0 : (it.ms ?? 0)), 0) }) };
}

const known = new WeakMap<GraphNode, { ports: Ports; wired: string; specs: Specs; deep: Doc | undefined }>();

/** The sockets of a node: made anew when the node, its wires' ends, its class or the subgraph behind it change, so that
 * an edit elsewhere draws nothing here. */
function usePorts(node: GraphNode): Ports {
  return useTab((tab, { specs }) => {
    const scope = currentScope(tab);
    const wired = wiredKey(scope, node.id);
    const deep = (node.type && tab.doc.scopes[node.type]) || node.type === REROUTE ? tab.doc : undefined;
    const found = known.get(node);
    if (found && found.wired === wired && found.specs === specs && found.deep === deep) return found.ports;
    const ports = portsOf(tab.doc, scope, node, specs);
    known.set(node, { ports, wired, specs, deep });
    return ports;
  })!;
}

const wiredKey = (scope: Scope, id: string) => incoming(scope).get(id)?.map((wire) => wire.input).join("\n") ?? "";

function useTitle(node: GraphNode): string {
  const name = useTab((tab) => tab.doc.scopes[node.type]?.name);
  const specTitle = useApp((state) => state.specs.get(node.type)?.title);
  return node.title ?? (node.type ? name : undefined) ?? specTitle ?? node.type;
}

function Header({ node, title, known, time, steps, cached, path }: { node: GraphNode; title: string; known: boolean; time?: number; steps?: string; cached: boolean; path: string }) {
  const [naming, setNaming] = useState(false);
  const spec = useApp((state) => state.specs.get(node.type));
  const isSubgraph = useTab((tab) => node.type !== "" && node.type in tab.doc.scopes);
  const rename = (value: string) => {
    setNaming(false);
    if (value !== title) edit("rename", (scope) => updateNode(scope, node.id, (it) => ({ ...it, title: value || undefined })));
  };
  return (
    <header className="grip" title={spec?.description || undefined} onDoubleClick={(event) => { event.stopPropagation(); isSubgraph ? openScope(node.type, node.id) : setNaming(true); }}>
      <button className="fold nodrag" aria-label={node.collapsed ? "Unfold" : "Fold"} aria-expanded={!node.collapsed} onClick={() => edit("fold", (scope) => updateNode(scope, node.id, (it) => ({ ...it, collapsed: !it.collapsed })))}>
        <svg viewBox="0 0 10 10" aria-hidden><path d={node.collapsed ? "M3 1l4 4-4 4" : "M1 3l4 4 4-4"} /></svg>
      </button>
      {naming ? (
        <input className="nodrag rename" autoFocus defaultValue={title} aria-label="Title" onBlur={(event) => rename(event.target.value)} onKeyDown={(event) => { event.stopPropagation(); if (event.key === "Enter" || event.key === "Escape") event.currentTarget.blur(); }} />
      ) : (
        <span className="title">{title}</span>
      )}
      {isSubgraph && <button className="badge nodrag" onClick={() => openScope(node.type, node.id)} title="Open the subgraph">open</button>}
      {!known && <span className="badge bad" title={`There is no class “${node.type}” here. The node is kept as it is.`}>missing</span>}
      {node.mode === MODE.muted && <span className="badge">muted</span>}
      {node.mode === MODE.bypassed && <span className="badge">bypassed</span>}
      {steps && <span className="time">{steps}</span>}
      {cached && <button className="badge cached nodrag" title="Its result was there already" onClick={() => show({ kind: "why", node: path })}>cached</button>}
      {time !== undefined && !cached && <button className="time nodrag" title="How long it took. Click to see why it ran." onClick={() => show({ kind: "why", node: path })}>{duration(time)}</button>}
    </header>
  );
}

export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

function Body({ node, ports, path, doc, errors }: { node: GraphNode; ports: Ports; path: string; doc: string; errors: readonly { input?: string }[] | undefined }) {
  const wired = useWired(node.id);
  const sockets = ports.inputs.filter((input) => !input.widget);
  const rows = Math.max(sockets.length, ports.outputs.length);
  const bad = new Set(errors?.map((error) => error.input).filter(Boolean));
  const seen = new Set([...wired, ...bad]);
  const widgets = shownInputs(node, ports.inputs, seen).filter((input) => input.widget);
  const promoted = usePromoted(node);
  return (
    <div className="body">
      {rows > 0 && (
        <div className="sockets">
          <div>{sockets.map((input) => <InputRow key={input.name} node={node.id} input={input} wired={wired.has(input.name)} bad={bad.has(input.name)} />)}</div>
          <div>{ports.outputs.map((output, index) => <OutputRow key={index} output={output} index={index} />)}</div>
        </div>
      )}
      {node.type === PRIMITIVE && <PrimitiveValue node={node} />}
      {/* Above the values: a training has many, and its curve is what one watches. */}
      <Training doc={doc} path={path} />
      {widgets.map((input) => (
        <div key={input.name} className={`widget-row${bad.has(input.name) ? " bad" : ""}${wired.has(input.name) ? " wired" : ""}${input.widget?.kind === "text" && input.widget.multiline ? " grows" : ""}`}>
          {!(node.type in (promoted ?? {})) && !input.name.includes(":") && <Port type="target" id={inHandle(input.name)} kind={input.type} name={input.name} small node={node.id} />}
          <WidgetView node={node.id} input={input} value={promoted?.[input.name] ?? node.values[input.name]} disabled={wired.has(input.name)} />
          {input.control && !wired.has(input.name) && !input.name.includes(":") && <Control node={node.id} input={input} value={node.control[input.name] ?? "randomize"} />}
        </div>
      ))}
      <More node={node} folds={foldable(node, ports.inputs, seen).length} />
      {!ports.known && <MissingValues node={node} />}
      <Preview doc={doc} path={path} />
      <Shown doc={doc} path={path} />
    </div>
  );
}

/** Unfolds the values that are seldom set, and folds them away again. */
function More({ node, folds }: { node: GraphNode; folds: number }) {
  if (!folds) return null;
  return (
    <button className="more nodrag" title="Values that are seldom set, and stand at their defaults" aria-expanded={node.unfolded} onClick={() => edit("fold values", (scope) => updateNode(scope, node.id, (it) => ({ ...it, unfolded: !it.unfolded })))}>
      <svg viewBox="0 0 10 10" aria-hidden><path d={node.unfolded ? "M1 7l4-4 4 4" : "M1 3l4 4 4-4"} /></svg>
      {node.unfolded ? "Fewer values" : `${folds} more values`}
    </button>
  );
}

function usePromoted(node: GraphNode): Record<string, GraphNode["values"][string] | undefined> | undefined {
  const specs = useApp((state) => state.specs);
  const doc = useTab((tab) => (tab.doc.scopes[node.type] && node.type ? tab.doc : undefined));
  return useMemo(() => doc && Object.fromEntries(promotedOf(doc, node, specs).map((it) => [`${it.node}:${it.input.name}`, it.value])), [doc, node, specs]);
}

function Shown({ doc, path }: { doc: string; path: string }) {
  const output = useRuns((state) => outputOf(state, doc, path));
  return output ? <Output output={output} doc={doc} path={path} /> : null;
}

/** The inputs of a node that are wired, as a set that changes with them only. */
function useWired(id: string): ReadonlySet<string> {
  const key = useTab((tab) => wiredKey(currentScope(tab), id)) ?? "";
  return useMemo(() => new Set(key === "" ? [] : key.split("\n")), [key]);
}

function InputRow({ node, input, wired, bad }: { node: string; input: InputSpec; wired: boolean; bad: boolean }) {
  return (
    <div className={`socket in${bad ? " bad" : ""}${wired ? " wired" : ""}`} title={`${input.name}: ${input.type}${input.tooltip ? `\n${input.tooltip}` : ""}`}>
      <Port type="target" id={inHandle(input.name)} kind={input.type} name={input.name} node={node} />
      <span className={input.required ? "" : "optional"}>{input.label ?? input.name}</span>
    </div>
  );
}

function OutputRow({ output, index }: { output: OutputSpec; index: number }) {
  return (
    <div className="socket out" title={`${output.name}: ${output.type}${output.tooltip ? `\n${output.tooltip}` : ""}`}>
      <span>{output.label ?? output.name}</span>
      <Port type="source" id={outHandle(index)} kind={output.type} name={output.name} list={output.list} />
    </div>
  );
}

/** A socket. While a wire is drawn it shows whether it fits. */
function Port({ type, id, kind, name, small, list, node }: { type: "source" | "target"; id: string; kind: string; name: string; small?: boolean; list?: boolean; node?: string }) {
  const relation = useApp(({ wiring }) => {
    if (!wiring) return "";
    if (type === "target") return "from" in wiring && wiring.from !== node && fits(wiring.type, kind) ? " fits" : " unfit";
    return "to" in wiring && fits(kind, wiring.type) ? " fits" : " unfit";
  });
  return (
    <Handle
      type={type} id={id} position={type === "source" ? Position.Right : Position.Left}
      className={`port${small ? " small" : ""}${list ? " list" : ""}${relation}`}
      style={{ "--port": typeColor(kind) } as React.CSSProperties} role="img" aria-label={`${type === "source" ? "output" : "input"} ${name}, ${kind}`}
    />
  );
}

function CollapsedPorts({ ports }: { ports: Ports }) {
  return (
    <div className="collapsed-ports">
      {ports.inputs.map((input) => <Handle key={input.name} type="target" id={inHandle(input.name)} position={Position.Left} className="port" style={{ "--port": "var(--muted)" } as React.CSSProperties} />)}
      {ports.outputs.map((output, index) => <Handle key={index} type="source" id={outHandle(index)} position={Position.Right} className="port" style={{ "--port": typeColor(output.type) } as React.CSSProperties} />)}
    </div>
  );
}

/** The sockets in their places and a block for the rest. */
function FarBody({ node, ports }: { node: GraphNode; ports: Ports }) {
  const wired = useWired(node.id);
  const sockets = ports.inputs.filter((input) => !input.widget);
  const widgets = shownInputs(node, ports.inputs, wired).filter((input) => input.widget);
  const side = (list: readonly { type: string }[], make: (index: number) => string, type: "source" | "target") =>
    list.map((it, index) => <Handle key={index} type={type} id={make(index)} position={type === "source" ? Position.Right : Position.Left} className="port" style={{ top: 48 + index * 24, "--port": typeColor(it.type) } as React.CSSProperties} />);
  const height = Math.max(sockets.length, ports.outputs.length) * 24 + widgets.length * 30 + 12;
  return (
    <div className="far" style={{ height }}>
      {side(sockets, (index) => inHandle(sockets[index]!.name), "target")}
      {side(ports.outputs, outHandle, "source")}
      {widgets.map((input, index) => <Handle key={input.name} type="target" id={inHandle(input.name)} position={Position.Left} className="port small" style={{ top: 54 + Math.max(sockets.length, ports.outputs.length) * 24 + index * 30, "--port": typeColor(input.type) } as React.CSSProperties} />)}
    </div>
  );
}

/** Values of a class that we do not have: to be seen, and kept. */
function MissingValues({ node }: { node: GraphNode }) {
  const list = Array.isArray(node.stored) ? node.stored.map((value, index) => [String(index), value] as const) : Object.entries(node.values);
  return (
    <dl className="missing-values">
      <dt>class</dt><dd>{node.type}</dd>
      {list.map(([name, value]) => [<dt key={`${name}-t`}>{name}</dt>, <dd key={name}>{typeof value === "object" ? "…" : String(value)}</dd>])}
    </dl>
  );
}

/** The value of a primitive is entered as in the input that it feeds. */
function PrimitiveValue({ node }: { node: GraphNode }) {
  const target = useTab((tab, state) => {
    const scope = currentScope(tab);
    const wire = Object.values(scope.wires).find((it) => it.from === node.id);
    const fed = wire && scope.nodes[wire.to];
    return fed && state.specs.get(fed.type)?.inputs.find((input) => input.name === wire.input);
  });
  if (!target?.widget) return <p className="quiet">wire it to a value</p>;
  return <div className="widget-row"><WidgetView node={node.id} input={{ ...target, name: VALUE }} value={node.values[VALUE]} disabled={false} /></div>;
}

export const NoteView = memo(function NoteView({ id, data, selected }: NodeProps<Node<NodeData>>) {
  const { node } = data;
  const title = node.title ?? (node.type === MARKDOWN_NOTE ? "Note" : "Note");
  const value = node.values[VALUE];
  return (
    <div className={`pf-note${selected ? " selected" : ""}`} style={node.color ? ({ "--note": node.color } as React.CSSProperties) : undefined}>
      <header className="grip">{title}</header>
      <textarea className="nodrag nowheel" aria-label="Text of the note" placeholder="Write a note…" value={typeof value === "string" ? value : ""} onChange={(event) => setNodeValue(id, VALUE, event.target.value)} onKeyDown={(event) => event.key === "Escape" && event.currentTarget.blur()} />
      {selected && <Resize node={node} />}
    </div>
  );
});

export const RerouteView = memo(function RerouteView({ data, selected }: NodeProps<Node<NodeData>>) {
  const ports = usePorts(data.node);
  const type = ports.outputs[0]?.type ?? "*";
  return (
    <div className={`pf-reroute${selected ? " selected" : ""}`} style={{ "--port": typeColor(type) } as React.CSSProperties} title={type}>
      <Port type="target" id={inHandle("")} kind={type} name="in" />
      <Port type="source" id={outHandle(0)} kind={type} name="out" />
    </div>
  );
});

/** The border of a subgraph: what comes in, or what goes out. Its last socket becomes a port when it is wired. */
export const BorderView = memo(function BorderView({ id, data }: NodeProps<Node<{ scope: Scope }>>) {
  const isInput = id === INPUT_BORDER;
  const ports = isInput ? data.scope.inputs : data.scope.outputs;
  return (
    <div className="pf-node border-node" role="group" aria-label={isInput ? "Inputs of the subgraph" : "Outputs of the subgraph"}>
      <header className="grip"><span className="title">{isInput ? "Inputs" : "Outputs"}</span></header>
      <div className="body">
        {ports.map((port, index) => <BorderPort key={port.id} port={port} index={index} side={isInput ? "inputs" : "outputs"} />)}
        <div className={`socket ${isInput ? "out" : "in"} open`} title="Wire it to make a port">
          {!isInput && <Port type="target" id={inHandle(NEW_PORT)} kind="*" name="new port" />}
          <span>new…</span>
          {isInput && <Port type="source" id={outHandle(ports.length)} kind="*" name="new port" />}
        </div>
      </div>
    </div>
  );
});

/** A port: double click, or Enter on it, to name it. */
function BorderPort({ port, index, side }: { port: BorderSocket; index: number; side: Side }) {
  const [naming, setNaming] = useState(false);
  const isInput = side === "inputs";
  const name = (label: string) => {
    setNaming(false);
    edit("name a port", (scope) => relabel(scope, side, port.id, label.trim()));
  };
  const remove = <button className="port-off nodrag" aria-label={`Take away port ${port.label ?? port.name}`} onClick={() => editDoc("take a port away", (doc) => removePort(doc, scopeId(activeTab()!), side, port.id))}>×</button>;
  return (
    <div className={`socket ${isInput ? "out" : "in"}`} title={`${port.name}: ${port.type}`}>
      {!isInput && <Port type="target" id={inHandle(port.name)} kind={port.type} name={port.name} />}
      {isInput && remove}
      {naming ? (
        <input className="nodrag rename" autoFocus defaultValue={port.label ?? port.name} aria-label="Name of the port" onBlur={(event) => name(event.target.value)} onKeyDown={(event) => { event.stopPropagation(); if (event.key === "Enter" || event.key === "Escape") event.currentTarget.blur(); }} />
      ) : (
        <button className="port-name nodrag" title="Double click to name it" onDoubleClick={() => setNaming(true)} onKeyDown={(event) => { if (event.key === "Enter" || event.key === "F2") { event.preventDefault(); event.stopPropagation(); setNaming(true); } }}>{port.label ?? port.name}</button>
      )}
      {!isInput && remove}
      {isInput && <Port type="source" id={outHandle(index)} kind={port.type} name={port.name} />}
    </div>
  );
}

export { app };
