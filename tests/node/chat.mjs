// A chat client of a page or a script: node chat.mjs URL MODEL. Exits 0 when all of it held.
import assert from "node:assert/strict";

const [url, model] = process.argv.slice(2);
const api = `${url}/api`;

async function post(path, body) {
  const response = await fetch(api + path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  return response;
}

async function* events(response) {
  let rest = "";
  for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
    const blocks = (rest + chunk).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = Object.fromEntries(block.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
      if (lines.data) yield { id: lines.id, ...JSON.parse(lines.data) };
    }
  }
}

const { models, count } = await (await fetch(`${api}/models`)).json();
assert.equal(models.length, count);
assert.ok(models.includes(model));

const created = await post("/conversations", { title: "From Node", model });
assert.equal(created.status, 201);
const { conversation_id } = await created.json();
await fetch(`${api}/conversations/${conversation_id}`, {
  method: "PUT",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ options: { num_predict: 6 } }),
});

const answer = await (await post("/chat", { conversation_id, message: "Explain rivers", model })).json();
assert.equal(answer.model, model);
assert.ok(answer.response_time_ms > 0);
assert.equal(answer.metrics.total_tokens, answer.metrics.prompt_tokens + answer.metrics.completion_tokens);

const stream = await post("/chat", { conversation_id, message: "And lakes?", model, stream: true });
assert.equal(stream.headers.get("content-type").split(";")[0], "text/event-stream");
let text = "";
let done;
for await (const event of events(stream)) {
  if (event.type === "token") text += event.content;
  if (event.type === "done") done = event;
}
assert.equal(text, done.response);

const { summary, by_role } = await (await fetch(`${api}/stats/${conversation_id}`)).json();
assert.equal(summary.total_messages, 4);
assert.deepEqual(by_role.map(({ role, count }) => [role, count]), [["user", 2], ["assistant", 2]]);

const { results, query } = await (await fetch(`${api}/search?q=${encodeURIComponent('rivers "from node')}&limit=50`)).json();
assert.equal(query, 'rivers "from node');
assert.deepEqual(results, []);
const found = (await (await fetch(`${api}/search?q=explain`)).json()).results;
assert.ok(found.some(({ id, role, content }) => id === conversation_id && role === "user" && content === "Explain rivers"));

const missing = await post("/chat", { conversation_id, model });
assert.equal(missing.status, 400);
assert.deepEqual(await missing.json(), {
  success: false,
  error: "Missing required field: message",
  code: "VALIDATION_ERROR",
  field: "message",
});
