// The program itself, `paraflow serve`, on a port and in a folder of its own.

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type Page, test as base } from "@playwright/test";
import { expect, field, node, watched } from "../kit.ts";

/** Where the program lies: `PARAFLOW`, or what `cargo build` makes. */
export const PROGRAM = process.env["PARAFLOW"] ?? new URL("../../../target/debug/paraflow", import.meta.url).pathname;

export interface Server {
  url: string;
  /** Its base directory. */
  folder: string;
}

/** For what a busy machine computes. */
export const LONG = { timeout: 240_000 };

export const result = (page: Page, title: string) => node(page, title).getByAltText(/^Result 1/);

export async function type(page: Page, title: string, name: string, value: string): Promise<void> {
  await field(page, title, name).fill(value);
  await page.keyboard.press("Enter");
  await expect(field(page, title, name)).toHaveValue(value);
}

/** Saves what is open under a name that is not taken. */
export async function saveAs(page: Page, name: string): Promise<void> {
  await page.keyboard.press("Control+Shift+s");
  await page.getByRole("textbox", { name: "Name", exact: true }).fill(name);
  await page.keyboard.press("Enter");
  await expect(page.getByRole("tab", { name, exact: true })).toBeVisible();
}

async function start(folder: string): Promise<{ process: ChildProcess; url: string }> {
  if (!existsSync(PROGRAM)) throw new Error(`there is no program at ${PROGRAM}; run \`cargo build\`, or name one in PARAFLOW`);
  const process = spawn(PROGRAM, ["serve", "--port", "0", "--log", "warn", "--base-dir", folder], { stdio: ["ignore", "pipe", "inherit"] });
  const url = await new Promise<string>((resolve, reject) => {
    process.once("error", reject);
    process.once("exit", (code) => reject(new Error(`the server ended with ${code} before it listened`)));
    createInterface({ input: process.stdout! }).once("line", resolve);
  });
  return { process, url: url.trim() };
}

export const test = base.extend<{ editor: Page }, { server: Server }>({
  // One for all paths of a worker: what one run made, the next may find cached, as it is for people.
  server: [
    // eslint-disable-next-line no-empty-pattern
    async ({}, use) => {
      const folder = mkdtempSync(join(tmpdir(), "paraflow-editor-"));
      const { process, url } = await start(folder);
      await use({ url, folder });
      const ended = new Promise((resolve) => process.once("exit", resolve));
      process.kill("SIGTERM");
      const late = setTimeout(() => process.kill("SIGKILL"), 10_000);
      await ended;
      clearTimeout(late);
      rmSync(folder, { recursive: true, force: true });
    },
    { scope: "worker", timeout: 60_000 },
  ],
  editor: ({ page, server }, use) => watched(page, server.url, use),
});
