import { expect, test } from "vitest";
import type { Frame } from "../frames.ts";
import { readBinary } from "../frames.ts";
import type { HistoryEntry, Ran } from "../protocol.ts";
import type { JsonObject } from "./json.ts";
import { NO_RUNS, type RunState, fraction, missedEnds, newRun, nodeErrors, reduce, settleHistory, settleQueue, withRun } from "./run.ts";

const frame = (type: string, data: JsonObject): Frame => ({ type, data: { prompt_id: "p", ...data } });
const table = (nodes: Record<string, [number, number, string]>) => frame("progress_state", { nodes: Object.fromEntries(Object.entries(nodes).map(([id, [value, max, state]]) => [id, { value, max, state }])) });

const RUN: Frame[] = [
  frame("execution_start", { timestamp: 1000 }),
  frame("execution_cached", { nodes: ["1"], timestamp: 1000 }),
  table({ "2": [0, 1, "running"] }),
  frame("executing", { node: "2" }),
  table({ "2": [5, 20, "running"] }),
  frame("progress", { node: "2", value: 5, max: 20 }),
  table({ "2": [20, 20, "finished"], "3": [0, 1, "running"] }),
  frame("executing", { node: "3" }),
  frame("executed", { node: "3", output: { images: [{ filename: "a.png" }] } }),
  table({ "2": [20, 20, "finished"], "3": [1, 1, "finished"] }),
  frame("execution_success", { timestamp: 9000 }),
  frame("executing", { node: null }),
];

const start = () => withRun(NO_RUNS, newRun("p", "doc", "Graph", 3, 1));
const play = (state: RunState, frames: Frame[]) => frames.reduce((now, it, index) => reduce(now, it, 2000 + index * 100), state);

test("a run is told from start to end", () => {
  const middle = play(start(), RUN.slice(0, 6)).runs["p"]!;
  expect([middle.status, middle.current, middle.nodes["1"]!.state, middle.nodes["2"]!.value]).toEqual(["running", "2", "cached", 5]);
  expect(fraction(middle)).toBeCloseTo((1 + 5 / 20) / 3);
  const state = play(start(), RUN);
  const run = state.runs["p"]!;
  expect([run.status, run.ended, state.active, Object.keys(run.outputs)]).toEqual(["done", 9000, undefined, ["3"]]);
  expect(run.nodes["2"]).toMatchObject({ state: "done", ms: 400 });
});

test("every frame twice is every frame once", () => {
  const twice = RUN.flatMap((it) => [it, it]);
  const once = play(start(), RUN).runs["p"]!;
  const double = play(start(), twice).runs["p"]!;
  expect(Object.fromEntries(Object.entries(double.nodes).map(([id, it]) => [id, [it.state, it.value, it.max]]))).toEqual(Object.fromEntries(Object.entries(once.nodes).map(([id, it]) => [id, [it.state, it.value, it.max]])));
  expect([double.status, double.outputs]).toEqual([once.status, once.outputs]);
});

test("late frames change nothing after the end", () => {
  const ended = play(start(), RUN);
  expect(play(ended, [RUN[2]!, RUN[3]!, RUN[5]!, RUN[0]!]).runs["p"]).toEqual(ended.runs["p"]);
});

test("an end that was missed is found in queue and history", () => {
  const queue = { queue_running: [], queue_pending: [] };
  const cutOff = play(start(), RUN.slice(0, 5));
  expect(missedEnds(cutOff, queue, cutOff)).toEqual(["p"]);
  expect(missedEnds(cutOff, queue, NO_RUNS), "queued after the queue was asked for").toEqual([]);
  const entry = { prompt: [1, "p", {}, {}, []] as never, meta: {}, outputs: { "3": { images: [] } }, status: { status_str: "success", completed: true, messages: [["execution_success", { prompt_id: "p", timestamp: 5000 }]] as [string, JsonObject][] } };
  const run = settleHistory(cutOff, "p", entry, 6000).runs["p"]!;
  expect([run.status, run.ended, Object.keys(run.outputs)]).toEqual(["done", 5000, ["3"]]);
  expect(settleHistory(cutOff, "p", undefined, 6000).runs["p"]!.status).toBe("cancelled");
});

test("a page that is loaded in the middle of a run takes it up", () => {
  const extra = { extra_pnginfo: { workflow: { id: "doc" } } };
  const state = settleQueue(NO_RUNS, { queue_running: [[4, "p", { 1: {}, 2: {} }, extra, []]], queue_pending: [[5, "q", {}, extra, []]] });
  expect([state.active, state.runs["p"]!.status, state.runs["p"]!.doc, state.runs["q"]!.status, state.remaining]).toEqual(["p", "running", "doc", "queued", 2]);
  expect(reduce(state, { type: "executing", data: { node: "2" } }, 1).runs["p"]!.current).toBe("2");
});

test("an answer of the queue that is older than what was told since starts nothing again, and runs wait in its order", () => {
  const item = (number: number, id: string) => [number, id, { 1: {} }, { extra_pnginfo: { workflow: { id: "doc" } }, name: "a graph" }, []] as never;
  const over = reduce(settleQueue(NO_RUNS, { queue_running: [item(4, "p")], queue_pending: [] }), { type: "execution_success", data: { prompt_id: "p", timestamp: 5 } }, 5);
  expect(over.active).toBeUndefined();
  const late = settleQueue(over, { queue_running: [item(4, "p")], queue_pending: [item(6, "r"), item(5, "q")] });
  expect([late.active, late.runs["p"]!.status]).toEqual([undefined, "done"]);
  expect([late.runs["r"]!.place, late.runs["q"]!.place, late.runs["q"]!.name]).toEqual([0, 1, "a graph"]);
});

test("failures carry the node and the way out; a blocked branch is only noted", () => {
  const failed = play(start(), [RUN[0]!, frame("execution_error", { node_id: "2", exception_message: "it broke\nhint: mend it\n" })]).runs["p"]!;
  expect(failed.error).toEqual({ node: "2", message: "it broke", hint: "mend it" });
  expect([failed.status, failed.nodes["2"]!.state]).toEqual(["failed", "failed"]);
  const blocked = play(start(), [RUN[0]!, frame("execution_error", { node_id: "2", exception_type: "ExecutionBlocked", exception_message: "no" })]).runs["p"]!;
  expect([blocked.status, blocked.notes]).toEqual(["running", [{ node: "2", text: "no" }]]);
});

test("loss points come in order, once each", () => {
  const point = (step: number) => frame("paraflow.loss", { node: "2", step, loss: 1 / step });
  const run = play(start(), [RUN[0]!, point(1), point(2), point(2), point(1), point(3)]).runs["p"]!;
  expect(run.curves["2"]!.map((it) => it.step)).toEqual([1, 2, 3]);
});

test("faults of a refused prompt stand at their input", () => {
  const faults = nodeErrors({ 3: { class_type: "KSampler", dependent_outputs: [], errors: [{ type: "required_input_missing", message: "Required input is missing", details: "model", extra_info: { input_name: "model" } }, { type: "value_bigger_than_max", message: "Value 3 bigger than max of 1", details: "denoise", extra_info: { input_name: "denoise", hint: "use 1" } }] } });
  expect(faults["3"]).toEqual([{ node: "3", input: "model", message: "Required input is missing" }, { node: "3", input: "denoise", message: "Value 3 bigger than max of 1", hint: "use 1" }]);
});

test("binary frames are pictures of nodes; others are nothing", async () => {
  const about = new TextEncoder().encode(JSON.stringify({ node_id: "7", prompt_id: "p", image_type: "image/png" }));
  const bytes = new Uint8Array(8 + about.length + 3);
  new DataView(bytes.buffer).setUint32(0, 4);
  new DataView(bytes.buffer).setUint32(4, about.length);
  bytes.set(about, 8);
  bytes.set([1, 2, 3], 8 + about.length);
  const picture = readBinary(bytes.buffer);
  expect(picture).toMatchObject({ node: "7", prompt: "p" });
  expect(picture && "blob" in picture && [...new Uint8Array(await picture.blob.arrayBuffer())]).toEqual([1, 2, 3]);
  expect(readBinary(new ArrayBuffer(4))).toBeUndefined();
});

test("a window that comes back in the middle of a long step is told of its node before it knows the run", () => {
  const returned = reduce(NO_RUNS, { type: "executing", data: { node: "2" } }, 10);
  const queue = { queue_running: [[1, "p", { 2: {} }, {}, []]], queue_pending: [] } as unknown as Parameters<typeof settleQueue>[1];
  const settled = settleQueue(returned, queue);
  expect(settled).toMatchObject({ active: "p", runs: { p: { status: "running", current: "2", nodes: { 2: { state: "running" } } } } });
  expect("told" in settled).toBe(false);
  // Nothing runs any more: it is forgotten.
  expect(settleQueue(returned, { queue_running: [], queue_pending: [] }).told).toBeUndefined();
});

test("a start that is told again, after the end, leaves nothing on its way", () => {
  const over = play(start(), RUN);
  expect(over.active).toBeUndefined();
  expect(reduce(over, RUN[0]!, 9999).active).toBeUndefined();
  expect(reduce(start(), RUN[0]!, 1).active).toBe("p");
});

test("knows from the server how long a node took, what it keeps and why it ran, live and from the history", () => {
  const told = { node: "5", elapsed_ms: 1234.5, bytes: 4096, why: "changed", inputs: ["seed"], nodes: ["1"], prompt_id: "p" };
  const live = reduce(withRun(NO_RUNS, newRun("p", "d", "n", 2, 1)), { type: "paraflow.ran", data: told }, 10);
  expect(live.runs["p"]!.nodes["5"]).toMatchObject({ state: "done", ms: 1234.5, bytes: 4096, why: { why: "changed", inputs: ["seed"], nodes: ["1"] } });
  expect(reduce(live, { type: "paraflow.ran", data: told }, 20)).toBe(live);
  const entry = {
    prompt: [1, "q", { 5: {} }, {}, []], outputs: {}, meta: {},
    status: { status_str: "success", completed: true, ran: [told], messages: [["execution_start", { prompt_id: "q" }], ["execution_cached", { prompt_id: "q", nodes: [] }], ["execution_success", { prompt_id: "q", timestamp: 99 }]] },
  } as unknown as HistoryEntry;
  const later = settleHistory(NO_RUNS, "q", { ...entry, status: { ...entry.status, ran: [{ ...told, prompt_id: "q" } as Ran] } }, 10).runs["q"]!;
  expect(later).toMatchObject({ status: "done", ended: 99, nodes: { 5: { ms: 1234.5, bytes: 4096 } } });
});
