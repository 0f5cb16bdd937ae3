// A server that behaves like the real one towards the editor and computes nothing: every node takes a few steps, and
// pictures are drawn from the seed. For paths that must be fast and the same every time.

import { readFileSync, existsSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { createHash, randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { OBJECT_INFO } from "./nodes.mjs";
import { picture } from "./png.mjs";
import { accept } from "./websocket.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const dist = join(here, "../../dist");
const graphs = join(here, "../../../graphs");
const TYPES = { ".html": "text/html", ".js": "application/javascript", ".css": "text/css", ".webp": "image/webp", ".png": "image/png" };
const TEMPLATES = ["image-to-image", "inpaint", "sdxl-text-to-image", "text-to-image"];

/** Starts a server of its own; `step` is the pause between steps in milliseconds. No node goes beyond the
 * step `world.until`, so that a path may look at a run for as long as its machine takes. */
export function start({ port = 0, step = 25 } = {}) {
  const world = { step, until: Infinity, files: new Map(), pictures: new Map(), history: new Map(), pending: [], running: undefined, sockets: new Map(), cache: new Map(), number: 0, made: 0, sent: [] };
  for (const name of ["bear.png", "bear-cut-out.png"]) world.pictures.set(`input//${name}`, readFileSync(join(graphs, "input", name)));
  const server = createServer((request, response) => void answer(world, request, response).catch((error) => respond(response, 500, String(error))));
  server.on("upgrade", (request, socket) => open(world, request, socket));
  return new Promise((resolve) => server.listen(port, "127.0.0.1", () => resolve({ world, port: server.address().port, url: `http://127.0.0.1:${server.address().port}`, close: () => { for (const it of world.sockets.values()) it.drop(); server.closeAllConnections(); server.close(); } })));
}

function respond(response, status, body, type = "text/plain", headers = {}) {
  response.writeHead(status, { "Content-Type": type, ...headers }).end(body);
}
const json = (response, value, status = 200) => respond(response, status, JSON.stringify(value), "application/json");

function body(request) {
  return new Promise((resolve) => {
    const parts = [];
    request.on("data", (part) => parts.push(part)).on("end", () => resolve(Buffer.concat(parts)));
  });
}

async function answer(world, request, response) {
  const url = new URL(request.url, "http://mock");
  const path = decodeURIComponent(url.pathname.replace(/^\/api(?=\/)/, ""));
  const posted = ["POST", "PUT"].includes(request.method) ? await body(request) : undefined;
  // The largest seed has 64 bits, of which a number here holds 53.
  if (path === "/object_info") return respond(response, 200, JSON.stringify(OBJECT_INFO).replaceAll("18446744073709552000", "18446744073709551615"), "application/json");
  if (path === "/system_stats") return json(response, { system: {}, devices: [] });
  if (path === "/workflow_templates") return json(response, { paraflow: TEMPLATES });
  if (path.startsWith("/workflow_templates/")) return respond(response, 200, readFileSync(join(graphs, path.split("/").at(-1))), "application/json");
  if (path === "/experiment/models/checkpoints") return json(response, OBJECT_INFO.CheckpointLoaderSimple.input.required.ckpt_name[0].map((name) => ({ name, pathIndex: 0 })));
  if (path === "/experiment/models/preview/checkpoints/0/toyland.safetensors") return respond(response, 200, picture(5), "image/png");
  if (path === "/queue" && !posted) return json(response, { queue_running: world.running ? [world.running.item] : [], queue_pending: world.pending.map((it) => it.item) });
  if (path === "/queue") return change(world, JSON.parse(posted), response);
  if (path === "/paraflow/v1/queue") return pauseQueue(world, posted, response);
  if (path.startsWith("/paraflow/v1/jobs/")) return first(world, path.split("/")[4], response);
  if (path === "/interrupt") return interrupt(world, JSON.parse(posted).prompt_id, response);
  if (path === "/history") return json(response, Object.fromEntries(world.history));
  if (path.startsWith("/history/")) return json(response, world.history.has(path.slice(9)) ? { [path.slice(9)]: world.history.get(path.slice(9)) } : {});
  if (path === "/prompt" && posted) return submit(world, JSON.parse(posted), response);
  if (path === "/view") return view(world, url, response);
  if (path.startsWith("/upload/")) return upload(world, path, posted, request, response);
  if (path.startsWith("/userdata")) return userdata(world, request, url, path, posted, response);
  const file = join(dist, path === "/" ? "index.html" : path);
  if (file.startsWith(dist) && existsSync(file)) return respond(response, 200, readFileSync(file), TYPES[extname(file)] ?? "text/plain");
  return respond(response, 404, "not found");
}

function userdata(world, request, url, path, posted, response) {
  const name = path.slice("/userdata/".length);
  if (path === "/userdata") return json(response, [...world.files].map(([key, it]) => ({ path: key.replace(/^workflows\//, ""), size: it.text.length, modified: it.time })));
  const known = world.files.get(name);
  const etag = (text) => `"${createHash("sha1").update(text).digest("hex")}"`;
  if (request.method === "DELETE") return world.files.delete(name) ? respond(response, 204, "") : respond(response, 404, "");
  if (!posted) return known ? respond(response, 200, known.text, "application/json", { ETag: etag(known.text) }) : respond(response, 404, "");
  if (known && url.searchParams.get("overwrite") === "false") return respond(response, 409, "File already exists");
  if (known && request.headers["if-match"] && request.headers["if-match"] !== etag(known.text)) return respond(response, 412, "changed");
  world.files.set(name, { text: posted.toString(), time: Date.now() / 1000 });
  return respond(response, 200, JSON.stringify(name), "application/json", { ETag: etag(posted.toString()) });
}

function view(world, url, response) {
  const it = world.pictures.get(`${url.searchParams.get("type") ?? "output"}/${url.searchParams.get("subfolder") ?? ""}/${url.searchParams.get("filename")}`);
  return it ? respond(response, 200, it, "image/png") : respond(response, 404, "");
}

function upload(world, path, posted, request, response) {
  const boundary = /boundary=(.*)$/.exec(request.headers["content-type"])[1];
  const text = posted.toString("latin1");
  const part = text.split(`--${boundary}`).find((it) => it.includes('name="image"'));
  const name = /filename="([^"]*)"/.exec(part)[1];
  const bytes = Buffer.from(part.slice(part.indexOf("\r\n\r\n") + 4, -2), "latin1");
  world.pictures.set(`input//${name}`, bytes);
  OBJECT_INFO.LoadImage.input.required.image[0] = [...new Set([...OBJECT_INFO.LoadImage.input.required.image[0], name])];
  return json(response, { name, subfolder: "", type: "input" });
}

// Sockets.

function open(world, request, socket) {
  const client = new URL(request.url, "http://mock").searchParams.get("clientId");
  const connection = accept(request, socket, () => undefined);
  world.sockets.set(client, connection);
  connection.text(JSON.stringify({ type: "status", data: { status: { exec_info: { queue_remaining: remaining(world) } }, sid: client } }));
  if (world.running?.client === client && world.running.node) connection.text(JSON.stringify({ type: "executing", data: { node: world.running.node } }));
}

const remaining = (world) => world.pending.length + (world.running ? 1 : 0);

function send(world, client, type, data) {
  world.sent.push([type, data]);
  const socket = world.sockets.get(client);
  if (socket?.open) socket.text(JSON.stringify({ type, data }));
}

function status(world) {
  for (const client of world.sockets.keys()) send(world, client, "status", { status: { exec_info: { queue_remaining: remaining(world) } } });
}

// The queue.

function faultsOf(prompt) {
  const faults = {};
  for (const [id, node] of Object.entries(prompt)) {
    const info = OBJECT_INFO[node.class_type];
    const missing = Object.keys(info?.input.required ?? {}).filter((name) => node.inputs[name] === undefined);
    if (missing.length) faults[id] = { class_type: node.class_type, dependent_outputs: [], errors: missing.map((name) => ({ type: "required_input_missing", message: "Required input is missing", details: name, extra_info: { input_name: name, hint: `wire a ${info.input.required[name][0]} to it` } })) };
  }
  return faults;
}

function submit(world, request, response) {
  const { prompt } = request;
  const unknown = Object.values(prompt).find((node) => !OBJECT_INFO[node.class_type]);
  if (unknown) return json(response, { error: { type: "invalid_prompt", message: `there is no class ${unknown.class_type}`, details: "", extra_info: {} }, node_errors: {} }, 400);
  const faults = faultsOf(prompt);
  if (Object.keys(faults).length) return json(response, { error: { type: "prompt_outputs_failed_validation", message: "Prompt outputs failed validation", details: "", extra_info: {} }, node_errors: faults }, 400);
  const outputs = request.partial_execution_targets ?? Object.keys(prompt).filter((id) => OBJECT_INFO[prompt[id].class_type].output_node);
  const id = randomUUID();
  const number = ++world.number;
  world.pending.push({ id, client: request.client_id, prompt, extra: request.extra_data, outputs, item: [number, id, prompt, request.extra_data, outputs], nodes: {}, messages: [], results: {} });
  json(response, { prompt_id: id, number, node_errors: {} });
  status(world);
  if (!world.running) void work(world);
}

function change(world, { clear, delete: ids }, response) {
  world.pending = world.pending.filter((it) => !clear && !(ids ?? []).includes(it.id));
  respond(response, 200, "");
  status(world);
}

function interrupt(world, id, response) {
  if (world.running && (!id || world.running.id === id)) world.running.stopped = true;
  respond(response, 200, "");
}

function pauseQueue(world, posted, response) {
  if (!posted) return json(response, { paused: world.paused === true });
  world.paused = JSON.parse(posted).paused;
  if (!world.paused && !world.running) void work(world);
  return respond(response, 204);
}

function first(world, id, response) {
  world.pending.sort((a, b) => Number(b.id === id) - Number(a.id === id));
  return respond(response, 204);
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function work(world) {
  while (!world.paused && (world.running = world.pending.shift())) {
    const job = world.running;
    const ended = await run(world, job);
    const type = { done: "execution_success", cancelled: "execution_interrupted", failed: "execution_error" }[ended.kind];
    const data = { prompt_id: job.id, timestamp: Date.now(), ...ended.data };
    job.messages.push([type, data]);
    world.history.set(job.id, { prompt: job.item, outputs: job.results, status: { status_str: ended.kind === "done" ? "success" : "error", completed: ended.kind === "done", messages: job.messages } });
    world.running = undefined;
    send(world, job.client, type, data);
    status(world);
    send(world, job.client, "executing", { node: null, prompt_id: job.id });
  }
}

/** Nodes that the outputs need, each after what it reads. */
function order(job) {
  const list = [];
  const visit = (id) => {
    if (list.includes(id)) return;
    for (const value of Object.values(job.prompt[id].inputs)) if (Array.isArray(value) && job.prompt[value[0]]) visit(value[0]);
    list.push(id);
  };
  job.outputs.forEach(visit);
  return list;
}

function signature(job, id) {
  const node = job.prompt[id];
  return JSON.stringify([node.class_type, Object.entries(node.inputs).map(([name, value]) => (Array.isArray(value) ? [name, signature(job, value[0]), value[1]] : [name, value]))]);
}

async function run(world, job) {
  const ids = order(job);
  const told = (type, data) => { job.messages.push([type, data]); send(world, job.client, type, data); };
  const cached = ids.filter((id) => world.cache.has(signature(job, id)));
  told("execution_start", { prompt_id: job.id, timestamp: Date.now() });
  told("execution_cached", { nodes: cached, prompt_id: job.id, timestamp: Date.now() });
  for (const id of ids) {
    const kept = signature(job, id);
    if (world.cache.has(kept)) {
      const output = world.cache.get(kept);
      if (output) { job.results[id] = output; send(world, job.client, "executed", { node: id, display_node: id, output, prompt_id: job.id }); }
      continue;
    }
    const outcome = await runNode(world, job, id);
    if (outcome) return outcome;
    world.cache.set(kept, job.results[id]);
  }
  return { kind: "done", data: {} };
}

function table(world, job, id, value, max, state) {
  job.nodes[id] = { value, max, state, node_id: id, prompt_id: job.id, display_node_id: id, parent_node_id: null, real_node_id: id };
  send(world, job.client, "progress_state", { prompt_id: job.id, nodes: job.nodes });
}

async function runNode(world, job, id) {
  const node = job.prompt[id];
  job.node = id;
  table(world, job, id, 0, 1, "running");
  send(world, job.client, "executing", { node: id, display_node: id, prompt_id: job.id });
  const steps = Number(node.inputs.steps ?? 1);
  const seed = Number(node.inputs.seed ?? node.inputs.rank ?? 1);
  for (let step = 1; step <= steps; step++) {
    if (job.stopped) return { kind: "cancelled", data: { node_id: id, node_type: node.class_type, executed: [] } };
    await pause(world.step);
    while (step > world.until && !job.stopped) await pause(10);
    if (steps === 1) continue;
    table(world, job, id, step, steps, "running");
    if (step % 2 === 0) preview(world, job, id, picture(seed, step / steps));
    send(world, job.client, "progress", { value: step, max: steps, prompt_id: job.id, node: id });
    if (node.class_type === "ToyTrain") train(world, job, id, seed, step, steps);
  }
  if (node.inputs.cfg === 66) return { kind: "failed", data: { node_id: id, node_type: node.class_type, exception_message: "the latent became NaN at step 3\nhint: use a smaller `cfg`\n", exception_type: "toy", traceback: [] } };
  if (OBJECT_INFO[node.class_type].output_node && node.class_type !== "ToyTrain") show(world, job, id, { images: [keep(world, job, seedOf(job, id))] });
  table(world, job, id, steps, steps, "finished");
  send(world, job.client, "paraflow.ran", { node: id, elapsed_ms: steps * world.step, bytes: 65536, why: "first", inputs: [], nodes: [], prompt_id: job.id });
  return undefined;
}

/** The seed (and the strength of an adapter) that a node's picture comes from. */
function seedOf(job, id) {
  let found = 1;
  const visit = (at) => {
    const inputs = job.prompt[at].inputs;
    if (inputs.seed !== undefined) found += Number(inputs.seed);
    if (inputs.strength !== undefined) found += Math.round(Number(inputs.strength) * 10) + 3;
    for (const value of Object.values(inputs)) if (Array.isArray(value)) visit(value[0]);
  };
  visit(id);
  return found;
}

function keep(world, job, seed, sharp = 1) {
  const filename = `mock_${String(++world.made).padStart(5, "0")}_.png`;
  world.pictures.set(`output//${filename}`, picture(seed, sharp, { prompt: JSON.stringify(job.prompt), ...(job.extra.extra_pnginfo?.workflow ? { workflow: JSON.stringify(job.extra.extra_pnginfo.workflow) } : {}) }));
  return { filename, subfolder: "", type: "output" };
}

function train(world, job, node, seed, step, steps) {
  const loss = 0.05 + 0.4 * Math.exp(-step / 60) + 0.03 * Math.sin(step * 1.7) * Math.cos(step * 0.9);
  const point = { node, step, total: steps, loss, learning_rate: 1e-4, prompt_id: job.id };
  send(world, job.client, "paraflow.loss", step % 10 === 0 ? { ...point, validation: 0.08 + 0.38 * Math.exp(-step / 50) } : point);
  if (step % 50 === 0) send(world, job.client, "paraflow.sample", { node, step, image: keep(world, job, seed + 5, step / steps), prompt_id: job.id });
}

function show(world, job, id, output) {
  job.results[id] = output;
  send(world, job.client, "executed", { node: id, display_node: id, output, prompt_id: job.id });
}

function preview(world, job, id, bytes) {
  const socket = world.sockets.get(job.client);
  if (!socket?.open) return;
  const about = Buffer.from(JSON.stringify({ node_id: id, prompt_id: job.id, display_node_id: id, parent_node_id: null, real_node_id: id, image_type: "image/png" }));
  const head = Buffer.alloc(8);
  head.writeUInt32BE(4, 0);
  head.writeUInt32BE(about.length, 4);
  socket.binary(Buffer.concat([head, about, bytes]));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { url } = await start({ port: Number(process.env.PORT ?? 8199), step: Number(process.env.STEP ?? 60) });
  console.log(url);
}
