// Graphs inside pictures: PNG text chunks, and WebP's EXIF block.

/** The texts that a picture carries by key: `workflow`, `prompt`. Throws when the file is neither PNG nor WebP. */
export async function pictureTexts(bytes: Uint8Array): Promise<Record<string, string>> {
  if (startsWith(bytes, [0x89, 0x50, 0x4e, 0x47])) return pngTexts(bytes);
  if (startsWith(bytes, [0x52, 0x49, 0x46, 0x46])) return webpTexts(bytes);
  throw new Error("only PNG and WebP pictures carry graphs");
}

function startsWith(bytes: Uint8Array, magic: number[]): boolean {
  return magic.every((byte, index) => bytes[index] === byte);
}

const latin = (bytes: Uint8Array) => new TextDecoder("latin1").decode(bytes);
const utf8 = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

async function pngTexts(bytes: Uint8Array): Promise<Record<string, string>> {
  const texts: Record<string, string> = {};
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 8; at + 8 <= bytes.length; ) {
    const length = view.getUint32(at);
    const kind = latin(bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + length);
    const end = body.indexOf(0);
    if (end > 0 && (kind === "tEXt" || kind === "comf")) texts[latin(body.subarray(0, end))] = utf8(body.subarray(end + 1));
    if (end > 0 && kind === "iTXt") {
      const text = await internationalText(body, end);
      if (text !== undefined) texts[latin(body.subarray(0, end))] = text;
    }
    at += 12 + length;
  }
  return texts;
}

/** After the key: whether packed, how, language, translated key, text. */
async function internationalText(body: Uint8Array, key: number): Promise<string | undefined> {
  const packed = body[key + 1] === 1;
  const language = body.indexOf(0, key + 3);
  const translated = language < 0 ? -1 : body.indexOf(0, language + 1);
  if (translated < 0) return undefined;
  const text = body.subarray(translated + 1);
  if (!packed) return utf8(text);
  const stream = new Blob([text as BlobPart]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).text();
}

function webpTexts(bytes: Uint8Array): Record<string, string> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 12; at + 8 <= bytes.length; ) {
    const length = view.getUint32(at + 4, true);
    if (latin(bytes.subarray(at, at + 4)) === "EXIF") return exifTexts(bytes.subarray(at + 8, at + 8 + length));
    at += 8 + length + (length % 2);
  }
  return {};
}

/** Text entries of the first directory, each `key:value`. */
function exifTexts(exif: Uint8Array): Record<string, string> {
  const block = latin(exif.subarray(0, 4)) === "Exif" ? exif.subarray(6) : exif;
  const little = block[0] === 0x49;
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const texts: Record<string, string> = {};
  if (block.length < 8) return texts;
  const directory = view.getUint32(4, little);
  const count = directory + 2 <= block.length ? view.getUint16(directory, little) : 0;
  for (let index = 0; index < count; index++) {
    const entry = directory + 2 + index * 12;
    if (entry + 12 > block.length || view.getUint16(entry + 2, little) !== 2) continue;
    const length = view.getUint32(entry + 4, little);
    const start = length <= 4 ? entry + 8 : view.getUint32(entry + 8, little);
    const text = utf8(block.subarray(start, start + length)).replace(/\0+$/, "");
    const colon = text.indexOf(":");
    if (colon > 0) texts[text.slice(0, colon)] = text.slice(colon + 1);
  }
  return texts;
}
