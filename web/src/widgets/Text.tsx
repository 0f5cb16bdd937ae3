// A text: one line, or a prompt of several with weights on Ctrl+Up and Ctrl+Down.

import { type KeyboardEvent, useRef } from "react";
import type { Widget } from "../graph/specs.ts";
import { isCaptioned } from "../graph/layout.ts";
import { changeWeight } from "../graph/weights.ts";
import type { WidgetProps } from "./Widget.tsx";

type TextKind = Extract<Widget, { kind: "text" }>;

export function TextWidget({ input, value, set, label, disabled, widget }: WidgetProps & { widget: TextKind }) {
  const text = typeof value === "string" ? value : value === undefined || value === null ? "" : String(value);
  const area = useRef<HTMLTextAreaElement>(null);
  const onKey = (event: KeyboardEvent<HTMLTextAreaElement>) => {
    if ((event.ctrlKey || event.metaKey) && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      event.preventDefault();
      const { selectionStart, selectionEnd } = event.currentTarget;
      const edited = changeWeight(text, selectionStart, selectionEnd, event.key === "ArrowUp" ? 0.05 : -0.05);
      set(edited.text);
      requestAnimationFrame(() => area.current?.setSelectionRange(edited.start, edited.end));
    }
    if (event.key === "Escape") event.currentTarget.blur();
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  };
  if (widget.multiline) {
    return (
      <>
        {isCaptioned(label) && <span className="caption" aria-hidden>{label}</span>}
        <textarea
          ref={area} className="widget prompt nodrag nowheel" aria-label={label} placeholder={widget.placeholder || label} title={input.tooltip} spellCheck={false}
          disabled={disabled} value={text} onChange={(event) => set(event.target.value)} onKeyDown={onKey}
        />
      </>
    );
  }
  return (
    <label className="widget line nodrag" title={input.tooltip}>
      <span className="name">{label}</span>
      <input type="text" disabled={disabled} value={text} placeholder={widget.placeholder} onChange={(event) => set(event.target.value)} onKeyDown={(event) => { if (!event.ctrlKey && !event.metaKey) event.stopPropagation(); if (event.key === "Escape") event.currentTarget.blur(); }} />
    </label>
  );
}
