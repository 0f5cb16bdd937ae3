// Readable and usable for everyone: axe over each screen in both themes, contrast of what axe does not see, the focus, and
// less motion.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Page } from "@playwright/test";
import { comfy } from "./hands.ts";
import { addByKeys, drop, expect, field, node, openTemplate, settled, test } from "./kit.ts";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** What axe finds by the rules of WCAG 2.2 A and AA. */
async function faults(page: Page, only?: string): Promise<string[]> {
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(AXE);
  return page.evaluate(async (only) => {
    const { axe } = window as unknown as { axe: { run(context: Document, options: object): Promise<{ violations: { id: string; nodes: { html: string; failureSummary: string }[] }[] }> } };
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
    const { violations } = await axe.run(document, { runOnly: only ? { type: "rule", values: [only] } : { type: "tag", values: tags }, resultTypes: ["violations"] });
    return violations.map((it) => `${it.id}, ${it.nodes.length} times: ${it.nodes[0]!.html.slice(0, 160)} | ${it.nodes[0]!.failureSummary.split("\n").slice(1, 3).join(" ").trim()}`);
  }, only);
}

/** All rules in the dark; what may differ in the light once more. */
async function inBothThemes(page: Page): Promise<void> {
  const paint = (theme: string) => page.evaluate((it) => void (document.documentElement.dataset["theme"] = it), theme);
  await paint("dark");
  expect.soft(await faults(page), "dark").toEqual([]);
  await paint("light");
  expect.soft(await faults(page, "color-contrast"), "light").toEqual([]);
}

test("axe finds nothing: the start page", async ({ editor: page }) => {
  await expect(page.getByText(/needs models\/checkpoints/)).toBeVisible();
  await inBothThemes(page);
});

test("axe finds nothing: the canvas, before and after a run, with the queue and the results", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await inBothThemes(page);
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Save").getByAltText(/^Result 1/)).toBeVisible();
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Sampler").locator(".badge.cached")).toBeVisible();
  await page.keyboard.press("g");
  await expect(page.getByRole("checkbox", { name: /^Mark/ }).first()).toBeVisible();
  await inBothThemes(page);
  await page.keyboard.press("q");
  await expect(page.locator(".queue li.done").first()).toBeVisible();
  await inBothThemes(page);
});

test("axe finds nothing: a fault on a node, a bypassed one, a folded one and a missing one", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await field(page, "Sampler", "cfg").fill("66");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Sampler").locator(".node-errors")).toContainText("NaN");
  await page.keyboard.press("Escape");
  await addByKeys(page, "toy training");
  await page.keyboard.press("b");
  await inBothThemes(page);
  await drop(page, "their work.json", "application/json", JSON.stringify(comfy));
  await expect(page.locator(".pf-node.missing")).toBeVisible();
  await inBothThemes(page);
});

test("axe finds nothing: palette, help, files, report, menu, viewer, mask, form", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  await page.keyboard.press("Control+Enter");
  await expect(node(page, "Save").getByAltText(/^Result 1/)).toBeVisible();
  for (const [keys, shown] of [["/", "dialog"], ["?", "dialog"], ["Control+o", "dialog"], ["t", "dialog"]] as const) {
    await page.keyboard.press(keys);
    await expect(page.getByRole(shown)).toBeVisible();
    await inBothThemes(page);
    await page.keyboard.press("Escape");
    await expect(page.getByRole(shown)).toHaveCount(0);
  }
  await node(page, "Sampler").locator("header .title").click({ button: "right" });
  await expect(page.getByRole("menu")).toBeVisible();
  await inBothThemes(page);
  await page.keyboard.press("Escape");
  await node(page, "Sampler").getByRole("button", { name: /^sampler_name/ }).click();
  await expect(page.getByRole("listbox")).toBeVisible();
  await inBothThemes(page);
  await page.keyboard.press("Escape");
  await node(page, "Save").getByAltText(/^Result 1/).click();
  await expect(page.locator(".viewer")).toBeVisible();
  await inBothThemes(page);
  await page.keyboard.press("Escape");
  await addByKeys(page, "load image");
  await page.keyboard.press("Shift+.");
  await node(page, "Load Image").getByRole("button", { name: "Paint mask" }).click();
  await expect(page.getByLabel("Mask", { exact: true })).toBeVisible();
  await inBothThemes(page);
  await page.keyboard.press("Escape");
  await page.getByRole("radio", { name: "Form" }).click();
  await expect(page.getByRole("heading", { name: /text-to-image/ })).toBeVisible();
  await inBothThemes(page);
});

test("inks, wires and sockets stand out in both themes", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  const weak = await page.evaluate(() => {
    const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true })!;
    const light = (color: string) => {
      context.fillStyle = color;
      context.fillRect(0, 0, 1, 1);
      return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map((it) => (it / 255 <= 0.03928 ? it / 255 / 12.92 : ((it / 255 + 0.055) / 1.055) ** 2.4)).reduce((sum, it, index) => sum + it * [0.2126, 0.7152, 0.0722][index]!, 0);
    };
    const ratio = (a: string, b: string) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
    const variable = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name);
    return (["dark", "light"] as const).flatMap((theme) => {
      document.documentElement.dataset["theme"] = theme;
      const texts = ["--text", "--muted", "--bad", "--good", "--warn"].flatMap((ink) => ["--bg", "--panel", "--node", "--node-head", "--field", "--raised"].map((paper) => ({ what: `${ink} on ${paper}`, ratio: ratio(variable(ink), variable(paper)), least: 4.5 })));
      const shapes = ["--accent", "--good", "--bad"].flatMap((ink) => ["--canvas", "--panel", "--node", "--field"].map((paper) => ({ what: `${ink} around ${paper}`, ratio: ratio(variable(ink), variable(paper)), least: 3 })));
      const wires = [...document.querySelectorAll(".react-flow__edge-path")].map((it) => ({ what: `wire ${getComputedStyle(it).stroke}`, ratio: ratio(getComputedStyle(it).stroke, variable("--canvas")), least: 3 }));
      const ports = [...document.querySelectorAll(".react-flow__handle.port:not(.small)")].map((it) => ({ what: `socket ${it.getAttribute("aria-label")}`, ratio: ratio(getComputedStyle(it).backgroundColor, variable("--node")), least: 3 }));
      if (!wires.length || !ports.length) throw new Error("nothing was measured");
      return [...texts, ...shapes, ...wires, ...ports].filter((it) => it.ratio < it.least).map((it) => `${theme}: ${it.what} is ${it.ratio.toFixed(2)}, not ${it.least}`);
    });
  });
  expect([...new Set(weak)]).toEqual([]);
});

test("whatever the keyboard comes to shows it", async ({ editor: page }) => {
  await openTemplate(page, /^text to image/i);
  const bare: string[] = [];
  const names = new Set<string>();
  await page.locator(".logo").focus();
  for (let step = 0; step < 60; step++) {
    await page.keyboard.press("Tab");
    const seen = await page.evaluate(() => {
      const it = document.activeElement as HTMLElement;
      if (it === document.body) return undefined;
      // The ring is the element's own, its only child's, or that of the field that it lies in.
      const around = [it, it.firstElementChild, it.closest(".widget"), it.nextElementSibling].filter((some): some is HTMLElement => some instanceof HTMLElement);
      const ring = around.some((some) => {
        const style = getComputedStyle(some);
        return (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1.5) || /rgb.* 0px 0px 0px 1(\.\d+)?px/.test(style.boxShadow);
      });
      return { ring, name: `${it.tagName} ${it.getAttribute("aria-label") ?? it.className}` };
    });
    if (!seen) break;
    names.add(seen.name);
    if (!seen.ring) bare.push(seen.name);
  }
  expect(names.size).toBeGreaterThan(15);
  expect([...new Set(bare)]).toEqual([]);
});

test("less motion where it is asked for, and motion where it is not", async ({ editor: page }) => {
  const moving = () => page.evaluate(() => [...document.querySelectorAll("*")].filter((it) => { const style = getComputedStyle(it); return parseFloat(style.transitionDuration) > 0 || style.animationName !== "none"; }).length);
  expect(await moving()).toBe(0);
  await page.emulateMedia({ reducedMotion: "no-preference" });
  expect(await moving()).toBeGreaterThan(0);
  await page.emulateMedia({ reducedMotion: "reduce" });
  await openTemplate(page, /^text to image/i);
  const zoom = () => page.locator(".react-flow__viewport").evaluate((it) => getComputedStyle(it).transform);
  // Without motion the view is there at once: two frames later nothing moves any more.
  await page.keyboard.press("+");
  await settled(page);
  const there = await zoom();
  await settled(page);
  expect(await zoom()).toBe(there);
});
