// Paints a mask on a picture: what is painted becomes transparent, which is how the server tells masks.

import { type PointerEvent, useEffect, useRef, useState } from "react";
import * as api from "../api.ts";
import { setNodeValue, show, toast } from "../state/app.ts";
import { fileOf, nameOf } from "./Picture.tsx";

/** Of what is painted: unlike what pictures are made of. Only its alpha counts. */
const RED_GREEN_BLUE = [255, 45, 110] as const;
const INK = `rgb(${RED_GREEN_BLUE.join(" ")})`;

export function MaskEditor({ node, input, value }: { node: string; input: string; value: string }) {
  const original = fileOf(value);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [size, setSize] = useState<[number, number]>();
  const [brush, setBrush] = useState(0.08);
  const [erasing, setErasing] = useState(false);
  const [saving, setSaving] = useState(false);
  const undo = useRef<ImageData[]>([]);
  const last = useRef<[number, number]>(undefined);

  useEffect(() => {
    const picture = new Image();
    picture.onload = () => {
      setSize([picture.naturalWidth, picture.naturalHeight]);
      requestAnimationFrame(() => canvas.current && loadAlpha(picture, canvas.current));
    };
    picture.onerror = () => toast("the picture could not be read", "error");
    picture.src = api.viewUrl(original);
    // The picture is the same as long as its name is.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [value]);

  const at = (event: PointerEvent<HTMLCanvasElement>): [number, number] => {
    const box = event.currentTarget.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * event.currentTarget.width, ((event.clientY - box.top) / box.height) * event.currentTarget.height];
  };
  const stroke = (to: [number, number]) => {
    const context = canvas.current?.getContext("2d");
    if (!context || !canvas.current) return;
    const from = last.current ?? to;
    context.globalCompositeOperation = erasing ? "destination-out" : "source-over";
    context.strokeStyle = INK;
    context.lineCap = "round";
    context.lineWidth = Math.max(1, brush * Math.max(canvas.current.width, canvas.current.height));
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(to[0] + 0.01, to[1]);
    context.stroke();
    last.current = to;
  };
  const down = (event: PointerEvent<HTMLCanvasElement>) => {
    const context = event.currentTarget.getContext("2d");
    if (context) undo.current = [...undo.current.slice(-20), context.getImageData(0, 0, event.currentTarget.width, event.currentTarget.height)];
    event.currentTarget.setPointerCapture(event.pointerId);
    last.current = undefined;
    stroke(at(event));
  };
  const back = () => {
    const before = undo.current.pop();
    if (before) canvas.current?.getContext("2d")?.putImageData(before, 0, 0);
  };
  const whole = (change: "clear" | "invert") => {
    const context = canvas.current?.getContext("2d");
    if (!context || !canvas.current) return;
    const { width, height } = canvas.current;
    undo.current.push(context.getImageData(0, 0, width, height));
    context.globalCompositeOperation = change === "clear" ? "source-over" : "xor";
    if (change === "clear") context.clearRect(0, 0, width, height);
    else {
      context.fillStyle = INK;
      context.fillRect(0, 0, width, height);
    }
  };
  const save = async () => {
    if (!canvas.current) return;
    setSaving(true);
    try {
      const blob = await alphaOf(canvas.current);
      const stem = original.filename.replace(/\.[^.]*$/, "").replace(/-masked-\d+$/, "");
      const kept = await api.uploadMask(blob, `${stem}-masked-${Date.now()}.png`, original);
      setNodeValue(node, input, nameOf(kept));
      show(undefined);
    } catch (error) {
      toast(error instanceof Error ? error.message : String(error), "error");
    } finally {
      setSaving(false);
    }
  };
  return (
    <div className="mask-editor" role="dialog" aria-modal aria-label="Paint a mask" onKeyDown={(event) => {
      event.stopPropagation();
      if (event.key === "Escape") show(undefined);
      if (event.key === "z" && (event.ctrlKey || event.metaKey)) back();
      if (event.key === "[" || event.key === "]") setBrush(Math.max(0.01, Math.min(0.4, brush * (event.key === "]" ? 1.25 : 0.8))));
      if (event.key === "e") setErasing(!erasing);
    }}>
      <div className="bar">
        <b>Paint what is to change</b>
        <label>Brush <input autoFocus type="range" min={0.01} max={0.4} step={0.005} value={brush} onChange={(event) => setBrush(Number(event.target.value))} /></label>
        <button aria-pressed={erasing} onClick={() => setErasing(!erasing)}>Erase</button>
        <button onClick={back}>Undo</button>
        <button onClick={() => whole("invert")}>Invert</button>
        <button onClick={() => whole("clear")}>Clear</button>
        <span className="gap" />
        <button onClick={() => show(undefined)}>Cancel</button>
        <button className="primary" disabled={saving || !size} onClick={() => void save()}>{saving ? "Saving…" : "Use mask"}</button>
      </div>
      <div className="stage">
        {size && (
          <div className="paper" style={{ aspectRatio: `${size[0]} / ${size[1]}`, "--ratio": size[0] / size[1] } as React.CSSProperties}>
            {/* Without its alpha: what is under the mask is to be seen. */}
            <img src={`${api.viewUrl(original)}&channel=rgb`} alt={original.filename} draggable={false} />
            <canvas ref={canvas} width={size[0]} height={size[1]} aria-label="Mask" onPointerDown={down} onPointerMove={(event) => event.buttons && stroke(at(event))} onPointerUp={() => (last.current = undefined)} />
          </div>
        )}
      </div>
    </div>
  );
}

/** What is transparent in the picture is masked from the start. */
function loadAlpha(picture: HTMLImageElement, target: HTMLCanvasElement): void {
  const context = target.getContext("2d", { willReadFrequently: true });
  if (!context) return;
  context.drawImage(picture, 0, 0);
  const pixels = context.getImageData(0, 0, target.width, target.height);
  for (let index = 0; index < pixels.data.length; index += 4) {
    const alpha = pixels.data[index + 3]!;
    pixels.data.set([...RED_GREEN_BLUE, 255 - alpha], index);
  }
  context.putImageData(pixels, 0, 0);
}

/** A PNG whose alpha is the picture's: nothing where the mask is. */
function alphaOf(mask: HTMLCanvasElement): Promise<Blob> {
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [mask.width, mask.height];
  const context = copy.getContext("2d")!;
  const pixels = mask.getContext("2d")!.getImageData(0, 0, mask.width, mask.height);
  for (let index = 0; index < pixels.data.length; index += 4) pixels.data.set([255, 255, 255, 255 - pixels.data[index + 3]!], index);
  context.putImageData(pixels, 0, 0);
  return new Promise((resolve, reject) => copy.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the mask could not be written"))), "image/png"));
}
