// Which window of the editor this is, and which others are open. A window keeps its key over reloads; a window that the
// browser makes as a copy of another gets a key of its own.

import { freshId } from "../graph/ids.ts";

const KEPT = "paraflow.window";
const lockOf = (key: string) => `paraflow-window-${key}`;

/** How long a page that was just left may take to let its key go. */
const PATIENCE = 1500;
/** How long open windows have to answer, where the browser has no locks. */
const ROLL_CALL = 300;

let key = sessionStorage.getItem(KEPT) ?? freshId();

export const windowKey = (): string => key;
/** What the server knows this window by. */
export const clientId = (): string => key.replaceAll("-", "");

/** Takes a key that no other open window has. */
export async function claimWindow(): Promise<void> {
  const isTaken = navigator.locks ? !(await hold(key)) : (await openWindows()).has(key);
  if (isTaken) {
    key = freshId();
    await hold(key);
  }
  sessionStorage.setItem(KEPT, key);
  answerRollCalls();
}

/** Holds the key for as long as the page lives; tells whether it could be had. */
function hold(wanted: string): Promise<boolean> {
  if (!navigator.locks) return Promise.resolve(true);
  return new Promise((resolve) => {
    const held = () => {
      resolve(true);
      return new Promise<void>(() => undefined);
    };
    navigator.locks.request(lockOf(wanted), { signal: AbortSignal.timeout(PATIENCE) }, held).catch(() => resolve(false));
  });
}

// A page that came over the network without TLS has no locks; open windows are asked instead.
const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("paraflow-windows") : undefined;

function answerRollCalls(): void {
  channel?.addEventListener("message", (event: MessageEvent<unknown>) => event.data === "who" && channel.postMessage({ here: key }));
}

/** The keys of all windows that are open, this one apart. */
export async function openWindows(): Promise<ReadonlySet<string>> {
  if (navigator.locks) {
    const { held } = await navigator.locks.query();
    return new Set((held ?? []).map((lock) => lock.name ?? "").filter((name) => name !== lockOf(key)).map((name) => name.replace(lockOf(""), "")));
  }
  const found = new Set<string>();
  const listen = (event: MessageEvent<{ here?: string }>) => void (event.data.here && found.add(event.data.here));
  channel?.addEventListener("message", listen);
  channel?.postMessage("who");
  await new Promise((resolve) => setTimeout(resolve, channel ? ROLL_CALL : 0));
  channel?.removeEventListener("message", listen);
  return found;
}
