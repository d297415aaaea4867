/** Data of one topic in the browser: the server's snapshot, kept up to date by a pure reducer. */

import type { Connection, Subscriber } from "./connection.svelte";
import { FrameThrottle } from "./frame_throttle.svelte";
import type { Delta, Snapshot, Topic, Topics } from "./protocol.gen";

/** A reducer makes the state that pages show from the messages of one topic. */
export interface Reducer<T extends Topic, State> {
  readonly topic: T;
  fromSnapshot(data: Topics[T]["data"]): State;
  apply(state: State, items: readonly Topics[T]["item"][]): State;
}

export class Feed<T extends Topic, State> implements Subscriber {
  readonly topic: T;
  readonly #reducer: Reducer<T, State>;
  readonly #state = new FrameThrottle<State>();
  #seq: number | undefined;

  constructor(reducer: Reducer<T, State>) {
    this.topic = reducer.topic;
    this.#reducer = reducer;
  }

  /** null until the first snapshot. */
  get data(): State | null {
    return this.#state.shown;
  }

  get since(): number | undefined {
    return this.#seq;
  }

  /** Join the topic for as long as the calling component lives: `$effect(() => feed.watch(connection))`. */
  watch(connection: Connection): () => void {
    return connection.join(this);
  }

  onSnapshot(message: Snapshot): void {
    this.#seq = message.seq;
    this.#state.set(this.#reducer.fromSnapshot((message as Snapshot<T>).data));
  }

  onDelta(message: Delta): void {
    const { latest } = this.#state;
    if (latest === null || this.#seq === undefined || message.seq <= this.#seq) return;
    this.#seq = message.seq;
    this.#state.set(this.#reducer.apply(latest, (message as Delta<T>).items));
  }
}
