// The bar at the top: tabs, files, and the run with its progress.

import { useEffect, useRef } from "react";
import { command, showKeys } from "../commands/commands.ts";
import { fraction, type Run } from "../graph/run.ts";
import { app, closeTab, isUnsaved, leaveScope, show, update, updateTab, useApp, useTab } from "../state/app.ts";
import { cancel, queueRun, useRuns } from "../state/running.ts";

export function TopBar() {
  return (
    <header className="top">
      <button className="logo" onClick={() => update({ view: "start" })} aria-label="Start page" title="Start page">
        <svg viewBox="0 0 32 32" aria-hidden><path d="M9 9h7a5 5 0 0 1 0 10h-7M9 6v20" /></svg>
      </button>
      <Tabs />
      <span className="gap" />
      <ViewSwitch />
      <Tool id="undo" icon="M4 8h8a4 4 0 0 1 0 8H7M4 8l4-4M4 8l4 4" />
      <Tool id="redo" icon="M16 8H8a4 4 0 0 0 0 8h5M16 8l-4-4M16 8l-4 4" />
      <Tool id="save" icon="M4 4h10l2 2v10H4zM7 4v4h6V4M7 16v-5h6v5" />
      <Tool id="gallery" icon="M3 4h14v12H3zM3 13l4-4 4 4 2-2 4 4M13 7.5h.1" />
      <Tool id="queue" icon="M4 5h12M4 10h12M4 15h7" />
      <Tool id="theme" icon="M16 11.6A6.4 6.4 0 1 1 8.4 4a5 5 0 0 0 7.6 7.6z" />
      <Tool id="help" icon="M7.5 7.5a2.5 2.5 0 1 1 3.6 2.2c-.8.4-1.1.9-1.1 1.8M10 14.5h.1" />
      <RunBox />
    </header>
  );
}

function Tool({ id, icon }: { id: string; icon: string }) {
  const it = command(id)!;
  const count = useRuns((state) => (id === "queue" ? state.remaining : 0));
  const title = `${it.label}${it.keys ? ` (${showKeys(it.keys[0]!)})` : ""}`;
  return (
    <button className={`tool tool-${id}`} title={title} aria-label={it.label} onClick={() => it.run()}>
      <svg viewBox="0 0 20 20" aria-hidden><path d={icon} /></svg>
      {count > 0 && <b className="count">{count}</b>}
    </button>
  );
}

function Tabs() {
  const tabs = useApp((state) => state.tabs);
  const active = useApp((state) => state.active);
  const view = useApp((state) => state.view);
  const close = (key: string, unsaved: boolean, name: string) => {
    if (!unsaved || confirm(`“${name}” has changes that are not saved. Close it?`)) closeTab(key);
  };
  const list = useRef<HTMLDivElement>(null);
  useEffect(() => {
    void list.current?.querySelector(".active")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [active, view, tabs.length]);
  return (
    <div className="tabs">
      <div ref={list} className="tab-list" role="tablist" aria-label="Open graphs">
        {tabs.map((tab) => (
          <div key={tab.key} role="presentation" className={`tab${tab.key === active && view !== "start" ? " active" : ""}`}>
          <button role="tab" aria-selected={tab.key === active} onKeyDown={(event) => { if (event.key === "Delete") { event.stopPropagation(); close(tab.key, isUnsaved(tab), tab.name); } }} onClick={() => update({ active: tab.key, view: view === "start" ? "canvas" : view })} onAuxClick={(event) => event.button === 1 && close(tab.key, isUnsaved(tab), tab.name)} onDoubleClick={() => rename(tab.key, tab.name)}>
            {tab.name}
            {isUnsaved(tab) && <i className="unsaved" title="Not saved yet" role="img" aria-label="not saved" />}
          </button>
          {/* For the mouse; the keyboard has Delete on a tab, and Alt+W. */}
          <button className="close" aria-hidden tabIndex={-1} title={`Close ${tab.name}`} onClick={() => close(tab.key, isUnsaved(tab), tab.name)}>×</button>
        </div>
      ))}
      </div>
      <button className="tool" aria-label="New graph" title="New graph" onClick={() => command("new")!.run()}>+</button>
    </div>
  );
}

function rename(key: string, name: string): void {
  const wanted = prompt("Name of the graph", name);
  if (wanted) updateTab((tab) => ({ ...tab, name: wanted }), key);
}

function ViewSwitch() {
  const view = useApp((state) => state.view);
  const has = useApp((state) => state.tabs.length > 0);
  if (!has || view === "start") return null;
  return (
    <div className="switch" role="radiogroup" aria-label="View">
      {(["canvas", "form"] as const).map((it) => <button key={it} role="radio" aria-checked={view === it} onClick={() => update({ view: it })}>{it === "canvas" ? "Canvas" : "Form"}</button>)}
    </div>
  );
}

export function Breadcrumbs() {
  const path = useTab((tab) => tab.path) ?? [];
  const doc = useTab((tab) => tab.doc);
  const name = useTab((tab) => tab.name);
  if (!path.length || !doc) return null;
  return (
    <nav className="crumbs" aria-label="Subgraphs">
      <button onClick={() => leaveScope(0)}>{name}</button>
      {path.map((step, index) => <button key={index} aria-current={index === path.length - 1} onClick={() => leaveScope(index + 1)}>{doc.scopes[step.scope]?.name || "Subgraph"}</button>)}
    </nav>
  );
}

function RunBox() {
  const batch = useApp((state) => state.batch);
  const has = useApp((state) => state.tabs.length > 0);
  const active = useRuns((state) => (state.active ? state.runs[state.active] : undefined));
  const connected = useRuns((state) => state.connected);
  return (
    <div className="run-box">
      {!connected && <span className="offline" role="status" title="The connection dropped; it is being made again">offline</span>}
      {active && <Progress run={active} />}
      <label className="batch" title="How many runs one click queues">
        ×<input type="number" min={1} max={999} value={batch} aria-label="How many runs" onChange={(event) => update({ batch: Math.max(1, Math.min(999, Math.round(Number(event.target.value)) || 1)) })} onKeyDown={(event) => !(event.key === "Enter" && event.ctrlKey) && event.stopPropagation()} />
      </label>
      <button className="primary run" disabled={!has} onClick={() => void queueRun()} title={`Run (${showKeys("Ctrl+Enter")})`}>
        <svg viewBox="0 0 20 20" aria-hidden><path d="M6 4l10 6-10 6z" /></svg>Run
      </button>
    </div>
  );
}

function Progress({ run }: { run: Run }) {
  const part = fraction(run);
  const title = useApp((state) => {
    const tab = state.tabs.find((it) => it.doc.id === run.doc);
    const id = run.current?.split(":")[0];
    const node = id === undefined ? undefined : tab?.doc.scopes[""]?.nodes[id];
    return node?.title ?? (node && (state.specs.get(node.type)?.title ?? tab?.doc.scopes[node.type]?.name)) ?? "";
  });
  return (
    <div className="progress" role="progressbar" aria-label={`Run of ${run.name}`} aria-valuenow={Math.round(part * 100)} aria-valuemin={0} aria-valuemax={100}>
      <i style={{ transform: `scaleX(${part})` }} />
      <span>{Math.round(part * 100)} % {title}</span>
      <button aria-label="Cancel" title={`Cancel (${showKeys("Ctrl+Alt+Enter")})`} onClick={() => void cancel(run.id)}>×</button>
    </div>
  );
}

export function Toasts() {
  const toasts = useApp((state) => state.toasts);
  return (
    <div className="toasts">
      {toasts.map((it) => (
        <div key={it.key} className={`toast ${it.kind}`} role={it.kind === "error" ? "alert" : "status"}>
          <p>{it.text}{it.hint && <em>{it.hint}</em>}</p>
          <button aria-label="Dismiss" onClick={() => app.set((state) => ({ ...state, toasts: state.toasts.filter((other) => other.key !== it.key) }))}>×</button>
        </div>
      ))}
    </div>
  );
}

export { show };
