// The frames and answers of the server, as far as the editor reads them. ComfyUI's API; names are the wire's.

import type { Json, JsonObject } from "./graph/json.ts";

/** A text frame of the socket. */
export interface Frame {
  type: string;
  data: JsonObject;
}

/** A file that the server keeps. */
export interface FileRef {
  filename: string;
  subfolder: string;
  type: string;
}

/** Something that is wrong with a prompt or a node of it. */
export interface Fault {
  type: string;
  message: string;
  details: string;
  extra_info?: JsonObject;
  /** A way out, where the server knows one. */
  hint?: string;
}

export interface NodeFaults {
  errors: Fault[];
  dependent_outputs?: string[];
  class_type?: string;
}

/** The answer to a prompt that is taken. */
export interface Queued {
  prompt_id: string;
  number: number;
  node_errors: Record<string, NodeFaults>;
}

/** The answer to a prompt that is refused. */
export interface Refused {
  error: Fault | string;
  node_errors: Record<string, NodeFaults>;
}

/** `[number, prompt_id, prompt, extra_data, outputs]` */
export type QueueItem = [number, string, JsonObject, JsonObject, Json[]];

export interface Queue {
  queue_running: QueueItem[];
  queue_pending: QueueItem[];
}

/** What became of a prompt. */
export interface HistoryEntry {
  prompt: QueueItem;
  outputs: Record<string, JsonObject>;
  status?: { status_str: string; completed: boolean; messages: [string, JsonObject][] };
}

/** A binary frame, read. */
export type Picture = { node?: string; prompt?: string; blob: Blob } | { node: string; text: string };

/** Reads a binary frame of the socket; nothing when it is of no known kind. */
export function readBinary(buffer: ArrayBuffer): Picture | undefined {
  if (buffer.byteLength < 8) return undefined;
  const view = new DataView(buffer);
  const text = (from: number, length: number) => new TextDecoder().decode(new Uint8Array(buffer, from, length));
  switch (view.getUint32(0)) {
    case 1:
      return { blob: new Blob([buffer.slice(8)], { type: view.getUint32(4) === 2 ? "image/png" : "image/jpeg" }) };
    case 3: {
      const length = view.getUint32(4);
      if (8 + length > buffer.byteLength) return undefined;
      return { node: text(8, length), text: text(8 + length, buffer.byteLength - 8 - length) };
    }
    case 4: {
      const length = view.getUint32(4);
      if (8 + length > buffer.byteLength) return undefined;
      const about = JSON.parse(text(8, length)) as Record<string, string>;
      return { node: about["node_id"], prompt: about["prompt_id"], blob: new Blob([buffer.slice(8 + length)], { type: about["image_type"] ?? "image/jpeg" }) };
    }
    default:
      return undefined;
  }
}
