// Paths through the editor in a real Chromium: the one that is installed, never a downloaded one.
import { defineConfig } from "@playwright/test";

export default defineConfig({
  testDir: "e2e",
  testMatch: "*.spec.ts",
  timeout: 60_000,
  expect: { timeout: 12_000 },
  workers: 1,
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
