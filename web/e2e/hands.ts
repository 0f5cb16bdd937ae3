// What hands do to build a text-to-image graph from nothing, with stock nodes that every server has.

import type { Page } from "@playwright/test";
import { addByKeys, dragTo, expect, input, node, output, settled, wireByKeys, wires } from "./kit.ts";

/** Adds, wires and runs by mouse; a wire that does not fit is refused with the reason. `before` is done before the run. */
export async function buildByMouse(page: Page, before?: () => Promise<void>): Promise<void> {
  await page.getByRole("button", { name: "Empty graph" }).click();
  const add = async (x: number, y: number, query: string) => {
    await page.mouse.dblclick(x, y);
    await page.getByRole("combobox").fill(query);
    await page.getByRole("option").first().click();
    await settled(page);
  };
  await add(60, 120, "load checkpoint");
  await add(720, 110, "ksampler");
  await dragTo(page, output(page, "Load Checkpoint", 0), input(page, "KSampler", "model"));
  // Into empty space: only what fits is offered, and it is wired at once.
  await dragTo(page, output(page, "Load Checkpoint", 1), { x: 380, y: 160 });
  await page.getByRole("combobox").fill("encode");
  await page.getByRole("option", { name: /CLIP Text Encode/ }).click();
  await settled(page);
  await dragTo(page, output(page, "CLIP Text Encode \\(Prompt\\)", 0), input(page, "KSampler", "positive"));
  await dragTo(page, output(page, "CLIP Text Encode \\(Prompt\\)", 0), input(page, "KSampler", "negative"));
  await dragTo(page, input(page, "KSampler", "latent_image"), { x: 560, y: 520 });
  await page.getByRole("combobox").fill("empty latent");
  await page.getByRole("option").first().click();
  await settled(page);
  // Refused, with the reason and a way out.
  await add(1040, 420, "save image");
  await dragTo(page, output(page, "KSampler", 0), input(page, "Save Image", "images"));
  await expect(page.getByRole("alert")).toContainText("`images` takes IMAGE, this is LATENT — put `VAE Decode` between them");
  await dragTo(page, output(page, "KSampler", 0), { x: 1020, y: 200 });
  await page.getByRole("combobox").fill("vae decode");
  await page.getByRole("option").first().click();
  await settled(page);
  // On a node's body: to the socket that takes it.
  await dragTo(page, output(page, "Load Checkpoint", 2), node(page, "VAE Decode").locator("header .title"));
  await dragTo(page, output(page, "VAE Decode", 0), input(page, "Save Image", "images"));
  await expect(wires(page)).toHaveCount(8);
  await before?.();
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Save Image").getByAltText(/^Result 1/)).toBeVisible({ timeout: 60_000 });
}

/** The same without a mouse. */
export async function buildByKeyboard(page: Page, before?: () => Promise<void>): Promise<void> {
  await page.getByRole("button", { name: "Empty graph" }).focus();
  await page.keyboard.press("Enter");
  await settled(page);
  await addByKeys(page, "load checkpoint");
  await addByKeys(page, "clip text encode");
  await wireByKeys(page, "clip load");
  await page.keyboard.press("Enter");
  await page.keyboard.type("a cat in the snow");
  await page.keyboard.press("Escape");
  await addByKeys(page, "empty latent");
  await addByKeys(page, "ksampler");
  await wireByKeys(page, "model load");
  await wireByKeys(page, "positive clip");
  await wireByKeys(page, "negative clip");
  await wireByKeys(page, "latent_image empty");
  await addByKeys(page, "vae decode");
  await wireByKeys(page, "samples ksampler");
  await wireByKeys(page, "vae load");
  await wireByKeys(page, "image a new node");
  await page.getByRole("combobox").fill("save image");
  await page.keyboard.press("Enter");
  await expect(wires(page)).toHaveCount(8);
  await page.keyboard.press("l");
  await before?.();
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Save Image").getByAltText(/^Result 1/)).toBeVisible({ timeout: 60_000 });
  await expect(node(page, "CLIP Text Encode \\(Prompt\\)").getByRole("textbox")).toHaveValue("a cat in the snow");
}

/** A workflow as ComfyUI's editor saves it, with a node of a class that is not here. */
export const comfy = {
  id: "11111111-2222-3333-4444-555555555555", last_node_id: 3, last_link_id: 2, version: 0.4, config: {}, extra: {},
  groups: [{ id: 1, title: "Model", bounding: [-30, -70, 330, 260], color: "#3f789e", font_size: 24, flags: {} }],
  nodes: [
    { id: 1, type: "CheckpointLoaderSimple", pos: [0, 0], size: [270, 98], flags: {}, order: 0, mode: 0, inputs: [], outputs: [{ name: "MODEL", type: "MODEL", links: [2] }, { name: "CLIP", type: "CLIP", links: [1] }, { name: "VAE", type: "VAE", links: null }], properties: {}, widgets_values: ["toyland.safetensors"] },
    { id: 2, type: "CLIPTextEncode", pos: [360, 0], size: [300, 160], flags: {}, order: 1, mode: 0, inputs: [{ name: "clip", type: "CLIP", link: 1 }], outputs: [{ name: "CONDITIONING", type: "CONDITIONING", links: null }], properties: {}, widgets_values: ["a red bear"], color: "#232", bgcolor: "#353" },
    { id: 3, type: "SomebodysSharpener", pos: [360, 240], size: [300, 120], flags: {}, order: 2, mode: 0, inputs: [{ name: "model", type: "MODEL", link: 2 }], outputs: [{ name: "SHARP", type: "SHARP", links: null }], properties: { cnr_id: "x" }, widgets_values: [0.7, "soft"] },
  ],
  links: [[1, 1, 1, 2, 0, "CLIP"], [2, 1, 0, 3, 0, "MODEL"]],
};
