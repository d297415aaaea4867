/** One streamed answer from POST /v1/chat/completions. */

import { text } from "../strings";
import { sseEvents } from "./sse";

export interface Turn {
  role: "user" | "assistant";
  content: string;
}

/** What llama.cpp measured for one answer. */
export interface Timings {
  promptMs: number | null;
  tokens: number | null;
  tokensPerSecond: number | null;
}

export type Piece =
  | { kind: "text"; text: string }
  | { kind: "thinking"; text: string }
  | { kind: "finish"; reason: string }
  | { kind: "timings"; timings: Timings };

/** Why there is no (whole) answer: what happened, in the service's words where it had any, and what to do. */
export class CompletionError extends Error {
  constructor(
    message: string,
    readonly hint: string,
  ) {
    super(message);
  }
}

interface Chunk {
  choices?: { delta?: { content?: string | null; reasoning_content?: string | null }; finish_reason?: string | null }[];
  usage?: { completion_tokens?: number } | null;
  timings?: { prompt_ms?: number; predicted_n?: number; predicted_per_second?: number };
  error?: unknown;
}

/** Raises CompletionError; an abort of `signal` raises its AbortError. */
export async function* complete(
  base: string,
  model: string,
  messages: readonly Turn[],
  signal: AbortSignal,
): AsyncGenerator<Piece> {
  const body = await open(base, model, messages, signal);
  let finished = false;
  try {
    for await (const { data } of sseEvents(body)) {
      if (data === "[DONE]") return;
      for (const piece of pieces(JSON.parse(data) as Chunk)) {
        finished ||= piece.kind === "finish";
        yield piece;
      }
    }
  } catch (error) {
    if (error instanceof CompletionError || signal.aborted) throw error;
    throw new CompletionError(text.chatErrors.cut, text.chatErrors.cutHint);
  }
  if (!finished) throw new CompletionError(text.chatErrors.cut, text.chatErrors.cutHint);
}

async function open(
  base: string,
  model: string,
  messages: readonly Turn[],
  signal: AbortSignal,
): Promise<ReadableStream<Uint8Array>> {
  let response: Response;
  try {
    response = await fetch(`${base}v1/chat/completions`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ model, messages, stream: true, stream_options: { include_usage: true } }),
      signal,
    });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new CompletionError(text.chatErrors.unreachable, text.chatErrors.unreachableHint);
  }
  if (response.ok && response.body) return response.body;
  throw refusal(response.status, await response.text());
}

export function refusal(status: number, body: string): CompletionError {
  let message: string | null = null;
  try {
    message = errorMessage((JSON.parse(body) as { error?: unknown }).error);
  } catch {
    // Not JSON: a proxy in between. The status has to do.
  }
  return new CompletionError(message ?? text.chatErrors.http(status), hint(status, message ?? ""));
}

/** `error` is an object with a message on /v1, plain text on some other routes. */
function errorMessage(error: unknown): string | null {
  if (typeof error === "string") return error;
  const message = (error as { message?: unknown } | null | undefined)?.message;
  return typeof message === "string" ? message : null;
}

function hint(status: number, message: string): string {
  if (status === 404) return text.chatErrors.notFound;
  if (status === 429) return text.chatErrors.overloaded;
  if (status === 503) return text.chatErrors.unavailable;
  if (status === 413 || /context|exceed/i.test(message)) return text.chatErrors.tooLarge;
  return text.chatErrors.other;
}

/** What one chunk of the stream holds. Raises CompletionError for an error event. */
export function* pieces(chunk: Chunk): Generator<Piece> {
  if (chunk.error !== undefined) {
    const message = errorMessage(chunk.error) ?? text.chatErrors.cut;
    const status = (chunk.error as { code?: unknown }).code;
    throw new CompletionError(message, hint(typeof status === "number" ? status : 0, message));
  }
  const choice = chunk.choices?.[0];
  if (choice?.delta?.reasoning_content) yield { kind: "thinking", text: choice.delta.reasoning_content };
  if (choice?.delta?.content) yield { kind: "text", text: choice.delta.content };
  if (choice?.finish_reason) yield { kind: "finish", reason: choice.finish_reason };
  if (chunk.timings || chunk.usage) {
    yield {
      kind: "timings",
      timings: {
        promptMs: chunk.timings?.prompt_ms ?? null,
        tokens: chunk.timings?.predicted_n ?? chunk.usage?.completion_tokens ?? null,
        tokensPerSecond: chunk.timings?.predicted_per_second ?? null,
      },
    };
  }
}
