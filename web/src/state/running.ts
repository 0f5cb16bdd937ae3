// Queueing, cancelling, and following what runs.

import * as api from "../api.ts";
import { nextSeed } from "../graph/numbers.ts";
import { setValue, updateNodes, withScope } from "../graph/edit.ts";
import { formatJson, parseJson, type Json, type JsonObject } from "../graph/json.ts";
import type { Doc } from "../graph/model.ts";
import { neededFor, promptIds, toPrompt } from "../graph/prompt.ts";
import {
  NO_RUNS, type NodeError, type Run, type RunState, missedEnds, newRun, nodeErrors, reduce, runsOf, settleHistory, settleQueue, withRun,
} from "../graph/run.ts";
import { type Specs, inputsOf } from "../graph/specs.ts";
import { VALUE, isVirtual } from "../graph/virtual.ts";
import { writeDoc } from "../graph/write.ts";
import type { Frame, Picture } from "../frames.ts";
import { type Tab, activeTab, amend, announce, app, setSpecs, toast } from "./app.ts";
import { createStore, useStore } from "./store.ts";
import { clientId } from "./window.ts";

export const runs = createStore<RunState>(NO_RUNS);
export const useRuns = <P>(select: (state: RunState) => P): P => useStore(runs, select);

/** Faults of the last refused prompt, by document and node. */
export const faults = createStore<Readonly<Record<string, Readonly<Record<string, readonly NodeError[]>>>>>({});
/** What nodes look like while they run, by document and node: addresses of pictures. */
export const previews = createStore<Readonly<Record<string, string>>>({});

let socket: api.Socket | undefined;

/** Opens the socket and keeps the state right from then on. */
export function follow(): void {
  socket ??= new api.Socket(clientId(), {
    frame: (frame) => onFrame(frame),
    picture: (picture) => onPicture(picture),
    state: (connected) => {
      runs.set((state) => ({ ...state, connected }));
      if (connected) void settle();
    },
  });
}

/** Asks for what was missed. */
export async function settle(): Promise<void> {
  try {
    const [asked, before] = [runs.get(), statusFrames];
    const queue = await api.queue();
    runs.set((state) => settleQueue(state, queue));
    const missed = missedEnds(runs.get(), queue, asked);
    for (const id of missed) {
      const entry = await api.historyOf(id);
      runs.set((state) => settleHistory(state, id, entry, Date.now()));
    }
    // What changed while it was asked may be missing in the answer.
    if (statusFrames !== before) lookAgain(true);
  } catch (error) {
    if (error instanceof api.ServerError && error.status === 0) return;
    throw error;
  }
}

/** Reads what ran before, for the gallery and the pictures in nodes. */
export async function recall(): Promise<void> {
  const entries = await api.history(40);
  for (const [id, entry] of Object.entries(entries)) runs.set((state) => (state.runs[id]?.ended ? state : settleHistory(state, id, entry, Date.now())));
  await settle();
}

/** Frames of runs that the answer to their prompt has not named yet: a run whose results are all there is over before. */
let early: Frame[] = [];
let asking = 0;

function onFrame(frame: Frame): void {
  const named = frame.data["prompt_id"];
  if (asking && typeof named === "string" && !runs.get().runs[named]) {
    early.push(frame);
    return;
  }
  // Files came or went: the lists of choices are others now.
  if (frame.type === "paraflow.nodes") void api.objectInfo().then(setSpecs, () => undefined);
  const before = runs.get();
  runs.set((state) => reduce(state, frame, Date.now()));
  if (frame.type === "status") {
    statusFrames++;
    lookAgain();
  }
  const id = frame.data["prompt_id"];
  const run = typeof id === "string" ? runs.get().runs[id] : undefined;
  if (frame.type === "execution_start" && run) forgetPreviews(run.doc);
  if (frame.type === "executed" && run) dropPreview(`${run.doc}/${String(frame.data["display_node"] ?? frame.data["node"])}`);
  if (run && before.runs[run.id]?.status !== run.status && run.ended) told(run);
}

let looking: ReturnType<typeof setTimeout> | undefined;
let statusFrames = 0;

/** Nobody is told of the ends of other windows' runs: when the queue got shorter than what we think is in it, it is asked. */
function lookAgain(surely = false): void {
  const { runs: all, remaining } = runs.get();
  clearTimeout(looking);
  if (surely || Object.values(all).filter((run) => run.ended === undefined).length > remaining) looking = setTimeout(() => void settle(), 250);
}

function told(run: Run): void {
  forgetPreviews(run.doc);
  if (run.status === "failed") {
    const error = run.error;
    toast(error?.message ?? "the run failed", "error", error?.hint);
    if (error?.node) faults.set((all) => ({ ...all, [run.doc]: { [error.node!]: [error] } }));
  } else announce(run.status === "done" ? "the run is done" : "the run was cancelled");
}

function onPicture(picture: Picture): void {
  if (!("blob" in picture)) return;
  const state = runs.get();
  const run = picture.prompt ? state.runs[picture.prompt] : state.active ? state.runs[state.active] : undefined;
  const node = picture.node ?? run?.current;
  if (!run || !node || run.ended) return;
  const key = `${run.doc}/${node}`;
  const url = URL.createObjectURL(picture.blob);
  const old = previews.get()[key];
  previews.set((all) => ({ ...all, [key]: url }));
  if (old) setTimeout(() => URL.revokeObjectURL(old), 1000);
}

function dropPreview(key: string): void {
  const url = previews.get()[key];
  if (!url) return;
  URL.revokeObjectURL(url);
  previews.set((all) => Object.fromEntries(Object.entries(all).filter(([it]) => it !== key)));
}

function forgetPreviews(doc: string): void {
  for (const key of Object.keys(previews.get())) if (key.startsWith(`${doc}/`)) dropPreview(key);
}

/** Queues the document, or as much of it as the nodes in `targets` need. */
export async function queueRun(targets?: readonly string[]): Promise<void> {
  const tab = activeTab();
  if (!tab) return;
  const { specs, batch } = app.get();
  faults.set((all) => ({ ...all, [tab.doc.id]: {} }));
  // What was wrong with the last one is no longer news.
  app.set((state) => (state.toasts.some((it) => it.kind === "error") ? { ...state, toasts: state.toasts.filter((it) => it.kind !== "error") } : state));
  for (let round = 0; round < (targets ? 1 : batch); round++) {
    const current = app.get().tabs.find((it) => it.key === tab.key);
    if (!current || !(await queueOnce(current, specs, targets))) return;
  }
}

async function queueOnce(tab: Tab, specs: Specs, targets?: readonly string[]): Promise<boolean> {
  const prompt = toPrompt(tab.doc, specs);
  const missing = Object.entries(prompt).filter(([, node]) => !specs.has(node.class_type));
  if (missing.length) markMissing(tab, missing);
  if (Object.keys(prompt).length === 0) {
    toast("there is nothing to run: the graph has no nodes", "error", "press / to add some, or open one from the start page");
    return false;
  }
  const workflow = parseJson(formatJson(writeDoc(tab.doc, specs))) as JsonObject;
  const wanted = targets?.flatMap((id) => promptIds(prompt, id));
  const body: JsonObject = {
    client_id: clientId(), prompt: prompt as unknown as Json, extra_data: { extra_pnginfo: { workflow }, preview_method: "auto", name: tab.name },
    // ComfyUI's goes as far as outputs only, ours as far as any node.
    ...(wanted ? { partial_execution_targets: wanted, paraflow_targets: wanted } : {}),
  };
  try {
    asking++;
    const answer = await api.submit(body).finally(() => asking--);
    if ("error" in answer && answer.error) {
      refused(tab, answer);
      return false;
    }
    if ("prompt_id" in answer) accepted(tab, answer, wanted ? neededFor(prompt, wanted).size : Object.keys(prompt).length);
    amend(tab.key, (doc) => moveSeeds(doc, specs));
    return true;
  } catch (error) {
    toast(error instanceof Error ? error.message : String(error), "error");
    return false;
  }
}

function markMissing(tab: Tab, missing: [string, { class_type: string }][]): void {
  const marks = Object.fromEntries(missing.map(([id, node]) => [id, [{ node: id, message: `there is no class \`${node.class_type}\` here`, hint: "mute, bypass or delete the node" }]]));
  faults.set((all) => ({ ...all, [tab.doc.id]: marks }));
}

function refused(tab: Tab, answer: Extract<Awaited<ReturnType<typeof api.submit>>, { error: unknown }>): void {
  const error = answer.error;
  const marks = nodeErrors(answer.node_errors ?? {});
  faults.set((all) => ({ ...all, [tab.doc.id]: { ...all[tab.doc.id], ...marks } }));
  const count = Object.values(marks).reduce((sum, list) => sum + list.length, 0);
  const message = typeof error === "string" ? error : error.message;
  const first = Object.values(marks)[0]?.[0];
  toast(count ? `${count === 1 ? "one fault" : `${count} faults`} to mend before it can run` : message, "error", first ? `${first.message}${first.hint ? ` — ${first.hint}` : ""}` : typeof error === "string" ? undefined : error.details);
}

function accepted(tab: Tab, answer: { prompt_id: string; number: number; node_errors: Record<string, never> | object }, total: number): void {
  // The first frames may have come before the answer.
  runs.set((state) => (state.runs[answer.prompt_id] ? state : withRun(state, newRun(answer.prompt_id, tab.doc.id, tab.name, total, answer.number))));
  const [mine, others] = [early.filter((it) => it.data["prompt_id"] === answer.prompt_id), early.filter((it) => it.data["prompt_id"] !== answer.prompt_id)];
  early = asking ? others : [];
  mine.forEach(onFrame);
  const marks = nodeErrors((answer.node_errors ?? {}) as Parameters<typeof nodeErrors>[0]);
  if (Object.keys(marks).length) faults.set((all) => ({ ...all, [tab.doc.id]: marks }));
  void settle();
  announce("queued");
}

/** Seeds and lists move on after queueing, as they are told to. */
function moveSeeds(doc: Doc, specs: Specs): Doc {
  let moved = doc;
  for (const scope of Object.values(doc.scopes)) {
    let changed = scope;
    for (const node of Object.values(scope.nodes)) {
      if (isVirtual(node.type)) continue;
      const spec = specs.get(node.type);
      for (const input of spec ? inputsOf(spec, node, new Set()) : []) {
        const control = node.control[input.name];
        if (!input.control || !control || control === "fixed") continue;
        const next = nextSeed(node.values[input.name], control, input);
        if (next !== undefined) changed = setValue(changed, node.id, input.name, next);
      }
    }
    moved = withScope(moved, updateNodes(changed, [], (node) => node));
  }
  return moved;
}

/** Stops a run, or takes it out of the queue. */
export async function cancel(id: string): Promise<void> {
  const run = runs.get().runs[id];
  try {
    if (run?.status === "queued") {
      await api.unqueue([id]);
      runs.set((state) => settleHistory(state, id, undefined, Date.now()));
    } else await api.interrupt(id);
  } catch (error) {
    toast(error instanceof Error ? error.message : String(error), "error");
  }
}

export async function cancelCurrent(): Promise<void> {
  const id = runs.get().active;
  if (id) await cancel(id);
}

/** The run that the canvas shows for a document: the one that runs, else the latest. */
export function shownRun(state: RunState, doc: string): Run | undefined {
  const active = state.active ? state.runs[state.active] : undefined;
  if (active?.doc === doc) return active;
  return runsOf(state, doc).find((run) => run.status !== "queued");
}

const latestOutputs = new WeakMap<object, Map<string, JsonObject | undefined>>();

/** What a node showed last, in any run of the document. */
export function outputOf(state: RunState, doc: string, node: string): JsonObject | undefined {
  let known = latestOutputs.get(state.runs);
  if (!known) latestOutputs.set(state.runs, (known = new Map()));
  const key = `${doc}/${node}`;
  if (!known.has(key)) known.set(key, runsOf(state, doc).find((run) => run.outputs[node])?.outputs[node]);
  return known.get(key);
}

export { VALUE };
