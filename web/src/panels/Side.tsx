// The panels on the right: results of all runs, and the queue.

import { useEffect, useState } from "react";
import * as api from "../api.ts";
import { carry, picturesOf, shownFile } from "../canvas/Output.tsx";
import { duration } from "../canvas/NodeView.tsx";
import { type Run, type RunState, fraction } from "../graph/run.ts";
import { type Shown, show, toast, update, useApp } from "../state/app.ts";
import { openFile } from "../state/files.ts";
import { cancel, runs, settle, useRuns } from "../state/running.ts";

export function Side() {
  const panel = useApp((state) => state.panel);
  if (panel === "none") return null;
  return (
    <aside className="side" aria-label={panel === "gallery" ? "Results" : "Queue"}>
      <header>
        <h2>{panel === "gallery" ? "Results" : "Queue"}</h2>
        <button aria-label="Close the panel" onClick={() => update({ panel: "none" })}>×</button>
      </header>
      {panel === "gallery" ? <Gallery /> : <QueueList />}
    </aside>
  );
}

const itemsMemo = new WeakMap<object, Shown[]>();

/** All pictures that were made, the latest first. */
export function allPictures(state: RunState): Shown[] {
  let found = itemsMemo.get(state.runs);
  if (!found) {
    const sorted = Object.values(state.runs).sort((a, b) => (b.ended ?? Infinity) - (a.ended ?? Infinity) || b.number - a.number);
    const seen = new Set<string>();
    found = sorted
      .flatMap((run) => Object.values(run.outputs).flatMap(picturesOf).map((file) => shownFile(file, run.id)))
      .filter((item) => !seen.has(item.url) && seen.add(item.url));
    itemsMemo.set(state.runs, found);
  }
  return found;
}

function Gallery() {
  const items = useRuns(allPictures);
  const [marked, setMarked] = useState<readonly string[]>([]);
  const chosen = items.filter((item) => marked.includes(item.url));
  const toggle = (url: string) => setMarked(marked.includes(url) ? marked.filter((it) => it !== url) : [...marked, url]);
  if (items.length === 0) return <p className="quiet">What your graphs make appears here.</p>;
  return (
    <>
      <div className="bar">
        <button disabled={chosen.length !== 2} onClick={() => show({ kind: "viewer", items: chosen, index: 0, compare: 1 })} title="Mark two pictures">Compare two</button>
        <button disabled={chosen.length < 2} onClick={() => show({ kind: "viewer", items: chosen, index: -1 })}>As a grid</button>
        {marked.length > 0 && <button onClick={() => setMarked([])}>None</button>}
      </div>
      <ul className="gallery">
        {items.map((item, index) => (
          <li key={item.url} className={marked.includes(item.url) ? "marked" : ""}>
            <button onClick={(event) => (event.ctrlKey || event.metaKey || event.shiftKey ? toggle(item.url) : show({ kind: "viewer", items, index }))} draggable onDragStart={(event) => carry(event, item)} aria-label={`See ${item.name}`}>
              <img src={item.url} alt={item.name} loading="lazy" draggable={false} />
            </button>
            <input type="checkbox" aria-label={`Mark ${item.name}`} checked={marked.includes(item.url)} onChange={() => toggle(item.url)} />
          </li>
        ))}
      </ul>
      <p className="quiet">Drag a picture to the canvas for its graph, or onto a picture input.</p>
    </>
  );
}

const listMemo = new WeakMap<object, Run[]>();

function listed(state: RunState): Run[] {
  let found = listMemo.get(state.runs);
  if (!found) {
    const order = { running: 0, queued: 1, done: 2, failed: 2, cancelled: 2 };
    found = Object.values(state.runs).sort((a, b) => order[a.status] - order[b.status] || (a.ended === undefined ? (a.place ?? a.number) - (b.place ?? b.number) : (b.ended ?? 0) - a.ended));
    listMemo.set(state.runs, found);
  }
  return found;
}

function QueueList() {
  const list = useRuns(listed);
  const waiting = list.filter((run) => run.status === "queued");
  const clear = async () => {
    try {
      await api.unqueue(waiting.map((run) => run.id));
      await settle();
    } catch (error) {
      toast(error instanceof Error ? error.message : String(error), "error");
    }
  };
  const [paused, setPaused] = useState<boolean>();
  useEffect(() => void api.paused().then(setPaused), []);
  const pause = async () => {
    try {
      await api.setPaused(!paused);
      setPaused(!paused);
    } catch (error) {
      toast(error instanceof Error ? error.message : String(error), "error");
    }
  };
  const pauseButton = paused !== undefined && <div className="bar"><button aria-pressed={paused} onClick={() => void pause()}>{paused ? "Go on" : "Pause the queue"}</button></div>;
  if (list.length === 0 && pauseButton) return <>{pauseButton}<p className="quiet">Nothing runs.</p></>;
  if (list.length === 0) return <p className="quiet">Nothing runs. Press Run, or Ctrl+Enter.</p>;
  return (
    <>
      {pauseButton}
      {waiting.length > 1 && <div className="bar"><button onClick={() => void clear()}>Cancel all {waiting.length} that wait</button></div>}
      <ul className="queue">{list.map((run) => <QueueEntry key={run.id} run={run} movable={paused !== undefined && waiting.length > 1} />)}</ul>
    </>
  );
}

function QueueEntry({ run, movable }: { run: Run; movable: boolean }) {
  const name = useApp((state) => run.name || state.tabs.find((tab) => tab.doc.id === run.doc)?.name || "Graph");
  const over = run.ended !== undefined;
  const open = async () => {
    const picture = Object.values(run.outputs).flatMap(picturesOf)[0];
    if (picture) await openFile(await (await fetch(api.viewUrl(picture))).blob(), picture.filename);
  };
  return (
    <li className={run.status}>
      <b>{name}</b>
      <span className="status">{run.status}{run.status === "queued" && run.place !== undefined ? (run.place ? `, ${run.place} before it` : ", the next") : ""}{over && run.started ? ` in ${duration((run.ended ?? 0) - run.started)}` : ""}</span>
      {run.status === "running" && <i className="level" style={{ transform: `scaleX(${fraction(run)})` }} />}
      {movable && run.status === "queued" && run.place !== 0 && <button className="first" onClick={() => void api.toFront(run.id).then(settle, (error: unknown) => toast(error instanceof Error ? error.message : String(error), "error"))}>Run next</button>}
      {!over && <button onClick={() => void cancel(run.id)} aria-label={`Cancel ${name}`}>Cancel</button>}
      {over && Object.values(run.outputs).some((output) => picturesOf(output).length) && <button onClick={() => void open()} title="Open the graph as it was then">Graph</button>}
      {run.error && <em>{run.error.message}</em>}
      {run.notes.map((note, index) => <em key={index} className="note">{note.text}</em>)}
    </li>
  );
}

export { runs };
