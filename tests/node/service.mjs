// The calls of the TypeScript client against the service at argv[3]; argv[2] is the client's built module.
import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";

const [module, url] = process.argv.slice(2);
const { api, ApiError, ApiService, Client } = await import(pathToFileURL(module).href);

const service = new ApiService(url);
const config = await service.getConfig();
assert.equal(config.port, 8134);
const changed = await service.updateConfig({ ...config, ctx_size: 512, basePath: config.basePath });
assert.equal(changed.ctx_size, 512);

const { count, models } = await service.getModels();
assert.equal(count, 4);
const chat = models.find((model) => model.id === "chat");
assert.ok(chat.size > 0 && chat.path.endsWith("chat.gguf"));
const found = await service.discoverModels([config.basePath], { recursive: true });
assert.equal(found.totalFound, 4);

assert.deepEqual(await service.removeModel("rerank"), { modelId: "rerank" });
const { registered } = await service.registerModels([{ name: "again", path: chat.path.replace("chat", "rerank") }]);
assert.equal(registered, 1);
const refusal = (error) => error instanceof ApiError && error.status === 409 && error.code === "CONFLICT";
await assert.rejects(service.registerModels([{ path: chat.path }]), refusal);
await assert.rejects(service.registerModels([{}]), (error) => error.status === 400 && /path/.test(error.message));

assert.equal((await service.getHealth()).status, "healthy");
assert.equal((await service.getStatus()).models.registered, 4);
assert.ok((await service.getMetrics()).memory.usagePercent > 0);
assert.equal((await service.getMetricsHistory(1, "1m")).period.resolution, "1m");

const client = new Client(url);
const { conversation_id } = await client.send(api.createConversation({ title: "Talk", model: "chat" }));
const said = { conversation_id, message: "Hello", model: "chat", stream: true };
const events = [];
for await (const event of client.stream(api.chat(said))) events.push(event);
assert.equal(events[0].type, "start");
assert.equal(events.at(-1).type, "done");
const text = events.flatMap((event) => (event.type === "token" ? [event.data.content] : [])).join("");
const kept = await client.send(api.getConversation(conversation_id));
assert.equal(kept.messages.at(-1).content, text);
await assert.rejects(client.send(api.getModel("no/such?")), (error) => error.status === 404 && error.code === "NOT_FOUND");
await assert.rejects(new Client("http://127.0.0.1:1").send(api.getStatus()), (error) => error.status === 0);
