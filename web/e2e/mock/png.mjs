// Small PNGs with text chunks, as a server would make them.

import { crc32, deflateSync } from "node:zlib";

const crc = typeof crc32 === "function" ? crc32 : slowCrc;

function slowCrc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  }
  return (value ^ 0xffffffff) >>> 0;
}

function chunk(kind, body) {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  const tagged = Buffer.concat([Buffer.from(kind, "latin1"), body]);
  const tail = Buffer.alloc(4);
  tail.writeUInt32BE(crc(tagged) >>> 0);
  return Buffer.concat([head, tagged, tail]);
}

const ascii = (text) => text.replace(/[\u0080-\uffff]/g, (it) => `\\u${it.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** A picture that depends on the seed; `sharp` from 0 (noise) to 1. */
export function picture(seed, sharp = 1, texts = {}, size = 128) {
  const rows = Buffer.alloc(size * (size * 3 + 1));
  const hue = (Number(seed) * 47) % 360;
  let noise = (Number(seed) % 100000) * 7919 + 17;
  const center = [size * (0.35 + ((Number(seed) * 13) % 30) / 100), size * 0.58];
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      noise = (Math.imul(noise, 1664525) + 1013904223) >>> 0;
      const inside = Math.hypot(x - center[0], y - center[1]) < size * 0.24;
      const ear = Math.min(Math.hypot(x - center[0] + 22, y - center[1] + 26), Math.hypot(x - center[0] - 22, y - center[1] + 26)) < 11;
      const [h, l] = inside || ear ? [hue, 0.55] : y > size * 0.72 ? [42, 0.72] : [205, 0.78 - y / size / 4];
      const color = hsl(h, 0.65, l);
      const at = y * (size * 3 + 1) + 1 + x * 3;
      for (let c = 0; c < 3; c++) rows[at + c] = color[c] * sharp + ((noise >>> (8 * c)) & 255) * (1 - sharp);
    }
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(size, 0);
  header.writeUInt32BE(size, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const notes = Object.entries(texts).map(([key, value]) => chunk("tEXt", Buffer.from(`${key}\0${ascii(value)}`, "latin1")));
  return Buffer.concat([Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]), chunk("IHDR", header), ...notes, chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))]);
}

function hsl(h, s, l) {
  const a = s * Math.min(l, 1 - l);
  const channel = (n) => {
    const k = (n + h / 30) % 12;
    return 255 * (l - a * Math.max(-1, Math.min(k - 3, 9 - k, 1)));
  };
  return [channel(0), channel(8), channel(4)];
}
