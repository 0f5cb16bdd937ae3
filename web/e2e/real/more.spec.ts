// What else people do with the program itself: parts of runs, the queue, masks, subgraphs, files, the form, a lost connection.

import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { devices, type Page } from "@playwright/test";
import { expect, field, node, openTemplate, settled, shot, watched, wires } from "../kit.ts";
import { LONG, PROGRAM, result, saveAs, test, type } from "./server.ts";

test.setTimeout(600_000);

const program = promisify(execFile);
const prompt = (page: Page, title = "Prompt") => node(page, title).getByRole("textbox", { name: "text" });

interface Entry { prompt: [number, string, Record<string, { class_type: string; inputs: Record<string, unknown> }>]; status: { messages: [string, { timestamp?: number; nodes?: string[] }][] } }

/** Runs that ended whose prompts hold some words, in the order in which they began. */
async function ended(page: Page, url: string, words: string): Promise<Entry[]> {
  const all = Object.values((await (await page.request.get(`${url}/history`)).json()) as Record<string, Entry>);
  const began = (it: Entry) => it.status.messages.find(([kind]) => kind === "execution_start")?.[1].timestamp ?? 0;
  return all.filter((it) => JSON.stringify(it.prompt[2]).includes(words)).sort((a, b) => began(a) - began(b));
}

test("run up to a node runs no more than that", async ({ editor: page, server }) => {
  await openTemplate(page, /^text to image/i);
  await prompt(page).fill("a part of a run");
  await type(page, "Sampler", "steps", "3");
  await node(page, "Sampler").locator("header .title").click();
  await page.keyboard.press("Control+Shift+Enter");
  await expect(node(page, "Sampler").locator("header .time")).toContainText(/ms| s/, LONG);
  await expect.poll(async () => (await ended(page, server.url, "a part of a run")).length, LONG).toBe(1);
  await expect(result(page, "Save")).toHaveCount(0);
  await expect(node(page, "Decode").locator("header .time, header .badge")).toHaveCount(0);
  await shot(page, "real-part");
  // The rest begins where it ended.
  await page.keyboard.press("Control+Enter");
  await expect(result(page, "Save")).toBeVisible(LONG);
  await expect(node(page, "Sampler").locator(".badge.cached")).toBeVisible();
});

test("pause the queue, let another run go first, take one out, and go on", async ({ editor: page, server }) => {
  await openTemplate(page, /^text to image/i);
  await prompt(page).fill("one after the other");
  await type(page, "Sampler", "steps", "2");
  await page.keyboard.press("Escape");
  await page.keyboard.press("q");
  await page.getByRole("button", { name: "Pause the queue" }).click();
  await expect(page.getByRole("button", { name: "Go on" })).toBeVisible();
  await node(page, "Sampler").getByRole("radio", { name: "+1" }).click();
  await page.getByRole("spinbutton", { name: "How many runs" }).fill("3");
  await page.getByRole("button", { name: "Run", exact: true }).click();
  const waiting = page.locator(".queue li.queued");
  await expect(waiting).toHaveCount(3);
  await page.getByRole("button", { name: "Run next" }).last().click();
  await expect.poll(async () => ((await (await page.request.get(`${server.url}/queue`)).json()) as { queue_pending: Entry["prompt"][] }).queue_pending.length).toBe(3);
  await shot(page, "real-queue");
  // The seeds were 7, 8 and 9: the last goes first, and of the others the first is taken out.
  await expect(waiting.first()).toContainText("the next");
  await waiting.nth(1).getByRole("button", { name: /^Cancel/ }).click();
  await expect(waiting).toHaveCount(2);
  await page.getByRole("button", { name: "Go on" }).click();
  await expect.poll(async () => (await ended(page, server.url, "one after the other")).length, LONG).toBe(2);
  const seeds = (await ended(page, server.url, "one after the other")).map((it) => Object.values(it.prompt[2]).find((one) => "seed" in one.inputs)!.inputs["seed"]);
  expect(seeds).toEqual([9, 8]);
});

/** Red, green, blue and alpha of a picture at parts of its sides. */
function pixels(page: Page, url: string, spots: [number, number][]): Promise<number[][]> {
  return page.evaluate(async ({ url, spots }) => {
    const picture = await createImageBitmap(await (await fetch(url)).blob(), { premultiplyAlpha: "none" });
    const canvas = new OffscreenCanvas(picture.width, picture.height);
    const context = canvas.getContext("2d")!;
    context.drawImage(picture, 0, 0);
    return spots.map(([x, y]) => [...context.getImageData(Math.floor(x * picture.width), Math.floor(y * picture.height), 1, 1).data]);
  }, { url, spots });
}

test("paint a mask, and run with it: what is painted changes, and the rest stays", async ({ editor: page, server }) => {
  await openTemplate(page, /^inpaint/i);
  await type(page, "Sampler", "steps", "8");
  const picture = node(page, "Picture with a hole");
  await picture.getByRole("button", { name: "Paint mask" }).click();
  const paper = page.getByLabel("Mask", { exact: true });
  await expect(paper).toBeVisible();
  await page.getByRole("button", { name: "Clear" }).click();
  const box = (await paper.boundingBox())!;
  await page.getByRole("slider", { name: "Brush" }).fill("0.2");
  await page.mouse.move(box.x + box.width * 0.2, box.y + box.height * 0.25);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.8, box.y + box.height * 0.25, { steps: 8 });
  await page.mouse.up();
  await shot(page, "real-mask");
  await page.getByRole("button", { name: "Use mask" }).click();
  await expect(picture.getByAltText(/masked-\d+\.png/)).toBeVisible(LONG);
  const name = (await picture.getByAltText(/masked-\d+\.png/).getAttribute("alt"))!;
  const masked = await pixels(page, `${server.url}/view?type=input&filename=${encodeURIComponent(name)}`, [[0.5, 0.25], [0.5, 0.8], [0.06, 0.06]]);
  // What is painted is transparent, and nothing else is, also where the hole was.
  expect(masked.map((it) => it[3]! > 127)).toEqual([false, true, true]);
  await page.keyboard.press("Control+Enter");
  await expect(result(page, "Save")).toBeVisible(LONG);
  await settled(page);
  await shot(page, "real-masked");
  await result(page, "Save").click();
  await expect(page.locator(".viewer img").first()).toBeVisible();
});

test("a subgraph is made, its ports are named, it runs, and its file runs by itself", async ({ editor: page, server }) => {
  await openTemplate(page, /^text to image/i);
  await prompt(page).fill("in a subgraph");
  await type(page, "Sampler", "steps", "2");
  await node(page, "Sampler").locator("header .title").click();
  await node(page, "Decode").locator("header .title").click({ modifiers: ["Control"] });
  await page.keyboard.press("Control+Shift+e");
  await expect(node(page, "Subgraph")).toBeVisible();
  await node(page, "Subgraph").getByRole("button", { name: "open" }).click();
  await expect(node(page, "Inputs")).toBeVisible();
  await node(page, "Inputs").getByRole("button", { name: "positive", exact: true }).dblclick();
  await page.getByRole("textbox", { name: "Name of the port" }).fill("what to paint");
  await page.keyboard.press("Enter");
  await expect(node(page, "Inputs").getByRole("button", { name: "what to paint", exact: true })).toBeVisible();
  await shot(page, "real-subgraph");
  await page.getByRole("navigation", { name: "Subgraphs" }).getByRole("button").first().click();
  await expect(node(page, "Subgraph").locator(".socket.in")).toContainText(["model", "what to paint"]);
  await page.keyboard.press("Control+Enter");
  await expect(result(page, "Save")).toBeVisible(LONG);
  await expect(node(page, "Subgraph").locator("header .time")).toContainText(/ms| s/);
  await shot(page, "real-subgraph-ran");
  await saveAs(page, "with a subgraph");
  const file = join(server.folder, "user/default/workflows/with a subgraph.json");
  expect(JSON.parse(readFileSync(file, "utf8"))).toMatchObject({ version: 0.4, definitions: { subgraphs: [{ name: "Subgraph", inputs: [{ name: "model" }, { name: "positive", label: "what to paint" }, {}, {}, {}] }] } });
  const { stdout } = await program(PROGRAM, ["run", file, "--base-dir", server.folder], { timeout: LONG.timeout });
  expect(stdout).toContain(".png");
  // And back to the nodes that were in it.
  await node(page, "Subgraph").locator("header .title").click();
  await page.keyboard.press("Control+Shift+u");
  await expect(node(page, "Sampler")).toBeVisible();
  await expect(node(page, "Subgraph")).toHaveCount(0);
  await expect(wires(page)).toHaveCount(9);
});

test("what is saved, and what is exported, runs by itself", async ({ editor: page, server }) => {
  await openTemplate(page, /^text to image/i);
  await prompt(page).fill("on the command line");
  await type(page, "Sampler", "steps", "2");
  await saveAs(page, "as it is");
  const saved = join(server.folder, "user/default/workflows/as it is.json");
  // Saved again, it is the same text.
  const before = readFileSync(saved, "utf8");
  await type(page, "Sampler", "steps", "3");
  await type(page, "Sampler", "steps", "2");
  await page.keyboard.press("Control+s");
  await expect(page.locator(".unsaved")).toHaveCount(0);
  expect(readFileSync(saved, "utf8")).toBe(before);
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox").fill("export for the api");
  const [download] = await Promise.all([page.waitForEvent("download"), page.keyboard.press("Enter")]);
  const exported = join(server.folder, "exported.api.json");
  await download.saveAs(exported);
  for (const file of [saved, exported]) {
    const { stdout } = await program(PROGRAM, ["run", file, "--base-dir", server.folder, "--set", "Prompt.text=set from outside"], { timeout: LONG.timeout });
    expect(stdout).toContain(".png");
  }
});

test("two windows cannot write over each other's file unasked", async ({ editor: page, server, context }) => {
  await openTemplate(page, /^text to image/i);
  await saveAs(page, "shared by two");
  const file = join(server.folder, "user/default/workflows/shared by two.json");
  const steps = () => (JSON.parse(readFileSync(file, "utf8")) as { nodes: { type: string; widgets_values: unknown[] }[] }).nodes.find((it) => it.type === "KSampler")!.widgets_values[2];
  const other = await context.newPage();
  await watched(other, server.url, async () => {
    await other.getByRole("button", { name: "shared by two" }).click();
    await expect(node(other, "Sampler")).toBeVisible();
    await type(other, "Sampler", "steps", "11");
    await other.keyboard.press("Control+s");
    await expect(other.locator(".unsaved")).toHaveCount(0);
  });
  expect(steps()).toBe(11);
  await type(page, "Sampler", "steps", "22");
  page.removeAllListeners("dialog");
  const asked: string[] = [];
  page.once("dialog", (dialog) => {
    asked.push(dialog.message());
    void dialog.dismiss();
  });
  const answer = page.waitForResponse((it) => it.request().method() === "POST" && it.url().includes("userdata"));
  await page.keyboard.press("Control+s");
  expect((await answer).status()).toBe(412);
  await expect.poll(() => asked.join()).toContain("changed in another window");
  expect(steps()).toBe(11);
  await expect(page.locator(".unsaved")).toHaveCount(1);
  page.once("dialog", (dialog) => void dialog.accept());
  await page.keyboard.press("Control+s");
  await expect(page.locator(".unsaved")).toHaveCount(0);
  expect(steps()).toBe(22);
  await other.close();
});

test("the form on a phone", async ({ editor: page }) => {
  await page.setViewportSize(devices["Pixel 7"]!.viewport);
  await page.getByRole("button", { name: /^text to image/i }).click();
  await page.getByRole("radio", { name: "Form" }).click();
  const text = page.getByRole("textbox", { name: "text" }).first();
  await text.fill("a duck on a phone");
  await page.getByRole("spinbutton", { name: "steps" }).fill("6");
  await shot(page, "real-phone");
  await page.locator(".form-run .primary").click();
  await expect(page.getByAltText(/^Result 1/)).toBeVisible(LONG);
  expect(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)).toBe(false);
  await page.getByAltText(/^Result 1/).scrollIntoViewIfNeeded();
  await settled(page);
  await shot(page, "real-phone-result");
  // Its controls are large enough for a thumb.
  const small = await page.locator(".form input:visible, .form textarea:visible, .form .primary:visible").evaluateAll((all) => all.map((it) => it.closest(".widget")?.getBoundingClientRect() ?? it.getBoundingClientRect()).filter((it) => it.height < 32).length);
  expect(small).toBe(0);
});

test("light, with a run", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await page.getByRole("button", { name: "Dark or light" }).click();
  await expect(page.locator("html")).toHaveAttribute("data-theme", "light");
  await type(page, "Sampler", "steps", "12");
  await page.keyboard.press("Control+Enter");
  await expect(result(page, "Save")).toBeVisible(LONG);
  await settled(page);
  await shot(page, "real-light");
  await page.reload();
  await expect(page.locator("html")).toHaveAttribute("data-theme", "light");
});

test("values of a training that are seldom set are folded away, and unfold", async ({ editor: page }) => {
  await openTemplate(page, /^train para/i);
  const more = node(page, "Train").getByRole("button", { name: /^\d+ more values$/ });
  await expect(more).toHaveAttribute("aria-expanded", "false");
  await expect(field(page, "Train", "rank")).toBeVisible();
  await expect(field(page, "Train", "ema")).toHaveCount(0);
  await shot(page, "real-folded");
  await more.focus();
  await page.keyboard.press("Enter");
  await expect(field(page, "Train", "ema")).toBeVisible();
  await type(page, "Train", "ema", "0.9");
  // It lies below the window's edge, where a mouse has to move the canvas first.
  await node(page, "Train").getByRole("button", { name: "Fewer values" }).focus();
  await page.keyboard.press("Enter");
  await expect(field(page, "Train", "ema")).toHaveValue("0.9");
  await expect(field(page, "Train", "warmup")).toHaveCount(0);
});

test("a model's picture that lies beside it is in the list of models", async ({ editor: page, server }) => {
  const folder = join(server.folder, "models/checkpoints");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "mine.safetensors"), Buffer.concat([Buffer.from([2, 0, 0, 0, 0, 0, 0, 0]), Buffer.from("{}")]));
  writeFileSync(join(folder, "mine.png"), readFileSync(new URL("../../../graphs/input/bear.png", import.meta.url)));
  await openTemplate(page, /^text to image/i);
  // The list follows the folder by itself.
  await expect(async () => {
    await node(page, "Model").getByRole("button", { name: /^ckpt_name/ }).click();
    await expect(page.getByRole("option", { name: "mine.safetensors" }).locator("img")).toBeVisible({ timeout: 2000 });
  }).toPass({ intervals: [500] });
  await shot(page, "real-models");
  // The paths after this one have the embedded model alone again.
  for (const name of ["mine.safetensors", "mine.png"]) rmSync(join(folder, name));
});

test("no event is lost or doubled when the connection drops and returns in a training", async ({ page, server }) => {
  const drops: (() => void)[] = [];
  await page.routeWebSocket(/\/ws/, (socket) => {
    socket.connectToServer();
    drops.push(() => void socket.close());
  });
  await watched(page, server.url, async () => {
    await openTemplate(page, /^train para/i);
    await type(page, "Train", "steps", "24");
    await type(page, "Train", "batch_size", "1");
    await type(page, "Train", "validate_every", "0");
    await type(page, "Train", "sample_every", "24");
    await page.keyboard.press("Escape");
    await page.keyboard.press("Control+Enter");
    const points = () => node(page, "Train").locator(".curves path.line").evaluateAll((all) => (all[0]?.getAttribute("d")?.match(/[ML]/g) ?? []).length);
    for (const least of [3, 8, 14]) {
      await expect.poll(points, LONG).toBeGreaterThan(least);
      const connections = drops.length;
      drops.at(-1)!();
      await expect.poll(() => drops.length, LONG).toBeGreaterThan(connections);
    }
    await expect(result(page, "Save the curve")).toBeVisible(LONG);
    await expect.poll(points).toBe(24);
    await page.keyboard.press("q");
    await expect(page.locator(".queue li.done").first()).toBeVisible();
    await expect(page.locator(".queue li.running")).toHaveCount(0);
  });
});

const chosen = (page: Page) => page.locator(".react-flow__node.selected");
const place = (page: Page, title: string) => node(page, title).evaluate((it) => new DOMMatrix(getComputedStyle(it).transform)).then((it) => [it.e, it.f]);

test("on the canvas: box, group, note, reroute, colour, fold, mute, copies with their wires, snap, align", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await type(page, "Sampler", "steps", "2");
  await page.keyboard.press("Escape");
  // A box around all, and a group around that.
  await page.keyboard.down("Shift");
  await page.mouse.move(30, 120);
  await page.mouse.down();
  await page.mouse.move(1320, 700, { steps: 8 });
  await page.mouse.up();
  await page.keyboard.up("Shift");
  await expect(chosen(page)).toHaveCount(7);
  await page.keyboard.press("Control+g");
  await expect(page.locator(".frame")).toHaveCount(1);
  await page.keyboard.press("Control+z");
  // Nothing is selected any more, no wire either.
  await expect(page.locator(".react-flow__edge.selected")).not.toHaveCount(0);
  await page.keyboard.press("Escape");
  await expect(page.locator(".react-flow__edge.selected, .react-flow__node.selected")).toHaveCount(0);
  // A colour by the menu, and a reroute in a wire by its menu.
  await node(page, "Prompt").locator("header .title").click({ button: "right" });
  await page.getByRole("menuitem", { name: "green" }).click();
  await expect(node(page, "Prompt").locator(".pf-node")).toHaveAttribute("style", /--node-tint/);
  const [from, to] = [(await node(page, "Decode").boundingBox())!, (await node(page, "Save").boundingBox())!];
  await page.mouse.click((from.x + from.width + to.x) / 2, from.y + 43, { button: "right" });
  await page.getByRole("menuitem", { name: /reroute/i }).click();
  await expect(page.locator(".pf-reroute")).toHaveCount(1);
  // Folded, and a copy that keeps its wire.
  await node(page, "Canvas").locator("header .title").click();
  await page.keyboard.press("c");
  await expect(field(page, "Canvas", "width")).toHaveCount(0);
  await page.keyboard.press("c");
  await expect(field(page, "Canvas", "width")).toBeVisible();
  const before = await wires(page).count();
  await node(page, "Prompt").locator("header .title").click();
  await page.keyboard.press("Control+d");
  await expect(node(page, "Prompt")).toHaveCount(2);
  await expect(wires(page)).toHaveCount(before + 1);
  await page.keyboard.press("Delete");
  await expect(node(page, "Prompt")).toHaveCount(1);
  // On the grid, and in line.
  await page.keyboard.press("Shift+G");
  const head = (await node(page, "Canvas").locator("header .title").boundingBox())!;
  await page.mouse.move(head.x + 60, head.y + 8);
  await page.mouse.down();
  await page.mouse.move(head.x + 97, head.y - 31, { steps: 6 });
  await page.mouse.up();
  expect((await place(page, "Canvas")).map((it) => Math.abs(it % 20))).toEqual([0, 0]);
  await page.keyboard.press("Shift+G");
  await node(page, "Canvas").locator("header .title").click();
  await node(page, "Negative prompt").locator("header .title").click({ modifiers: ["Control"] });
  await page.keyboard.press("Alt+ArrowLeft");
  await expect.poll(async () => (await place(page, "Canvas"))[0]! - (await place(page, "Negative prompt"))[0]!).toBe(0);
  // Muted, it gives nothing; no more, and it runs, by way of the reroute.
  await node(page, "Negative prompt").locator("header .title").click();
  await page.keyboard.press("m");
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Sampler").locator(".node-errors")).toContainText("negative", LONG);
  await page.keyboard.press("m");
  await page.keyboard.press("Shift+T");
  await page.locator(".pf-note textarea").fill("all of it by hand");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+Enter");
  await expect(result(page, "Save")).toBeVisible(LONG);
  await settled(page);
  await shot(page, "real-canvas");
});

test("results: a grid, one dragged onto the canvas for its graph, one into a picture input, and a picture uploaded", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await prompt(page).fill("a bear to be dragged");
  await type(page, "Sampler", "steps", "8");
  await page.keyboard.press("Control+Enter");
  await expect(result(page, "Save")).toBeVisible(LONG);
  await type(page, "Sampler", "seed", "8");
  const first = (await result(page, "Save").getAttribute("alt"))!;
  await page.keyboard.press("Control+Enter");
  await expect(result(page, "Save")).not.toHaveAttribute("alt", first, LONG);
  const name = (await result(page, "Save").getAttribute("alt"))!.replace("Result 1: ", "");
  await page.keyboard.press("Escape");
  await page.keyboard.press("g");
  const marks = page.getByRole("checkbox", { name: /^Mark/ });
  await marks.nth(0).check();
  await marks.nth(1).check();
  await page.getByRole("button", { name: "As a grid" }).click();
  await expect(page.locator(".grid figure")).toHaveCount(2);
  await shot(page, "real-grid");
  await page.keyboard.press("Escape");
  const shown = page.getByRole("button", { name: `See ${name}` });
  await shown.dragTo(page.locator(".react-flow__pane"), { targetPosition: { x: 500, y: 700 } });
  await expect(page.getByRole("tab", { name: name.replace(".png", "") })).toBeVisible();
  await expect(prompt(page)).toHaveValue("a bear to be dragged");
  // Into a picture input of another graph, and one from the disk over it.
  await page.getByRole("button", { name: "Start page" }).click();
  await openTemplate(page, /^image to image/i);
  await shown.dragTo(node(page, "Picture").locator(".picture-widget .pictures"));
  await expect(node(page, "Picture").getByAltText(new RegExp(name.replace(".png", "")))).toBeVisible(LONG);
  await node(page, "Picture").locator("input[type=file]").setInputFiles({ name: "from the disk.png", mimeType: "image/png", buffer: readFileSync(new URL("../../../graphs/input/bear.png", import.meta.url)) });
  await expect(node(page, "Picture").getByAltText("from the disk.png")).toBeVisible(LONG);
  await type(page, "Sampler", "steps", "2");
  await page.keyboard.press("Control+Enter");
  await expect(result(page, "Save")).toBeVisible(LONG);
});
