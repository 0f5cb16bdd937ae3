// A number: drag to change, click to type, arrows to step.

import { type KeyboardEvent, type PointerEvent, useRef, useState } from "react";
import { clamp, parseNumber, showNumber, stepBy } from "../graph/numbers.ts";
import type { Widget } from "../graph/specs.ts";
import type { WidgetProps } from "./Widget.tsx";

type NumberKind = Extract<Widget, { kind: "int" | "float" }>;

export function NumberWidget({ input, value, set, label, disabled, widget }: WidgetProps & { widget: NumberKind }) {
  const [typing, setTyping] = useState<string>();
  const [refused, setRefused] = useState<string>();
  const drag = useRef<{ x: number; value: typeof value; moved: boolean }>(undefined);
  const field = useRef<HTMLInputElement>(null);
  const bounded = Number(widget.max) - Number(widget.min) <= 100_000 && Number(widget.max) > Number(widget.min);
  const part = bounded && typeof value === "number" ? (value - Number(widget.min)) / (Number(widget.max) - Number(widget.min)) : 0;

  const finish = (text: string) => {
    setTyping(undefined);
    const parsed = parseNumber(text, widget);
    if (parsed === undefined) return;
    const held = clamp(parsed, widget);
    if (held !== parsed) {
      setRefused(`between ${widget.min} and ${widget.max}`);
      setTimeout(() => setRefused(undefined), 2500);
    }
    set(held);
  };
  const onKey = (event: KeyboardEvent<HTMLInputElement>) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      // Goes on to the command that runs the graph, with what was typed.
      if (typing !== undefined) finish(event.currentTarget.value);
      return;
    }
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
    if (event.key === "Enter") finish(event.currentTarget.value);
    else if (event.key === "Escape") {
      setTyping(undefined);
      event.currentTarget.blur();
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      event.preventDefault();
      const factor = event.shiftKey ? 10 : event.altKey ? 0.1 : 1;
      setTyping(undefined);
      set(stepBy(typing === undefined ? value : parseNumber(typing, widget), (event.key === "ArrowUp" ? 1 : -1) * factor, widget));
    }
  };
  const onDown = (event: PointerEvent<HTMLElement>) => {
    if (disabled || event.button !== 0 || document.activeElement === field.current) return;
    event.preventDefault();
    event.currentTarget.setPointerCapture(event.pointerId);
    drag.current = { x: event.clientX, value, moved: false };
  };
  const onMove = (event: PointerEvent<HTMLElement>) => {
    const start = drag.current;
    if (!start) return;
    const distance = event.clientX - start.x;
    if (!start.moved && Math.abs(distance) < 4) return;
    start.moved = true;
    const perPixel = bounded && Number(widget.max) - Number(widget.min) <= 20 * widget.step * 200 ? 0.5 : 0.25;
    set(stepBy(start.value, Math.round(distance * perPixel * (event.shiftKey ? 10 : 1)), widget));
  };
  const onUp = () => {
    const clicked = drag.current && !drag.current.moved;
    drag.current = undefined;
    if (clicked) {
      field.current?.focus();
      field.current?.select();
    }
  };
  return (
    <div className={`widget number nodrag${bounded ? " bounded" : ""}`} style={{ "--part": Math.max(0, Math.min(1, part)) } as React.CSSProperties} title={input.tooltip} onPointerDown={onDown} onPointerMove={onMove} onPointerUp={onUp} data-disabled={disabled || undefined}>
      <span className="name">{label}</span>
      <input
        ref={field} aria-label={label} inputMode="decimal" disabled={disabled} value={typing ?? showNumber(value, widget)} title={refused}
        role="spinbutton" aria-valuenow={Number(value ?? 0)} aria-valuemin={Number(widget.min)} aria-valuemax={Number(widget.max)} aria-invalid={refused !== undefined}
        onChange={(event) => setTyping(event.target.value)} onFocus={(event) => event.target.select()} onBlur={(event) => typing !== undefined && finish(event.target.value)} onKeyDown={onKey}
      />
      {refused && <span className="refused" role="alert">{refused}</span>}
    </div>
  );
}
