// Opens ComfyUI's own front end in a real Chromium at the address given: takes an example among the templates, runs it, and
// sees the picture in the node that saves it. Then the picture is dropped onto the page, and the graph comes out of it.

import { strict as assert } from "node:assert";
import { chromium } from "playwright-core";

const address = process.argv[2];
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu"],
});
const page = await browser.newPage({ viewport: { width: 1400, height: 900 } });
page.setDefaultTimeout(120_000);
const failures = [];
page.on("pageerror", (error) => failures.push(String(error)));
page.on("response", (answer) => {
  if (answer.status() >= 500) failures.push(`${answer.status()} ${answer.url()}`);
});
const frames = [];
page.on("websocket", (socket) => {
  socket.on("framereceived", ({ payload }) => {
    frames.push(typeof payload === "string" ? JSON.parse(payload).type : `binary ${payload.readUInt32BE(0)}`);
  });
});
// Hosts of the internet are asked in vain.
await page.route((url) => url.origin !== address, (route) => route.abort());

await page.goto(address);
// Who comes for the first time is shown the templates.
const templates = page.getByTestId("template-workflows-content");
await templates.getByText("text-to-image", { exact: true }).click();
await page.waitForFunction(() => window.app.graph?._nodes.some((node) => node.type === "SaveImage"));
await templates.waitFor({ state: "hidden" });
const nodes = () => page.evaluate(() => window.app.graph._nodes.map((node) => node.type).sort());
const opened = await nodes();
assert.ok(opened.includes("KSampler") && opened.includes("CheckpointLoaderSimple"), opened.join());

await page.getByTestId("queue-button").click();
const shown = () =>
  window.app.graph._nodes
    .filter((node) => node.type === "SaveImage")
    .flatMap((node) => node.imgs ?? [])
    .filter((image) => image.complete && image.naturalWidth > 0)
    .map((image) => [image.naturalWidth, image.naturalHeight, image.src])[0];
const [width, height, source] = await (await page.waitForFunction(shown)).jsonValue();
assert.equal(width, height);
assert.match(source, /\/api\/view\?filename=text-to-image_00001_\.png/);
for (const type of ["status", "execution_start", "progress_state", "progress", "executed", "execution_success"]) {
  assert.ok(frames.includes(type), `no ${type} among ${[...new Set(frames)].join()}`);
}

const history = await (await fetch(`${address}/history`)).json();
const [entry] = Object.values(history);
assert.equal(Object.keys(history).length, 1);
assert.equal(entry.status.status_str, "success");

// The picture carries its graph.
const picture = Buffer.from(await (await fetch(source)).arrayBuffer()).toString("base64");
await page.evaluate(() => window.app.graph.clear());
assert.deepEqual(await nodes(), []);
await page.evaluate(async (base64) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  await window.app.handleFile(new File([bytes], "picture.png", { type: "image/png" }));
}, picture);
await page.waitForFunction(() => window.app.graph._nodes.length > 0);
assert.deepEqual(await nodes(), opened);
assert.deepEqual(failures, []);
await browser.close();
console.log("ok comfyui-frontend-package");
