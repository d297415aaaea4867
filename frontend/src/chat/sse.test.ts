import { describe, expect, it } from "vitest";
import { sseEvents, SseParser } from "./sse";

// Array.fromAsync needs a newer Node.js than the tests do.
async function collected<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}

const STREAM =
  ': keep-alive\r\n\r\ndata: {"a":1}\r\n\r\ndata: first\ndata:  second\nid: 7\n\nevent: error\rdata\rdata: x:y\r\rdata: [DONE]\n\n';
const EVENTS = [
  { event: "message", data: '{"a":1}' },
  { event: "message", data: "first\n second" },
  { event: "error", data: "\nx:y" },
  { event: "message", data: "[DONE]" },
];

describe("the parser", () => {
  it("reads every line ending, comments and several data lines", () => {
    expect(new SseParser().push(STREAM)).toEqual(EVENTS);
  });

  it("gives the same events wherever the stream is cut", () => {
    for (let cut = 1; cut < STREAM.length; cut += 1) {
      const parser = new SseParser();
      expect([...parser.push(STREAM.slice(0, cut)), ...parser.push(STREAM.slice(cut))]).toEqual(EVENTS);
    }
  });

  it("does not pass on an event that never ended", () => {
    expect(new SseParser().push("data: half")).toEqual([]);
  });
});

describe("the byte stream", () => {
  it("joins characters that arrive in pieces", async () => {
    const bytes = new TextEncoder().encode("data: Grüße, 世界 🦙\n\n");
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
        controller.close();
      },
    });
    const events = await collected(sseEvents(body));
    expect(events).toEqual([{ event: "message", data: "Grüße, 世界 🦙" }]);
  });
});
