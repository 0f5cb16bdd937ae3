// The start page: graphs that ship, and graphs that the user saved.

import { useEffect, useState } from "react";
import * as api from "../api.ts";
import { newTab, update, useApp } from "../state/app.ts";
import { type Template, chooseFile, openStored, openTemplate, templates } from "../state/files.ts";

export function Start() {
  const [cards, setCards] = useState<readonly Template[]>([]);
  const [files, setFiles] = useState<readonly { path: string; modified: number }[]>([]);
  const [error, setError] = useState<string>();
  const tabs = useApp((state) => state.tabs.length);
  const ready = useApp((state) => state.ready);
  useEffect(() => {
    templates().then(setCards, () => setCards([]));
    api.listFiles().then(setFiles, (reason: unknown) => setError(reason instanceof Error ? reason.message : String(reason)));
  }, []);
  return (
    <main className="start">
      <div className="start-inner">
        <h1>What will you make?</h1>
        <p className="quiet">Choose a graph to begin with, change its prompt, press Run. Or drop a workflow, or a picture made by one.</p>
        {error && <p className="bad" role="alert">{error}</p>}
        <div className="cards">
          {cards.map((card) => (
            <button key={card.name} className="card" disabled={!ready} onClick={() => void openTemplate(card)}>
              <Picture card={card} />
              <b>{card.title}</b>
            </button>
          ))}
          <button className="card plain" onClick={() => newTab()}><span className="plus">+</span><b>Empty graph</b><small>Build it node by node</small></button>
          <button className="card plain" onClick={chooseFile}><span className="plus">↥</span><b>Open a file</b><small>JSON, PNG or WebP</small></button>
        </div>
        {files.length > 0 && <><h2>Saved</h2><ul className="saved">{[...files].sort((a, b) => b.modified - a.modified).slice(0, 24).map((file) => <li key={file.path}><button onClick={() => void openStored(file.path)}>{file.path.replace(/\.json$/, "")}</button></li>)}</ul></>}
        {tabs > 0 && <p><button onClick={() => update({ view: "canvas" })}>Back to the open graphs</button></p>}
      </div>
    </main>
  );
}

/** The card's picture, or a drawing where there is none. */
function Picture({ card }: { card: Template }) {
  const [missing, setMissing] = useState(false);
  return missing ? <Drawing name={card.name} /> : <img src={card.picture} alt="" onError={() => setMissing(true)} />;
}

/** A small drawing of wires, another one for each name. */
function Drawing({ name }: { name: string }) {
  let seed = [...name].reduce((sum, letter) => (Math.imul(sum, 31) + letter.charCodeAt(0)) >>> 0, 7);
  const next = () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const hue = Math.floor(next() * 360);
  const boxes = [0, 1, 2, 3].map((column) => ({ x: 14 + column * 50, y: 18 + next() * 46, height: 22 + next() * 26 }));
  return (
    <svg viewBox="0 0 220 120" className="drawing" aria-hidden style={{ "--hue": hue } as React.CSSProperties}>
      {boxes.slice(1).map((box, index) => <path key={index} d={`M${boxes[index]!.x + 36},${boxes[index]!.y + 12} C${boxes[index]!.x + 48},${boxes[index]!.y + 12} ${box.x - 12},${box.y + 12} ${box.x},${box.y + 12}`} />)}
      {boxes.map((box, index) => <rect key={index} x={box.x} y={box.y} width={36} height={box.height} rx={5} />)}
    </svg>
  );
}
