import { defineConfig } from "vitest/config";

// The longest test reads all that was built: on a busy machine that takes its time.
export default defineConfig({ test: { include: ["src/**/*.test.ts"], environment: "node", testTimeout: 60_000 } });
