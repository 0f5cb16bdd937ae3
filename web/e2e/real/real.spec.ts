// The paths again, against the program itself and its small built-in model. Nothing here depends on how fast that is.

import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "@playwright/test";
import { buildByKeyboard, buildByMouse, comfy } from "../hands.ts";
import { dragTo, drop, expect, field, input, kept, node, openTemplate, output, settled, shot, wireByKeys, wires } from "../kit.ts";
import { LONG, result, test, type } from "./server.ts";

test.setTimeout(600_000);

/** A picture that is soon made. */
async function small(page: Page): Promise<void> {
  await type(page, "Empty Latent Image", "width", "128");
  await type(page, "Empty Latent Image", "height", "128");
  await type(page, "KSampler", "steps", "6");
  await page.keyboard.press("Escape");
}

async function cancelAll(page: Page): Promise<void> {
  await page.keyboard.press("Control+Alt+Enter");
  await expect(page.getByRole("progressbar", { name: /Run of/ })).toHaveCount(0, LONG);
}

test("the program carries the editor that is committed", async ({ page, server }) => {
  const committed = readFileSync(new URL("../../dist/index.html", import.meta.url), "utf8");
  const served = await (await page.request.get(server.url)).text();
  expect(served, "the program was built with another web/dist: build it again").toBe(committed);
});

test("first load: the editor is under 400 KB on the wire", async ({ page, server }) => {
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  let [bytes, files, editor] = [0, 0, 0];
  const own = new Set<string>();
  session.on("Network.responseReceived", (it) => void (["Document", "Script", "Stylesheet", "Font"].includes(it.type) && own.add(it.requestId)));
  session.on("Network.loadingFinished", (it) => {
    bytes += it.encodedDataLength;
    files++;
    if (own.has(it.requestId)) editor += it.encodedDataLength;
  });
  await page.goto(server.url);
  await expect(page.getByRole("button", { name: /^text to image/i })).toBeEnabled();
  await page.waitForFunction(() => performance.getEntriesByName("paraflow-ready").length > 0);
  const times = await page.evaluate(() => [performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0, performance.getEntriesByName("paraflow-ready")[0]!.startTime].map(Math.round));
  console.log(`first load from the program: ${(editor / 1024).toFixed(1)} KB of editor; ${(bytes / 1024).toFixed(1)} KB in ${files} answers, pictures and /object_info included; first paint ${times[0]} ms, interactive ${times[1]} ms`);
  expect(own.size).toBeGreaterThan(2);
  expect(editor).toBeGreaterThan(50 * 1024);
  // With its pictures and the declarations of all nodes.
  expect(bytes).toBeLessThan(400 * 1024);
});

test("first run: change the prompt of a ready graph, run it, watch the picture form", async ({ editor: page }) => {
  await shot(page, "real-start");
  await openTemplate(page, /^text to image/i);
  await node(page, "Prompt").getByRole("textbox", { name: "text" }).fill("a blue bear in the snow");
  await type(page, "Sampler", "steps", "60");
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Sampler").getByAltText("The picture as it forms")).toBeVisible(LONG);
  await expect(page.getByRole("progressbar", { name: /Run of/ })).toBeVisible();
  await shot(page, "real-running");
  await expect(result(page, "Save")).toBeVisible(LONG);
  await expect(node(page, "Sampler").getByAltText("The picture as it forms")).toHaveCount(0);
  await expect(node(page, "Sampler").locator(".time")).toContainText(/ms| s/);
  await settled(page);
  await shot(page, "real-first-run");
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Sampler").locator(".badge.cached")).toBeVisible(LONG);
  // Another seed: the sampler runs for that, the decoder for the sampler, and the prompt does not.
  await type(page, "Sampler", "seed", "8");
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Save").locator("header .time")).toBeVisible(LONG);
  await expect(node(page, "Prompt").locator(".badge.cached")).toBeVisible();
  await node(page, "Sampler").locator("header .time").click();
  await expect(page.getByRole("dialog", { name: "The last run" })).toContainText("`seed` is other than when it ran before");
  await expect(page.getByRole("row", { name: /^Decode/ })).toContainText(/B\s*reads what ran/);
  await shot(page, "real-report");
});

test("a graph from nothing by mouse", async ({ editor: page }) => {
  await buildByMouse(page, () => small(page));
  await shot(page, "real-by-mouse");
});

test("a graph from nothing by keyboard", async ({ editor: page }) => {
  await buildByKeyboard(page, () => small(page));
});

test("drop a ComfyUI workflow; a missing node is kept with values and wires", async ({ editor: page, server }) => {
  await drop(page, "their work.json", "application/json", JSON.stringify(comfy));
  await expect(page.locator(".pf-node.missing")).toContainText("SomebodysSharpener");
  await page.keyboard.press("Control+Enter");
  await expect(page.locator(".pf-node.missing .node-errors")).toContainText("there is no class");
  await page.keyboard.press("Control+s");
  await page.getByRole("textbox", { name: "Name", exact: true }).fill("kept");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("tab", { name: "kept" })).toBeVisible();
  const file = JSON.parse(readFileSync(join(server.folder, "user/default/workflows/kept.json"), "utf8")) as typeof comfy;
  expect(file.nodes[2]).toMatchObject({ type: "SomebodysSharpener", widgets_values: [0.7, "soft"], properties: { cnr_id: "x" }, inputs: [{ name: "model", type: "MODEL", link: 2 }] });
  expect(file.links).toEqual(comfy.links);
});

test("drop a picture that the program saved to get its graph back", async ({ editor: page, server }) => {
  await openTemplate(page, /^text to image/i);
  await node(page, "Prompt").getByRole("textbox", { name: "text" }).fill("a yellow duck at night");
  await type(page, "Sampler", "steps", "3");
  await page.keyboard.press("Control+Enter");
  await expect(result(page, "Save")).toBeVisible(LONG);
  const name = (await result(page, "Save").getAttribute("alt"))!.replace("Result 1: ", "");
  expect(readdirSync(join(server.folder, "output"))).toContain(name);
  const bytes = readFileSync(join(server.folder, "output", name));
  await drop(page, name, "image/png", bytes);
  await expect(page.getByRole("tab", { name: name.replace(".png", "") })).toBeVisible();
  await expect(node(page, "Prompt").getByRole("textbox", { name: "text" })).toHaveValue("a yellow duck at night");
  await expect(field(page, "Sampler", "steps")).toHaveValue("3");
});

test("mend a fault that is shown at its node and socket", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await type(page, "Sampler", "steps", "2");
  await dragTo(page, input(page, "Sampler", "negative"), { x: 700, y: 760 });
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Sampler").locator(".node-errors")).toContainText("negative", LONG);
  await expect(node(page, "Sampler").locator(".socket.bad")).toHaveText("negative");
  await shot(page, "real-fault");
  await dragTo(page, output(page, "Negative prompt", 0), input(page, "Sampler", "negative"));
  await page.keyboard.press("Control+Enter");
  await expect(result(page, "Save")).toBeVisible(LONG);
  await expect(node(page, "Sampler").locator(".node-errors")).toHaveCount(0);
});

test("cancel what runs and what waits", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await type(page, "Sampler", "steps", "5000");
  await node(page, "Sampler").getByRole("radio", { name: "+1" }).click();
  await page.getByRole("spinbutton", { name: "How many runs" }).fill("2");
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await expect(node(page, "Sampler").locator("header .time")).toHaveText(/\d+\/5000/, LONG);
  await page.getByRole("button", { name: /Show the queue/ }).click();
  await expect(page.locator(".queue li.queued")).toHaveCount(1);
  await page.locator(".queue li.queued").getByRole("button", { name: /^Cancel/ }).click();
  await expect(page.locator(".queue li.queued")).toHaveCount(0);
  await page.getByRole("button", { name: "Cancel", exact: true }).first().click();
  await expect(page.locator(".queue li.running")).toHaveCount(0, LONG);
  await expect(page.locator(".queue li.cancelled").first()).toBeVisible();
  await expect(page.getByRole("progressbar", { name: /Run of/ })).toHaveCount(0);
});

test("a reload in the middle of a run shows the run, and unsaved work is still there", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await node(page, "Prompt").getByRole("textbox", { name: "text" }).fill("a green cat by the sea");
  await type(page, "Sampler", "steps", "5000");
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Sampler").locator("header .time")).toHaveText(/\d+\/5000/, LONG);
  await expect(page.locator(".unsaved")).toHaveCount(1);
  await expect.poll(() => kept(page, "a green cat by the sea")).toBe(true);
  await page.reload();
  await expect(node(page, "Prompt").getByRole("textbox", { name: "text" })).toHaveValue("a green cat by the sea", LONG);
  await expect(page.locator(".unsaved")).toHaveCount(1);
  await expect(node(page, "Sampler").locator(".pf-node")).toHaveClass(/is-running/, LONG);
  await expect(node(page, "Sampler").locator("header .time")).toHaveText(/\d+\/5000/, LONG);
  await expect(node(page, "Sampler").getByAltText("The picture as it forms")).toBeVisible(LONG);
  await cancelAll(page);
  await expect(node(page, "Sampler").locator(".pf-node")).not.toHaveClass(/is-running/);
});

test("train a PaRa and watch the curve", async ({ editor: page }) => {
  await openTemplate(page, /^train para/i);
  // Its pictures come with it, also into a folder that was empty.
  await expect(node(page, "Subject").locator(".choice.unknown")).toHaveCount(0);
  await type(page, "Train", "steps", "12");
  await type(page, "Train", "batch_size", "1");
  await type(page, "Train", "validate_every", "4");
  await type(page, "Train", "sample_every", "6");
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Train").getByRole("img", { name: /^Curve: loss/ })).toBeVisible(LONG);
  await expect(node(page, "Train").getByAltText("Sample at step 6")).toBeVisible(LONG);
  await shot(page, "real-training");
  await expect(result(page, "Save the curve")).toBeVisible(LONG);
  // The curve stays when the training is over, and is there after a reload.
  await expect(node(page, "Train").getByRole("img", { name: /^Curve: loss/ })).toBeVisible();
  await shot(page, "real-trained");
});

/** Brings a node near, so that its values are on the page also in a large graph. */
async function near(page: Page, title: string): Promise<void> {
  await page.keyboard.press(".");
  await settled(page);
  await node(page, title).locator("header .title").click();
  await expect(node(page, title)).toHaveClass(/selected/);
  await page.keyboard.press("Shift+.");
  await settled(page);
}

test("chain PaRa, then LoRA, and compare with the slider", async ({ editor: page }) => {
  await openTemplate(page, /^para then lora/i);
  await shot(page, "real-chain");
  const few: [string, string, string][] = [["Canvas", "batch_size", "1"], ["Train the PaRa", "steps", "4"], ["Train the PaRa", "batch_size", "1"], ["Train the style", "steps", "4"], ["Train the style", "batch_size", "1"], ["Sample: base", "steps", "4"], ["Sample: PaRa", "steps", "4"], ["Sample: PaRa, then LoRA", "steps", "4"]];
  for (const [title, name, value] of few) {
    await near(page, title);
    await type(page, title, name, value);
    await page.keyboard.press("Escape");
  }
  // The picture without either is to be kept too.
  await near(page, "Decode: base");
  await wireByKeys(page, "image a new node");
  await page.getByRole("combobox").fill("save image");
  await page.keyboard.press("Enter");
  await expect(node(page, "Save Image")).toBeAttached();
  await page.keyboard.press("Control+Enter");
  await page.keyboard.press("Escape");
  await near(page, "Train the style");
  await expect(node(page, "Train the style").getByRole("img", { name: /^Curve: loss/ })).toBeVisible(LONG);
  await near(page, "Save the comparison");
  await expect(result(page, "Save the comparison")).toBeVisible(LONG);
  const names: string[] = [];
  for (const title of ["Save Image", "Save the pictures"]) {
    await near(page, title);
    names.push((await result(page, title).getAttribute("alt"))!.replace("Result 1: ", ""));
  }
  await page.keyboard.press("Escape");
  await page.keyboard.press("g");
  for (const name of names) await page.getByRole("checkbox", { name: `Mark ${name}` }).first().check();
  await page.getByRole("button", { name: "Compare two" }).click();
  const slider = page.getByRole("slider", { name: /Where the one picture ends/ });
  await slider.focus();
  await page.keyboard.press("ArrowLeft");
  await expect(slider).toHaveValue("49");
  await expect(page.locator(".compare img").nth(1)).toHaveCSS("clip-path", "inset(0px 51% 0px 0px)");
  await shot(page, "real-compare");
});

test("undo everything, and redo it", async ({ editor: page }) => {
  await openTemplate(page, /^inpaint/i);
  const before = await page.locator(".react-flow__node").count();
  const joined = await wires(page).count();
  await page.keyboard.press("Control+a");
  await page.keyboard.press("Control+d");
  await expect(page.locator(".react-flow__node")).toHaveCount(before * 2);
  await page.keyboard.press("Delete");
  await page.keyboard.press("Control+a");
  await page.keyboard.press("Delete");
  await expect(page.locator(".react-flow__node")).toHaveCount(0);
  for (let step = 0; step < 4; step++) await page.keyboard.press("Control+z");
  await expect(page.locator(".react-flow__node")).toHaveCount(before);
  await expect(wires(page)).toHaveCount(joined);
  await expect(page.locator(".unsaved")).toHaveCount(0);
  for (let step = 0; step < 4; step++) await page.keyboard.press("Control+Shift+z");
  await expect(page.locator(".react-flow__node")).toHaveCount(0);
});
