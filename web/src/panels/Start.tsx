// The start page: graphs that ship, and graphs that the user saved.

import { useEffect, useState } from "react";
import * as api from "../api.ts";
import { wireInk, wirePath } from "../canvas/WireView.tsx";
import type { Doc } from "../graph/model.ts";
import { newTab, update, useApp } from "../state/app.ts";
import { type Template, chooseFile, openStored, openTemplate, readTemplate, templates } from "../state/files.ts";
import { type Sketch, inOrder, lineOf, neededFiles, sketchOf, titleOf } from "./cards.ts";

export function Start() {
  const [cards, setCards] = useState<readonly Template[]>([]);
  const [files, setFiles] = useState<readonly { path: string; modified: number }[]>([]);
  const [error, setError] = useState<string>();
  const tabs = useApp((state) => state.tabs.length);
  const ready = useApp((state) => state.ready);
  useEffect(() => {
    templates().then((found) => setCards(inOrder(found)), () => setCards([]));
    api.listFiles().then(setFiles, (reason: unknown) => setError(reason instanceof Error ? reason.message : String(reason)));
  }, []);
  return (
    <div className="start">
      <div className="start-inner">
        <div className="start-head">
          <div>
            <h1>What will you make?</h1>
            <p className="quiet">Choose a graph to begin with, change its prompt, press Run. Or drop a workflow, or a picture made by one.</p>
          </div>
          <button onClick={() => newTab()} title="Build it node by node">Empty graph</button>
          <button onClick={chooseFile} title="JSON, PNG or WebP">Open a file…</button>
        </div>
        {error && <p className="bad" role="alert">{error}</p>}
        <div className="cards">
          {cards.map((card) => <Card key={card.name} card={card} ready={ready} />)}
        </div>
        {files.length > 0 && <><h2>Saved</h2><ul className="saved">{[...files].sort((a, b) => b.modified - a.modified).slice(0, 24).map((file) => <li key={file.path}><button onClick={() => void openStored(file.path)}>{file.path.replace(/\.json$/, "")}</button></li>)}</ul></>}
        {tabs > 0 && <p><button onClick={() => update({ view: "canvas" })}>Back to the open graphs</button></p>}
      </div>
    </div>
  );
}

/** A graph that ships: its picture, or the graph itself where there is none, and what it needs that is not here. */
function Card({ card, ready }: { card: Template; ready: boolean }) {
  const specs = useApp((state) => state.specs);
  const [missing, setMissing] = useState(false);
  const [doc, setDoc] = useState<Doc>();
  useEffect(() => {
    if (missing && specs.size) readTemplate(card).then(setDoc, () => undefined);
  }, [missing, card, specs]);
  const needed = doc ? neededFiles(doc, specs) : [];
  return (
    <button className="card" disabled={!ready} onClick={() => void openTemplate(card)}>
      {missing ? <Drawing sketch={doc && sketchOf(doc, specs)} /> : <img src={card.picture} alt="" onError={() => setMissing(true)} />}
      <b>{titleOf(card.name)}</b>
      {lineOf(card.name) && <small>{lineOf(card.name)}</small>}
      {needed.map((file) => <small key={file} className="needs">needs models/{file}</small>)}
    </button>
  );
}

function Drawing({ sketch }: { sketch: Sketch | undefined }) {
  if (!sketch) return <span className="drawing" />;
  return (
    <svg viewBox={`-60 -60 ${sketch.width + 120} ${sketch.height + 120}`} className="drawing" aria-hidden>
      {sketch.lines.map(({ from, to, color }, index) => <path key={index} d={wirePath(from, to)} style={{ stroke: wireInk(color) }} />)}
      {sketch.boxes.map((box, index) => <g key={index}><rect {...box} rx={12} /><rect x={box.x} y={box.y} width={box.width} height={Math.min(34, box.height)} rx={12} className="head" /></g>)}
    </svg>
  );
}
