// The overview in the corner: the whole graph, and a frame around what is seen. Click or drag to go there, wheel to zoom.

import { Panel, useReactFlow, useStore, useStoreApi } from "@xyflow/react";
import { type PointerEvent, useEffect, useRef, useState } from "react";
import { type Area, type Scene, boundsOf, inkOf, paint } from "./paint.ts";

const [WIDTH, HEIGHT] = [200, 150];

export function Corner({ scene, theme }: { scene: () => Scene; theme: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const flow = useReactFlow();
  const [place, setPlace] = useState<Place>(NOWHERE);
  useEffect(() => {
    // Later than the canvas itself, when xyflow knows the nodes, and once for many changes.
    const timer = setTimeout(() => {
      if (!canvas.current) return;
      const found = placeOf(scene());
      drawInto(canvas.current, scene(), found);
      setPlace((now) => (now.x === found.x && now.y === found.y && now.scale === found.scale ? now : found));
    }, 60);
    return () => clearTimeout(timer);
  }, [scene, theme]);
  const go = (event: PointerEvent<HTMLElement>) => {
    const box = event.currentTarget.getBoundingClientRect();
    const { zoom } = flow.getViewport();
    void flow.setCenter(place.x + (event.clientX - box.left) / place.scale, place.y + (event.clientY - box.top) / place.scale, { zoom });
  };
  return (
    <Panel position="bottom-right" className="corner">
      <div
        role="img" aria-label="Overview of the graph"
        onPointerDown={(event) => { event.currentTarget.setPointerCapture(event.pointerId); go(event); }}
        onPointerMove={(event) => event.buttons && go(event)}
        onWheel={(event) => void (event.deltaY < 0 ? flow.zoomIn() : flow.zoomOut())}
      >
        <canvas ref={canvas} style={{ width: WIDTH, height: HEIGHT }} aria-hidden />
        <Seen place={place} />
      </div>
    </Panel>
  );
}

interface Place extends Area {
  scale: number;
}

const NOWHERE: Place = { x: 0, y: 0, width: WIDTH / 0.1, height: HEIGHT / 0.1, scale: 0.1 };

/** The graph's area, grown to the shape of the corner. */
function placeOf(scene: Scene): Place {
  const bounds = boundsOf(scene.boxes, 80) ?? { x: 0, y: 0, width: 1600, height: 1200 };
  const scale = Math.min(WIDTH / bounds.width, HEIGHT / bounds.height, 0.2);
  const [width, height] = [WIDTH / scale, HEIGHT / scale];
  return { x: bounds.x + (bounds.width - width) / 2, y: bounds.y + (bounds.height - height) / 2, width, height, scale };
}

function drawInto(canvas: HTMLCanvasElement, scene: Scene, place: Place): void {
  const density = devicePixelRatio;
  canvas.width = WIDTH * density;
  canvas.height = HEIGHT * density;
  const context = canvas.getContext("2d");
  if (context) paint(context, scene, place, place.scale * density, inkOf(canvas));
}

/** The frame moves by its own, so that panning draws nothing else here. */
function Seen({ place }: { place: Place }) {
  const store = useStoreApi();
  const element = useRef<HTMLElement>(null);
  const size = useStore((state) => `${state.width} ${state.height}`);
  useEffect(() => {
    const move = () => {
      const { transform: [tx, ty, zoom], width, height } = store.getState();
      if (!element.current) return;
      const [x, y] = [(-tx / zoom - place.x) * place.scale, (-ty / zoom - place.y) * place.scale];
      element.current.style.transform = `translate(${x}px, ${y}px)`;
      element.current.style.width = `${(width / zoom) * place.scale}px`;
      element.current.style.height = `${(height / zoom) * place.scale}px`;
    };
    move();
    return store.subscribe(move);
  }, [place, store, size]);
  return <i ref={element} className="seen" />;
}
