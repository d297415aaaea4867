/// <reference types="node" />
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { text } from "../strings";
import { complete, CompletionError, pieces, refusal, type Piece } from "./completion";

// Array.fromAsync needs a newer Node.js than the tests do.
async function collected<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}

// @vitest-environment node

let server: Server | undefined;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

async function serve(listener: RequestListener): Promise<string> {
  server = createServer(listener);
  await new Promise<void>((ready) => server!.listen(0, "127.0.0.1", ready));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

const chunk = (value: unknown): string => `data: ${JSON.stringify(value)}\n\n`;
const delta = (delta: object, finish_reason: string | null = null) => ({ choices: [{ delta, finish_reason }] });

async function answer(base: string, signal = new AbortController().signal): Promise<Piece[]> {
  return collected(complete(base, "qwen", [{ role: "user", content: "Hello" }], signal));
}

describe("an answer", () => {
  it("arrives piece by piece, with what llama.cpp measured", async () => {
    let asked = "";
    const base = await serve((request, response) => {
      request.on("data", (data) => (asked += data));
      request.on("end", () => {
        response.writeHead(200, { "Content-Type": "text/event-stream" });
        response.write(": waiting\n\n" + chunk(delta({ role: "assistant", content: null })));
        response.write(chunk(delta({ reasoning_content: "Hm." })) + chunk(delta({ content: "Hi" })));
        response.write(chunk(delta({}, "stop")));
        const timings = { prompt_ms: 12.5, predicted_n: 2, predicted_per_second: 40 };
        response.end(chunk({ choices: [], usage: { completion_tokens: 2 }, timings }) + "data: [DONE]\n\n");
      });
    });
    expect(await answer(base)).toEqual([
      { kind: "thinking", text: "Hm." },
      { kind: "text", text: "Hi" },
      { kind: "finish", reason: "stop" },
      { kind: "timings", timings: { promptMs: 12.5, tokens: 2, tokensPerSecond: 40 } },
    ]);
    expect(JSON.parse(asked)).toMatchObject({ model: "qwen", stream: true, messages: [{ content: "Hello" }] });
  });

  it("that breaks off says so", async () => {
    const base = await serve((_, response) => {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.end(chunk(delta({ content: "Hal" })));
    });
    await expect(answer(base)).rejects.toThrow(text.chatErrors.cut);
  });

  it("that is aborted ends the request", async () => {
    const controller = new AbortController();
    let closed: () => void;
    const gone = new Promise<void>((resolve) => (closed = resolve));
    const base = await serve((_, response) => {
      response.on("close", () => closed());
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.write(chunk(delta({ content: "endless" })));
    });
    const stream = complete(base, "qwen", [], controller.signal);
    expect((await stream.next()).value).toEqual({ kind: "text", text: "endless" });
    controller.abort();
    await expect(stream.next()).rejects.toMatchObject({ name: "AbortError" });
    await gone;
  });

  it("of a service that is away is a sentence, not a TypeError", async () => {
    const base = await serve(() => undefined);
    server!.close();
    await expect(answer(base)).rejects.toThrow(text.chatErrors.unreachable);
  });
});

describe("a refusal", () => {
  it("keeps the service's words and adds what to do", () => {
    const error = refusal(404, '{"error":{"message":"No model \'qwn\'. Did you mean qwen?","type":"x"}}');
    expect(error.message).toContain("Did you mean qwen?");
    expect(error.hint).toBe(text.chatErrors.notFound);
    expect(refusal(503, '{"error":{"message":"The engine is stopped"}}').hint).toBe(text.chatErrors.unavailable);
    expect(refusal(400, '{"error":{"message":"request exceeds the context size"}}').hint).toBe(text.chatErrors.tooLarge);
    expect(refusal(400, '{"error":"plain"}').message).toBe("plain");
  });

  it("from something that is not the service names the status", () => {
    expect(refusal(502, "<html>Bad gateway</html>").message).toContain("502");
  });

  it("in mid-stream is one too", () => {
    const failed = () => [...pieces({ error: { code: 503, message: "the model's process ended" } })];
    expect(failed).toThrow(CompletionError);
    expect(failed).toThrow("the model's process ended");
  });
});
