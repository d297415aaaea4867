/** The conversation in memory: asks, collects the answer, shows it once per frame. */

import { complete, CompletionError, type Piece } from "./completion";
import { isBusy, next, turns, type Thread, type ThreadEvent } from "./thread";

export interface ChosenModel {
  slug: string;
  name: string;
}

/** With reduced motion, text comes in steps this long instead of with every frame. */
const CALM_MS = 250;

export class Conversation {
  thread = $state.raw<Thread>([]);
  /** What is being written. */
  draft = $state("");
  readonly busy = $derived(isBusy(this.thread));

  readonly #base: string;
  #abort: AbortController | null = null;
  #pending: Piece[] = [];
  #flushing = false;

  constructor(base: string) {
    this.#base = base;
  }

  /** Returns when the answer is complete, stopped or failed; never raises. */
  async ask(text: string, model: ChosenModel): Promise<void> {
    this.#move({ type: "asked", text, model: model.slug, modelName: model.name, now: Date.now() });
    await this.#answer(model);
  }

  async retry(model: ChosenModel): Promise<void> {
    this.#move({ type: "retried", model: model.slug, modelName: model.name, now: Date.now() });
    await this.#answer(model);
  }

  stop(): void {
    this.#abort?.abort();
  }

  clear(): void {
    this.stop();
    this.#move({ type: "cleared" });
  }

  async #answer(model: ChosenModel): Promise<void> {
    const abort = new AbortController();
    this.#abort = abort;
    const end = await this.#stream(model, abort.signal);
    if (this.#abort !== abort) return; // cleared and asked anew meanwhile
    this.#abort = null;
    this.#flush();
    this.#move(end);
  }

  async #stream(model: ChosenModel, signal: AbortSignal): Promise<ThreadEvent> {
    try {
      for await (const piece of complete(this.#base, model.slug, turns(this.thread), signal)) this.#receive(piece);
      return { type: "finished" };
    } catch (error) {
      if (signal.aborted) return { type: "stopped" };
      if (error instanceof CompletionError) return { type: "failed", message: error.message, hint: error.hint };
      throw error;
    }
  }

  #receive(piece: Piece): void {
    this.#pending.push(piece);
    if (this.#flushing) return;
    this.#flushing = true;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (document.hidden || calm) setTimeout(() => this.#flush(), CALM_MS);
    else requestAnimationFrame(() => this.#flush());
  }

  #flush(): void {
    this.#flushing = false;
    const pieces = this.#pending;
    this.#pending = [];
    if (pieces.length) this.#move({ type: "received", pieces, now: Date.now() });
  }

  #move(event: ThreadEvent): void {
    this.thread = next(this.thread, event);
  }
}
