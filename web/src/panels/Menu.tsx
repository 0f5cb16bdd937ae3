// The menu on the right mouse button: commands that fit, and colours.

import { useLayoutEffect, useRef } from "react";
import { toCanvas } from "../canvas/view.ts";
import { COLORS } from "../commands/colors.ts";
import { command, showKeys } from "../commands/commands.ts";
import { place, recolor } from "../commands/graph.ts";
import { addReroute, disconnect, removeGroups, updateGroup } from "../graph/edit.ts";
import { edit, select, show } from "../state/app.ts";
import { REROUTE } from "../graph/virtual.ts";

const OF_NODE = ["run-to", "rename", "connect", "mute", "bypass", "collapse", "unfold", "expose", "open-subgraph", "unpack-subgraph", "subgraph", "group", "copy", "duplicate", "delete", "delete-heal"];
const OF_PANE = ["add", "note", "group", "layout", "fit", "select-all", "run", "form", "save", "export-api", "help"];

export function Menu({ x, y, node, group, wire }: { x: number; y: number; node?: string; group?: string; wire?: string }) {
  const box = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const it = box.current;
    if (!it) return;
    it.style.left = `${Math.max(4, Math.min(x, innerWidth - it.offsetWidth - 8))}px`;
    it.style.top = `${Math.max(4, Math.min(y, innerHeight - it.offsetHeight - 8))}px`;
    it.querySelector<HTMLElement>("button")?.focus();
  }, [x, y]);
  const act = (run: () => unknown) => () => {
    show(undefined);
    void run();
  };
  const listed = (node ? OF_NODE : group || wire ? [] : OF_PANE).map(command).filter((it) => it && (!it.when || it.when()));
  return (
    <div className="shade clear" onPointerDown={(event) => event.target === event.currentTarget && show(undefined)} onContextMenu={(event) => { event.preventDefault(); show(undefined); }}>
      <div ref={box} className="menu" role="menu" onKeyDown={(event) => {
        if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
        event.preventDefault();
        const buttons = [...event.currentTarget.querySelectorAll<HTMLElement>("button")];
        const at = buttons.indexOf(document.activeElement as HTMLElement);
        buttons[(at + (event.key === "ArrowDown" ? 1 : -1) + buttons.length) % buttons.length]?.focus();
      }}>
        {listed.map((it) => <button key={it!.id} role="menuitem" onClick={act(() => it!.run())}><span>{it!.label}</span>{it!.keys && <kbd>{showKeys(it!.keys[0]!)}</kbd>}</button>)}
        {wire && <button role="menuitem" onClick={act(() => { let id: string | undefined; edit("add a reroute", (scope) => { const made = addReroute(scope, wire, toCanvas([x, y])); id = made?.id; return made?.scope ?? scope; }); if (id) select([id]); })}>Add a reroute</button>}
        {wire && <button role="menuitem" onClick={act(() => edit("delete a wire", (scope) => disconnect(scope, [wire])))}>Delete the wire</button>}
        {group && <button role="menuitem" onClick={act(() => edit("take a group off", (scope) => removeGroups(scope, new Set([group]))))}>Take the group off, keep its nodes</button>}
        {!node && !wire && !group && <button role="menuitem" onClick={act(() => place(REROUTE, [x, y]))}>Add a reroute</button>}
        {(node || group) && (
          <div className="swatches" role="group" aria-label="Colour">
            {COLORS.map(([name, color]) => <button key={name} role="menuitem" aria-label={name} title={name} style={{ background: color ?? "var(--node)" }} onClick={act(() => (group ? edit("colour", (scope) => updateGroup(scope, group, ({ color: _old, ...it }) => ({ ...it, ...(color ? { color } : {}) }))) : recolor(color)))} />)}
          </div>
        )}
      </div>
    </div>
  );
}
