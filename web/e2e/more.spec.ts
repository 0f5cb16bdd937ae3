// Widgets, files, the form on a phone, and looks.

import { devices } from "@playwright/test";
import { addByKeys, dragTo, expect, field, kept, node, openTemplate, output, settled, shot, test, watched } from "./kit.ts";

test("numbers by drag and by typing, choices by search, weights by keys", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  const steps = field(page, "Sampler", "steps");
  const box = (await steps.boundingBox())!;
  await page.mouse.move(box.x + 20, box.y + 8);
  await page.mouse.down();
  await page.mouse.move(box.x + 60, box.y + 8, { steps: 5 });
  await page.mouse.up();
  expect(Number(await steps.inputValue())).toBeGreaterThan(20);
  await steps.click();
  await steps.fill("10+2");
  await page.keyboard.press("Enter");
  await expect(steps).toHaveValue("12");
  await page.keyboard.press("Shift+ArrowUp");
  await expect(steps).toHaveValue("22");
  const seed = field(page, "Sampler", "seed");
  await seed.fill("18446744073709551616");
  await page.keyboard.press("Enter");
  await expect(seed).toHaveValue("18446744073709551615");
  await expect(node(page, "Sampler").locator(".refused")).toContainText("between 0 and 18446744073709551615");
  await node(page, "Sampler").getByRole("button", { name: /^sampler_name/ }).click();
  await page.getByRole("combobox").fill("ddim");
  await page.keyboard.press("Enter");
  await expect(node(page, "Sampler").getByRole("button", { name: "sampler_name: ddim" })).toBeVisible();
  const prompt = node(page, "Prompt").getByRole("textbox");
  await prompt.fill("a red bear");
  await prompt.evaluate((it: HTMLTextAreaElement) => it.setSelectionRange(3, 3));
  await page.keyboard.press("Control+ArrowUp");
  await expect(prompt).toHaveValue("a (red:1.05) bear");
  await page.keyboard.press("Escape");
  await addByKeys(page, "toy widgets");
  await node(page, "Toy widgets").getByRole("switch").press("Space");
  await expect(node(page, "Toy widgets").locator(".state")).toHaveText("no");
  await node(page, "Toy widgets").getByRole("textbox", { name: "tint, as text" }).fill("#336699");
  await expect(node(page, "Toy widgets").getByLabel("tint", { exact: true })).toHaveValue("#336699");
});

test("upload a picture and paint a mask on it", async ({ editor: page, mock }) => {
  await page.getByRole("button", { name: "Empty graph" }).click();
  await addByKeys(page, "load image");
  const load = node(page, "Load Image");
  await expect(load.getByAltText("bear.png")).toBeVisible();
  await load.getByRole("button", { name: "Paint mask" }).click();
  const paper = page.getByLabel("Mask", { exact: true });
  await expect(paper).toBeVisible();
  const box = (await paper.boundingBox())!;
  await page.mouse.move(box.x + box.width * 0.3, box.y + box.height * 0.5);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.7, box.y + box.height * 0.5, { steps: 6 });
  await page.mouse.up();
  const alpha = () => paper.evaluate((it: HTMLCanvasElement) => it.getContext("2d")!.getImageData(it.width / 2, it.height / 2, 1, 1).data[3]);
  expect(await alpha()).toBe(255);
  await shot(page, "mask");
  await page.getByRole("button", { name: "Use mask" }).click();
  await expect(load.getByAltText(/^bear-masked-\d+\.png$/)).toBeVisible();
  expect(mock.world.sent).toBeDefined();
});

test("files: save, save as, a change elsewhere is not written over unasked", async ({ editor: page, mock }) => {
  await openTemplate(page, /^text to image/i);
  await page.keyboard.press("Control+s");
  await page.getByRole("textbox", { name: "Name", exact: true }).fill("mine");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("tab", { name: "mine" })).toBeVisible();
  await expect(page.locator(".unsaved")).toHaveCount(0);
  const first = mock.world.files.get("workflows/mine.json")!.text;
  await field(page, "Sampler", "steps").fill("9");
  await page.keyboard.press("Enter");
  await expect(page.locator(".unsaved")).toHaveCount(1);
  mock.world.files.set("workflows/mine.json", { text: first.replaceAll("a red bear", "a grey bear"), time: 1 });
  page.removeAllListeners("dialog");
  const asked: string[] = [];
  page.once("dialog", (dialog) => {
    asked.push(dialog.message());
    void dialog.dismiss();
  });
  await page.keyboard.press("Control+s");
  await expect.poll(() => asked.join()).toContain("changed in another window");
  expect(mock.world.files.get("workflows/mine.json")!.text).toContain("a grey bear");
  page.once("dialog", (dialog) => void dialog.accept());
  await page.keyboard.press("Control+s");
  await expect.poll(() => mock.world.files.get("workflows/mine.json")!.text).toContain("a red bear");
  const saved = JSON.parse(mock.world.files.get("workflows/mine.json")!.text) as { nodes: { id: number; widgets_values: unknown[] }[] };
  expect(saved.nodes.find((it) => it.id === 5)!.widgets_values).toEqual([7, "fixed", 9, 4, "dpmpp_2m", "karras", 1]);
});

test("a selection becomes a subgraph that opens, and runs", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await node(page, "Sampler").locator("header .title").click();
  await node(page, "Decode").locator("header .title").click({ modifiers: ["Control"] });
  await page.keyboard.press("Control+Shift+e");
  await expect(node(page, "Subgraph")).toBeVisible();
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Save").getByAltText(/^Result 1/)).toBeVisible();
  await node(page, "Subgraph").getByRole("button", { name: "open" }).click();
  await expect(node(page, "Sampler")).toBeVisible();
  await expect(node(page, "Inputs")).toBeVisible();
  await expect(page.locator(".react-flow__edge")).not.toHaveCount(0);
  await shot(page, "subgraph");
  await page.keyboard.press("Control+ArrowUp");
  await expect(node(page, "Subgraph")).toBeVisible();
});

test("copy and paste, reroute, note, and a result dropped on a picture input", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Save").getByAltText(/^Result 1/)).toBeVisible();
  await node(page, "Prompt").locator("header .title").click();
  await page.keyboard.press("Control+d");
  await expect(node(page, "Prompt")).toHaveCount(2);
  await page.keyboard.press("Shift+T");
  await page.locator(".pf-note textarea").fill("remember");
  await page.keyboard.press("Escape");
  await addByKeys(page, "load image");
  await page.keyboard.press("l");
  await settled(page);
  await page.keyboard.press("g");
  await page.locator(".gallery li > button").first().dragTo(node(page, "Load Image").locator(".picture-widget .pictures"));
  await expect(node(page, "Load Image").getByAltText("mock_00001_.png")).toBeVisible();
});

test("light, and readable", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await page.getByRole("button", { name: "Dark or light" }).click();
  await expect(page.locator("html")).toHaveAttribute("data-theme", "light");
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Save").getByAltText(/^Result 1/)).toBeVisible();
  await shot(page, "light");
  const contrast = await page.evaluate(() => {
    const parse = (color: string) => {
      const context = document.createElement("canvas").getContext("2d")!;
      context.fillStyle = color;
      context.fillRect(0, 0, 1, 1);
      return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((it) => (it / 255 <= 0.03928 ? it / 255 / 12.92 : ((it / 255 + 0.055) / 1.055) ** 2.4));
    };
    const light = (color: string) => parse(color).reduce((sum, it, index) => sum + it * [0.2126, 0.7152, 0.0722][index]!, 0);
    const ratio = (a: string, b: string) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
    const variable = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name);
    return (["dark", "light"] as const).flatMap((theme) => {
      document.documentElement.dataset["theme"] = theme;
      return ["--text", "--muted", "--bad"].flatMap((ink) => ["--panel", "--node", "--field"].map((paper) => ({ theme, ink, paper, ratio: ratio(variable(ink), variable(paper)) })));
    });
  });
  expect(contrast.filter((it) => it.ratio < 4.5)).toEqual([]);
});

test("every control has a name", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  const nameless = await page.evaluate(() => [...document.querySelectorAll("button, input, textarea, select")].filter((it) => !it.getAttribute("aria-label") && !it.textContent?.trim() && !it.closest("label") && !it.getAttribute("title") && !(it as HTMLInputElement).hidden).map((it) => it.outerHTML.slice(0, 120)));
  expect(nameless).toEqual([]);
});

test("the form on a phone", async ({ editor: page }) => {
  await page.setViewportSize(devices["Pixel 7"]!.viewport);
  await openTemplateOnPhone(page);
  await page.getByRole("radio", { name: "Form" }).click();
  await expect(page.getByText("Prompt.text", { exact: true })).toBeVisible();
  await page.getByRole("textbox").first().fill("a duck on the moon");
  await page.locator(".form-run .primary").click();
  await expect(page.getByAltText(/^Result 1/)).toBeVisible();
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  expect(wide).toBe(false);
  await page.evaluate(() => document.querySelector(".form")!.scrollTo(0, 0));
  await shot(page, "phone");
});

async function openTemplateOnPhone(page: Parameters<typeof openTemplate>[0]): Promise<void> {
  await page.getByRole("button", { name: /^text to image/i }).click();
  await settled(page);
}

test("a wire to a value, and off again", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await page.keyboard.press("Escape");
  await page.mouse.move(300, 720);
  await addByKeys(page, "int");
  const value = page.locator(".react-flow__node.selected");
  const title = await value.locator("header .title").innerText();
  await dragTo(page, output(page, title, 0), node(page, "Canvas").locator('.react-flow__handle[data-handleid="in:width"]'));
  await expect(field(page, "Canvas", "width")).toBeDisabled();
  await dragTo(page, node(page, "Canvas").locator('.react-flow__handle[data-handleid="in:width"]'), { x: 420, y: 790 });
  await expect(field(page, "Canvas", "width")).toBeEnabled();
});

test("values that are seldom set are folded away, and unfold by mouse and by keyboard", async ({ editor: page, mock }) => {
  await page.getByRole("button", { name: "Empty graph" }).click();
  await addByKeys(page, "toy training");
  const training = node(page, "Toy training");
  const more = training.getByRole("button", { name: "3 more values" });
  await expect(more).toHaveAttribute("aria-expanded", "false");
  await expect(field(page, "Toy training", "steps")).toBeVisible();
  await expect(field(page, "Toy training", "warmup")).toHaveCount(0);
  await more.click();
  await field(page, "Toy training", "warmup").fill("9");
  await page.keyboard.press("Enter");
  await training.getByRole("button", { name: "Fewer values" }).click();
  // What was changed stays in view.
  await expect(field(page, "Toy training", "warmup")).toHaveValue("9");
  await expect(field(page, "Toy training", "decay")).toHaveCount(0);
  await shot(page, "folded");
  // The same by the keyboard: the command's key, or Tab to the button and Enter.
  await training.locator("header .title").click();
  await page.keyboard.press("a");
  await expect(field(page, "Toy training", "decay")).toBeVisible();
  await page.keyboard.press("Control+z");
  await expect(field(page, "Toy training", "decay")).toHaveCount(0);
  await training.getByRole("button", { name: "2 more values" }).focus();
  await page.keyboard.press("Enter");
  await expect(field(page, "Toy training", "decay")).toBeVisible();
  await page.keyboard.press("Control+s");
  await page.getByRole("textbox", { name: "Name", exact: true }).fill("unfolded");
  await page.keyboard.press("Enter");
  await expect.poll(() => mock.world.files.has("workflows/unfolded.json")).toBe(true);
  const saved = JSON.parse(mock.world.files.get("workflows/unfolded.json")!.text) as { nodes: { showAdvanced?: boolean }[] };
  expect(saved.nodes[0]!.showAdvanced).toBe(true);
});

test("a list of models shows the pictures of those that have one", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await node(page, "Model").getByRole("button", { name: /^ckpt_name/ }).click();
  const option = (name: string) => page.getByRole("option", { name });
  await expect(option("toyland.safetensors").locator("img")).toBeVisible();
  await expect(option("plain.safetensors").locator("img")).toHaveCount(0);
  await expect(option("plain.safetensors").locator(".no-picture")).toBeVisible();
  await shot(page, "models");
  await page.getByRole("combobox").fill("plain");
  await page.keyboard.press("Enter");
  await expect(node(page, "Model").getByRole("button", { name: "ckpt_name: plain.safetensors" })).toBeVisible();
});

test("a graph without a picture is drawn on its card, with what it needs", async ({ editor: page }) => {
  const card = page.getByRole("button", { name: /^SDXL text to image/ });
  await expect(card).toContainText("needs models/checkpoints/sd_xl_base_1.0.safetensors");
  await expect(card.locator("svg rect")).not.toHaveCount(0);
  await expect(page.getByRole("button", { name: /^text to image/i })).not.toContainText("needs");
  // Those that run at once come first.
  await expect(page.locator(".card").first()).toHaveAccessibleName(/^Text to image/);
});

test("a window that crashed is taken over by the next, and a copy of a window has tabs of its own", async ({ editor: page, mock, context }) => {
  await openTemplate(page, /^text to image/i);
  await node(page, "Prompt").getByRole("textbox").fill("not saved anywhere");
  await expect(page.locator(".unsaved")).toHaveCount(1);
  await expect.poll(() => kept(page, "not saved anywhere")).toBe(true);
  const [copy] = await Promise.all([context.waitForEvent("page"), page.evaluate(() => void window.open(location.href))]);
  await expect(copy.locator(".app[data-ready=true]")).toBeVisible();
  await expect(copy.getByRole("tab")).toHaveCount(0);
  await copy.close();
  // No chance to keep anything on the way out.
  const session = await context.newCDPSession(page);
  await Promise.race([session.send("Page.crash").catch(() => undefined), page.waitForEvent("crash")]);
  await page.close();
  const next = await context.newPage();
  await next.goto(mock.url);
  await expect(node(next, "Prompt").getByRole("textbox")).toHaveValue("not saved anywhere");
  await expect(next.locator(".unsaved")).toHaveCount(1);
});

test("over the network without TLS, where browsers give less, it works as well", async ({ page, mock, context }) => {
  await context.addInitScript(() => {
    delete (Crypto.prototype as { randomUUID?: unknown }).randomUUID;
    for (const name of ["locks", "clipboard"]) Object.defineProperty(Navigator.prototype, name, { value: undefined });
  });
  await watched(page, mock.url, async () => {
    await openTemplate(page, /^text to image/i);
    await page.keyboard.press("Control+Enter");
    await expect(node(page, "Save").getByAltText(/^Result 1/)).toBeVisible();
    await node(page, "Prompt").locator("header .title").click();
    await page.keyboard.press("Control+c");
    await page.keyboard.press("Control+v");
    await expect(node(page, "Prompt")).toHaveCount(2);
    const other = await context.newPage();
    await other.goto(mock.url);
    await expect(other.locator(".app[data-ready=true]")).toBeVisible();
    await expect(other.getByRole("tab")).toHaveCount(0);
    await other.close();
    await page.reload();
    await expect(node(page, "Prompt")).toHaveCount(2);
  });
});
