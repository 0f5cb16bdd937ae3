// A value that parts of the screen watch.

import { useSyncExternalStore } from "react";

export interface Store<T> {
  get(): T;
  set(change: (state: T) => T): void;
  subscribe(listener: () => void): () => void;
}

export function createStore<T>(initial: T): Store<T> {
  let state = initial;
  const listeners = new Set<() => void>();
  return {
    get: () => state,
    set(change) {
      const next = change(state);
      if (Object.is(next, state)) return;
      state = next;
      for (const listener of [...listeners]) listener();
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}

/** Draws again when the selected part changes; `select` must give equal values for equal states. */
export function useStore<T, P>(store: Store<T>, select: (state: T) => P): P {
  return useSyncExternalStore(store.subscribe, () => select(store.get()));
}
