// The editor as a whole: the bar, one view, and what lies over it.

import { ReactFlowProvider } from "@xyflow/react";
import { type DragEvent, lazy, Suspense, useEffect } from "react";
import { Canvas } from "./canvas/Canvas.tsx";
import { onKey } from "./commands/commands.ts";
import { onPaste } from "./commands/graph.ts";
import { Files, Help, Why } from "./panels/Dialogs.tsx";
import { Menu } from "./panels/Menu.tsx";
import { CommandPalette, ConnectPalette, FindPalette, NodePalette } from "./panels/Palette.tsx";
import { Side } from "./panels/Side.tsx";
import { Start } from "./panels/Start.tsx";
import { Breadcrumbs, Toasts, TopBar } from "./panels/TopBar.tsx";
import { Viewer } from "./panels/Viewer.tsx";
import { useApp } from "./state/app.ts";
import { openFile } from "./state/files.ts";

const Form = lazy(() => import("./panels/Form.tsx").then((it) => ({ default: it.Form })));
const MaskEditor = lazy(() => import("./widgets/MaskEditor.tsx").then((it) => ({ default: it.MaskEditor })));

export function App() {
  const view = useApp((state) => state.view);
  const hasTab = useApp((state) => state.tabs.some((tab) => tab.key === state.active));
  const ready = useApp((state) => state.ready);
  useTheme();
  useEffect(() => {
    addEventListener("keydown", onKey);
    addEventListener("paste", onPaste);
    return () => {
      removeEventListener("keydown", onKey);
      removeEventListener("paste", onPaste);
    };
  }, []);
  const onDrop = (event: DragEvent) => {
    if (event.defaultPrevented || !event.dataTransfer.files.length) return;
    event.preventDefault();
    for (const file of event.dataTransfer.files) void openFile(file, file.name);
  };
  return (
    <div className={`app view-${view}`} onDrop={onDrop} onDragOver={(event) => event.preventDefault()} data-ready={ready}>
      <TopBar />
      <div className="main">
        <main className="view">{view === "start" || !hasTab ? <Start /> : view === "form" ? <Suspense><Form /></Suspense> : <Graph />}<Over /></main>
        <Side />
      </div>
      <Toasts />
      <div id="announcements" className="unseen" aria-live="polite" />
    </div>
  );
}

/** Each graph, and each subgraph, has a canvas of its own: nothing measured in one is believed of another. */
function Graph() {
  const key = useApp((state) => {
    const tab = state.tabs.find((it) => it.key === state.active);
    return tab && [tab.key, ...tab.path.map((step) => step.node)].join(":");
  });
  const name = useApp((state) => state.tabs.find((it) => it.key === state.active)?.name);
  return <><h1 className="unseen">{name}</h1><ReactFlowProvider key={key}><Canvas /></ReactFlowProvider><Breadcrumbs /></>;
}

function Over() {
  const overlay = useApp((state) => state.overlay);
  switch (overlay?.kind) {
    case "palette":
      return <NodePalette at={overlay.at} wire={overlay.wire} />;
    case "commands":
      return <CommandPalette />;
    case "find":
      return <FindPalette />;
    case "connect":
      return <ConnectPalette node={overlay.node} />;
    case "help":
      return <Help />;
    case "menu":
      return <Menu {...overlay} />;
    case "viewer":
      return <Viewer {...overlay} />;
    case "mask":
      return <Suspense><MaskEditor {...overlay} /></Suspense>;
    case "files":
      return <Files saving={overlay.saveAs} />;
    case "why":
      return <Why {...(overlay.node === undefined ? {} : { node: overlay.node })} />;
    default:
      return null;
  }
}

/** Dark or light, as chosen or as the system has it. */
function useTheme(): void {
  const theme = useApp((state) => state.theme);
  useEffect(() => {
    const query = matchMedia("(prefers-color-scheme: light)");
    const apply = () => void (document.documentElement.dataset["theme"] = theme === "system" ? (query.matches ? "light" : "dark") : theme);
    apply();
    query.addEventListener("change", apply);
    return () => query.removeEventListener("change", apply);
  }, [theme]);
}
