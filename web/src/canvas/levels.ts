// What of a large graph is on the page. From afar it is one bitmap; near by, nodes in view are on the page and all wires
// are on the bitmap. While the view moves nothing is put on the page or taken off it, so that it moves at full speed:
// what comes into view is there as a box at once and as a node when the view rests. The node and the wire under the hand
// are always on the page, so that hands can do with them what they do in a small graph.

import { type Edge, useStore, useStoreApi } from "@xyflow/react";
import { type MouseEvent, type PointerEvent, useCallback, useEffect, useMemo, useRef, useState } from "react";
import type { Run } from "../graph/run.ts";
import { activeTab, pathPrefix, select, useApp, useTab } from "../state/app.ts";
import { faults, runs, shownRun, useRuns } from "../state/running.ts";
import { useStore as useMarks } from "../state/store.ts";
import { type EdgeData, type FlowNode, MANY, asHidden, boxOf } from "./flow.ts";
import { type Area, boxAt, lineAt, seen, touches } from "./paint.ts";
import { sceneOf } from "./scene.ts";
import { toCanvas, view } from "./view.ts";

/** Nearer than this, texts can be read. */
const FAR = 0.55;
/** How much more than the view is on the page, on each side, as a part of it. */
const MARGIN = 0.06;
const REST_MS = 130;
/** How near a wire the hand must be, in pixels. */
const REACH = 9;

export function useLevels(nodes: FlowNode[], edges: readonly Edge<EdgeData>[], selectedEdges: ReadonlySet<string>) {
  const store = useStoreApi();
  const many = nodes.length > MANY;
  const far = useStore((state) => many && state.transform[2] < FAR);
  const area = useRestingArea(many && !far);
  const [live, setLive] = useState<{ node?: string; wire?: string }>({});
  const scene = useScene(nodes, edges);
  const shown = useMemo(() => (many ? onPage(nodes, area, live.node) : nodes), [many, nodes, area, live.node]);
  const shownEdges = useMemo(() => (many ? edges.filter((edge) => edge.id === live.wire || selectedEdges.has(edge.id)) : edges), [many, edges, live.wire, selectedEdges]);
  useEffect(() => {
    view.wireAt = many ? (x, y) => lineAt(scene().lines, ...toCanvas([x, y]), REACH / store.getState().transform[2])?.id : undefined;
  }, [many, scene, store]);

  const onPointerMove = (event: PointerEvent) => {
    if (!many || (event.buttons && !store.getState().connection.inProgress)) return;
    const node = boxAt(scene().boxes, ...toCanvas([event.clientX, event.clientY]))?.id;
    const found = node === undefined ? view.wireAt?.(event.clientX, event.clientY) : undefined;
    setLive((now) => {
      // A wire whose end is carried stays on the page until it is let go.
      const wire = event.buttons ? now.wire : found;
      return now.node === node && now.wire === wire ? now : { node, wire };
    });
  };
  /** A finger has not been there before: what it taps is selected, though only its picture was there. */
  const onPaneClick = (event: MouseEvent) => {
    const box = many ? boxAt(scene().boxes, ...toCanvas([event.clientX, event.clientY])) : undefined;
    // After xyflow has taken off all marks.
    if (box && activeTab()) setTimeout(() => select([box.id]));
  };
  return { far, many, nodes: shown, edges: shownEdges, scene, covered: area, onPointerMove, onPaneClick, ...useBoxSelection(nodes, many) };
}

/** Around what is seen, once the view rests; nothing where no node is to be on the page. */
function useRestingArea(near: boolean): Area | undefined {
  const store = useStoreApi();
  const [area, setArea] = useState<Area>();
  useEffect(() => {
    if (!near) {
      setArea(undefined);
      return undefined;
    }
    let timer: ReturnType<typeof setTimeout> | undefined;
    let last = store.getState().transform;
    const rest = () => {
      const { transform, width, height } = store.getState();
      setArea(seen(transform, width, height, MARGIN));
    };
    rest();
    const stop = store.subscribe((state) => {
      if (state.transform === last) return;
      last = state.transform;
      clearTimeout(timer);
      timer = setTimeout(rest, REST_MS);
    });
    return () => {
      stop();
      clearTimeout(timer);
    };
  }, [near, store]);
  return area;
}

function onPage(nodes: readonly FlowNode[], area: Area | undefined, live: string | undefined): FlowNode[] {
  return nodes.map((node) => (node.id === live || node.type === "frame" || node.dragging || (area && touches(boxOf(node), area)) ? node : asHidden(node)));
}

/** Selecting in a box, also what is not on the page. */
function useBoxSelection(nodes: readonly FlowNode[], many: boolean) {
  const store = useStoreApi();
  const from = useRef<readonly [number, number]>(undefined);
  const onSelectionStart = useCallback(() => {
    const rect = store.getState().userSelectionRect;
    from.current = rect ? [rect.startX, rect.startY] : undefined;
  }, [store]);
  const onSelectionEnd = (event: MouseEvent) => {
    if (!many || !from.current) return;
    const [[ax, ay], [bx, by]] = [from.current, toCanvas([event.clientX, event.clientY])];
    const box = { x: Math.min(ax, bx), y: Math.min(ay, by), width: Math.abs(bx - ax), height: Math.abs(by - ay) };
    const inside = nodes.filter((node) => node.type !== "frame" && node.type !== "border" && touches(boxOf(node), box));
    select(inside.map((node) => node.id));
  };
  return { onSelectionStart, onSelectionEnd };
}

/** The graph as boxes and wires, made when it is asked for and kept until something of it changes. */
function useScene(nodes: FlowNode[], edges: readonly Edge<EdgeData>[]) {
  const store = useStoreApi();
  const specs = useApp((state) => state.specs);
  const doc = useTab((tab) => tab.doc);
  const prefix = useTab(pathPrefix) ?? "";
  const id = doc?.id ?? "";
  const inner = doc?.scopes;
  // A run is drawn node by node, not step by step.
  const progress = useRuns((state) => progressOf(shownRun(state, id)));
  const marks = useMarks(faults, (all) => all[id]);
  return useMemo(() => {
    let made: ReturnType<typeof sceneOf> | undefined;
    const run = shownRun(runs.get(), id);
    return () => (made ??= sceneOf(nodes, edges, store.getState().nodeLookup, { specs, inner: inner ?? {}, run, faults: marks, prefix }));
    // `progress` stands for the run: its other parts change nothing here.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [nodes, edges, specs, inner, id, prefix, progress, marks, store]);
}

const progresses = new WeakMap<object, string>();

/** Which nodes are at what, as a text that changes with it. */
function progressOf(run: Run | undefined): string {
  if (!run) return "";
  let found = progresses.get(run.nodes);
  if (found === undefined) {
    found = Object.entries(run.nodes).map(([node, it]) => `${node}${it.state[0]}`).join(" ");
    progresses.set(run.nodes, found);
  }
  return found;
}
