// The view of the canvas for those who are not drawn inside it: commands and panels.

import type { ReactFlowInstance, useStoreApi } from "@xyflow/react";

type Flow = ReactFlowInstance<never, never>;

interface View {
  flow?: Flow;
  store?: ReturnType<typeof useStoreApi>;
  selectedWires: ReadonlySet<string>;
  /** Where the pointer is, on the page. */
  pointer: [number, number];
}

export const view: View = { selectedWires: new Set(), pointer: [innerWidth / 2, innerHeight / 2] };

export function setView(flow: unknown, store: ReturnType<typeof useStoreApi>): void {
  view.flow = flow as Flow;
  view.store = store;
}

addEventListener("pointermove", (event) => (view.pointer = [event.clientX, event.clientY]), { passive: true });

/** A place on the canvas for a point of the page. */
export function toCanvas(point: readonly [number, number]): [number, number] {
  const at = view.flow?.screenToFlowPosition({ x: point[0], y: point[1] }, { snapToGrid: false });
  return at ? [at.x, at.y] : [0, 0];
}

/** The middle of what is to be seen. */
export function middle(): [number, number] {
  const box = document.querySelector(".canvas")?.getBoundingClientRect();
  return box ? toCanvas([box.x + box.width / 2, box.y + box.height / 2]) : [0, 0];
}

/** Where something new goes: under the pointer if that is over the canvas, else in the middle. */
export function somewhere(): [number, number] {
  const box = document.querySelector(".canvas")?.getBoundingClientRect();
  const [x, y] = view.pointer;
  const over = box && x > box.left && x < box.right && y > box.top && y < box.bottom;
  return over ? toCanvas([x, y]) : middle();
}

/** How large nodes are drawn. */
export function measured(): Map<string, readonly [number, number]> {
  const sizes = new Map<string, readonly [number, number]>();
  for (const [id, node] of view.store?.getState().nodeLookup ?? []) {
    const { width, height } = node.measured;
    if (width && height) sizes.set(id, [width, height]);
  }
  return sizes;
}
