// What people do with the editor, from the first run on.

import { buildByKeyboard, buildByMouse, comfy } from "./hands.ts";
import { dragTo, drop, expect, field, input, kept, node, openTemplate, output, settled, shot, test, wires } from "./kit.ts";
import { picture } from "./mock/png.mjs";

test("first run: change the prompt of a ready graph, run it, watch the picture form", async ({ editor: page, mock }) => {
  mock.world.until = 3;
  await shot(page, "start");
  await openTemplate(page, /^text to image/i);
  const prompt = node(page, "Prompt").getByRole("textbox", { name: "text" });
  await prompt.fill("a green bear on the beach");
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Sampler").getByAltText("The picture as it forms")).toBeVisible();
  await expect(page.getByRole("progressbar", { name: /Run of/ })).toBeVisible();
  await shot(page, "running");
  mock.world.until = Infinity;
  await expect(node(page, "Save").getByAltText(/^Result 1/)).toBeVisible();
  await expect(node(page, "Sampler").locator(".time")).toContainText(/\d+ ms|\d s/);
  await expect(node(page, "Sampler").getByAltText("The picture as it forms")).toHaveCount(0);
  await settled(page);
  await shot(page, "first-run");
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Sampler").locator(".badge.cached")).toBeVisible();
});

test("a graph from nothing by mouse", async ({ editor: page }) => {
  await buildByMouse(page);
  await shot(page, "by-mouse");
});

test("a graph from nothing by keyboard", async ({ editor: page }) => {
  await buildByKeyboard(page);
  await page.keyboard.press("?");
  await expect(page.getByRole("dialog", { name: "Keys and help" })).toBeVisible();
  await shot(page, "help");
});

test("drop a ComfyUI workflow; a missing node is kept with values and wires", async ({ editor: page, mock }) => {
  await drop(page, "their work.json", "application/json", JSON.stringify(comfy));
  await expect(page.getByRole("tab", { name: /their work/ })).toBeVisible();
  await expect(page.locator(".pf-node.missing")).toContainText("SomebodysSharpener");
  await expect(page.locator(".pf-node.missing")).toContainText("soft");
  await expect(page.getByText("a class is not here: SomebodysSharpener")).toBeVisible();
  await expect(page.locator(".frame-title")).toHaveText("Model");
  await expect(wires(page)).toHaveCount(2);
  await shot(page, "missing-node");
  await page.keyboard.press("Control+s");
  await page.getByRole("textbox", { name: "Name", exact: true }).fill("kept");
  await page.keyboard.press("Enter");
  await expect.poll(() => mock.world.files.has("workflows/kept.json")).toBe(true);
  const file = JSON.parse(mock.world.files.get("workflows/kept.json")!.text) as typeof comfy;
  expect(file.id).toBe(comfy.id);
  expect(file.nodes[2]).toMatchObject({ type: "SomebodysSharpener", widgets_values: [0.7, "soft"], properties: { cnr_id: "x" }, inputs: [{ name: "model", type: "MODEL", link: 2 }] });
  expect(file.links).toEqual(comfy.links);
  await expect(page.getByRole("dialog")).toHaveCount(0);
  await page.keyboard.press("Control+Enter");
  await expect(page.locator(".pf-node.missing .node-errors")).toContainText("there is no class");
});

test("drop a PNG to get its graph back", async ({ editor: page }) => {
  const prompt = { 1: { class_type: "EmptyLatentImage", inputs: { width: 192, height: 128, batch_size: 1 }, _meta: { title: "Größe" } } };
  await drop(page, "made.png", "image/png", picture(3, 1, { prompt: JSON.stringify(prompt) }));
  await expect(node(page, "Größe")).toBeVisible();
  await expect(field(page, "Größe", "width")).toHaveValue("192");
  await drop(page, "plain.png", "image/png", picture(3));
  await expect(page.getByRole("alert")).toContainText("this picture carries no graph");
});

test("mend a fault that is shown at its node and socket", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await dragTo(page, input(page, "Sampler", "negative"), { x: 700, y: 760 });
  await page.keyboard.press("Control+Enter");
  const errors = node(page, "Sampler").locator(".node-errors");
  await expect(errors).toContainText("negative");
  await expect(errors).toContainText("wire a CONDITIONING to it");
  await expect(node(page, "Sampler").locator(".socket.bad")).toHaveText("negative");
  await shot(page, "fault");
  await dragTo(page, output(page, "Negative prompt", 0), input(page, "Sampler", "negative"));
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Save").getByAltText(/^Result 1/)).toBeVisible();
  await expect(errors).toHaveCount(0);
});

test("a node that fails says what to do", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await field(page, "Sampler", "cfg").click();
  await field(page, "Sampler", "cfg").fill("66");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Sampler").locator(".node-errors")).toContainText("the latent became NaN at step 3");
  await expect(node(page, "Sampler").locator(".node-errors em")).toHaveText("use a smaller `cfg`");
});

test("cancel what runs and what waits", async ({ editor: page, mock }) => {
  mock.world.until = 3;
  await openTemplate(page, /^text to image/i);
  await node(page, "Sampler").getByRole("radio", { name: "+1" }).click();
  await page.getByRole("spinbutton", { name: "How many runs" }).fill("3");
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await page.getByRole("button", { name: /Show the queue/ }).click();
  await expect(page.locator(".queue li.running")).toHaveCount(1);
  await expect(page.locator(".queue li.queued")).toHaveCount(2);
  await page.locator(".queue li.queued").first().getByRole("button", { name: /^Cancel/ }).click();
  await expect(page.locator(".queue li.queued")).toHaveCount(1);
  await page.getByRole("button", { name: "Cancel", exact: true }).first().click();
  await expect(page.locator(".queue li.cancelled")).toHaveCount(2);
  mock.world.until = Infinity;
  await expect(page.locator(".queue li.done")).toHaveCount(1);
  await expect(field(page, "Sampler", "seed")).toHaveValue("10");
});

test("train and watch the curve; apply it, and compare with the slider", async ({ editor: page, mock }) => {
  mock.world.step = 8;
  await openTemplate(page, /^text to image/i);
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Save").getByAltText(/^Result 1/)).toBeVisible();
  await dragTo(page, output(page, "Model", 0), { x: 120, y: 560 });
  await page.getByRole("combobox").fill("toy training");
  await page.keyboard.press("Enter");
  await settled(page);
  await dragTo(page, output(page, "Toy training", 0), { x: 520, y: 700 });
  await page.getByRole("combobox").fill("toy apply");
  await page.keyboard.press("Enter");
  await settled(page);
  await dragTo(page, output(page, "Model", 0), input(page, "Toy apply", "model"));
  await dragTo(page, output(page, "Toy apply", 0), input(page, "Sampler", "model"));
  await page.keyboard.press("l");
  await page.keyboard.press(".");
  await settled(page);
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Toy training").getByRole("img", { name: /^Curve: loss/ })).toBeVisible();
  await expect(node(page, "Toy training").getByAltText("Sample at step 50")).toBeVisible();
  await shot(page, "training");
  await expect(node(page, "Toy training").getByAltText("Sample at step 200")).toBeVisible();
  await expect(node(page, "Save").getByAltText(/mock_0000[6-9]_/)).toBeVisible();
  await shot(page, "trained");
  // The curve is zoomed and panned, by mouse and by keys.
  const curve = node(page, "Toy training").getByRole("img", { name: /^Curve: loss/ });
  const ends = () => curve.locator("text").evaluateAll((all) => all.slice(-2).map((it) => Number(it.textContent!.replace("step ", ""))));
  expect(await ends()).toEqual([1, 200]);
  await curve.hover();
  for (let notch = 0; notch < 4; notch++) await page.mouse.wheel(0, -100);
  await expect.poll(async () => (await ends())[1]! - (await ends())[0]!).toBeLessThan(150);
  const [from, to] = await ends();
  const area = (await curve.boundingBox())!;
  await page.mouse.move(area.x + area.width / 2, area.y + area.height / 2);
  await page.mouse.down();
  await page.mouse.move(area.x + area.width / 2 + 20, area.y + area.height / 2, { steps: 3 });
  await page.mouse.up();
  await expect.poll(async () => (await ends())[0]).toBeLessThan(from!);
  await curve.focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  await expect.poll(async () => (await ends())[1]).toBeGreaterThan(to! - 20);
  await page.keyboard.press("Home");
  await expect.poll(ends).toEqual([1, 200]);
  await page.keyboard.press("Escape");
  await page.keyboard.press("g");
  const marks = page.getByRole("checkbox", { name: /^Mark/ });
  await marks.first().check();
  await marks.last().check();
  await page.getByRole("button", { name: "Compare two" }).click();
  const slider = page.getByRole("slider", { name: /Where the one picture ends/ });
  await slider.focus();
  await page.keyboard.press("ArrowLeft");
  await expect(slider).toHaveValue("49");
  await expect(page.locator(".compare img").nth(1)).toHaveCSS("clip-path", "inset(0px 51% 0px 0px)");
  await shot(page, "compare");
});

test("undo everything, and redo it", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  const before = await page.locator(".react-flow__node").count();
  await node(page, "Sampler").locator("header .title").click();
  await page.keyboard.press("Control+d");
  await expect(page.locator(".react-flow__node")).toHaveCount(before + 1);
  await page.keyboard.press("m");
  await page.keyboard.press("c");
  await page.keyboard.press("Control+g");
  await page.keyboard.press("Delete");
  await expect(page.locator(".react-flow__node.react-flow__node-node")).toHaveCount(before);
  for (let step = 0; step < 12; step++) await page.keyboard.press("Control+z");
  await expect(page.locator(".react-flow__node")).toHaveCount(before);
  await expect(page.locator(".unsaved")).toHaveCount(0);
  for (let step = 0; step < 12; step++) await page.keyboard.press("Control+Shift+z");
  await expect(page.locator(".frame")).toHaveCount(1);
  await expect(page.locator(".unsaved")).toHaveCount(1);
});

test("a reload in the middle of a run shows the run, and unsaved work is still there", async ({ editor: page, mock }) => {
  mock.world.until = 3;
  await openTemplate(page, /^text to image/i);
  await node(page, "Prompt").getByRole("textbox").fill("a boat at night");
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Sampler").getByAltText("The picture as it forms")).toBeVisible();
  await expect.poll(() => kept(page, "a boat at night")).toBe(true);
  await page.reload();
  await expect(node(page, "Prompt").getByRole("textbox")).toHaveValue("a boat at night");
  await expect(page.locator(".unsaved")).toHaveCount(1);
  await expect(node(page, "Sampler").locator(".pf-node")).toHaveClass(/is-running/);
  mock.world.until = 6;
  await expect(node(page, "Sampler").locator("header .time")).toHaveText(/\d+\/20/);
  mock.world.until = Infinity;
  await expect(node(page, "Save").getByAltText(/^Result 1/)).toBeVisible();
});

test("no event is lost or doubled when the socket drops and returns", async ({ editor: page, mock }) => {
  mock.world.until = 3;
  await openTemplate(page, /^text to image/i);
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Sampler").locator("header .time")).toHaveText(/\d+\/20/);
  for (const socket of mock.world.sockets.values()) socket.drop();
  await expect(page.getByText("offline")).toBeVisible();
  await expect(page.getByText("offline")).toHaveCount(0);
  mock.world.until = Infinity;
  await expect(node(page, "Save").getByAltText(/^Result 1/)).toHaveCount(1);
  // And once more over the end of a run.
  mock.world.until = 3;
  await field(page, "Sampler", "seed").fill("8");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Sampler").locator("header .time")).toHaveText(/\d+\/20/);
  await page.context().setOffline(true);
  for (const socket of mock.world.sockets.values()) socket.drop();
  mock.world.until = Infinity;
  await expect.poll(() => mock.world.history.size).toBe(2);
  await page.context().setOffline(false);
  await page.getByRole("button", { name: /Show the queue/ }).click();
  await expect(page.locator(".queue li.done")).toHaveCount(2);
  await expect(page.locator(".queue li")).toHaveCount(2);
});

test("run up to a node runs no more than that", async ({ editor: page, mock }) => {
  await openTemplate(page, /^text to image/i);
  await node(page, "Sampler").locator("header .title").click();
  await page.keyboard.press("Control+Shift+Enter");
  await expect(node(page, "Sampler").locator(".time")).toContainText(/ms| s/);
  await expect.poll(() => mock.world.history.size).toBe(1);
  await expect(node(page, "Save").getByAltText(/^Result/)).toHaveCount(0);
});

test("pause the queue, let another run go first, and go on", async ({ editor: page, mock }) => {
  await openTemplate(page, /^text to image/i);
  await page.keyboard.press("q");
  await page.getByRole("button", { name: "Pause the queue" }).click();
  await expect(page.getByRole("button", { name: "Go on" })).toBeVisible();
  await node(page, "Sampler").getByRole("radio", { name: "+1" }).click();
  await page.getByRole("spinbutton", { name: "How many runs" }).fill("2");
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await expect(page.locator(".queue li.queued")).toHaveCount(2);
  await page.getByRole("button", { name: "Run next" }).last().click();
  // Two requests may overtake each other.
  await expect.poll(() => JSON.stringify(mock.world.pending[0])).toContain('"seed":8');
  await page.getByRole("button", { name: "Go on" }).click();
  await expect.poll(() => mock.world.history.size).toBe(2);
  const seeds = [...mock.world.history.values()].map((it) => (it as { prompt: [number, string, Record<string, { inputs: { seed: number } }>] }).prompt[2]["5"]!.inputs.seed);
  expect(seeds).toEqual([8, 7]);
});
