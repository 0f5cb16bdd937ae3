// The canvas: xyflow draws and moves, this file turns what the hands do into edits.

import {
  Background, BackgroundVariant, type Connection, type Edge, type FinalConnectionState, type NodeChange, ReactFlow, SelectionMode,
  applyNodeChanges, useReactFlow, useStoreApi,
} from "@xyflow/react";
import { type DragEvent, type FocusEvent, type MouseEvent, useCallback, useEffect, useMemo, useRef, useState } from "react";
import * as api from "../api.ts";
import { join } from "../graph/borders.ts";
import { bestInput, bestOutput, connect, disconnect, insertOnWire, moveNodes, nodesWithin, updateGroup } from "../graph/edit.ts";
import { estimateSize } from "../graph/layout.ts";
import { INPUT_BORDER, OUTPUT_BORDER, type Scope, type Wire, incoming } from "../graph/model.ts";
import { inputType, outputType, wireRefusal } from "../graph/ports.ts";
import { fits } from "../graph/types.ts";
import { activeTab, app, currentScope, edit, select, setNodeValue, show, toast, update, updateTab, useApp, useTab, type WireEnd } from "../state/app.ts";
import { openFile } from "../state/files.ts";
import { Corner } from "./Corner.tsx";
import { MIN_ZOOM, fitAll, setView, view } from "./view.ts";
import { type FlowNode, MANY, asGroupId, flowEdges, flowNodes, handleInput, handleOutput, settled } from "./flow.ts";
import { FrameView } from "./FrameView.tsx";
import { useLevels } from "./levels.ts";
import { BorderView, NodeView, NoteView, RerouteView } from "./NodeView.tsx";
import { Overview } from "./Overview.tsx";
import { WireView, WireBeingDrawn } from "./WireView.tsx";

const NODE_TYPES = { node: NodeView, note: NoteView, reroute: RerouteView, border: BorderView, frame: FrameView };
const EDGE_TYPES = { wire: WireView };
const EMPTY = new Set<string>();
/** Ours, and that of hands from ComfyUI. */
const BOX_KEYS = ["Shift", "Control"];
const SNAP: [number, number] = [20, 20];

export function Canvas() {
  const scope = useTab(currentScope);
  const doc = useTab((tab) => tab.doc);
  const tabKey = useTab((tab) => tab.key);
  const pathKey = useTab((tab) => tab.path.map((step) => step.node).join(":"));
  const selected = useTab((tab) => tab.selected) ?? EMPTY;
  const groups = useTab((tab) => tab.selectedGroups) ?? EMPTY;
  const specs = useApp((state) => state.specs);
  const snap = useApp((state) => state.snap);
  const minimap = useApp((state) => state.minimap);
  const [nodes, setNodes] = useState<FlowNode[]>([]);
  const known = useRef(new Map<string, FlowNode>());
  const flow = useReactFlow();
  const store = useStoreApi();

  useEffect(() => setView(flow, store), [flow, store]);

  const wanted = useMemo(() => (scope && doc ? flowNodes(scope, selected, groups, known.current, doc, specs) : []), [scope, doc, specs, selected, groups]);
  useEffect(() => setNodes(wanted), [wanted]);
  known.current = useMemo(() => new Map(nodes.map((node) => [node.id, node])), [nodes]);

  const edges = useMemo(() => {
    if (!scope || !doc) return [];
    const types = new Map<string, string>();
    return flowEdges(doc, scope, (wire) => {
      const key = `${wire.from} ${wire.out}`;
      if (!types.has(key)) types.set(key, outputType(doc, scope, wire.from, wire.out, specs) ?? wire.type);
      return types.get(key)!;
    });
  }, [scope, doc, specs]);
  const [selectedEdges, setSelectedEdges] = useState<ReadonlySet<string>>(EMPTY);
  const levels = useLevels(nodes, edges, selectedEdges);
  const drawn = useMemo(() => levels.edges.map((edge) => (selectedEdges.has(edge.id) ? { ...edge, selected: true } : edge)), [levels.edges, selectedEdges]);
  view.selectedWires = selectedEdges;
  view.unmarkWires = () => setSelectedEdges(EMPTY);

  useEffect(() => {
    if (wanted.length === 0) {
      // To fit nothing would be put off until there is something, and then move it away under the hand.
      void flow.setViewport({ x: 0, y: 0, zoom: 1 });
      return undefined;
    }
    const fit = () => (wanted.length > MANY ? fitAll(wanted, 0.15, 1) : void flow.fitView({ padding: 0.15, maxZoom: 1, duration: 0 }));
    if (store.getState().width && wanted.length > MANY) {
      fit();
      return undefined;
    }
    const frame = requestAnimationFrame(fit);
    return () => cancelAnimationFrame(frame);
    // Only when another graph is opened.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [tabKey, pathKey, flow, store]);

  const onNodesChange = useCallback((changes: NodeChange<FlowNode>[]) => {
    const marks = changes.filter((change) => change.type === "select");
    if (marks.length) applyMarks(marks);
    const others = changes.filter((change) => change.type === "position" || change.type === "dimensions");
    if (others.length) setNodes((now) => measuredNodes(now, others));
  }, []);

  const dragging = useRef<{ inside: Map<string, Map<string, readonly [number, number]>>; from: Map<string, readonly [number, number]> }>(undefined);
  const onNodeDragStart = useCallback((_: unknown, __: FlowNode, moved: FlowNode[]) => {
    dragging.current = startDrag(moved);
  }, []);
  const onNodeDrag = useCallback((_: unknown, __: FlowNode, moved: FlowNode[]) => {
    const carried = dragging.current && carriedBy(dragging.current, moved);
    if (carried?.size) setNodes((now) => now.map((node) => (carried.has(node.id) ? { ...node, position: carried.get(node.id)! } : node)));
  }, []);
  const onNodeDragStop = useCallback((event: MouseEvent | TouchEvent | globalThis.MouseEvent, node: FlowNode, moved: FlowNode[]) => {
    const carried = dragging.current ? carriedBy(dragging.current, moved) : new Map<string, { x: number; y: number }>();
    dragging.current = undefined;
    commitPlaces([...moved, ...[...carried].map(([id, position]) => ({ id, position, data: {} }) as FlowNode)]);
    if (moved.length === 1 && "clientX" in event) dropOnWire(node.id, event.clientX, event.clientY);
  }, []);

  const onConnect = useCallback((connection: Connection) => {
    const out = handleOutput(connection.sourceHandle);
    const input = handleInput(connection.targetHandle);
    if (out === undefined || input === undefined) return;
    edit("connect", (it, document, all) => join(document, it, all, connection.source, out, connection.target, input));
  }, []);

  const isValidConnection = useCallback((connection: Connection | Edge) => refusalOf(connection) === undefined, []);

  const onConnectEnd = useCallback((event: globalThis.MouseEvent | TouchEvent, state: FinalConnectionState) => {
    update({ wiring: undefined });
    const end = wireEnd(state);
    if (!end || state.isValid) return;
    const point = "changedTouches" in event ? event.changedTouches[0]! : event;
    if ("to" in end && pickedUp(end, state)) return;
    if (state.toHandle) {
      explain(state);
      return;
    }
    const body = document.elementFromPoint(point.clientX, point.clientY)?.closest<HTMLElement>(".react-flow__node");
    const id = body?.dataset["id"];
    if (id && asGroupId(id) === undefined) connectToBody(end, id);
    else if (!body || id) show({ kind: "palette", at: [point.clientX, point.clientY], wire: end });
  }, []);

  const replaced = useRef<boolean>(false);
  const onReconnect = useCallback((old: Edge, connection: Connection) => {
    replaced.current = true;
    const out = handleOutput(connection.sourceHandle);
    const input = handleInput(connection.targetHandle);
    if (out === undefined || input === undefined) return;
    edit("move a wire", (it, document, all) => connect(disconnect(it, [old.id]), connection.source, out, connection.target, input, outputType(document, it, connection.source, out, all) ?? "*"));
  }, []);
  const onReconnectEnd = useCallback((_: unknown, old: Edge, __: unknown, state: FinalConnectionState) => {
    update({ wiring: undefined });
    if (!replaced.current && !state.toHandle) edit("take a wire off", (it) => disconnect(it, [old.id]));
    else if (!replaced.current && !state.isValid) explain(state);
    replaced.current = false;
  }, []);

  const theme = useApp((state) => state.theme);
  if (!scope) return null;
  return (
    <div className={levels.far ? "canvas afar" : "canvas"} onDrop={onDrop} onDragOver={(event) => event.preventDefault()} onDoubleClick={onDoubleClick} onFocus={onFocus} onPointerMove={levels.onPointerMove}>
      <ReactFlow
        nodes={levels.nodes}
        edges={drawn}
        nodeTypes={NODE_TYPES}
        edgeTypes={EDGE_TYPES}
        connectionLineComponent={WireBeingDrawn}
        onNodesChange={onNodesChange}
        onEdgesChange={(changes) => {
          const next = new Set(selectedEdges);
          for (const change of changes) if (change.type === "select") change.selected ? next.add(change.id) : next.delete(change.id);
          setSelectedEdges(next);
        }}
        onNodeDragStart={onNodeDragStart}
        onNodeDrag={onNodeDrag}
        onNodeDragStop={onNodeDragStop}
        onConnect={onConnect}
        onConnectStart={(_, params) => update({ wiring: startedAt(params.nodeId, params.handleId, params.handleType) })}
        onConnectEnd={onConnectEnd}
        onReconnect={onReconnect}
        onReconnectEnd={onReconnectEnd}
        onReconnectStart={(_, edge, type) => update({ wiring: type === "target" ? startedAt(edge.target, edge.targetHandle ?? null, "target") : startedAt(edge.source, edge.sourceHandle ?? null, "source") })}
        isValidConnection={isValidConnection}
        onPaneContextMenu={(event) => openMenu(event as MouseEvent)}
        onNodeContextMenu={(event, node) => openMenu(event, node.id)}
        onEdgeContextMenu={(event, edge) => openMenu(event, undefined, edge.id)}
        onSelectionContextMenu={(event) => openMenu(event)}
        onPaneClick={(event) => { setSelectedEdges(EMPTY); levels.onPaneClick(event); }}
        onSelectionStart={levels.onSelectionStart}
        onSelectionEnd={levels.onSelectionEnd}
        deleteKeyCode={null}
        selectionKeyCode={BOX_KEYS}
        multiSelectionKeyCode={["Meta", "Control", "Shift"]}
        selectionMode={SelectionMode.Partial}
        snapToGrid={snap}
        snapGrid={SNAP}
        panOnScroll={false}
        zoomOnDoubleClick={false}
        minZoom={MIN_ZOOM}
        maxZoom={3}
        connectionRadius={28}
        elevateNodesOnSelect={nodes.length < 400}
        nodesFocusable
        disableKeyboardA11y
        // By keyboard wires are made and taken off at their nodes: they would be hundreds of stops.
        edgesFocusable={false}
        proOptions={{ hideAttribution: true }}
        aria-label="Graph"
      >
        {!levels.far && <Background variant={BackgroundVariant.Dots} gap={20} size={1.5} color="var(--dots)" />}
        {levels.many && <Overview scene={levels.scene} theme={theme} without={levels.covered} />}
        {minimap && <Corner scene={levels.scene} theme={theme} />}
      </ReactFlow>
      {Object.keys(scope.nodes).length === 0 && (
        <div className="hint-empty">
          <p>Double click, or press <kbd>/</kbd>, to add a node.</p>
          <p>Drop a workflow or one of its pictures to open it.</p>
        </div>
      )}
    </div>
  );
}

/** What was (un)marked, into the state, all at once. */
function applyMarks(changes: readonly { id: string; selected: boolean }[]): void {
  updateTab((tab) => {
    const selected = new Set(tab.selected);
    const groups = new Set(tab.selectedGroups);
    for (const { id, selected: on } of changes) {
      const group = asGroupId(id);
      const set = group === undefined ? selected : groups;
      if (on) set.add(group ?? id);
      else set.delete(group ?? id);
    }
    const same = selected.size === tab.selected.size && [...selected].every((id) => tab.selected.has(id)) && groups.size === tab.selectedGroups.size && [...groups].every((id) => tab.selectedGroups.has(id));
    return same ? tab : { ...tab, selected, selectedGroups: groups };
  });
}

/** Writes places of nodes and groups into the document, as one step. */
function commitPlaces(moved: readonly FlowNode[]): void {
  edit("move", (scope) => {
    const places = new Map(moved.filter((node) => scope.nodes[node.id]).map((node) => [node.id, [Math.round(node.position.x), Math.round(node.position.y)] as const]));
    let result = moveNodes(scope, places);
    for (const node of moved) {
      const id = asGroupId(node.id);
      const group = id === undefined ? undefined : scope.groups.find((it) => it.id === id);
      if (!group || (group.bounds[0] === node.position.x && group.bounds[1] === node.position.y)) continue;
      result = updateGroup(result, group.id, (it) => ({ ...it, bounds: [Math.round(node.position.x), Math.round(node.position.y), it.bounds[2], it.bounds[3]] }));
    }
    return result;
  });
}

/** A group carries what lies in it. */
function startDrag(moved: readonly FlowNode[]) {
  const tab = activeTab();
  const scope = tab && currentScope(tab);
  const own = new Set(moved.map((node) => node.id));
  const inside = new Map<string, Map<string, readonly [number, number]>>();
  const from = new Map<string, readonly [number, number]>();
  for (const node of moved) {
    const group = scope?.groups.find((it) => it.id === asGroupId(node.id));
    if (!scope || !group) continue;
    from.set(node.id, [group.bounds[0], group.bounds[1]]);
    const ids = nodesWithin(scope, group, (it) => estimateSize(it, app.get().specs)).filter((id) => !own.has(id));
    inside.set(node.id, new Map(ids.map((id) => [id, scope.nodes[id]!.pos])));
  }
  return { inside, from };
}

function carriedBy(drag: ReturnType<typeof startDrag>, moved: readonly FlowNode[]): Map<string, { x: number; y: number }> {
  const carried = new Map<string, { x: number; y: number }>();
  for (const node of moved) {
    const start = drag.from.get(node.id);
    for (const [id, [x, y]] of drag.inside.get(node.id) ?? []) carried.set(id, { x: x + node.position.x - start![0], y: y + node.position.y - start![1] });
  }
  return carried;
}

/** A node without wires that is dropped on a wire goes into it. */
function dropOnWire(id: string, x: number, y: number): void {
  const tab = activeTab();
  const scope = tab && currentScope(tab);
  if (!scope?.nodes[id] || Object.values(scope.wires).some((wire) => wire.from === id || wire.to === id)) return;
  const wire = view.wireAt ? view.wireAt(x, y) : document.elementsFromPoint(x, y).map((element) => element.closest<HTMLElement>(".react-flow__edge")?.dataset["id"]).find(Boolean);
  if (wire) edit("put a node into a wire", (it, doc, specs) => insertOnWire(doc, it, specs, id, wire));
}

function refusalOf(connection: Connection | Edge): string | undefined {
  const tab = activeTab();
  const out = handleOutput(connection.sourceHandle);
  const input = handleInput(connection.targetHandle);
  if (!tab || out === undefined || input === undefined) return "a wire goes from an output to an input";
  return wireRefusal(tab.doc, currentScope(tab), app.get().specs, connection.source, out, connection.target, input);
}

/** Drawing from an input that has a wire takes that wire along: onto another input, or off. */
function pickedUp(end: Extract<WireEnd, { to: string }>, state: FinalConnectionState): boolean {
  const tab = activeTab();
  const wire = tab && (incoming(currentScope(tab)).get(end.to) ?? []).find((it) => it.input === end.input);
  if (!tab || !wire || state.toHandle?.type === "source") return false;
  if (!state.toHandle) {
    if (state.toNode) return false;
    edit("take a wire off", (it) => disconnect(it, [wire.id]));
    return true;
  }
  const [to, input] = [state.toHandle.nodeId, handleInput(state.toHandle.id)];
  if (input === undefined || (to === end.to && input === end.input)) return true;
  const reason = wireRefusal(tab.doc, currentScope(tab), app.get().specs, wire.from, wire.out, to, input);
  if (reason) toast(reason, "error");
  else edit("move a wire", (it) => connect(disconnect(it, [wire.id]), wire.from, wire.out, to, input, wire.type));
  return true;
}

function explain(state: FinalConnectionState): void {
  const forward = state.fromHandle?.type === "source";
  const [source, target] = forward ? [state.fromHandle, state.toHandle] : [state.toHandle, state.fromHandle];
  if (!source || !target) return;
  if (state.fromHandle?.type === state.toHandle?.type) {
    toast("a wire goes from an output to an input", "error");
    return;
  }
  const reason = refusalOf({ source: source.nodeId, sourceHandle: source.id ?? null, target: target.nodeId, targetHandle: target.id ?? null });
  if (reason) toast(reason, "error");
}

/** The end of a wire that is being drawn. */
function startedAt(node: string | null, handle: string | null, type: "source" | "target" | null): WireEnd | undefined {
  const tab = activeTab();
  if (!tab || !node) return undefined;
  const scope = currentScope(tab);
  const { specs } = app.get();
  const out = handleOutput(handle);
  const input = handleInput(handle);
  if (type === "source" && out !== undefined) return { from: node, out, type: outputType(tab.doc, scope, node, out, specs) ?? "*" };
  if (type === "target" && input !== undefined) return { to: node, input, type: inputType(tab.doc, scope, node, input, specs) ?? "*" };
  return undefined;
}

function wireEnd(state: FinalConnectionState): WireEnd | undefined {
  return state.fromHandle ? startedAt(state.fromHandle.nodeId, state.fromHandle.id ?? null, state.fromHandle.type) : undefined;
}

/** A wire that is dropped on a node goes to the socket that takes it. */
function connectToBody(end: WireEnd, id: string): void {
  const tab = activeTab();
  if (!tab) return;
  const scope = currentScope(tab);
  const { specs } = app.get();
  if ("from" in end) {
    const input = bestInput(tab.doc, scope, specs, end.from, end.out, id);
    if (input === undefined) toast(`no socket of this node takes ${end.type}`, "error");
    else edit("connect", (it) => connect(it, end.from, end.out, id, input, end.type));
  } else {
    const out = bestOutput(tab.doc, scope, specs, id, end.to, end.input);
    if (out === undefined) toast(`this node gives no ${end.type}`, "error");
    else edit("connect", (it) => connect(it, id, out, end.to, end.input, end.type));
  }
}

function openMenu(event: MouseEvent, id?: string, wire?: string): void {
  event.preventDefault();
  const tab = activeTab();
  const group = id === undefined ? undefined : asGroupId(id);
  const isBorder = id === INPUT_BORDER || id === OUTPUT_BORDER;
  if (id && group === undefined && !isBorder && !tab?.selected.has(id)) select([id]);
  if (group !== undefined && !tab?.selectedGroups.has(group)) select([], [group]);
  show({ kind: "menu", x: event.clientX, y: event.clientY, ...(id && group === undefined ? { node: id } : {}), ...(group !== undefined ? { group } : {}), ...(wire ? { wire } : {}) });
}

function onDoubleClick(event: MouseEvent): void {
  const target = event.target as HTMLElement;
  if (target.classList.contains("react-flow__pane")) show({ kind: "palette", at: [event.clientX, event.clientY] });
}

/** A node that the keyboard comes to is selected, so that commands are for it. */
function onFocus(event: FocusEvent): void {
  const target = event.target as HTMLElement;
  const id = target.dataset["id"];
  if (!id || !target.classList.contains("react-flow__node") || !target.matches(":focus-visible")) return;
  const tab = activeTab();
  if (tab && !tab.selected.has(id) && currentScope(tab).nodes[id]) select([id]);
}

/** Files, pictures from the gallery, and pictures onto a node that takes them. */
function onDrop(event: DragEvent): void {
  event.preventDefault();
  const element = (event.target as HTMLElement).closest<HTMLElement>("[data-upload]");
  // What is carried can be read during the event only.
  const address = event.dataTransfer.getData("text/x-paraflow-picture");
  const name = event.dataTransfer.getData("text/plain") || "picture.png";
  const files = [...event.dataTransfer.files];
  if (element) {
    void dropIntoInput(element, files[0], address);
  } else if (files.length) {
    for (const file of files) void openFile(file, file.name);
  } else if (address) {
    void fetch(address).then((response) => response.blob()).then((blob) => openFile(blob, name));
  }
}

async function dropIntoInput(element: HTMLElement, file: File | undefined, address: string): Promise<void> {
  const [node, input] = [element.dataset["node"], element.dataset["upload"]];
  try {
    const blob = file ?? (address ? await (await fetch(address)).blob() : undefined);
    if (!blob || !node || !input) return;
    const kept = await api.upload(blob, file?.name ?? new URL(address, location.href).searchParams.get("filename") ?? "picture.png");
    setNodeValue(node, input, kept.subfolder ? `${kept.subfolder}/${kept.filename}` : kept.filename);
  } catch (error) {
    toast(error instanceof Error ? error.message : String(error), "error");
  }
}

/** Places and sizes that xyflow tells; what it measured counts from then on. */
function measuredNodes(now: FlowNode[], changes: NodeChange<FlowNode>[]): FlowNode[] {
  const sized = new Set(changes.flatMap((change) => (change.type === "dimensions" ? [change.id] : [])));
  const changed = applyNodeChanges(changes, now);
  return sized.size ? changed.map((node) => (sized.has(node.id) ? settled(node) : node)) : changed;
}

export type { Scope, Wire };
export { fits };
