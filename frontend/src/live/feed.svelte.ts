/** A topic's data in the browser: the server's snapshot, kept up to date by a pure reducer. */

import type { Delta, Snapshot, Topic, Topics } from "./protocol.gen";
import type { Connection, Listener } from "./connection.svelte";
import { Shown } from "./frame_throttle.svelte";

/** How one topic's messages become what the pages show. */
export interface Reduction<T extends Topic, State> {
  readonly topic: T;
  fromSnapshot(data: Topics[T]["data"]): State;
  apply(state: State, items: readonly Topics[T]["item"][]): State;
}

export class Feed<T extends Topic, State> implements Listener {
  readonly topic: T;
  readonly #reduction: Reduction<T, State>;
  readonly #shown = new Shown<State>();
  #seq: number | undefined;

  constructor(reduction: Reduction<T, State>) {
    this.topic = reduction.topic;
    this.#reduction = reduction;
  }

  /** null until the first snapshot. */
  get data(): State | null {
    return this.#shown.data;
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
    this.#shown.set(this.#reduction.fromSnapshot((message as Snapshot<T>).data));
  }

  onDelta(message: Delta): void {
    const { latest } = this.#shown;
    if (latest === null || this.#seq === undefined || message.seq <= this.#seq) return;
    this.#seq = message.seq;
    this.#shown.set(this.#reduction.apply(latest, (message as Delta<T>).items));
  }
}
