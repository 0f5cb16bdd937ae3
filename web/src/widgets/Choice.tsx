// One of a list: click, type to search, arrows and Enter.

import { type KeyboardEvent, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { createPortal } from "react-dom";
import * as api from "../api.ts";
import type { Json } from "../graph/json.ts";
import { matchRank } from "../graph/search.ts";
import type { Widget } from "../graph/specs.ts";
import type { WidgetProps } from "./Widget.tsx";

type ChoiceKind = Extract<Widget, { kind: "choice" }>;

export function ChoiceWidget({ input, value, set, label, disabled, widget, thumbnail }: WidgetProps & { widget: ChoiceKind; thumbnail?: (name: string) => string | undefined }) {
  const [open, setOpen] = useState(false);
  const button = useRef<HTMLButtonElement>(null);
  const shown = Array.isArray(value) ? value.map(String).join(", ") : value === undefined || value === null ? "" : String(value);
  const unknown = value !== undefined && !Array.isArray(value) && widget.choices.length > 0 && !widget.choices.includes(value);
  const step = (by: number) => {
    const at = widget.choices.indexOf(value ?? null);
    const next = widget.choices[(at + by + widget.choices.length) % widget.choices.length];
    if (next !== undefined) set(next);
  };
  const pick = (choice: Json) => {
    if (widget.multiple) set(Array.isArray(value) && value.includes(choice) ? value.filter((it) => it !== choice) : [...(Array.isArray(value) ? value : []), choice]);
    else {
      set(choice);
      setOpen(false);
      button.current?.focus();
    }
  };
  return (
    <div className={`widget choice nodrag${unknown ? " unknown" : ""}`} title={unknown ? `“${shown}” is not in the list` : input.tooltip}>
      <button
        ref={button} disabled={disabled} aria-haspopup="listbox" aria-expanded={open} aria-label={`${label}: ${shown}`}
        onClick={() => setOpen(!open)}
        onKeyDown={(event) => {
          if (event.key === "ArrowLeft" || event.key === "ArrowRight") { event.stopPropagation(); step(event.key === "ArrowLeft" ? -1 : 1); }
          else if (event.key === "ArrowDown") { event.preventDefault(); event.stopPropagation(); setOpen(true); }
          else if (event.key === "Enter" && !event.ctrlKey) event.stopPropagation();
        }}
      >
        <span className="name">{label}</span>{" "}
        <span className="value">{shown || "—"}</span>
        <svg viewBox="0 0 10 10" aria-hidden><path d="M1 3l4 4 4-4" /></svg>
      </button>
      {open && button.current && <ChoiceList anchor={button.current} choices={widget.choices} value={value} label={label} thumbnail={thumbnail} folder={input.folder} pick={pick} close={() => { setOpen(false); button.current?.focus(); }} />}
    </div>
  );
}

interface ListProps {
  anchor: HTMLElement;
  choices: readonly Json[];
  value: Json | undefined;
  label: string;
  thumbnail?: (name: string) => string | undefined;
  /** The folder of models that the choices lie in. */
  folder?: string;
  pick(choice: Json): void;
  close(): void;
}

/** Pictures of the choices: by their names, or those that lie beside models or in them. */
function usePictures(folder: string | undefined, thumbnail: ListProps["thumbnail"]): (name: string) => string | undefined {
  const [covers, setCovers] = useState<ReadonlyMap<string, string>>();
  useEffect(() => {
    // Without them the names are still there.
    if (folder !== undefined) api.covers(folder).then(setCovers, () => undefined);
  }, [folder]);
  return thumbnail ?? ((name) => covers?.get(name));
}

/** A choice's picture; where there is none, its place is kept once another choice has one. */
function Thumbnail({ url, here }: { url: string | undefined; here(): void }) {
  const [missing, setMissing] = useState(false);
  return url && !missing ? <img src={url} alt="" loading="lazy" onLoad={here} onError={() => setMissing(true)} /> : <i className="no-picture" aria-hidden />;
}

function ChoiceList({ anchor, choices, value, label, thumbnail, folder, pick, close }: ListProps) {
  const pictureOf = usePictures(folder, thumbnail);
  const [pictured, setPictured] = useState(false);
  const [query, setQuery] = useState("");
  const [at, setAt] = useState(() => Math.max(0, choices.indexOf(value ?? null)));
  const box = useRef<HTMLDivElement>(null);
  const found = useMemo(() => {
    if (query === "") return choices;
    const ranked = choices.map((choice) => ({ choice, rank: matchRank(query, String(choice)) })).filter((it) => it.rank !== undefined);
    return ranked.sort((a, b) => a.rank! - b.rank!).map((it) => it.choice);
  }, [choices, query]);
  useLayoutEffect(() => place(box.current, anchor), [anchor]);
  useEffect(() => {
    const away = (event: Event) => !box.current?.contains(event.target as Node) && !anchor.contains(event.target as Node) && close();
    addEventListener("pointerdown", away, true);
    addEventListener("wheel", away, true);
    return () => {
      removeEventListener("pointerdown", away, true);
      removeEventListener("wheel", away, true);
    };
  });
  useEffect(() => {
    void box.current?.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }, [at, found]);
  const onKey = (event: KeyboardEvent) => {
    event.stopPropagation();
    if (event.key === "Escape" || event.key === "Tab") { event.preventDefault(); close(); }
    else if (event.key === "ArrowDown") { event.preventDefault(); setAt(Math.min(at + 1, found.length - 1)); }
    else if (event.key === "ArrowUp") { event.preventDefault(); setAt(Math.max(at - 1, 0)); }
    else if (event.key === "Enter" && found[at] !== undefined) { event.preventDefault(); pick(found[at]!); }
  };
  return createPortal(
    <div ref={box} className={`choices${pictured ? " pictured" : ""}`} onKeyDown={onKey}>
      <input autoFocus placeholder="Search…" aria-label={`Search ${label}`} value={query} onChange={(event) => { setQuery(event.target.value); setAt(0); }} role="combobox" aria-expanded aria-controls="choice-list" />
      <ul id="choice-list" role="listbox" aria-label={label}>
        {found.map((choice, index) => {
          return (
            <li key={String(choice)} role="option" aria-selected={index === at} className={choice === value || (Array.isArray(value) && value.includes(choice)) ? "chosen" : ""} onPointerEnter={() => setAt(index)} onClick={() => pick(choice)}>
              {(thumbnail ?? folder) && <Thumbnail url={pictureOf(String(choice))} here={() => setPictured(true)} />}
              {String(choice)}
            </li>
          );
        })}
        {found.length === 0 && <li className="quiet">{choices.length ? "nothing fits" : "there is nothing to choose from yet"}</li>}
      </ul>
    </div>,
    anchor.closest("main") ?? document.body,
  );
}

/** Under the widget, or over it where there is no room. */
function place(box: HTMLElement | null, anchor: HTMLElement): void {
  if (!box) return;
  const at = anchor.getBoundingClientRect();
  const width = Math.max(at.width, 240);
  const below = innerHeight - at.bottom;
  const height = Math.min(340, Math.max(below, at.top) - 16);
  box.style.width = `${width}px`;
  box.style.maxHeight = `${height}px`;
  box.style.left = `${Math.max(8, Math.min(at.left, innerWidth - width - 8))}px`;
  if (below < 240 && at.top > below) box.style.bottom = `${innerHeight - at.top + 4}px`;
  else box.style.top = `${at.bottom + 4}px`;
}
