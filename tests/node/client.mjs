// One scenario with the official client: node client.mjs SCENARIO URL TRANSPORT. Exits 0 when every assertion held.
import assert from "node:assert/strict";
import { io } from "socket.io-client";

const [scenario, url, transport] = process.argv.slice(2);

function connect(namespace = "", options = {}) {
  return io(url + namespace, { path: "/llamaproxws", transports: [transport], ...options });
}

function once(socket, event, accept = () => true) {
  return new Promise((resolve) => {
    const listener = (...args) => {
      if (!accept(...args)) return;
      socket.off(event, listener);
      resolve(args[0]);
    };
    socket.on(event, listener);
  });
}

const scenarios = {
  /** Flat and enveloped requests, answered by event and by acknowledgement: four ways to the same data. */
  async styles(socket) {
    const enveloped = (event, data) => ({
      type: "request",
      event,
      data,
      requestId: `req_${event}`,
      timestamp: Date.now(),
      version: "1.0",
    });
    // The first packet asks for an acknowledgement, so that its id is 0.
    const acked = await socket.emitWithAck("models:list", { requestId: "req_1", timestamp: Date.now() });
    assert.equal(acked.event, "models:list:result");
    assert.equal(acked.requestId, "req_1");
    assert.equal(acked.success, true);
    const { models } = acked.data;
    assert.equal(models.length, 4);

    let result = once(socket, "models:list:result");
    socket.emit("models:list", { requestId: "req_2" });
    assert.deepEqual((await result).data.models, models);

    result = once(socket, "models:get:result");
    socket.emit("models:get", enveloped("models:get", { modelId: models[0].id }));
    const answer = await result;
    assert.equal(answer.type, "response");
    assert.equal(answer.requestId, "req_models:get");
    assert.deepEqual(answer.data.model, models[0]);

    const both = await socket.emitWithAck("models:get", enveloped("models:get", { modelId: models[1].id }));
    assert.deepEqual(both.data.model, models[1]);

    const bare = await socket.emitWithAck("config:get");
    assert.equal(typeof bare.data.config.baseModelsPath, "string");

    const unknown = await socket.emitWithAck("models:get", { modelId: 999999 });
    assert.equal(unknown.error.code, "GET_MODEL_FAILED");
    assert.equal(unknown.data, null);
    assert.equal((await socket.emitWithAck("no:such-event", {})).error.code, "INVALID_REQUEST");
  },

  async connection(socket) {
    const established = once(socket, "connection:established");
    socket.emit("connection:ack", {});
    const message = await established;
    assert.equal(message.type, "broadcast");
    assert.equal(message.data.clientId, socket.id);
  },

  /** A real model: the load answers when it is ready, and every client sees each change of status. */
  async load(socket) {
    const witness = connect();
    await once(witness, "connect");
    const statuses = [];
    witness.on("models:status", ({ data }) => data.modelName === "chat" && statuses.push(data.status));
    const result = once(socket, "models:load:result");
    socket.emit("models:load", { modelName: "chat", requestId: "req_load_1" });
    const loaded = await result;
    assert.deepEqual(loaded.data, { modelName: "chat", status: "loaded" });
    const unloaded = once(witness, "models:status", ({ data }) => data.status === "unloaded");
    await socket.emitWithAck("models:unload", { modelName: "chat" });
    await unloaded;
    assert.deepEqual(statuses, ["loading", "loaded", "unloaded"]);
    witness.disconnect();
  },

  async ui() {
    const ui = connect("/ui", { forceNew: true });
    const snapshot = once(ui, "snapshot");
    assert.deepEqual(await ui.emitWithAck("join", { topic: "models" }), { ok: true, data: null });
    assert.equal((await snapshot).data.models.length, 4);
    const refused = await ui.emitWithAck("call", { operation: "models.load", input: { id: 999999 } });
    assert.equal(refused.ok, false);
    assert.equal(refused.error.code, "NOT_FOUND");
    ui.disconnect();
  },

  /** Prints what happens to the connection until it has come back after the service was restarted. */
  async restart(socket) {
    await socket.emitWithAck("settings:update", { settings: { theme: "dark" } });
    console.log("connected");
    const reason = await once(socket, "disconnect");
    assert.ok(["transport close", "transport error"].includes(reason), reason);
    assert.equal(socket.active, true, "the client comes back by itself");
    await once(socket, "connect");
    assert.equal((await socket.emitWithAck("models:list", {})).success, true);
    assert.equal((await socket.emitWithAck("settings:get", {})).data.settings.theme, "dark");
  },
};

const socket = connect("", { reconnectionDelay: 100, reconnectionDelayMax: 300 });
await once(socket, "connect");
await scenarios[scenario](socket);
socket.disconnect();
