// Opening and saving: files on the server, files of the user's machine, pictures with graphs in them; and autosave.

import * as api from "../api.ts";
import { type Json, asList, asObject, formatJson, parseJson } from "../graph/json.ts";
import { type Doc, ROOT } from "../graph/model.ts";
import { freshId } from "../graph/ids.ts";
import { pictureTexts } from "../graph/picture.ts";
import { toPrompt } from "../graph/prompt.ts";
import { readDoc } from "../graph/read.ts";
import { writeText } from "../graph/write.ts";
import { type Tab, activeTab, app, newTab, show, toast, update, updateTab } from "./app.ts";
import { openWindows, windowKey } from "./window.ts";

/** Opens a graph from the text of a file. */
export function openText(text: string, name: string, rest: Partial<Tab> = {}): Tab {
  const doc = readDoc(parseJson(text), app.get().specs);
  const existing = app.get().tabs.find((tab) => rest.file !== undefined && tab.file === rest.file);
  if (existing) {
    update({ active: existing.key, view: "canvas", overlay: undefined });
    return existing;
  }
  // Two documents with one id would share the state of their runs.
  const taken = app.get().tabs.some((tab) => tab.doc.id === doc.id);
  const tab = newTab(taken ? { ...doc, id: freshId() } : doc, name, rest);
  reportMissing(doc);
  return tab;
}

function reportMissing(doc: Doc): void {
  const { specs } = app.get();
  const known = (type: string) => specs.has(type) || type in doc.scopes || ["Note", "MarkdownNote", "Reroute", "PrimitiveNode"].includes(type);
  const missing = new Set(Object.values(doc.scopes).flatMap((scope) => Object.values(scope.nodes)).map((node) => node.type).filter((type) => type !== ROOT && !known(type)));
  if (missing.size) toast(`${missing.size === 1 ? "a class is" : `${missing.size} classes are`} not here: ${[...missing].join(", ")}`, "error", "the nodes are kept as they are, with values and wires");
}

/** Opens a file that was dropped or chosen: JSON, PNG or WebP. */
export async function openFile(file: File | Blob, name: string): Promise<void> {
  try {
    const stem = name.replace(/\.(json|png|webp)$/i, "");
    if (/\.json$/i.test(name) || file.type === "application/json") {
      openText(await file.text(), stem);
      return;
    }
    const texts = await pictureTexts(new Uint8Array(await file.arrayBuffer()));
    const text = texts["workflow"] ?? texts["prompt"];
    if (!text) throw new Error("this picture carries no graph");
    openText(text, stem);
  } catch (error) {
    const message = error instanceof SyntaxError ? `\`${name}\` is not valid JSON: ${error.message}` : error instanceof Error ? error.message : String(error);
    toast(message, "error", "drop a workflow (JSON), or a PNG or WebP that a workflow made");
  }
}

export function chooseFile(): void {
  const input = document.createElement("input");
  input.type = "file";
  input.accept = ".json,.png,.webp,application/json,image/png,image/webp";
  input.onchange = () => {
    for (const file of input.files ?? []) void openFile(file, file.name);
  };
  input.click();
}

/** Opens a file that is kept on the server. */
export async function openStored(path: string): Promise<void> {
  try {
    const { text, etag } = await api.readFile(path);
    openText(text, path.replace(/\.json$/, ""), { file: path, etag });
  } catch (error) {
    toast(error instanceof Error ? error.message : String(error), "error");
  }
}

/** Saves to the file that the graph came from, or asks for a name. */
export async function save(): Promise<void> {
  const tab = activeTab();
  if (!tab) return;
  if (tab.file) await saveAs(tab.file, false);
  else show({ kind: "files", saveAs: true });
}

export async function saveAs(path: string, overwrite: boolean): Promise<boolean> {
  const tab = activeTab();
  if (!tab) return false;
  const file = path.endsWith(".json") ? path : `${path}.json`;
  const same = tab.file === file;
  try {
    const etag = await api.writeFile(file, writeText(tab.doc, app.get().specs), same ? tab.etag : undefined, overwrite || (same && !tab.etag));
    updateTab((it) => ({ ...it, file, name: file.replace(/\.json$/, ""), saved: tab.doc, etag }), tab.key);
    toast(`saved as ${file}`);
    return true;
  } catch (error) {
    if (error instanceof api.ServerError && [409, 412].includes(error.status)) {
      const there = same ? "it was changed in another window since you opened it" : "a file of that name is there already";
      if (confirm(`${file}: ${there}. Write over it?`)) return saveAs(path, true);
      return false;
    }
    toast(error instanceof Error ? error.message : String(error), "error");
    return false;
  }
}

/** Hands a file to the user's machine. */
export function download(name: string, content: Blob): void {
  const url = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export function downloadGraph(): void {
  const tab = activeTab();
  if (tab) download(`${tab.name}.json`, new Blob([writeText(tab.doc, app.get().specs)], { type: "application/json" }));
}

export function exportApi(): void {
  const tab = activeTab();
  if (tab) download(`${tab.name}.api.json`, new Blob([formatJson(toPrompt(tab.doc, app.get().specs), 2) + "\n"], { type: "application/json" }));
}

// Autosave: each window keeps its tabs under a key of its own, and holds a lock while it lives. A window that starts
// takes over what windows left behind that are gone.

const DATABASE = "paraflow";
const STORE = "windows";

interface KeptTab { name: string; text: string; file?: string; etag?: string; unsaved: boolean; id: string; active: boolean }

function database(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => void request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("the browser keeps nothing"));
  });
}

function request<T>(run: (store: IDBObjectStore) => IDBRequest<T>, mode: IDBTransactionMode): Promise<T> {
  return database().then((db) => new Promise<T>((resolve, reject) => {
    const asked = run(db.transaction(STORE, mode).objectStore(STORE));
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error ?? new Error("the browser keeps nothing"));
  }).finally(() => db.close()));
}

/** Brings back the tabs of this window, or of windows that are gone. */
export async function restore(): Promise<void> {
  const keys = (await request((store) => store.getAllKeys(), "readonly")).map(String);
  const own = keys.includes(windowKey());
  const open = own || keys.length === 0 ? new Set<string>() : await openWindows();
  const adopted = own ? [windowKey()] : keys.filter((key) => !open.has(key));
  let active = "";
  for (const key of adopted) {
    const kept = asKept(await request((store) => store.get(key), "readonly"));
    for (const tab of kept) {
      const restored = restoreTab(tab);
      if (!restored) continue;
      if (tab.active) active = restored.key;
    }
    if (key !== windowKey()) await request((store) => store.delete(key), "readwrite");
  }
  if (active) update({ active });
}

function asKept(value: unknown): KeptTab[] {
  return Array.isArray(value) ? (value as KeptTab[]) : [];
}

function restoreTab(kept: KeptTab): Tab | undefined {
  try {
    const doc = { ...readDoc(parseJson(kept.text), app.get().specs), id: kept.id };
    return newTab(doc, kept.name, { saved: kept.unsaved ? undefined : doc, ...(kept.file ? { file: kept.file } : {}), ...(kept.etag ? { etag: kept.etag } : {}) });
  } catch {
    return undefined;
  }
}

let timer: ReturnType<typeof setTimeout> | undefined;
let last: readonly Tab[] = [];

/** Keeps the tabs a moment after each change, and at once when the page goes away. */
export function autosave(): void {
  app.subscribe(() => {
    if (app.get().tabs === last) return;
    last = app.get().tabs;
    clearTimeout(timer);
    timer = setTimeout(() => void keepNow(), 400);
  });
  addEventListener("pagehide", () => void keepNow());
  addEventListener("visibilitychange", () => document.visibilityState === "hidden" && void keepNow());
}

const texts = new WeakMap<Doc, string>();

export async function keepNow(): Promise<void> {
  const { tabs, active, specs, ready } = app.get();
  if (!ready) return;
  const kept = tabs.map((tab): KeptTab => {
    let text = texts.get(tab.doc);
    if (text === undefined) texts.set(tab.doc, (text = writeText(tab.doc, specs)));
    return { name: tab.name, text, id: tab.doc.id, unsaved: tab.doc !== tab.saved, active: tab.key === active, ...(tab.file ? { file: tab.file } : {}), ...(tab.etag ? { etag: tab.etag } : {}) };
  });
  await request((store) => store.put(kept, windowKey()), "readwrite");
}

/** A graph that ships with the server. */
export interface Template { name: string; url: string; picture: string }

/** The graphs that ship, by the module that brings them. */
export async function templates(): Promise<Template[]> {
  return readTemplates(parseJson(await (await api.ask("/workflow_templates")).text()));
}

export function readTemplates(json: Json): Template[] {
  return Object.entries(asObject(json) ?? {}).flatMap(([module, names]) =>
    asList(names).filter((name): name is string => typeof name === "string").map((name) => ({
      name,
      url: `/workflow_templates/${encodeURIComponent(module)}/${encodeURIComponent(name)}.json`,
      picture: `cards/${encodeURIComponent(name)}.webp`,
    })),
  );
}

/** Reads a graph without opening it; what it reads itself is left where it is. */
export async function readTemplate(template: Template): Promise<Doc> {
  return readDoc(parseJson(await (await api.ask(`${template.url}?look`)).text()), app.get().specs);
}

export async function openTemplate(template: Template): Promise<void> {
  try {
    const text = await (await api.ask(template.url)).text();
    openText(text, template.name);
  } catch (error) {
    toast(error instanceof Error ? error.message : String(error), "error");
  }
}
