/** Data of a topic whose snapshot holds only what the service has not stored: the stored part is loaded, deltas follow. */

import type { Connection, Subscriber } from "./connection.svelte";
import { FrameThrottle } from "./frame_throttle.svelte";
import type { Delta, Snapshot, Topic, Topics } from "./protocol.gen";

export interface ResumableReducer<T extends Topic, Stored, State> {
  readonly topic: T;
  /** Load the stored part; null when that fails. */
  load(): Promise<Stored | null>;
  /** `previous` is the state before a reconnection or a reload; null on the first start. */
  start(stored: Stored, data: Topics[T]["data"], previous: State | null): State;
  /** An item may repeat what the state already holds. */
  apply(state: State, items: readonly Topics[T]["item"][]): State;
  /** True after an item whose outcome only the stored part tells. */
  needsReload(state: State): boolean;
}

export class ResumableFeed<T extends Topic, Stored, State> implements Subscriber {
  readonly topic: T;
  /** A join always asks for a snapshot, as the load brings what was missed. */
  readonly since = undefined;

  readonly #reducer: ResumableReducer<T, Stored, State>;
  readonly #state: FrameThrottle<State>;
  #connection: Connection | null = null;
  /** Items that arrived during a load; null when no load is under way. */
  #queued: Topics[T]["item"][] | null = null;

  constructor(reducer: ResumableReducer<T, Stored, State>, isText = false) {
    this.topic = reducer.topic;
    this.#reducer = reducer;
    this.#state = new FrameThrottle(isText);
  }

  /** null until the first load has ended. */
  get data(): State | null {
    return this.#state.shown;
  }

  /** The newest state; `data` follows it once a frame. */
  get latest(): State | null {
    return this.#state.latest;
  }

  /** Join the topic for as long as the calling component lives: `$effect(() => feed.watch(connection))`. */
  watch(connection: Connection): () => void {
    this.#connection = connection;
    return connection.join(this);
  }

  /** Load the stored part again. */
  refresh(): void {
    this.#connection?.refresh(this);
  }

  onSnapshot(message: Snapshot): void {
    void this.#start((message as Snapshot<T>).data);
  }

  onDelta(message: Delta): void {
    this.onItems((message as Delta<T>).items);
  }

  /** Take items from the topic, or from this page when it already knows the outcome of a call. */
  onItems(items: readonly Topics[T]["item"][]): void {
    if (this.#queued) this.#queued.push(...items);
    else this.#apply(items);
  }

  async #start(data: Topics[T]["data"]): Promise<void> {
    const queued: Topics[T]["item"][] = [];
    this.#queued = queued;
    const stored = await this.#reducer.load();
    if (this.#queued !== queued) return; // a newer snapshot started another load
    this.#queued = null;
    if (stored === null) return;
    this.#state.set(this.#reducer.start(stored, data, this.latest));
    this.#apply(queued);
  }

  #apply(items: readonly Topics[T]["item"][]): void {
    if (this.latest === null || items.length === 0) return;
    const { apply, needsReload } = this.#reducer;
    const neededReload = needsReload(this.latest);
    const state = apply(this.latest, items);
    this.#state.set(state);
    if (needsReload(state) && !neededReload) this.refresh();
  }
}
