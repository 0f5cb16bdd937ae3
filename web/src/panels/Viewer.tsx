// Pictures in full size: one, two under a slider, or many side by side.

import { type KeyboardEvent, useEffect, useRef, useState } from "react";
import { carry } from "../canvas/Output.tsx";
import { type Shown, show } from "../state/app.ts";
import { openFile } from "../state/files.ts";

export function Viewer({ items, index, compare }: { items: readonly Shown[]; index: number; compare?: number }) {
  const item = items[index];
  const other = compare === undefined ? undefined : items[compare];
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    box.current?.focus();
  }, []);
  const to = (next: number) => show({ kind: "viewer", items, index: (next + items.length) % items.length });
  const onKey = (event: KeyboardEvent) => {
    if ((event.target as HTMLElement).tagName === "INPUT" && event.key !== "Escape") return;
    event.stopPropagation();
    if (event.key === "Escape") show(undefined);
    else if (index >= 0 && !other && event.key === "ArrowRight") to(index + 1);
    else if (index >= 0 && !other && event.key === "ArrowLeft") to(index - 1);
    else if (event.key === "c" && items.length > 1 && index >= 0) show({ kind: "viewer", items, index, compare: other ? undefined : (index + 1) % items.length });
  };
  const openGraph = async () => item && (await openFile(await (await fetch(item.url)).blob(), item.name));
  return (
    <div ref={box} className="viewer" role="dialog" aria-modal aria-label={item ? `Picture ${item.name}` : "Pictures"} tabIndex={-1} onKeyDown={onKey}>
      <div className="bar">
        <b>{item ? item.name : `${items.length} pictures`}</b>{item && !other && <span className="quiet">{index + 1} of {items.length}</span>}
        <span className="gap" />
        {item && items.length > 1 && <button aria-pressed={other !== undefined} onClick={() => show({ kind: "viewer", items, index, compare: other ? undefined : (index + 1) % items.length })}>Compare</button>}
        {items.length > 1 && <button aria-pressed={index < 0} onClick={() => show({ kind: "viewer", items, index: index < 0 ? 0 : -1 })}>Grid</button>}
        {item && <button onClick={() => void openGraph()}>Open its graph</button>}
        {item && <a className="button" href={item.url} download={item.name}>Download</a>}
        <button onClick={() => show(undefined)} aria-label="Close">×</button>
      </div>
      {index < 0 || !item ? <Grid items={items} /> : other ? <Compare left={item} right={other} items={items} change={(right) => show({ kind: "viewer", items, index, compare: right })} /> : <One item={item} />}
      {item && !other && items.length > 1 && <><button className="turn left" aria-label="Picture before" onClick={() => to(index - 1)}>‹</button><button className="turn right" aria-label="Next picture" onClick={() => to(index + 1)}>›</button></>}
    </div>
  );
}

function One({ item }: { item: Shown }) {
  const [zoom, setZoom] = useState(1);
  const [shift, setShift] = useState<[number, number]>([0, 0]);
  useEffect(() => { setZoom(1); setShift([0, 0]); }, [item.url]);
  return (
    <div className="stage" onWheel={(event) => setZoom(Math.max(0.5, Math.min(16, zoom * (event.deltaY < 0 ? 1.2 : 1 / 1.2))))} onPointerMove={(event) => event.buttons && setShift([shift[0] + event.movementX, shift[1] + event.movementY])} onDoubleClick={() => { setZoom(zoom === 1 ? 3 : 1); setShift([0, 0]); }}>
      <img src={item.url} alt={item.name} draggable={false} style={{ transform: `translate(${shift[0]}px, ${shift[1]}px) scale(${zoom})`, imageRendering: zoom > 2 ? "pixelated" : undefined }} />
    </div>
  );
}

/** Two pictures in one place; the line between them follows the pointer or the arrows. */
function Compare({ left, right, items, change }: { left: Shown; right: Shown; items: readonly Shown[]; change(index: number): void }) {
  const [at, setAt] = useState(50);
  return (
    <div className="stage">
      <div className="compare" onPointerMove={(event) => {
        const box = event.currentTarget.getBoundingClientRect();
        if (event.pointerType === "mouse" || event.buttons) setAt(Math.max(0, Math.min(100, ((event.clientX - box.left) / box.width) * 100)));
      }}>
        <img src={right.url} alt={right.name} draggable={false} />
        <img src={left.url} alt={left.name} draggable={false} style={{ clipPath: `inset(0 ${100 - at}% 0 0)` }} />
        <i style={{ left: `${at}%` }} />
        <span className="label left">{left.name}</span>
        <span className="label right">{right.name}</span>
      </div>
      <div className="compare-controls">
        <input type="range" min={0} max={100} value={at} aria-label="Where the one picture ends and the other begins" onChange={(event) => setAt(Number(event.target.value))} />
        {items.length > 2 && <select aria-label="Compare with" value={items.indexOf(right)} onChange={(event) => change(Number(event.target.value))}>{items.map((item, index) => <option key={item.url} value={index}>{item.name}</option>)}</select>}
      </div>
    </div>
  );
}

function Grid({ items }: { items: readonly Shown[] }) {
  return (
    <div className="grid">
      {items.map((item, index) => (
        <figure key={item.url}>
          <button onClick={() => show({ kind: "viewer", items, index })} draggable onDragStart={(event) => carry(event, item)}><img src={item.url} alt={item.name} draggable={false} loading="lazy" /></button>
          <figcaption>{item.name}</figcaption>
        </figure>
      ))}
    </div>
  );
}
