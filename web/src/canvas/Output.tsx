// What a node shows after a run, by what it is: pictures, texts, curves, numbers.

import type { DragEvent } from "react";
import { viewUrl } from "../api.ts";
import { type Json, type JsonObject, asList, asObject } from "../graph/json.ts";
import { asSeries } from "../graph/series.ts";
import { type Shown, show } from "../state/app.ts";
import { previews, shownRun, useRuns } from "../state/running.ts";
import { useStore } from "../state/store.ts";
import type { FileRef } from "../protocol.ts";
import { Curves } from "./Curves.tsx";

export function asFile(value: Json): FileRef | undefined {
  const it = asObject(value);
  return it && typeof it["filename"] === "string" ? { filename: it["filename"], subfolder: String(it["subfolder"] ?? ""), type: String(it["type"] ?? "output") } : undefined;
}

const isPicture = (file: FileRef) => /\.(png|jpe?g|webp|gif|bmp|svg)$/i.test(file.filename);

/** All pictures of what a node shows. */
export function picturesOf(output: JsonObject): FileRef[] {
  return Object.values(output).flatMap(asList).map(asFile).filter((file): file is FileRef => file !== undefined && isPicture(file));
}

export function shownFile(file: FileRef, run?: string): Shown {
  return { url: viewUrl(file), name: file.filename, ...(run ? { run } : {}) };
}

/** Lets a picture be carried to the canvas or into an input. */
export function carry(event: DragEvent, item: Shown): void {
  event.dataTransfer.setData("text/x-paraflow-picture", item.url);
  event.dataTransfer.setData("text/plain", item.name);
  event.dataTransfer.effectAllowed = "copy";
}

/** A training as it goes: its curve, and what it has learnt by now. */
export function Training({ doc, path }: { doc: string; path: string }) {
  const points = useRuns((state) => shownRun(state, doc)?.curves[path]);
  const samples = useRuns((state) => shownRun(state, doc)?.samples[path]);
  if (!points && !samples) return null;
  const validation = points?.filter((point) => point.validation !== undefined) ?? [];
  const series = [{ name: "loss", points: points?.map((point) => [point.step, point.loss] as const) ?? [] }, { name: "validation", points: validation.map((point) => [point.step, point.validation!] as const) }];
  const items = (samples ?? []).flatMap(({ step, file }) => {
    const known = asFile(file);
    return known ? [{ ...shownFile(known), name: `step ${step}` }] : typeof file === "string" ? [{ url: file, name: `step ${step}` }] : [];
  });
  return (
    <div className="output nodrag">
      {points && points.length > 1 && <Curves series={series.filter((it) => it.points.length > 1)} />}
      {items.length > 0 && <div className="samples">{items.map((item, index) => <figure key={item.name}><img src={item.url} alt={`Sample at ${item.name}`} tabIndex={0} onClick={() => show({ kind: "viewer", items, index })} onKeyDown={(event) => event.key === "Enter" && show({ kind: "viewer", items, index })} /><figcaption>{item.name}</figcaption></figure>)}</div>}
    </div>
  );
}

export function Output({ output, doc, path }: { output: JsonObject; doc: string; path: string }) {
  const live = useStore(previews, (all) => all[`${doc}/${path}`]);
  const pictures = live ? [] : picturesOf(output);
  const items = pictures.map((file) => shownFile(file));
  const files = Object.values(output).flatMap(asList).map(asFile).filter((file): file is FileRef => file !== undefined && !isPicture(file));
  const texts = Object.entries(output).flatMap(([key, value]) => (key === "animated" ? [] : asList(value).filter((it): it is string | number | boolean => ["string", "number", "boolean"].includes(typeof it) && !(typeof it === "number" && asList(value).length > 3)).map(String)));
  const series = asSeries(output);
  return (
    <div className="output nodrag">
      {series.length > 0 && <Curves series={series} />}
      {items.length > 0 && (
        <div className={items.length > 1 ? "pictures many" : "pictures"}>
          {items.slice(0, 16).map((item, index) => (
            <img key={item.url} src={item.url} alt={`Result ${index + 1}: ${item.name}`} draggable loading="lazy" tabIndex={0} onDragStart={(event) => carry(event, item)} onClick={() => show({ kind: "viewer", items, index })} onKeyDown={(event) => event.key === "Enter" && show({ kind: "viewer", items, index })} />
          ))}
        </div>
      )}
      {texts.map((text, index) => <pre key={index} className="nowheel">{text}</pre>)}
      {files.map((file) => <a key={file.filename} href={viewUrl(file)} download={file.filename}>{file.filename}</a>)}
    </div>
  );
}

/** The picture as it forms. */
export function Preview({ doc, path }: { doc: string; path: string }) {
  const url = useStore(previews, (all) => all[`${doc}/${path}`]);
  return url ? <div className="output"><div className="pictures live"><img src={url} alt="The picture as it forms" /></div></div> : null;
}
