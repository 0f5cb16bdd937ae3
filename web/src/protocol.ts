// What the server says, made by `cargo test -p paraflow-server protocol` from its types. Do not edit.
//
// `Message` is every text frame of `/ws`; types that no message has are bodies of answers, ComfyUI's and those of
// `/paraflow/v1`.

import type { Json, JsonObject } from "./graph/json.ts";

/** A job that was accepted. */
export interface Accepted {
  /** Its id. */
  id: string;
  /** Whether the idempotency key was known, so that nothing new was made. */
  repeated: boolean;
  /** What the user should know and what stops nothing. */
  warnings: string[];
}

/** A file that a job made. */
export interface ArtefactView {
  /** Its BLAKE3 when the job ended. */
  blake3?: string | null;
  /** Its size when the job ended. */
  bytes?: number | null;
  /** Its name. */
  filename: string;
  /** Its number among the job's files, from 0. */
  index: number;
  /** Under which key: `images`; `samples` for pictures of a training. */
  kind: string;
  /** The node that showed it. */
  node: string;
  /** After which step of a training it was made. */
  step?: number | null;
  /** Its folder below `output/` or `temp/`. */
  subfolder: string;
  /** `output` or `temp`. */
  type: string;
  /** Where to get it. */
  url: string;
}

/** Nodes whose results were there before the run. */
export interface Cached {
  /** In the prompt's order. */
  nodes: string[];
  prompt_id: string;
  /** In milliseconds since 1970. */
  timestamp: number;
}

/** Another place for a waiting job: one of the three. */
export interface Change {
  /** Right before this job. */
  before?: string | null;
  /** `first` or `last` among those of its priority. */
  position?: string | null;
  /** Another priority. */
  priority?: number | null;
}

/** What is counted. */
export interface ExecInfo {
  queue_remaining: number;
}

/** A node has something to show, or was reused. */
export interface Executed {
  display_node: string;
  node: string;
  /** What it shows: files under `images`, words under `text`. */
  output: JsonObject | null;
  prompt_id: string;
}

/** A node begins; without a node, the prompt is over. */
export interface Executing {
  display_node?: string;
  node: string | null;
  /** Missing in the frame that tells a client which comes back where its prompt is. */
  prompt_id?: string;
}

/** A node failed, and the run with it; or a branch was blocked, and the run goes on. */
export interface ExecutionError {
  /** The node's literals, each in a list. */
  current_inputs: JsonObject;
  current_outputs: string[];
  exception_message: string;
  /** `ExecutionBlocked` where the run goes on. */
  exception_type: string;
  executed: string[];
  node_id: string;
  node_type: string;
  prompt_id: string;
  /** In milliseconds since 1970. */
  timestamp?: number;
  traceback: string[];
}

/** Something that is wrong with a prompt or a node of it. */
export interface Fault {
  details: string;
  /** The input, what it expects and what was found, as the type has it. */
  extra_info: JsonObject;
  message: string;
  type: string;
}

/** A fault of a graph. */
export interface FaultView {
  /** Its class. */
  class?: string | null;
  /** A way out. */
  hint?: string | null;
  /** The input, if it is about one. */
  input?: string | null;
  /** What is wrong. */
  message: string;
  /** The node, unless it is a fault of the whole graph. */
  node?: string | null;
}

/** What the server can do: the answer to a handshake, and `GET /features`. */
export interface FeatureFlags {
  extension: JsonObject;
  /** In bytes. */
  max_upload_size: number;
  supports_preview_metadata: boolean;
}

/** A file that the server keeps. */
export interface FileRef {
  filename: string;
  /** Below the folder of its type, without a slash at either end. */
  subfolder: string;
  /** `input`, `output` or `temp`. */
  type: string;
}

/** What became of a prompt. */
export interface HistoryEntry {
  /** By node, which nodes it stands for. */
  meta: Record<string, JsonObject>;
  /** What each output showed, by node. */
  outputs: Record<string, JsonObject>;
  prompt: QueueItem;
  status: HistoryStatus;
}

/** How a prompt ended. */
export interface HistoryStatus {
  completed: boolean;
  /** Type and data of the messages that tell how it began and ended. */
  messages: [string, Record<string, Json>][];
  /** Ours: the nodes that ran, in the order in which they gave their results. */
  ran?: Ran[];
  /** `success` or `error`. */
  status_str: string;
}

/** The run was stopped. */
export interface Interrupted {
  executed: string[];
  node_id: string;
  node_type: string;
  prompt_id: string;
  /** In milliseconds since 1970. */
  timestamp: number;
}

/** A page of jobs. */
export interface JobList {
  /** The jobs, those that run first, then those that wait in their order, then the ended ones, newest first. */
  jobs: JobView[];
  /** How many there are in all. */
  total: number;
}

/** A job, whatever its state. */
export interface JobView {
  /** How often it was begun. */
  attempts: number;
  /** When it was submitted, in milliseconds since 1970. */
  created: number;
  /** When it ended. */
  ended?: number | null;
  /** Why it failed. */
  error?: string | null;
  /** Its id. */
  id: string;
  /** What each output showed, by node. */
  outputs?: JsonObject | null;
  /** A higher one goes first. */
  priority: number;
  /** When it began. */
  started?: number | null;
  /** `queued`, `running`, `done`, `failed` or `cancelled`. */
  state: string;
}

/** A line of the log. */
export interface LogLine {
  /** The line. */
  m: string;
  /** When it was written. */
  t: string;
}

/** The window that the log is said to be written to. */
export interface LogSize {
  cols: number;
  rows: number;
}

/** Lines of the log, for those who subscribed. */
export interface Logs {
  entries: LogLine[];
  size: LogSize;
}

/** Ours: a point of a training's loss curve. */
export interface Loss {
  learning_rate: number;
  /** Of this step's pictures and noise. */
  loss: number;
  node: string;
  prompt_id: string;
  /** From 1. */
  step: number;
  /** Steps in all. */
  total: number;
  /** On noise that stays the same all through the training, where this step measured it. */
  validation?: number;
}

/** A text frame of `/ws`: its `type`, and the `data` that belongs to it. */
export type Message =
  | { data: Status; type: "status" }
  | { data: Moment; type: "execution_start" }
  | { data: Cached; type: "execution_cached" }
  | { data: Executing; type: "executing" }
  | { data: Progress; type: "progress" }
  | { data: ProgressState; type: "progress_state" }
  | { data: Executed; type: "executed" }
  | { data: Moment; type: "execution_success" }
  | { data: ExecutionError; type: "execution_error" }
  | { data: Interrupted; type: "execution_interrupted" }
  | { data: FeatureFlags; type: "feature_flags" }
  | { data: Logs; type: "logs" }
  | { data: Loss; type: "paraflow.loss" }
  | { data: Sample; type: "paraflow.sample" }
  | { data: Ran; type: "paraflow.ran" }
  | { data: Warning; type: "paraflow.warning" }
  | { data: Nodes; type: "paraflow.nodes" };

/** A run begins, or ended well. */
export interface Moment {
  prompt_id: string;
  /** In milliseconds since 1970. */
  timestamp: number;
}

/** What is wrong with one node. */
export interface NodeFaults {
  class_type: string;
  /** Outputs that are not run for, because of it. */
  dependent_outputs: string[];
  errors: Fault[];
}

/** How far one node is. */
export interface NodeProgress {
  display_node_id: string;
  max: number;
  node_id: string;
  parent_node_id: string | null;
  prompt_id: string;
  real_node_id: string;
  state: NodeState;
  value: number;
}

/** Where a node is. */
export type NodeState = "running" | "finished";

/** Ours: a folder changed, so `/object_info` is another. */
export type Nodes = JsonObject;

/** A node is so far. */
export interface Progress {
  /** Steps in all. */
  max: number;
  node: string;
  prompt_id: string;
  /** Steps done, from 1. */
  value: number;
}

/** All nodes that have begun. */
export interface ProgressState {
  nodes: Record<string, NodeProgress>;
  prompt_id: string;
}

/** What to keep of the history. */
export interface Prune {
  /** The newest so many. */
  keep?: number | null;
  /** Those that ended at most so many seconds ago. */
  max_age?: number | null;
}

/** What waits and runs. */
export interface Queue {
  /** The next one first. */
  queue_pending: QueueItem[];
  queue_running: QueueItem[];
}

/** What to do with the queue. */
export interface QueueChange {
  /** Begin nothing new, or go on. */
  paused: boolean;
}

/** `[number, prompt_id, prompt, extra_data, outputs]` */
export type QueueItem = [number, string, JsonObject, JsonObject, string[]];

/** What `status` and `GET /prompt` say. */
export interface QueueStatus {
  exec_info: ExecInfo;
}

/** The queue as a whole. */
export interface QueueView {
  /** Whether nothing new is begun. */
  paused: boolean;
  /** Ids of those that wait, the next one first. */
  pending: string[];
  /** Ids of those that run. */
  running: string[];
}

/** The answer to a prompt that is taken. */
export interface Queued {
  /** Faults of outputs that are left out. */
  node_errors: Record<string, NodeFaults>;
  number: number;
  prompt_id: string;
}

/** Ours: a node gave its result. */
export interface Ran {
  /** What its results take in memory, by their own count; a model that shares weights with another counts them too. */
  bytes: number;
  /** How long it took, in milliseconds. */
  elapsed_ms: number;
  /** Of its inputs, those that were others when it last gave a result. */
  inputs: string[];
  node: string;
  /** Nodes that it reads and that ran in this run. */
  nodes: string[];
  prompt_id: string;
  /** Why it ran, although a result of an earlier run might have served. */
  why: Why;
}

/** What is wrong with a request. */
export interface Refusal {
  /** What is wrong. */
  error: RefusalError;
}

/** What is wrong, in words. */
export interface RefusalError {
  /** Every fault of the graph. */
  faults?: FaultView[];
  /** A way out, where one is known. */
  hint?: string | null;
  /** A sentence. */
  message: string;
}

/** The answer to a prompt that is refused. */
export interface Refused {
  error: Fault;
  node_errors: Record<string, NodeFaults>;
}

/** How many were removed. */
export interface Removed {
  /** How many. */
  removed: number;
}

/** Ours: what a training has learnt by now. */
export interface Sample {
  /** The picture, until the server starts again. */
  image: FileRef;
  node: string;
  prompt_id: string;
  /** Steps that were trained before it. */
  step: number;
}

/** How many jobs wait or run. */
export interface Status {
  /** The client's id, in the first frame that it gets. */
  sid?: string;
  status: QueueStatus;
}

/** A graph to run. */
export interface Submission {
  /** Whose WebSocket gets the events. */
  client_id?: string | null;
  /** The graph: ComfyUI's API prompt, or a workflow as its editor saves it. */
  graph: JsonObject;
  /** The job's id; made up if not given. */
  id?: string | null;
  /** Requests with equal keys are one job. Also as the header `Idempotency-Key`. */
  idempotency_key?: string | null;
  /** Run only for these outputs, by node id. */
  outputs?: string[] | null;
  /** Whether samplers draw previews. */
  previews?: boolean;
  /** A higher one goes first; 0 if not given. */
  priority?: number;
  /** Values to give to inputs first, by `NODE.INPUT`; a node is named by id, title or class. */
  set?: JsonObject | null;
  /** How long it may run, in seconds. */
  timeout?: number | null;
  /** An address on this machine, or on a host that the operator allowed, that is told of the end. */
  webhook?: string | null;
}

/** Ours: a node tells something that stops nothing. */
export interface Warning {
  node: string;
  prompt_id: string;
  text: string;
}

/** Why a node ran. */
export type Why = "first" | "new" | "changed" | "upstream" | "again";
