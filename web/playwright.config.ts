// Paths through the editor in a real Chromium: the one that is installed, never a downloaded one.
import { defineConfig } from "@playwright/test";

export default defineConfig({
  testDir: "e2e",
  testMatch: "**/*.spec.ts",
  projects: [
    // A server that computes nothing: every situation at once, and no waiting.
    { name: "mock", testIgnore: "real/**" },
    // The program itself, `paraflow serve`.
    { name: "real", testMatch: "real/*.spec.ts" },
  ],
  // A path waits for states, never for times: how long it may take is for machines that do much else.
  timeout: 240_000,
  expect: { timeout: 30_000 },
  // One path waits for the page, its server or the model while the other computes: two cores are busy all the time.
  workers: 2,
  // A machine that is busy with something else now and then drops a key press; what passes only then is listed as flaky.
  retries: 2,
  reporter: [["list"]],
  outputDir: "node_modules/.playwright",
  use: {
    browserName: "chromium",
    viewport: { width: 1360, height: 820 },
    launchOptions: { executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] },
    screenshot: "only-on-failure",
    contextOptions: { reducedMotion: "reduce" },
    colorScheme: "dark",
  },
});
