/** A conversation as a pure reducer. */

import type { Piece, Timings, Turn } from "./completion";

export interface Question {
  id: number;
  role: "user";
  text: string;
}

export interface Answer {
  id: number;
  role: "assistant";
  /** Slug and name of the model asked. */
  model: string;
  modelName: string;
  text: string;
  thinking: string;
  status: "waiting" | "streaming" | "done" | "stopped" | "failed";
  askedAtMs: number;
  /** When the first token arrived here. */
  firstAtMs: number | null;
  timings: Timings | null;
  finishReason: string | null;
  error: { message: string; hint: string } | null;
}

export type Message = Question | Answer;
export type Thread = readonly Message[];

export type ThreadEvent =
  | { type: "asked"; text: string; model: string; modelName: string; now: number }
  | { type: "retried"; model: string; modelName: string; now: number }
  | { type: "received"; pieces: readonly Piece[]; now: number }
  | { type: "finished" }
  | { type: "stopped" }
  | { type: "failed"; message: string; hint: string }
  | { type: "cleared" };

export function next(thread: Thread, event: ThreadEvent): Thread {
  switch (event.type) {
    case "asked": {
      const id = (thread.at(-1)?.id ?? 0) + 1;
      return [...thread, { id, role: "user", text: event.text }, blank(id + 1, event)];
    }
    case "retried": {
      const last = thread.at(-1);
      return last?.role === "assistant" ? [...thread.slice(0, -1), blank(last.id + 1, event)] : thread;
    }
    case "received":
      return withAnswer(thread, (answer) => event.pieces.reduce((a, piece) => received(a, piece, event.now), answer));
    case "finished":
      return withAnswer(thread, (answer) => ({ ...answer, status: "done" }));
    case "stopped":
      return withAnswer(thread, (answer) => ({ ...answer, status: "stopped" }));
    case "failed": {
      const { message, hint } = event;
      return withAnswer(thread, (answer) => ({ ...answer, status: "failed", error: { message, hint } }));
    }
    case "cleared":
      return [];
  }
}

function blank(id: number, asked: { model: string; modelName: string; now: number }): Answer {
  return {
    id,
    role: "assistant",
    model: asked.model,
    modelName: asked.modelName,
    text: "",
    thinking: "",
    status: "waiting",
    askedAtMs: asked.now,
    firstAtMs: null,
    timings: null,
    finishReason: null,
    error: null,
  };
}

function withAnswer(thread: Thread, change: (answer: Answer) => Answer): Thread {
  const last = thread.at(-1);
  return last?.role === "assistant" ? [...thread.slice(0, -1), change(last)] : thread;
}

function received(answer: Answer, piece: Piece, now: number): Answer {
  switch (piece.kind) {
    case "text":
    case "thinking":
      return {
        ...answer,
        status: "streaming",
        firstAtMs: answer.firstAtMs ?? now,
        [piece.kind]: answer[piece.kind] + piece.text,
      };
    case "finish":
      return { ...answer, finishReason: piece.reason };
    case "timings":
      // The usage chunk may follow the measured one and knows less.
      return { ...answer, timings: merged(answer.timings, piece.timings) };
  }
}

function merged(old: Timings | null, found: Timings): Timings {
  return {
    promptMs: found.promptMs ?? old?.promptMs ?? null,
    tokens: found.tokens ?? old?.tokens ?? null,
    tokensPerSecond: found.tokensPerSecond ?? old?.tokensPerSecond ?? null,
  };
}

/** True while an answer is awaited or written. */
export function isBusy(thread: Thread): boolean {
  const last = thread.at(-1);
  return last?.role === "assistant" && (last.status === "waiting" || last.status === "streaming");
}

/** What the model is told: everything with words in it, without the answer to come. */
export function turns(thread: Thread): Turn[] {
  return thread.filter((m) => m.text !== "").map(({ role, text }) => ({ role, content: text }));
}
