// Undo and redo: a log of what was done to a document. Values share whatever did not change, so a step is small.

export interface Step<T> {
  label: string;
  before: T;
  after: T;
  /** Steps with the same key that follow at once are one: the letters of a word, the moves of a drag. */
  merge?: string;
  at: number;
}

export interface Log<T> {
  steps: readonly Step<T>[];
  /** How many of them are in force. */
  done: number;
}

const MERGE_MS = 1200;
const MOST = 500;

export function emptyLog<T>(): Log<T> {
  return { steps: [], done: 0 };
}

/** The log with a step more; what was undone before is gone. */
export function record<T>(log: Log<T>, label: string, before: T, after: T, now: number, merge?: string): Log<T> {
  const steps = log.steps.slice(0, log.done);
  const last = steps.at(-1);
  if (merge && last?.merge === merge && now - last.at < MERGE_MS) {
    steps[steps.length - 1] = { ...last, after, at: now };
  } else {
    steps.push({ label, before, after, at: now, ...(merge ? { merge } : {}) });
  }
  const kept = steps.slice(-MOST);
  return { steps: kept, done: kept.length };
}

export function undo<T>(log: Log<T>): { log: Log<T>; value: T; label: string } | undefined {
  const step = log.steps[log.done - 1];
  return step && { log: { ...log, done: log.done - 1 }, value: step.before, label: step.label };
}

export function redo<T>(log: Log<T>): { log: Log<T>; value: T; label: string } | undefined {
  const step = log.steps[log.done];
  return step && { log: { ...log, done: log.done + 1 }, value: step.after, label: step.label };
}
