/** Server-sent events out of a byte stream, as https://html.spec.whatwg.org/multipage/server-sent-events.html says. */

export interface SseEvent {
  event: string;
  data: string;
}

export class SseParser {
  #rest = "";
  #event = "";
  #data: string[] = [];

  /** The events that `chunk` completes. Chunks may end anywhere, even between CR and LF. */
  push(chunk: string): SseEvent[] {
    const events: SseEvent[] = [];
    this.#rest += chunk;
    for (;;) {
      const end = /\r\n|\n|\r(?!$)/.exec(this.#rest);
      if (!end) return events;
      const line = this.#rest.slice(0, end.index);
      this.#rest = this.#rest.slice(end.index + end[0].length);
      const event = this.#take(line);
      if (event) events.push(event);
    }
  }

  #take(line: string): SseEvent | null {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return null; // a comment, sent to keep the connection alive
    const field = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    return null;
  }

  #dispatch(): SseEvent | null {
    const event = this.#data.length ? { event: this.#event || "message", data: this.#data.join("\n") } : null;
    this.#data = [];
    this.#event = "";
    return event;
  }
}

export async function* sseEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<SseEvent> {
  const parser = new SseParser();
  const decoder = new TextDecoder();
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.releaseLock();
  }
}
