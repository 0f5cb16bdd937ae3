// Frames of the server's socket: text as it comes, pictures as the browser wants them.

import type { JsonObject } from "./graph/json.ts";

/** A text frame. What a type's `data` is like, `Message` says; a later server may have more types. */
export interface Frame {
  type: string;
  data: JsonObject;
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
