// What the paths share: a server of their own, an editor on it, and words for what hands do.

import { mkdirSync } from "node:fs";
import { type Locator, type Page, test as base, expect } from "@playwright/test";
import { type Mock, start } from "./mock/server.mjs";

export { expect };

/** An editor at an address; errors of the page and requests to other machines fail the path. */
export async function watched(page: Page, url: string, use: (page: Page) => Promise<void>): Promise<void> {
  const errors: string[] = [];
  const strangers: string[] = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("request", (request) => !/^(http:\/\/127\.0\.0\.1:|data:|blob:)/.test(request.url()) && strangers.push(request.url()));
  page.on("dialog", (dialog) => void dialog.accept());
  await page.goto(url);
  await expect(page.locator(".app[data-ready=true]")).toBeVisible();
  await use(page);
  expect(errors, "errors of the page").toEqual([]);
  expect(strangers, "requests to other machines").toEqual([]);
}

/** Each path has a server of its own, which computes nothing. */
export const test = base.extend<{ mock: Mock; editor: Page }>({
  // eslint-disable-next-line no-empty-pattern
  mock: async ({}, use) => {
    const mock = await start({ step: 15 });
    await use(mock);
    mock.close();
  },
  editor: ({ page, mock }, use) => watched(page, mock.url, use),
});

export const node = (page: Page, title: string): Locator => page.locator(".react-flow__node").filter({ has: page.locator("header .title", { hasText: new RegExp(`^${title}$`) }) });
export const input = (page: Page, title: string, name: string): Locator => node(page, title).locator(`.react-flow__handle[data-handleid="in:${name}"]`);
export const output = (page: Page, title: string, index: number): Locator => node(page, title).locator(`.react-flow__handle[data-handleid="out:${index}"]`);
export const wires = (page: Page): Locator => page.locator(".react-flow__edge");
export const field = (page: Page, title: string, name: string): Locator => node(page, title).getByRole("spinbutton", { name, exact: true });

export async function openTemplate(page: Page, name: RegExp): Promise<void> {
  await page.getByRole("button", { name }).click();
  await expect(page.locator(".react-flow__node").first()).toBeVisible();
  await settled(page);
}

/** Whether the browser keeps some words of what is open: it does so a moment after each change. */
export const kept = (page: Page, words: string): Promise<boolean> =>
  page.evaluate(async (words) => {
    const open = indexedDB.open("paraflow", 1);
    await new Promise((resolve) => (open.onsuccess = resolve));
    const all = open.result.transaction("windows").objectStore("windows").getAll();
    await new Promise((resolve) => (all.onsuccess = resolve));
    open.result.close();
    return JSON.stringify(all.result).includes(words);
  }, words);

/** Waits until nothing moves. */
export async function settled(page: Page): Promise<void> {
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(resolve, 60)))));
}

export async function dragTo(page: Page, from: Locator, to: Locator | { x: number; y: number }): Promise<void> {
  const a = (await from.boundingBox())!;
  const box = "x" in to ? undefined : (await (to as Locator).boundingBox())!;
  const b = box ? { x: box.x + box.width / 2, y: box.y + box.height / 2 } : (to as { x: number; y: number });
  await page.mouse.move(a.x + a.width / 2, a.y + a.height / 2);
  await page.mouse.down();
  await page.mouse.move((a.x + b.x) / 2, (a.y + b.y) / 2, { steps: 4 });
  await page.mouse.move(b.x, b.y, { steps: 4 });
  await page.mouse.up();
  await settled(page);
}

/** Drops a file on the canvas. */
export async function drop(page: Page, name: string, type: string, bytes: Buffer | string): Promise<void> {
  const data = Buffer.from(bytes).toString("base64");
  const transfer = await page.evaluateHandle(({ name, type, data }) => {
    const it = new DataTransfer();
    it.items.add(new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], name, { type }));
    return it;
  }, { name, type, data });
  await page.dispatchEvent(".canvas, .start, .form", "drop", { dataTransfer: transfer });
  await settled(page);
}

export async function addByKeys(page: Page, query: string): Promise<void> {
  await page.keyboard.press("/");
  await page.getByRole("combobox").fill(query);
  await page.keyboard.press("Enter");
  await settled(page);
}

/** Wires the selected node by keys: the first entry that fits the words. */
export async function wireByKeys(page: Page, words: string): Promise<void> {
  await page.keyboard.press("w");
  await page.getByRole("combobox").fill(words);
  await page.keyboard.press("Enter");
  await settled(page);
}

mkdirSync(new URL("./shots", import.meta.url), { recursive: true });

/** A picture of the end of a path, to be looked at. Only when asked for: pixels differ from machine to machine. */
export async function shot(page: Page, name: string): Promise<void> {
  if (process.env["SHOTS"]) await page.screenshot({ path: new URL(`./shots/${name}.png`, import.meta.url).pathname });
}
