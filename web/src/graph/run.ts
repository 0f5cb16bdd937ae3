// What runs, from the server's frames: a pure function from state and frame to state. The same frame twice changes
// nothing, and whatever was missed while the socket was down is settled from queue and history.

import { type Json, type JsonObject, asList, asObject, asText } from "./json.ts";
import type { Frame } from "../frames.ts";
import type { Fault, HistoryEntry, NodeFaults, Queue, Why } from "../protocol.ts";

export type NodeState = "running" | "done" | "cached" | "failed";

export interface NodeRun {
  state: NodeState;
  value: number;
  max: number;
  started?: number;
  ms?: number;
  /** What its results take in memory, where the server tells. */
  bytes?: number;
  why?: Reason;
}

/** Why a node ran, as the server has it. */
export interface Reason {
  why: Why;
  inputs: readonly string[];
  nodes: readonly string[];
}

export type RunStatus = "queued" | "running" | "done" | "failed" | "cancelled";

export interface Run {
  id: string;
  /** The document it is of. */
  doc: string;
  name: string;
  status: RunStatus;
  number: number;
  /** While it waits: how many go before it. */
  place?: number;
  nodes: Readonly<Record<string, NodeRun>>;
  outputs: Readonly<Record<string, JsonObject>>;
  /** How many nodes the prompt has. */
  total: number;
  current?: string;
  started?: number;
  ended?: number;
  error?: NodeError;
  notes: readonly { node: string; text: string }[];
  /** Loss curves of trainings, by node. */
  curves: Readonly<Record<string, readonly LossPoint[]>>;
  /** What trainings have learnt by now, by node. */
  samples: Readonly<Record<string, readonly Sample[]>>;
}

/** A point of a training's loss curve. */
export interface LossPoint {
  step: number;
  loss: number;
  validation?: number;
}

/** A picture of a sample prompt, made during a training. */
export interface Sample {
  step: number;
  file: Json;
}

/** What went wrong at a node. */
export interface NodeError {
  node?: string;
  input?: string;
  message: string;
  hint?: string;
}

export interface RunState {
  runs: Readonly<Record<string, Run>>;
  remaining: number;
  /** The prompt that runs. */
  active?: string;
  /** The node that runs, told to a window that comes back without saying of which prompt. */
  told?: string;
  connected: boolean;
}

export const NO_RUNS: RunState = { runs: {}, remaining: 0, connected: false };
const KEPT = 60;

export function newRun(id: string, doc: string, name: string, total: number, number: number): Run {
  return { id, doc, name, status: "queued", number, nodes: {}, outputs: {}, total, notes: [], curves: {}, samples: {} };
}

/** The state with a run in it; an older one that ended makes room. */
export function withRun(state: RunState, run: Run): RunState {
  const runs = { ...state.runs, [run.id]: run };
  const ended = Object.values(runs).filter((it) => it.ended !== undefined).sort((a, b) => (a.ended ?? 0) - (b.ended ?? 0));
  for (const old of ended.slice(0, Math.max(0, Object.keys(runs).length - KEPT))) delete runs[old.id];
  return { ...state, runs };
}

function change(state: RunState, id: string | undefined, edit: (run: Run) => Run): RunState {
  const run = id === undefined ? undefined : state.runs[id];
  if (!run) return state;
  const edited = edit(run);
  return edited === run ? state : { ...state, runs: { ...state.runs, [run.id]: edited } };
}

const isOver = (run: Run) => run.ended !== undefined;

/** The state after a frame. */
export function reduce(state: RunState, frame: Frame, now: number): RunState {
  const { data } = frame;
  const id = asText(data["prompt_id"]);
  switch (frame.type) {
    case "status": {
      const remaining = Number(asObject(asObject(data["status"])?.["exec_info"])?.["queue_remaining"] ?? state.remaining);
      return remaining === state.remaining ? state : { ...state, remaining };
    }
    case "execution_start": {
      const started = change(state, id, (run) => (run.status === "queued" ? { ...run, status: "running", started: time(data, now), nodes: {} } : run));
      // Told late, of a run whose end is known already, it makes no run the one that is on its way.
      return id && started.runs[id] && !isOver(started.runs[id]) ? { ...started, active: id } : started;
    }
    case "execution_cached":
      return change(state, id, (run) => ({ ...run, nodes: { ...run.nodes, ...cached(run, asList(data["nodes"])) } }));
    case "executing":
      return executing(state, id ?? state.active, asText(data["node"]), now);
    case "progress":
      return change(state, id ?? state.active, (run) => progress(run, asText(data["node"]), Number(data["value"]), Number(data["max"]), now));
    case "progress_state":
      return change(state, id, (run) => table(run, asObject(data["nodes"]) ?? {}, now));
    case "executed":
      return change(state, id, (run) => executed(run, data));
    case "execution_success":
      return finish(state, id, "done", time(data, now));
    case "execution_interrupted":
      return finish(state, id, "cancelled", time(data, now));
    case "execution_error":
      if (data["exception_type"] === "ExecutionBlocked") return change(state, id, (run) => noted(run, asText(data["node_id"]), asText(data["exception_message"])));
      return finish(change(state, id, (run) => failed(run, data)), id, "failed", time(data, now));
    case "paraflow.loss":
      return change(state, id, (run) => learnt(run, data));
    case "paraflow.sample":
      return change(state, id, (run) => sampled(run, data));
    case "paraflow.ran":
      return change(state, id, (run) => ran(run, data));
    case "paraflow.warning":
      return change(state, id, (run) => noted(run, asText(data["node"]), asText(data["text"])));
    default:
      return state;
  }
}

/** A point more, unless it is there: points come in the order of their steps. */
function learnt(run: Run, data: JsonObject): Run {
  const node = asText(data["node"]);
  const [step, loss, validation] = [Number(data["step"]), Number(data["loss"]), data["validation"]];
  const known = (node && run.curves[node]) || [];
  if (!node || !Number.isFinite(step) || !Number.isFinite(loss) || step <= (known.at(-1)?.step ?? 0)) return run;
  const point = { step, loss, ...(typeof validation === "number" ? { validation } : {}) };
  return { ...run, curves: { ...run.curves, [node]: [...known, point] } };
}

/** The node gave its result: the server's own measures count. */
function ran(run: Run, data: JsonObject): Run {
  const node = asText(data["node"]);
  if (!node) return run;
  const known = run.nodes[node];
  if (known?.why) return run;
  const names = (list: Json | undefined) => asList(list).filter((it): it is string => typeof it === "string");
  const why: Reason = { why: (asText(data["why"]) ?? "again") as Why, inputs: names(data["inputs"]), nodes: names(data["nodes"]) };
  const max = known?.max ?? 1;
  return { ...run, nodes: { ...run.nodes, [node]: { ...known, state: "done", value: max, max, ms: Number(data["elapsed_ms"] ?? known?.ms ?? 0), bytes: Number(data["bytes"] ?? 0), why } } };
}

function sampled(run: Run, data: JsonObject): Run {
  const node = asText(data["node"]);
  const step = Number(data["step"]);
  const file = data["image"] ?? data["file"];
  const known = (node && run.samples[node]) || [];
  if (!node || !file || known.some((it) => it.step === step)) return run;
  return { ...run, samples: { ...run.samples, [node]: [...known, { step, file }] } };
}

/** Something to know that stops nothing; told twice it is kept once. */
function noted(run: Run, node = "", text = ""): Run {
  const there = run.notes.some((note) => note.node === node && note.text === text);
  return there ? run : { ...run, notes: [...run.notes, { node, text }] };
}

function time(data: JsonObject, now: number): number {
  return typeof data["timestamp"] === "number" ? data["timestamp"] : now;
}

function cached(run: Run, ids: Json[]): Record<string, NodeRun> {
  return Object.fromEntries(ids.filter((id): id is string => typeof id === "string" && !run.nodes[id]).map((id) => [id, { state: "cached", value: 1, max: 1 }]));
}

function executing(state: RunState, id: string | undefined, node: string | undefined, now: number): RunState {
  if (node === undefined) return state.active === id ? { ...state, active: undefined } : state;
  if (id === undefined) return { ...state, told: node };
  const running = change(state, id, (run) => {
    if (isOver(run) || run.nodes[node]?.state === "done") return run;
    const known = run.nodes[node];
    const entry: NodeRun = known?.state === "running" ? known : { state: "running", value: 0, max: 1, started: now };
    return { ...run, status: "running", current: node, nodes: { ...run.nodes, [node]: entry } };
  });
  return id && state.runs[id] && !isOver(state.runs[id]) ? { ...running, active: id } : running;
}

function progress(run: Run, node: string | undefined, value: number, max: number, now: number): Run {
  if (!node || isOver(run)) return run;
  const known = run.nodes[node];
  if (known?.state === "done" || (known && known.max === max && known.value >= value && known.state === "running")) return run;
  return { ...run, status: "running", current: node, nodes: { ...run.nodes, [node]: { started: now, ...known, state: "running", value, max } } };
}

/** The whole table of nodes that have begun: also what was missed is in it. */
function table(run: Run, entries: JsonObject, now: number): Run {
  if (isOver(run)) return run;
  const nodes = { ...run.nodes };
  let [current, changed] = [run.current, false];
  for (const [id, entry] of Object.entries(entries)) {
    const it = asObject(entry);
    const state = it?.["state"] === "finished" ? "done" : "running";
    const known = nodes[id];
    if (!it || known?.state === "cached" || (known?.state === "done" && state === "done")) continue;
    const [value, max] = [Number(it["value"] ?? 0), Number(it["max"] ?? 1)];
    if (known?.state === state && known.value >= value && known.max === max) continue;
    changed = true;
    const started = known?.started ?? now;
    nodes[id] = state === "done" ? { ...known, state, value: max, max, started, ms: elapsed(it) ?? now - started } : { ...known, state, value, max, started };
    if (state === "running") current = id;
  }
  return changed ? { ...run, status: "running", nodes, ...(current ? { current } : {}) } : run;
}

/** The server's own measure of a node's time, where it sends one. */
function elapsed(entry: JsonObject): number | undefined {
  const found = entry["elapsed_ms"] ?? entry["ms"];
  return typeof found === "number" ? found : undefined;
}

function executed(run: Run, data: JsonObject): Run {
  const node = asText(data["node"]);
  const output = asObject(data["output"]);
  return node && output ? { ...run, outputs: { ...run.outputs, [asText(data["display_node"]) ?? node]: output } } : run;
}

function failed(run: Run, data: JsonObject): Run {
  const node = asText(data["node_id"]);
  const message = asText(data["exception_message"]) ?? "the node failed";
  const [first, hint] = splitHint(message.trim());
  const known = asText(data["hint"]) ?? hint;
  const error: NodeError = { ...(node ? { node } : {}), message: first, ...(known ? { hint: known } : {}) };
  const nodes = node ? { ...run.nodes, [node]: { ...(run.nodes[node] ?? { value: 0, max: 1 }), state: "failed" as const } } : run.nodes;
  return { ...run, error, nodes };
}

/** A message may carry its way out on a line of its own. */
export function splitHint(message: string): [string, string | undefined] {
  const at = message.search(/\n\s*hint:/);
  return at < 0 ? [message, undefined] : [message.slice(0, at).trim(), message.slice(at).replace(/^\s*hint:\s*/, "").trim()];
}

function finish(state: RunState, id: string | undefined, status: RunStatus, now: number): RunState {
  return change(state.active === id ? { ...state, active: undefined } : state, id, (run) => {
    if (isOver(run)) return run;
    const nodes = Object.fromEntries(
      Object.entries(run.nodes).flatMap(([node, it]) => {
        if (it.state !== "running") return [[node, it]];
        return status === "done" ? [[node, { ...it, state: "done" as const, value: it.max, ms: now - (it.started ?? now) }]] : [];
      }),
    );
    const { current: _current, ...rest } = run;
    return { ...rest, status, ended: now, nodes };
  });
}

/** What the queue says about runs that we know of, and those of this editor that we do not. */
export function settleQueue(state: RunState, queue: Queue): RunState {
  let settled = state;
  for (const [items, status] of [[queue.queue_running, "running"], [queue.queue_pending, "queued"]] as const) {
    for (const [place, [number, id, prompt, extra]] of items.entries()) {
      const known = settled.runs[id];
      const workflow = asObject(asObject(extra["extra_pnginfo"])?.["workflow"]);
      const run = known ?? newRun(id, asText(workflow?.["id"]) ?? "", asText(extra["name"]) ?? "", Object.keys(prompt).length, number);
      if (!known || (status === "running" && known.status === "queued")) settled = withRun(settled, { ...run, status, ...(status === "running" ? { started: run.started ?? Date.now() } : {}) });
      // The answer may be older than what was told since.
      if (status === "running" && !isOver(settled.runs[id]!)) settled = { ...settled, active: id };
      else settled = change(settled, id, (it) => (it.place === place ? it : { ...it, place }));
    }
  }
  const { told, ...rest } = { ...settled, remaining: queue.queue_running.length + queue.queue_pending.length };
  return told === undefined || rest.active === undefined ? rest : executing(rest, rest.active, told, Date.now());
}

/** Runs that we think are on their way but the queue does not have: their end was missed. `asked` is what was known when the
 * queue was asked for: a run that came later is none of them. */
export function missedEnds(state: RunState, queue: Queue, asked: RunState): string[] {
  const there = new Set([...queue.queue_running, ...queue.queue_pending].map((item) => item[1]));
  return Object.values(state.runs).filter((run) => asked.runs[run.id] && !isOver(run) && !there.has(run.id)).map((run) => run.id);
}

/** A run as the history has it: the frames that it was told by are told again. */
export function settleHistory(state: RunState, id: string, entry: HistoryEntry | undefined, now: number): RunState {
  if (!entry) return finish(state, id, "cancelled", now);
  let settled = state;
  if (!settled.runs[id]) {
    const [number, , prompt, extra] = entry.prompt;
    const workflow = asObject(asObject(extra["extra_pnginfo"])?.["workflow"]);
    settled = withRun(settled, newRun(id, asText(workflow?.["id"]) ?? "", asText(extra["name"]) ?? "", Object.keys(prompt).length, number));
  }
  for (const [node, output] of Object.entries(entry.outputs)) settled = change(settled, id, (run) => executed(run, { node, output }));
  const [last, ...earlier] = [...(entry.status?.messages ?? [])].reverse();
  for (const [type, data] of earlier.reverse()) settled = reduce(settled, { type, data }, now);
  for (const it of entry.status?.ran ?? []) settled = reduce(settled, { type: "paraflow.ran", data: { ...it } as unknown as JsonObject }, now);
  if (last) settled = reduce(settled, { type: last[0], data: last[1] }, now);
  return change(settled, id, (run) => (isOver(run) ? run : { ...run, status: entry.status?.status_str === "success" ? "done" : "failed", ended: now }));
}

/** Faults of a refused prompt, by node. */
export function nodeErrors(faults: Record<string, NodeFaults>): Record<string, NodeError[]> {
  return Object.fromEntries(Object.entries(faults).map(([node, it]) => [node, it.errors.map((fault) => nodeError(node, fault))]));
}

function nodeError(node: string, fault: Fault): NodeError {
  const input = asText(fault.extra_info?.["input_name"]);
  const [details, hint] = splitHint(fault.details ?? "");
  const known = asText(fault.extra_info["hint"]) ?? hint;
  const message = details && details !== input ? `${fault.message}: ${details}` : fault.message;
  return { node, message, ...(input ? { input } : {}), ...(known ? { hint: known } : {}) };
}

/** The runs of a document, the latest first. */
export function runsOf(state: RunState, doc: string): Run[] {
  return Object.values(state.runs).filter((run) => run.doc === doc).sort((a, b) => b.number - a.number || (b.started ?? 0) - (a.started ?? 0));
}

/** How much of a run is done, from 0 to 1. */
export function fraction(run: Run): number {
  if (run.status === "done") return 1;
  const sum = Object.values(run.nodes).reduce((done, node) => done + (node.state === "running" ? Math.min(1, node.value / (node.max || 1)) : 1), 0);
  return run.total ? Math.min(1, sum / run.total) : 0;
}
