// The view of the canvas for those who are not drawn inside it: commands and panels.

import { type ReactFlowInstance, getViewportForBounds, type useStoreApi } from "@xyflow/react";
import { type FlowNode, HUGE, boxOf } from "./flow.ts";
import { boundsOf } from "./paint.ts";

type Flow = ReactFlowInstance<never, never>;

interface View {
  flow?: Flow;
  store?: ReturnType<typeof useStoreApi>;
  selectedWires: ReadonlySet<string>;
  /** Takes the marks off all wires. */
  unmarkWires?: () => void;
  /** Where the pointer is, on the page. */
  pointer: [number, number];
  /** The wire at a point of the page, where wires are not on the page themselves. */
  wireAt?: ((x: number, y: number) => string | undefined) | undefined;
}

export const view: View = { selectedWires: new Set(), pointer: [innerWidth / 2, innerHeight / 2] };

export function setView(flow: unknown, store: ReturnType<typeof useStoreApi>): void {
  view.flow = flow as Flow;
  view.store = store;
}

addEventListener("pointermove", (event) => (view.pointer = [event.clientX, event.clientY]), { passive: true });

export const MIN_ZOOM = 0.05;

/** Shows all nodes, or the first of a huge graph. Goes by what is known of their sizes, so that none has to be drawn first. */
export function fitAll(nodes: readonly FlowNode[], padding: number, maxZoom: number, duration = 0): void {
  const state = view.store?.getState();
  if (!state || !view.flow) return;
  const bounds = boundsOf((nodes.length > HUGE ? nodes.slice(0, 40) : nodes).map(boxOf));
  const viewport = bounds ? getViewportForBounds(bounds, state.width, state.height, MIN_ZOOM, maxZoom, padding) : { x: 0, y: 0, zoom: 1 };
  void view.flow.setViewport(viewport, { duration });
}

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
