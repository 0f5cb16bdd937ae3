// A picture among the inputs: choose, upload, drop, paste, or paint a mask on it.

import { useRef, useState } from "react";
import * as api from "../api.ts";
import type { Widget } from "../graph/specs.ts";
import type { FileRef } from "../protocol.ts";
import { show, toast } from "../state/app.ts";
import { ChoiceWidget } from "./Choice.tsx";
import type { WidgetProps } from "./Widget.tsx";

/** The file that a value names: `folder/name.png [output]`. */
export function fileOf(value: string): FileRef {
  const marked = /^(.*?)(?: \[(input|output|temp)\])?$/.exec(value)!;
  const path = marked[1]!.replaceAll("\\", "/");
  const slash = path.lastIndexOf("/");
  return { filename: path.slice(slash + 1), subfolder: slash < 0 ? "" : path.slice(0, slash), type: marked[2] ?? "input" };
}

export const nameOf = (file: FileRef) => `${file.subfolder ? `${file.subfolder}/` : ""}${file.filename}${file.type === "input" ? "" : ` [${file.type}]`}`;

export function PictureWidget(props: WidgetProps & { widget: Extract<Widget, { kind: "choice" }> }) {
  const { node, input, value, set, label, disabled } = props;
  const [busy, setBusy] = useState(false);
  const [broken, setBroken] = useState<string>();
  const chooser = useRef<HTMLInputElement>(null);
  const name = typeof value === "string" ? value : "";
  const url = name ? api.viewUrl(fileOf(name)) : undefined;
  const take = async (file: File) => {
    setBusy(true);
    try {
      set(nameOf(await api.upload(file, file.name || "pasted.png")));
      setBroken(undefined);
    } catch (error) {
      toast(error instanceof Error ? error.message : String(error), "error");
    } finally {
      setBusy(false);
    }
  };
  return (
    <div className="picture-widget" data-upload={input.name} data-node={node}>
      <ChoiceWidget {...props} thumbnail={(it) => api.viewUrl(fileOf(it), "webp;60")} />
      <div className="picture-buttons nodrag">
        <button disabled={disabled || busy} onClick={() => chooser.current?.click()}>{busy ? "Uploading…" : "Upload"}</button>
        <button disabled={disabled || !url || broken === url} onClick={() => show({ kind: "mask", node, input: input.name, value: name })}>Paint mask</button>
        <input ref={chooser} type="file" accept="image/*" hidden aria-label={`Upload ${label}`} onChange={(event) => { const file = event.target.files?.[0]; if (file) void take(file); event.target.value = ""; }} />
      </div>
      {url && broken !== url ? (
        <div className="pictures checker"><img src={url} alt={name} onError={() => setBroken(url)} draggable={false} /></div>
      ) : (
        <button className="drop nodrag" disabled={disabled} onClick={() => chooser.current?.click()} onPaste={(event) => { const file = event.clipboardData.files[0]; if (file) void take(file); }}>{name ? `“${name}” is not there` : "Drop a picture here"}</button>
      )}
    </div>
  );
}
