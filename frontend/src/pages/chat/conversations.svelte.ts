/** All conversations: the list, the one that is open, and what can be done with each. */

import { deleteConversation, importConversations } from "../../../../clients/typescript/src/api";
import { ApiError } from "../../../../clients/typescript/src/request";
import type { App } from "../../app/context.svelte";
import { StoredFeed } from "../../live/resumable_feed.svelte";
import type { Conversation, ConversationList, Sampling, UpdateConversation } from "../../live/protocol.gen";
import { text } from "../../app/strings";
import { OpenConversation } from "./conversation.svelte";
import { changed, grouped, listed, neighbour, type Group, type List } from "../../live/reducers/conversations";
import { Search } from "./search.svelte";

export const DEFAULT_SAMPLING: Sampling = {
  temperature: null,
  top_p: null,
  top_k: null,
  min_p: null,
  num_predict: null,
  repeat_penalty: null,
  presence_penalty: null,
  frequency_penalty: null,
  seed: null,
  stop: null,
  context_history_limit: null,
};

type Changes = Omit<UpdateConversation, "id">;

/** What rules a conversation besides its model. */
export interface Rules {
  system_prompt: string | null;
  sampling: Sampling;
}

export const DEFAULT_RULES: Rules = { system_prompt: null, sampling: DEFAULT_SAMPLING };

/** So many more conversations at a time: thousands of rows make the page slow, and the search finds the rest. */
const STEP = 300;

export class Chats {
  readonly list: StoredFeed<"chats", ConversationList, List>;
  readonly search: Search;
  /** Those put away are shown instead of the others. */
  archived = $state(false);
  /** Of the conversation to come. */
  rules = $state.raw<Rules>(DEFAULT_RULES);
  limit = $state(STEP);

  /** Deleted, but for the time in which that can be undone. */
  #leaving = $state.raw<ReadonlySet<number>>(new Set());
  readonly #timers = new Map<number, ReturnType<typeof setTimeout>>();
  #open: OpenConversation | null = null;

  constructor(readonly app: App) {
    this.search = new Search(app);
    this.list = new StoredFeed<"chats", ConversationList, List>({
      topic: "chats",
      load: async () => {
        const result = await app.connection.call("chats.list", { limit: this.limit, archived: null });
        return result.ok ? result.data : null;
      },
      begin: (listing, { answering }) => listed(listing.conversations, answering),
      apply: changed,
      isUnclear: () => false,
    });
    // A deletion that waits is carried out when the page goes away.
    addEventListener("pagehide", () => this.#leaving.forEach((id) => this.#forget(id)));
  }

  /** The conversation with that id; the same one as long as no other is asked for. */
  open(id: number): OpenConversation {
    if (this.#open?.id !== id) this.#open = new OpenConversation(id, this.app);
    return this.#open;
  }

  // Not $derived: that would end with the page that made this, which is outlived.

  get groups(): Group[] {
    const all = [...(this.list.data?.conversations.values() ?? [])];
    const shown = all.filter((one) => one.is_archived === this.archived && !this.#leaving.has(one.id));
    return grouped(shown, this.app.clock.now);
  }

  get hasMore(): boolean {
    return (this.list.data?.conversations.size ?? 0) >= this.limit;
  }

  get(id: number): Conversation | null {
    return this.list.data?.conversations.get(id) ?? null;
  }

  isAnswering(id: number): boolean {
    return this.list.data?.answering.has(id) ?? false;
  }

  next(id: number | null, step: 1 | -1): number | null {
    return neighbour(this.groups, id, step);
  }

  more(): void {
    this.limit += STEP;
    this.list.refresh();
  }

  async create(model: string): Promise<number | null> {
    const made = await this.app.run("chats.create", { model, ...this.rules });
    if (made) this.rules = DEFAULT_RULES;
    return made?.conversation.id ?? null;
  }

  /** Shown at once; a refusal takes it back. */
  async update(id: number, changes: Changes): Promise<void> {
    const old = this.get(id);
    if (old) this.list.onItems([{ kind: "upsert", conversation: withChanges(old, changes) }]);
    const done = await this.app.run("chats.update", { id, ...changes });
    const now = done?.conversation ?? old;
    if (now) this.list.onItems([{ kind: "upsert", conversation: now }]);
  }

  /** Gone from sight at once, and from the service when it is too late to undo. */
  remove({ id, title }: Conversation): void {
    this.#leaving = new Set(this.#leaving).add(id);
    const toast = this.app.offer(text.chats.deleted(title), text.chats.undo, () => this.#keep(id));
    this.#timers.set(
      id,
      setTimeout(() => {
        this.app.dismiss(toast);
        void this.#delete(id);
      }, UNDO_MS),
    );
    if (this.app.router.id === id) this.app.router.go(this.app.router.href("chat"));
  }

  /** How many conversations a file brought; what is wrong with it becomes a toast. */
  async import(file: File): Promise<void> {
    try {
      const document = JSON.parse(await file.text()) as Record<string, unknown>;
      const { count } = await this.app.client.send(importConversations(document));
      this.app.toast("ok", text.chats.imported(count));
    } catch (error) {
      if (error instanceof SyntaxError) this.app.toast("bad", text.chats.notJson(file.name), error.message);
      else if (error instanceof ApiError) this.app.toast("bad", error.message, error.details ?? null);
      else throw error;
    }
  }

  #keep(id: number): void {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
    const leaving = new Set(this.#leaving);
    leaving.delete(id);
    this.#leaving = leaving;
  }

  async #delete(id: number): Promise<void> {
    await this.app.run("chats.delete", { id });
    this.#keep(id);
  }

  #forget(id: number): void {
    const { method, path } = deleteConversation(id);
    void fetch(this.app.router.base + path.slice(1), { method, keepalive: true });
  }
}

const UNDO_MS = 8000;

/** A change of null keeps the value, as in the operation. */
function withChanges(conversation: Conversation, { title, is_pinned, is_archived }: Changes): Conversation {
  return {
    ...conversation,
    title: title ?? conversation.title,
    is_pinned: is_pinned ?? conversation.is_pinned,
    is_archived: is_archived ?? conversation.is_archived,
  };
}
