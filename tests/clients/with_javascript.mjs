// Drives the server at the address given with two JavaScript clients of ComfyUI's API: sees that each gets its picture.

import assert from 'node:assert/strict';
import { CallWrapper, ComfyApi, PromptBuilder } from '@saintno/comfyui-sdk';
import { Client } from '@stable-canvas/comfyui-client';
import WebSocket from 'ws'; // Node.js has one of its own only from 22 on

const address = process.argv[2];

const prompt = (prefix) => ({
  1: { class_type: 'LoadImage', inputs: { image: 'a.png' } },
  2: { class_type: 'SaveImage', inputs: { images: ['1', 0], filename_prefix: prefix } },
});

const isPicture = async (blob) => {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  assert.equal(Buffer.from(bytes.slice(1, 4)).toString(), 'PNG');
};

/** npm's @saintno/comfyui-sdk: WebSocket with handshake, history, view. */
const sdk = async () => {
  const api = new ComfyApi(address, 'sdk-client').init();
  await api.waitForReady();
  const builder = new PromptBuilder(prompt('x'), ['prefix'], ['images'])
    .setInputNode('prefix', '2.inputs.filename_prefix')
    .setOutputNode('images', '2')
    .input('prefix', 'sdk');
  const output = await new Promise((resolve, reject) => {
    new CallWrapper(api, builder).onFinished(resolve).onFailed(reject).run();
  });
  assert.equal(output.images.images[0].filename, 'sdk_00001_.png');
  await isPicture(await api.getImage(output.images.images[0]));
  assert.ok((await api.getCheckpoints()).includes('toyland.safetensors'));
  assert.ok((await api.getSystemStats()).devices.length > 0);
  api.destroy?.();
};

/** npm's @stable-canvas/comfyui-client: WebSocket, events, queue, history. */
const canvas = async () => {
  const client = new Client({ api_host: new URL(address).host, WebSocket });
  await client.connect();
  const { images, prompt_id } = await client.enqueue(prompt('canvas'), {});
  assert.equal(images.length, 1);
  assert.ok(Object.keys((await client.getHistory()).History ?? (await client.getHistory())).length > 0);
  assert.ok(prompt_id);
  assert.ok((await client.getNodeDefs()).SaveImage);
  client.close();
};

for (const check of [sdk, canvas]) {
  await check();
  console.log(`ok ${check === sdk ? 'sdk' : 'canvas'}`);
}
process.exit(0);
