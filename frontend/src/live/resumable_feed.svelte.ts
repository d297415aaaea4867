/** A topic whose snapshot holds only what the service has not stored: the rest is loaded, then deltas carry on. */

import type { Delta, Snapshot, Topic, Topics } from "./protocol.gen";
import type { Connection, Listener } from "./connection.svelte";
import { Shown } from "./frame_throttle.svelte";

export interface StoredReduction<T extends Topic, Stored, State> {
  readonly topic: T;
  /** What is stored; null when it cannot be had. */
  load(): Promise<Stored | null>;
  /** `old`: what was known before a reconnection, or before things became unclear. */
  begin(stored: Stored, data: Topics[T]["data"], old: State | null): State;
  /** Items may tell again what is known already. */
  apply(state: State, items: readonly Topics[T]["item"][]): State;
  /** Something happened that only what is stored can tell. */
  isUnclear(state: State): boolean;
}

export class StoredFeed<T extends Topic, Stored, State> implements Listener {
  readonly topic: T;
  /** What was missed meanwhile is loaded, so every join begins anew. */
  readonly since = undefined;

  readonly #reduction: StoredReduction<T, Stored, State>;
  readonly #shown: Shown<State>;
  #connection: Connection | null = null;
  /** Items that came while it was loaded; null when nothing is being loaded. */
  #waiting: Topics[T]["item"][] | null = null;

  constructor(reduction: StoredReduction<T, Stored, State>, isText = false) {
    this.topic = reduction.topic;
    this.#reduction = reduction;
    this.#shown = new Shown(isText);
  }

  /** null until the first is there. */
  get data(): State | null {
    return this.#shown.data;
  }

  /** What is known, of which `data` may show a little less. */
  get latest(): State | null {
    return this.#shown.latest;
  }

  /** Join for as long as the calling component lives: `$effect(() => feed.watch(connection))`. */
  watch(connection: Connection): () => void {
    this.#connection = connection;
    return connection.join(this);
  }

  refresh(): void {
    this.#connection?.refresh(this);
  }

  onSnapshot(message: Snapshot): void {
    void this.#begin((message as Snapshot<T>).data);
  }

  onDelta(message: Delta): void {
    this.onItems((message as Delta<T>).items);
  }

  /** From the feed, or from a reader who need not wait for it. */
  onItems(items: readonly Topics[T]["item"][]): void {
    if (this.#waiting) this.#waiting.push(...items);
    else this.#apply(items);
  }

  async #begin(data: Topics[T]["data"]): Promise<void> {
    const waiting: Topics[T]["item"][] = [];
    this.#waiting = waiting;
    const stored = await this.#reduction.load();
    if (this.#waiting !== waiting) return; // begun anew meanwhile
    this.#waiting = null;
    if (stored === null) return;
    this.#shown.set(this.#reduction.begin(stored, data, this.latest));
    this.#apply(waiting);
  }

  #apply(items: readonly Topics[T]["item"][]): void {
    if (this.latest === null || items.length === 0) return;
    const { apply, isUnclear } = this.#reduction;
    const wasUnclear = isUnclear(this.latest);
    const state = apply(this.latest, items);
    this.#shown.set(state);
    if (isUnclear(state) && !wasUnclear) this.refresh();
  }
}
