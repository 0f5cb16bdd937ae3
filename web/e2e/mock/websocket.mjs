// As much of the WebSocket protocol as a mock server needs: frames to the client, short texts from it.

import { createHash } from "node:crypto";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** Answers the handshake and gives an object to send with. */
export function accept(request, socket, onText) {
  const key = createHash("sha1").update(request.headers["sec-websocket-key"] + GUID).digest("base64");
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${key}\r\n\r\n`);
  let rest = Buffer.alloc(0);
  socket.on("data", (data) => {
    rest = Buffer.concat([rest, data]);
    for (;;) {
      const frame = read(rest);
      if (!frame) return;
      rest = rest.subarray(frame.length);
      if (frame.opcode === 1) onText(frame.body.toString());
      if (frame.opcode === 8) socket.end();
    }
  });
  socket.on("error", () => undefined);
  return { text: (text) => socket.write(frame(1, Buffer.from(text))), binary: (bytes) => socket.write(frame(2, bytes)), drop: () => socket.destroy(), get open() { return !socket.destroyed; } };
}

function read(bytes) {
  if (bytes.length < 6) return undefined;
  let [length, at] = [bytes[1] & 127, 2];
  if (length === 126) [length, at] = [bytes.readUInt16BE(2), 4];
  if (bytes.length < at + 4 + length) return undefined;
  const mask = bytes.subarray(at, at + 4);
  const body = Buffer.from(bytes.subarray(at + 4, at + 4 + length)).map((byte, index) => byte ^ mask[index % 4]);
  return { opcode: bytes[0] & 15, body, length: at + 4 + length };
}

function frame(opcode, body) {
  const head = body.length < 126 ? Buffer.from([0x80 | opcode, body.length]) : body.length < 65536 ? Buffer.from([0x80 | opcode, 126, body.length >> 8, body.length & 255]) : Buffer.concat([Buffer.from([0x80 | opcode, 127, 0, 0, 0, 0]), Buffer.from([body.length >>> 24, (body.length >> 16) & 255, (body.length >> 8) & 255, body.length & 255])]);
  return Buffer.concat([head, body]);
}
