// Which widget a value gets, by its type.

import type { Json } from "../graph/json.ts";
import type { Control as ControlKind } from "../graph/model.ts";
import { setControl } from "../graph/edit.ts";
import type { InputSpec } from "../graph/specs.ts";
import { edit, setNodeValue } from "../state/app.ts";
import { ChoiceWidget } from "./Choice.tsx";
import { NumberWidget } from "./Number.tsx";
import { PictureWidget } from "./Picture.tsx";
import { TextWidget } from "./Text.tsx";

export interface WidgetProps {
  node: string;
  input: InputSpec;
  value: Json | undefined;
  disabled: boolean;
  label: string;
  set(value: Json): void;
}

export function WidgetView({ node, input, value, disabled, label }: { node: string; input: InputSpec; value: Json | undefined; disabled: boolean; label?: string }) {
  const props: WidgetProps = { node, input, value, disabled, label: label ?? input.name.replace(/^.*:/, ""), set: (it) => setNodeValue(node, input.name, it) };
  switch (input.widget?.kind) {
    case "int":
    case "float":
      return <NumberWidget {...props} widget={input.widget} />;
    case "toggle":
      return <ToggleWidget {...props} on={input.widget.on} off={input.widget.off} />;
    case "text":
      return <TextWidget {...props} widget={input.widget} />;
    case "choice":
      return input.upload === "image" ? <PictureWidget {...props} widget={input.widget} /> : <ChoiceWidget {...props} widget={input.widget} />;
    case "color":
      return <ColorWidget {...props} />;
    default:
      return null;
  }
}

function ToggleWidget({ value, set, label, disabled, on, off, input }: WidgetProps & { on: string; off: string }) {
  const checked = value === true;
  return (
    <label className="widget toggle nodrag" title={input.tooltip}>
      <span className="name">{label}</span>
      <span className="state">{checked ? on : off}</span>
      <input type="checkbox" role="switch" checked={checked} disabled={disabled} onChange={(event) => set(event.target.checked)} />
      <i aria-hidden />
    </label>
  );
}

function ColorWidget({ value, set, label, disabled, input }: WidgetProps) {
  const color = typeof value === "string" ? value : "#000000";
  return (
    <label className="widget color nodrag" title={input.tooltip}>
      <span className="name">{label}</span>
      <input type="text" aria-label={`${label}, as text`} value={color} disabled={disabled} onChange={(event) => set(event.target.value)} />
      <input type="color" aria-label={label} value={/^#[0-9a-f]{6}$/i.test(color) ? color : "#000000"} disabled={disabled} onChange={(event) => set(event.target.value)} />
    </label>
  );
}

const CONTROLS: readonly [ControlKind, string, string][] = [
  ["fixed", "fixed", "Stays as it is"],
  ["randomize", "random", "Another one after each run"],
  ["increment", "+1", "One more after each run"],
  ["decrement", "−1", "One less after each run"],
];

/** How the value moves after a run. */
export function Control({ node, input, value }: { node: string; input: InputSpec; value: ControlKind }) {
  return (
    <div className="control nodrag" role="radiogroup" aria-label={`${input.name} after each run`}>
      {CONTROLS.map(([kind, label, title]) => (
        <button key={kind} role="radio" aria-checked={value === kind || (kind === "increment" && value === "increment-wrap")} title={title} onClick={() => edit("change how it moves", (scope) => setControl(scope, node, input.name, kind))}>{label}</button>
      ))}
    </div>
  );
}
