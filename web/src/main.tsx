// Starts the editor: asks for the classes, brings back what was open, follows what runs.

import "@xyflow/react/dist/style.css";
import "./style.css";
import { createRoot } from "react-dom/client";
import * as api from "./api.ts";
import { App } from "./App.tsx";
import { activeTab, firstView, setSpecs, toast, update } from "./state/app.ts";
import { autosave, restore } from "./state/files.ts";
import { follow, recall } from "./state/running.ts";
import { claimWindow } from "./state/window.ts";

createRoot(document.getElementById("root")!).render(<App />);

async function begin(): Promise<void> {
  try {
    setSpecs(await api.objectInfo());
  } catch (error) {
    toast(error instanceof Error ? error.message : String(error), "error");
    setTimeout(() => void begin(), 2000);
    return;
  }
  await claimWindow();
  await restore().catch(() => undefined);
  // Not sooner, or what is opened meanwhile would be lost from view.
  const tab = activeTab();
  update({ view: tab ? firstView(tab.doc) : "start", ready: true });
  autosave();
  follow();
  await recall().catch((error: unknown) => toast(error instanceof Error ? error.message : String(error), "error"));
  performance.mark("paraflow-ready");
}

void begin();
