// Help, files, and why a node ran.

import { useEffect, useRef, useState, type ReactNode } from "react";
import * as api from "../api.ts";
import { duration } from "../canvas/NodeView.tsx";
import { COMMANDS, showKeys } from "../commands/commands.ts";
import type { NodeRun, Reason } from "../graph/run.ts";
import { activeTab, show, toast, useApp, useTab } from "../state/app.ts";
import { chooseFile, openStored, saveAs } from "../state/files.ts";
import { shownRun, useRuns } from "../state/running.ts";

function Dialog({ label, children, wide }: { label: string; children: ReactNode; wide?: boolean }) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    if (!box.current?.contains(before)) box.current?.focus();
    return () => before?.focus?.();
  }, []);
  return (
    <div className="shade" onPointerDown={(event) => event.target === event.currentTarget && show(undefined)}>
      <section ref={box} className={`dialog${wide ? " wide" : ""}`} role="dialog" aria-modal aria-label={label} tabIndex={-1} onKeyDown={(event) => { event.stopPropagation(); if (event.key === "Escape") show(undefined); }}>
        <header><h2>{label}</h2><button aria-label="Close" onClick={() => show(undefined)}>×</button></header>
        {children}
      </section>
    </div>
  );
}

const MOUSE: readonly [string, string][] = [
  ["Double click the canvas", "Add a node"],
  ["Drag from a socket", "Wire; into empty space: nodes that fit; onto a node: the socket that fits"],
  ["Drag the end of a wire", "Move it, or take it off"],
  ["Drop a node on a wire", "Put it in between"],
  ["Shift or Ctrl + drag", "Select in a box"],
  ["Drag the canvas, wheel", "Pan, zoom"],
  ["Drag a number", "Change it; Shift for ten times as fast; click to type, sums too: 512+64"],
  ["Double click a title", "Rename; of a subgraph: open it"],
  ["Drop a file or a picture", "Open its graph"],
];

const TEXT: readonly [string, string][] = [["Ctrl+ArrowUp", "More weight for the selected words"], ["Ctrl+ArrowDown", "Less weight"], ["Escape", "Back to the canvas"]];

export function Help() {
  const groups = [...new Set(COMMANDS.map((it) => it.group))];
  return (
    <Dialog label="Keys and help" wide>
      <div className="help">
        {groups.map((group) => (
          <section key={group}>
            <h3>{group}</h3>
            <dl>{COMMANDS.filter((it) => it.group === group && it.keys?.length).map((it) => [<dt key={`${it.id}-k`}>{it.keys!.filter((keys) => keys !== "Tab").map((keys) => <kbd key={keys}>{showKeys(keys)}</kbd>)}</dt>, <dd key={it.id}>{it.label}</dd>])}</dl>
          </section>
        ))}
        <section><h3>In a prompt</h3><dl>{TEXT.map(([keys, what]) => [<dt key={`${keys}-k`}><kbd>{showKeys(keys)}</kbd></dt>, <dd key={keys}>{what}</dd>])}</dl></section>
        <section><h3>Mouse</h3><dl>{MOUSE.map(([what, then]) => [<dt key={`${what}-k`}>{what}</dt>, <dd key={what}>{then}</dd>])}</dl></section>
        <section><h3>Keyboard only</h3><p className="quiet"><kbd>/</kbd> adds a node, <kbd>W</kbd> wires it, <kbd>Enter</kbd> edits its values, arrows move it, <kbd>N</kbd> goes to the next, <kbd>Ctrl+Enter</kbd> runs.</p></section>
      </div>
    </Dialog>
  );
}

export function Files({ saving }: { saving: boolean }) {
  const [files, setFiles] = useState<Awaited<ReturnType<typeof api.listFiles>>>();
  const [name, setName] = useState(() => activeTab()?.name ?? "graph");
  const [error, setError] = useState<string>();
  useEffect(() => {
    api.listFiles().then(setFiles, (reason: unknown) => setError(reason instanceof Error ? reason.message : String(reason)));
  }, []);
  const store = async () => {
    if (name.trim() && (await saveAs(name.trim(), false))) show(undefined);
  };
  const remove = async (path: string) => {
    if (!confirm(`Delete ${path}? This cannot be taken back.`)) return;
    try {
      await api.removeFile(path);
      setFiles(await api.listFiles());
    } catch (reason) {
      toast(reason instanceof Error ? reason.message : String(reason), "error");
    }
  };
  return (
    <Dialog label={saving ? "Save as" : "Open a graph"}>
      {saving ? (
        <form className="bar" onSubmit={(event) => { event.preventDefault(); void store(); }}>
          <input autoFocus aria-label="Name" value={name} onChange={(event) => setName(event.target.value)} onFocus={(event) => event.target.select()} />
          <button className="primary">Save</button>
        </form>
      ) : (
        <div className="bar"><button className="primary" autoFocus onClick={() => { show(undefined); chooseFile(); }}>From this computer…</button><span className="quiet">or drop a file anywhere</span></div>
      )}
      {error && <p className="bad">{error}</p>}
      <ul className="files">
        {files?.sort((a, b) => b.modified - a.modified).map((file) => (
          <li key={file.path}>
            <button onClick={() => (saving ? setName(file.path.replace(/\.json$/, "")) : void openStored(file.path))}>{file.path}<small>{when(file.modified)}</small></button>
            <button aria-label={`Delete ${file.path}`} onClick={() => void remove(file.path)}>×</button>
          </li>
        ))}
      </ul>
      {files?.length === 0 && <p className="quiet">No graph is saved yet.</p>}
    </Dialog>
  );
}

/** A time in seconds or milliseconds since 1970. */
function when(time: number): string {
  return time ? new Date(time < 1e11 ? time * 1000 : time).toLocaleString() : "";
}

/** What the last run did: with one node, and with all. */
export function Why({ node }: { node?: string }) {
  const doc = useTab((tab) => tab.doc.id) ?? "";
  const run = useRuns((state) => shownRun(state, doc));
  const title = useTitles();
  const state = node === undefined ? undefined : run?.nodes[node];
  const rows = Object.entries(run?.nodes ?? {}).sort(([, a], [, b]) => (b.ms ?? -1) - (a.ms ?? -1));
  return (
    <Dialog label="The last run">
      {state && <p>{reason(state, title)}</p>}
      {rows.length === 0 && <p className="quiet">This graph did not run yet.</p>}
      {rows.length > 0 && (
        <table className="report">
          <thead><tr><th>Node</th><th>Time</th><th title="What its results take in memory">Memory</th><th>Why</th></tr></thead>
          <tbody>
            {rows.map(([id, it]) => (
              <tr key={id} className={id === node ? "marked" : ""}>
                <td>{title(id)}</td><td>{it.state === "cached" ? "—" : it.ms === undefined ? "" : duration(it.ms)}</td><td>{it.bytes === undefined ? "" : size(it.bytes)}</td><td>{it.state === "cached" ? "was there" : it.why ? SHORT[it.why.why] : it.state}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </Dialog>
  );
}

const SHORT: Record<Reason["why"], string> = { first: "first run", new: "new here", changed: "changed", upstream: "reads what ran", again: "not kept" };

/** Names of nodes by their id in the prompt, also of those within subgraphs. */
function useTitles(): (path: string) => string {
  const doc = useTab((tab) => tab.doc);
  const specs = useApp((state) => state.specs);
  return (path) => {
    let scope = doc?.scopes[""];
    const names = path.split(":").map((id) => {
      const node = scope?.nodes[id];
      scope = node && doc?.scopes[node.type];
      return node ? (node.title ?? scope?.name ?? specs.get(node.type)?.title ?? node.type) : id;
    });
    return names.join(" › ");
  };
}

/** Why a node ran, or did not, in words. */
function reason({ state, ms, bytes, why }: NodeRun, title: (path: string) => string): string {
  if (state === "cached") return "This node did not run: its class, its values and all that it reads are as they were before, so its result was there already.";
  const took = `${ms === undefined ? "This node ran" : `This node ran and took ${duration(ms)}`}${bytes ? `; its results take ${size(bytes)}` : ""}.`;
  switch (why?.why) {
    case "first": return `${took} It had to: this graph was not run since the server started.`;
    case "new": return `${took} It is new in the graph since the last run.`;
    case "changed": return `${took} ${why.inputs.map((it) => `\`${it}\``).join(" and ")} ${why.inputs.length > 1 ? "are" : "is"} other than when it ran before.`;
    case "upstream": return `${took} What it reads was made anew by ${why.nodes.map(title).join(", ")}.`;
    case "again": return `${took} Nothing of it changed: it runs each time, a file that it reads is new, or its result was not kept.`;
    default: return took;
  }
}

function size(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const [unit, name] = bytes < 1e6 ? [1e3, "kB"] : bytes < 1e9 ? [1e6, "MB"] : [1e9, "GB"];
  return `${(bytes / unit).toPrecision(3)} ${name}`;
}
