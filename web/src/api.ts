// Everything that the editor asks of its server. No other host is ever asked.

import { type Json, type JsonObject, asList, asObject, formatJson, parseJson } from "./graph/json.ts";
import type { Frame, Picture } from "./frames.ts";
import { readBinary } from "./frames.ts";
import type { FileRef, HistoryEntry, Queue, Queued, Refused } from "./protocol.ts";

const base = new URL(".", document.baseURI).pathname.replace(/\/$/, "");
/** A server that asks for a token gets it from the address the user opened, kept for this window. */
const token = (() => {
  const given = new URLSearchParams(location.search).get("token");
  if (given) sessionStorage.setItem("paraflow.token", given);
  return given ?? sessionStorage.getItem("paraflow.token");
})();

function url(path: string): string {
  return `${base}${path}`;
}

export class ServerError extends Error {
  readonly status: number;
  readonly body: Json | undefined;
  constructor(status: number, body: Json | undefined, message: string) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

export async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  let response: Response;
  try {
    response = await fetch(url(path), { ...init, headers });
  } catch {
    throw new ServerError(0, undefined, "the server does not answer; is `paraflow serve` running?");
  }
  if (response.ok) return response;
  const text = await response.text();
  let body: Json | undefined;
  try {
    body = parseJson(text);
  } catch {
    body = undefined;
  }
  const error = asObject(body)?.["error"];
  const said = typeof error === "string" ? error : (asObject(error)?.["message"] as string | undefined);
  throw new ServerError(response.status, body, said ?? (text.slice(0, 200) || `the server answers ${response.status}`));
}

async function askJson(path: string, init?: RequestInit): Promise<Json> {
  return parseJson(await (await ask(path, init)).text());
}

const post = (path: string, body: unknown) =>
  ask(path, { method: "POST", body: formatJson(body), headers: { "Content-Type": "application/json" } });

export const objectInfo = () => askJson("/object_info?packed");
export const queue = async () => (await askJson("/queue")) as unknown as Queue;
export const history = async (most: number) => (await askJson(`/history?max_items=${most}`)) as unknown as Record<string, HistoryEntry>;
export const historyOf = async (id: string) =>
  ((await askJson(`/history/${encodeURIComponent(id)}`)) as unknown as Record<string, HistoryEntry>)[id];
export const interrupt = (id: string) => post("/interrupt", { prompt_id: id });
export const unqueue = (ids: string[]) => post("/queue", { delete: ids });
export const clearQueue = () => post("/queue", { clear: true });
export const clearHistory = () => post("/history", { clear: true });
export const systemStats = async () => asObject(await askJson("/system_stats")) ?? {};

/** Hands in a prompt. */
export async function submit(body: JsonObject): Promise<Queued | Refused> {
  try {
    return parseJson(await (await post("/prompt", body)).text()) as unknown as Queued;
  } catch (error) {
    if (error instanceof ServerError && asObject(error.body)?.["node_errors"]) return error.body as unknown as Refused;
    throw error;
  }
}

/** The address of a file that the server keeps. */
export function viewUrl(file: FileRef, preview?: string): string {
  const query = new URLSearchParams({ filename: file.filename, subfolder: file.subfolder ?? "", type: file.type ?? "output" });
  if (preview) query.set("preview", preview);
  if (token) query.set("token", token);
  return url(`/view?${query.toString()}`);
}

/** The files of a folder of models, with the address of each one's picture; whether there is one is known when it is asked for. */
export async function covers(folder: string): Promise<ReadonlyMap<string, string>> {
  const files = asList(await askJson(`/experiment/models/${encodeURIComponent(folder)}`)).map(asObject);
  const query = token ? `?token=${encodeURIComponent(token)}` : "";
  return new Map(files.flatMap((file) => {
    const name = file?.["name"];
    if (typeof name !== "string") return [];
    const path = name.split(/[\\/]/).map(encodeURIComponent).join("/");
    return [[name, url(`/experiment/models/preview/${encodeURIComponent(folder)}/${String(file?.["pathIndex"] ?? 0)}/${path}${query}`)]];
  }));
}

/** Uploads a picture to the inputs; gives the name under which it is kept. */
export async function upload(file: Blob, name: string, overwrite = false): Promise<FileRef> {
  const form = new FormData();
  form.append("image", file, name);
  if (overwrite) form.append("overwrite", "true");
  return uploaded(await ask("/upload/image", { method: "POST", body: form }));
}

/** Uploads a mask for a picture: the picture with its alpha replaced. */
export async function uploadMask(mask: Blob, name: string, original: FileRef): Promise<FileRef> {
  const form = new FormData();
  form.append("image", mask, name);
  form.append("type", "input");
  form.append("subfolder", "");
  form.append("original_ref", JSON.stringify(original));
  return uploaded(await ask("/upload/mask", { method: "POST", body: form }));
}

async function uploaded(response: Response): Promise<FileRef> {
  const { name, subfolder, type } = (await response.json()) as { name: string; subfolder: string; type: string };
  return { filename: name, subfolder: subfolder ?? "", type: type ?? "input" };
}

/** A file that the user saved, with what tells its version. */
export interface StoredFile {
  text: string;
  etag: string;
}

const FOLDER = "workflows";
const filePath = (name: string) => `/userdata/${encodeURIComponent(`${FOLDER}/${name}`)}`;

export async function listFiles(): Promise<{ path: string; modified: number; size: number }[]> {
  try {
    const found = await askJson(`/userdata?dir=${FOLDER}&recurse=true&full_info=true`);
    return asList(found).flatMap((entry) => {
      const it = asObject(entry);
      return it && typeof it["path"] === "string" ? [{ path: it["path"], modified: Number(it["modified"] ?? 0), size: Number(it["size"] ?? 0) }] : [];
    });
  } catch (error) {
    if (error instanceof ServerError && error.status === 404) return [];
    throw error;
  }
}

export async function readFile(name: string): Promise<StoredFile> {
  const response = await ask(filePath(name));
  const text = await response.text();
  return { text, etag: response.headers.get("ETag") ?? versionOf(text) };
}

/** What tells one content of a file from another: 64 bits made of it. */
export function versionOf(text: string): string {
  let [a, b] = [0x811c9dc5, 0x9747b28c];
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    a = Math.imul(a ^ code, 0x01000193);
    b = Math.imul(b ^ (code + index), 0x5bd1e995);
  }
  return `${text.length}-${(a >>> 0).toString(16)}-${(b >>> 0).toString(16)}`;
}

/** Writes a file, unless it is there with another content than `etag` tells of: then a conflict (409 or 412). */
export async function writeFile(name: string, text: string, etag: string | undefined, overwrite: boolean): Promise<string> {
  const guarded = etag !== undefined && !overwrite;
  // A server without tags is asked for the file first.
  const known = guarded && /^(W\/)?"/.test(etag);
  if (guarded && !known) {
    const now = await readFile(name).catch((error: unknown) => {
      if (error instanceof ServerError && error.status === 404) return undefined;
      throw error;
    });
    if (now && now.etag !== etag) throw new ServerError(412, undefined, "the file was changed by someone else");
  }
  const exclusive = etag === undefined && !overwrite;
  const headers = { "Content-Type": "application/json", ...(known ? { "If-Match": etag } : {}) };
  const response = await ask(`${filePath(name)}?overwrite=${exclusive ? "false" : "true"}`, { method: "POST", body: text, headers });
  return response.headers.get("ETag") ?? versionOf(text);
}

/** Our own server's queue can be paused; others answer that there is no such thing. */
export async function paused(): Promise<boolean | undefined> {
  try {
    return asObject(await askJson("/paraflow/v1/queue"))?.["paused"] === true;
  } catch {
    return undefined;
  }
}

const put = (path: string, body: unknown) => ask(path, { method: "PUT", body: formatJson(body), headers: { "Content-Type": "application/json" } });
export const setPaused = (on: boolean) => put("/paraflow/v1/queue", { paused: on });
export const toFront = (id: string) => put(`/paraflow/v1/jobs/${encodeURIComponent(id)}/queue`, { position: "first" });

export const removeFile = (name: string) => ask(filePath(name), { method: "DELETE" });

/** Keeps a socket to the server open, however often it drops. */
export class Socket {
  private socket: WebSocket | undefined;
  private wait = 250;
  private closed = false;
  constructor(
    private readonly client: string,
    private readonly handlers: { frame(frame: Frame): void; picture(picture: Picture): void; state(open: boolean): void },
  ) {
    this.connect();
  }

  private connect(): void {
    const query = new URLSearchParams({ clientId: this.client });
    if (token) query.set("token", token);
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${base}/ws?${query.toString()}`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => {
      this.wait = 250;
      socket.send(JSON.stringify({ type: "feature_flags", data: { supports_preview_metadata: true, paraflow_events: true } }));
      this.handlers.state(true);
    };
    socket.onmessage = (event: MessageEvent<string | ArrayBuffer>) => {
      if (socket !== this.socket) return;
      if (typeof event.data === "string") this.text(event.data);
      else {
        const picture = readBinary(event.data);
        if (picture) this.handlers.picture(picture);
      }
    };
    socket.onclose = () => {
      if (socket !== this.socket || this.closed) return;
      this.handlers.state(false);
      setTimeout(() => this.connect(), this.wait);
      this.wait = Math.min(this.wait * 2, 5000);
    };
  }

  private text(text: string): void {
    const frame = asObject(parseJson(text));
    if (frame && typeof frame["type"] === "string") this.handlers.frame({ type: frame["type"], data: asObject(frame["data"]) ?? {} });
  }

  close(): void {
    this.closed = true;
    this.socket?.close();
  }
}
