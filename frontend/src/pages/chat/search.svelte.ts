/** Full-text search in conversations: newest hits first while a person types, best hits first after Enter. */

import type { AppContext } from "../../app/context.svelte";
import type { Hit } from "../../live/protocol.gen";

/** A search starts after a pause of this length in typing. */
const PAUSE_MS = 120;
const MAX_HITS = 50;

export class ConversationSearch {
  text = $state("");
  /** null without a search, and until the first one has ended. */
  hits = $state.raw<readonly Hit[] | null>(null);
  isRanked = $state(false);
  problem = $state<string | null>(null);

  readonly #app: AppContext;
  /** The service breaks an older search of the same client off. */
  readonly #client = crypto.randomUUID?.() ?? String(Math.random());
  #timer: ReturnType<typeof setTimeout> | undefined;
  #count = 0;

  constructor(app: AppContext) {
    this.#app = app;
  }

  onInput(typed: string): void {
    this.text = typed;
    clearTimeout(this.#timer);
    if (typed.trim() === "") this.clear();
    else this.#timer = setTimeout(() => void this.#find(false), PAUSE_MS);
  }

  /** Search again, best hits first. */
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
      limit: MAX_HITS,
      newest_first: !isRanked,
      is_typing: !isRanked,
      client: this.#client,
    });
    if (count !== this.#count) return; // a newer search has started
    this.hits = result.ok ? result.data.hits : [];
    this.problem = result.ok ? null : result.error.message;
    this.isRanked = isRanked;
  }
}
