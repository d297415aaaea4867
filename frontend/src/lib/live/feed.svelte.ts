/** A topic's data in the browser: the server's snapshot, kept up to date by a pure reducer. */

import type { Delta, Snapshot, Topic, Topics } from "../protocol";
import type { Connection, Listener } from "./connection.svelte";

/** How one topic's messages become what the pages show. */
export interface Reduction<T extends Topic, State> {
  readonly topic: T;
  fromSnapshot(data: Topics[T]["data"]): State;
  apply(state: State, items: readonly Topics[T]["item"][]): State;
}

export class Feed<T extends Topic, State> implements Listener {
  /** null until the first snapshot. */
  data = $state.raw<State | null>(null);

  readonly topic: T;
  readonly #reduction: Reduction<T, State>;
  #latest: State | null = null;
  #seq: number | undefined;
  #frame = 0;

  constructor(reduction: Reduction<T, State>) {
    this.topic = reduction.topic;
    this.#reduction = reduction;
  }

  get since(): number | undefined {
    return this.#seq;
  }

  /** Join for as long as the calling component lives: `$effect(() => feed.watch(connection))`. */
  watch(connection: Connection): () => void {
    return connection.join(this);
  }

  onSnapshot(message: Snapshot): void {
    this.#seq = message.seq;
    this.#set(this.#reduction.fromSnapshot((message as Snapshot<T>).data));
  }

  onDelta(message: Delta): void {
    if (this.#latest === null || this.#seq === undefined || message.seq <= this.#seq) return;
    this.#seq = message.seq;
    this.#set(this.#reduction.apply(this.#latest, (message as Delta<T>).items));
  }

  /** Shown once per frame however often it changes; at once in a hidden tab, which has no frames. */
  #set(state: State): void {
    this.#latest = state;
    if (document.hidden) this.#show();
    else this.#frame ||= requestAnimationFrame(() => this.#show());
  }

  #show(): void {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.data = this.#latest;
  }
}
