// The quality bars, measured here and told. Only sizes and what is on the screen are asserted: times belong to machines.

import { gzipSync } from "node:zlib";
import { readFileSync } from "node:fs";
import type { Page } from "@playwright/test";
import { drop, expect, node, settled, test } from "./kit.ts";

/** A graph of many nodes in rows, with wires from each to the next, and some across. */
function large(nodes: number, links: number): string {
  const list = Array.from({ length: nodes }, (_, index) => ({
    id: index + 1, type: "ImageScaleBy", pos: [(index % 25) * 290, Math.floor(index / 25) * 190], size: [230, 110], flags: {}, order: index, mode: 0,
    inputs: [{ name: "image", type: "IMAGE", link: null as number | null }], outputs: [{ name: "IMAGE", type: "IMAGE", links: [] as number[] }], properties: {}, widgets_values: ["bilinear", 1],
  }));
  const wires: (number | string)[][] = [];
  const notes = Array.from({ length: Math.max(0, links - nodes + 1) }, (_, index) => ({
    id: nodes + index + 1, type: "Reroute", pos: [(index % 25) * 290 + 240, Math.floor(index / 25) * 190 + 140], size: [34, 24], flags: {}, order: nodes + index, mode: 0,
    inputs: [{ name: "", type: "*", link: null as number | null }], outputs: [{ name: "", type: "IMAGE", links: [] as number[] }], properties: {}, widgets_values: undefined,
  }));
  for (let index = 1; index < nodes; index++) wires.push([wires.length + 1, index, 0, index + 1, 0, "IMAGE"]);
  for (let index = 0; index < notes.length; index++) wires.push([wires.length + 1, (index % nodes) + 1, 0, nodes + index + 1, 0, "IMAGE"]);
  for (const wire of wires) [...list, ...notes][Number(wire[3]) - 1]!.inputs[0]!.link = Number(wire[0]);
  return JSON.stringify({ id: "large", version: 0.4, last_node_id: nodes + notes.length, last_link_id: wires.length, nodes: [...list, ...notes], links: wires, groups: [], config: {}, extra: {} });
}

/** Where the large graph does not reach while all of it is in view. */
const BELOW: [number, number] = [680, 788];

/** A point of the page where there is nothing but the canvas, no wire either. */
async function emptySpot(page: Page): Promise<[number, number]> {
  const spots = await page.evaluate(() => {
    const isPane = (x: number, y: number) => [-6, 0, 6].every((by) => document.elementFromPoint(x + by, y + by)?.classList.contains("react-flow__pane"));
    const found: [number, number][] = [];
    for (let y = 700; y > 300; y -= 12) for (let x = 640; x < 900; x += 24) if (isPane(x, y)) found.push([x, y]);
    return found;
  });
  // A wire is on the page only while the hand is over it.
  for (const [x, y] of spots) {
    await page.mouse.move(x, y);
    if ((await page.locator(".react-flow__edge").count()) === 0) return [x, y];
  }
  throw new Error("the canvas is full");
}

/** Times between frames while the canvas is panned by the mouse. */
async function pan(page: Page, times: number, spot?: [number, number]): Promise<number[]> {
  await page.evaluate(() => {
    const store = window as unknown as { frames: number[]; stop: boolean };
    [store.frames, store.stop] = [[], false];
    let last = performance.now();
    const tick = (now: number) => {
      store.frames.push(now - last);
      last = now;
      if (!store.stop) requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  });
  const [x, y] = spot ?? (await emptySpot(page));
  for (let round = 0; round < times; round++) {
    await page.mouse.move(x, y);
    await page.mouse.down();
    await page.mouse.move(x - 260, y - 160, { steps: 12 });
    await page.mouse.move(x, y, { steps: 12 });
    await page.mouse.up();
  }
  return page.evaluate(() => {
    const store = window as unknown as { frames: number[]; stop: boolean };
    store.stop = true;
    return store.frames.slice(2);
  });
}

const at = (sorted: number[], part: number) => Math.round((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0) * 10) / 10;

function tell(what: string, frames: number[]): void {
  const sorted = [...frames].sort((a, b) => a - b);
  console.log(`${what}: ${frames.length} frames, median ${at(sorted, 0.5)} ms, 90 % within ${at(sorted, 0.9)} ms, longest ${at(sorted, 1)} ms (software rendering)`);
}

test("first load: under 400 KB compressed", async ({ page, mock }) => {
  const files: string[] = [];
  page.on("response", (response) => {
    const path = new URL(response.url()).pathname;
    if (/\/$|\.(js|css|html|woff2?)$/.test(path)) files.push(path === "/" ? "/index.html" : path);
  });
  await page.goto(mock.url);
  await expect(page.locator(".app[data-ready=true]")).toBeVisible();
  await expect(page.getByRole("button", { name: /^text to image/i })).toBeEnabled();
  await page.waitForFunction(() => performance.getEntriesByName("paraflow-ready").length > 0);
  const times = await page.evaluate(() => ({ paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0, ready: performance.getEntriesByName("paraflow-ready")[0]?.startTime ?? 0 }));
  const size = files.reduce((sum, file) => sum + gzipSync(readFileSync(new URL(`../dist${file}`, import.meta.url)), { level: 9 }).length, 0);
  console.log(`first load: ${(size / 1024).toFixed(1)} KB compressed in ${files.length} files; first paint ${Math.round(times.paint)} ms, interactive ${Math.round(times.ready)} ms`);
  expect(files.length).toBeGreaterThan(2);
  expect(size).toBeLessThan(400 * 1024);
});

test("500 nodes and 800 wires are panned", async ({ editor: page }) => {
  await drop(page, "large.json", "application/json", large(500, 800));
  await expect(page.getByRole("tab", { name: "large" })).toBeVisible();
  await settled(page);
  tell("500 nodes, 800 wires, all in view", await pan(page, 3, BELOW));
  // All of them on one bitmap, but for the node under the hand.
  expect(await page.locator(".react-flow__node").count()).toBeLessThan(3);
  // As near as needed for nodes to be on the page, and no nearer.
  await expect(async () => {
    await page.keyboard.press("+");
    await expect.poll(() => page.locator(".react-flow__node").count(), { timeout: 700 }).toBeGreaterThan(20);
  }).toPass({ intervals: [10] });
  tell("500 nodes, 800 wires, as far as texts can be read", await pan(page, 3));
  for (let round = 0; round < 4; round++) await page.keyboard.press("+");
  await settled(page);
  tell("500 nodes, 800 wires, near", await pan(page, 3));
  await expect.poll(() => page.locator(".react-flow__node").count()).toBeLessThan(80);
});

test("what is drawn from afar can be taken in the hand", async ({ editor: page }) => {
  await drop(page, "large.json", "application/json", large(200, 320));
  await expect(page.getByRole("tab", { name: "large" })).toBeVisible();
  await settled(page);
  await expect(page.locator("canvas.overview")).toBeAttached();
  const find = () => page.evaluate(() => {
    const element = document.querySelector(".react-flow__node-node");
    return element?.getAttribute("data-id") ?? "";
  });
  // The node under the hand is a real one: it can be clicked, and carried off.
  for (let y = 300; y < 400 && !(await find()); y += 4) await page.mouse.move(300, y);
  const id = await find();
  const one = page.locator(`.react-flow__node[data-id="${id}"]`);
  const head = (await one.locator("header .title").boundingBox())!;
  await page.mouse.move(head.x + head.width / 2, head.y + head.height / 2);
  await page.mouse.down();
  await page.mouse.move(head.x + 60, head.y + 50, { steps: 5 });
  await page.mouse.up();
  await expect(page.locator(".unsaved")).toHaveCount(1);
  await expect(one).toHaveClass(/selected/);
  await page.keyboard.press("Control+z");
  await expect(page.locator(".unsaved")).toHaveCount(0);
  // A box selects what is only drawn.
  await page.keyboard.down("Shift");
  await page.mouse.move(20, 70);
  await page.mouse.down();
  await page.mouse.move(1300, 800, { steps: 6 });
  await page.mouse.up();
  await page.keyboard.up("Shift");
  await page.keyboard.press("Delete");
  await expect(page.locator(".hint-empty")).toBeVisible();
  await page.keyboard.press("Control+z");
  await expect(page.locator(".hint-empty")).toHaveCount(0);
  // A wire under the hand can be taken off.
  for (let round = 0; round < 12; round++) await page.keyboard.press("+");
  await expect.poll(() => page.locator(".react-flow__node-node").count()).toBeGreaterThan(2);
  await expect(async () => {
    const at = await page.evaluate(() => {
      const boxes = [...document.querySelectorAll(".react-flow__node-node .react-flow__handle.source")].map((it) => it.getBoundingClientRect());
      const found = boxes.find((it) => it.x > 100 && it.x < 1000 && it.y > 100);
      return { x: found!.right + 22, y: found!.y + found!.height / 2 };
    });
    await page.mouse.move(at.x - 4, at.y);
    await page.mouse.move(at.x, at.y);
    await expect(page.locator(".react-flow__edge")).toHaveCount(1, { timeout: 500 });
  }).toPass();
});

test("5,000 nodes open, and can be searched, added to and undone", async ({ editor: page }) => {
  const began = Date.now();
  await drop(page, "huge.json", "application/json", large(5000, 5000));
  await expect(page.getByRole("tab", { name: "huge" })).toBeVisible();
  await settled(page);
  console.log(`5,000 nodes: on the screen after ${Date.now() - began} ms`);
  for (let round = 0; round < 12; round++) await page.keyboard.press("-");
  await settled(page);
  tell("5,000 nodes, from afar", await pan(page, 2, BELOW));
  await page.mouse.move(680, 500);
  for (let round = 0; round < 20; round++) await page.keyboard.press("+");
  await settled(page);
  tell("5,000 nodes, near", await pan(page, 2));
  const edited = Date.now();
  await page.keyboard.press("/");
  await page.getByRole("combobox").fill("ksampler");
  await page.keyboard.press("Enter");
  await expect(node(page, "KSampler")).toBeAttached();
  console.log(`5,000 nodes: a node is added in ${Date.now() - edited} ms`);
  await page.keyboard.press("Control+z");
  await expect(node(page, "KSampler")).toHaveCount(0);
  // A node far off is found by its id, and is there to be read.
  await page.keyboard.press("Control+f");
  await page.getByRole("combobox").fill("4321");
  await page.keyboard.press("Enter");
  const found = page.locator('.react-flow__node[data-id="4321"]');
  await expect(found).toHaveClass(/selected/);
  await expect(found).toBeInViewport();
});
