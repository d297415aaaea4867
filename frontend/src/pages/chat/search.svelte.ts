/** Finding what was said: the newest while a person types, the best when they ask. */

import type { App } from "../../app/context.svelte";
import type { Hit } from "../../live/protocol.gen";

/** A pause this long in typing is worth a search. */
const PAUSE_MS = 120;
const MOST = 50;

export class Search {
  text = $state("");
  /** null: nothing is searched for, or nothing has been found out yet. */
  hits = $state.raw<readonly Hit[] | null>(null);
  isRanked = $state(false);
  problem = $state<string | null>(null);

  readonly #app: App;
  /** A newer search of this page breaks an older one off. */
  readonly #client = crypto.randomUUID?.() ?? String(Math.random());
  #timer: ReturnType<typeof setTimeout> | undefined;
  #count = 0;

  constructor(app: App) {
    this.#app = app;
  }

  type(typed: string): void {
    this.text = typed;
    clearTimeout(this.#timer);
    if (typed.trim() === "") this.clear();
    else this.#timer = setTimeout(() => void this.#find(false), PAUSE_MS);
  }

  /** The best first. */
  rank(): void {
    clearTimeout(this.#timer);
    if (this.text.trim() !== "") void this.#find(true);
  }

  clear(): void {
    clearTimeout(this.#timer);
    this.#count += 1;
    this.text = "";
    this.hits = null;
    this.problem = null;
    this.isRanked = false;
  }

  async #find(isRanked: boolean): Promise<void> {
    const count = (this.#count += 1);
    const result = await this.#app.connection.call("chats.search", {
      text: this.text,
      limit: MOST,
      newest_first: !isRanked,
      is_typing: !isRanked,
      client: this.#client,
    });
    if (count !== this.#count) return; // the text is another one by now
    this.hits = result.ok ? result.data.hits : [];
    this.problem = result.ok ? null : result.error.message;
    this.isRanked = isRanked;
  }
}
