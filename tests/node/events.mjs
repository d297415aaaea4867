// Every request and event of both dialects with the official client: node events.mjs URL TRANSPORT MODELS_DIR < requests.json
import assert from "node:assert/strict";
import { readFileSync, copyFileSync } from "node:fs";
import { io } from "socket.io-client";

const [url, transport, modelsDir] = process.argv.slice(2);
const { v1, ack } = JSON.parse(readFileSync(0, "utf8"));

/** Resolves when `socket` has received every event of `names`. */
function receiving(socket, names) {
  const missing = new Set(names);
  return new Promise((resolve) => {
    socket.onAny((event) => {
      missing.delete(event);
      if (missing.size === 0) resolve();
    });
    socket.missing = missing;
  });
}

function within(promise, seconds, what) {
  const timeout = new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`not in ${seconds} s: ${what()}`)), seconds * 1000).unref();
  });
  return Promise.race([promise, timeout]);
}

const connected = (socket) => new Promise((resolve) => socket.once("connect", resolve));

const page = io(url, { path: "/llamaproxws", transports: [transport] });
const plain = io(`${url}/llamaproxws`, { transports: [transport], forceNew: true });
await Promise.all([connected(page), connected(plain)]);
const received = [receiving(page, v1.events), receiving(plain, ack.events)];

copyFileSync(`${modelsDir}/chat.gguf`, `${modelsDir}/${transport}.bin`);
const model = { name: `By ${transport}`, model_path: `${modelsDir}/${transport}.bin` };
for (const [event, data] of v1.requests) {
  if (event === "models:create") data.model = model;
  if (event === "models:delete") {
    const { models } = (await page.emitWithAck("models:list")).data;
    data.modelId = models.find((found) => found.name === model.name).id;
  }
  const answer = await page.timeout(30_000).emitWithAck(event, data);
  assert.equal(answer.success, true, `${event}: ${JSON.stringify(answer.error)}`);
  assert.equal(answer.error, null);
  if (!["connection:ack", "subscribe", "message", "llama:restart"].includes(event)) {
    assert.equal(answer.event, `${event}:result`);
  }
}
for (const [event, data] of ack.requests) {
  const answer = await plain.timeout(30_000).emitWithAck(event, data);
  assert.equal(answer.success, true, `${event}: ${JSON.stringify(answer.error)}`);
  assert.ok(!Number.isNaN(Date.parse(answer.timestamp)));
}
// Refusals carry their codes; a request without an acknowledgement is answered on its result event.
const result = new Promise((resolve) => page.once("models:get:result", resolve));
page.emit("models:get", { modelId: 999999, requestId: "r" });
assert.equal((await result).error.code, "GET_MODEL_FAILED");
assert.equal((await plain.emitWithAck("models:load", { id: "nobody" })).error.code, "MODEL_NOT_FOUND");

page.emit("subscribe", { type: "weather" });
const other = io(`${url}/llamaproxws`, { transports: [transport], forceNew: true });
await connected(other);
other.disconnect();
await within(Promise.all(received), 30, () => [...page.missing, ...plain.missing].join(", "));
page.disconnect();
plain.disconnect();
