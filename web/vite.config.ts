// Builds the editor into `dist/`, which is committed and embedded in the binary, so the same sources must give the same
// bytes everywhere: fixed file names would defeat caching, hashed ones depend on content only.
import { defineConfig } from "vite";

const server = process.env["PARAFLOW"] ?? "http://127.0.0.1:8188";
const routes = ["/api", "/ws", "/view", "/object_info", "/upload", "/queue", "/history", "/prompt", "/interrupt", "/userdata", "/free"];

export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "react" } },
  build: { target: "es2022", sourcemap: false, assetsInlineLimit: 0, chunkSizeWarningLimit: 900, modulePreload: { polyfill: false } },
  server: { proxy: Object.fromEntries(routes.map((route) => [route, { target: server, ws: true }])) },
});
