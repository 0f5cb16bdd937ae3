import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { pictureTexts } from "./picture.ts";

const png = (chunks: [string, string][]) => {
  const parts = chunks.map(([kind, body]) => {
    const bytes = Buffer.from(body, "latin1");
    const head = Buffer.alloc(4);
    head.writeUInt32BE(bytes.length);
    return Buffer.concat([head, Buffer.from(kind), bytes, Buffer.alloc(4)]);
  });
  return new Uint8Array(Buffer.concat([Buffer.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]), ...parts]));
};

test("texts of a PNG, plain and international", async () => {
  expect(await pictureTexts(png([["tEXt", 'workflow\0{"a": 1}'], ["iTXt", "prompt\0\0\0\0\0{}"], ["tEXt", "broken"]]))).toEqual({ workflow: '{"a": 1}', prompt: "{}" });
});

test("texts of a WebP's EXIF block", async () => {
  const texts = ["prompt:{}\0", 'workflow:{"b":2}\0'];
  const entries = texts.map((text, index) => {
    const entry = Buffer.alloc(12);
    entry.writeUInt16LE(0x0110 - index, 0);
    entry.writeUInt16LE(2, 2);
    entry.writeUInt32LE(text.length, 4);
    entry.writeUInt32LE(8 + 2 + 24 + 4 + (index ? texts[0]!.length : 0), 8);
    return entry;
  });
  const exif = Buffer.concat([Buffer.from("II*\0"), Buffer.from([8, 0, 0, 0, 2, 0]), ...entries, Buffer.alloc(4), Buffer.from(texts.join(""))]);
  const size = Buffer.alloc(4);
  size.writeUInt32LE(exif.length);
  const file = Buffer.concat([Buffer.from("RIFF"), Buffer.alloc(4), Buffer.from("WEBPEXIF"), size, exif]);
  expect(await pictureTexts(new Uint8Array(file))).toEqual({ prompt: "{}", workflow: '{"b":2}' });
});

test("a picture without a graph has no texts, and other files are refused", async () => {
  const bytes = readFileSync(new URL("../../../graphs/input/bear.png", import.meta.url));
  expect((await pictureTexts(new Uint8Array(bytes)))["workflow"]).toBeUndefined();
  await expect(pictureTexts(new TextEncoder().encode("hello, world"))).rejects.toThrow(/only PNG and WebP/);
});
