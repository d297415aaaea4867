/** All conversations: the list, the open one, and the actions on each. */

import { deleteConversation, importConversations } from "../../../../clients/typescript/src/api";
import { ApiError } from "../../../../clients/typescript/src/request";
import type { AppContext } from "../../app/context.svelte";
import type { Conversation, ConversationList as StoredList, UpdateConversation } from "../../live/protocol.gen";
import { applyToList, startList, type ConversationList } from "../../live/reducers/chats";
import { ResumableFeed } from "../../live/resumable_feed.svelte";
import { adjacentId, groupByAge, type AgeGroup } from "./age_groups";
import { OpenConversation } from "./conversation.svelte";
import { DEFAULT_SETTINGS, type ConversationSettings } from "./sampling_form";
import { ConversationSearch } from "./search.svelte";
import { text } from "./text";

type Changes = Omit<UpdateConversation, "id">;

/** Conversations listed at first, and more at each press of a button: thousands of rows make the page slow. */
const STEP = 300;
const UNDO_MS = 8000;

export class Conversations {
  readonly list: ResumableFeed<"chats", StoredList, ConversationList>;
  readonly search: ConversationSearch;
  /** True while the list shows the archived conversations instead of the others. */
  archived = $state(false);
  /** Settings of the conversation that begins next. */
  settings = $state.raw<ConversationSettings>(DEFAULT_SETTINGS);
  limit = $state(STEP);

  /** Ids of conversations that are hidden, and are deleted when they can no longer be restored. */
  #pendingDeletions = $state.raw<ReadonlySet<number>>(new Set());
  readonly #timers = new Map<number, ReturnType<typeof setTimeout>>();
  #open: OpenConversation | null = null;

  constructor(readonly app: AppContext) {
    this.search = new ConversationSearch(app);
    this.list = new ResumableFeed<"chats", StoredList, ConversationList>({
      topic: "chats",
      load: async () => {
        const result = await app.connection.call("chats.list", { limit: this.limit, archived: null });
        return result.ok ? result.data : null;
      },
      start: (stored, { answering }) => startList(stored.conversations, answering),
      apply: applyToList,
      needsReload: () => false,
    });
    // A closed tab can undo nothing, so pending deletions happen at once.
    addEventListener("pagehide", () => this.#pendingDeletions.forEach((id) => this.#deleteOnExit(id)));
  }

  /** The conversation with that id: the same object until another one is opened. */
  open(id: number): OpenConversation {
    if (this.#open?.id !== id) this.#open = new OpenConversation(id, this.app);
    return this.#open;
  }

  // These are no $derived: one would end with the component that made this object, which outlives it.

  get groups(): AgeGroup[] {
    const all = [...(this.list.data?.conversations.values() ?? [])];
    const shown = all.filter((one) => one.is_archived === this.archived && !this.#pendingDeletions.has(one.id));
    return groupByAge(shown, this.app.clock.now);
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

  /** Id of the conversation before or after `id` in the list. */
  adjacent(id: number | null, step: 1 | -1): number | null {
    return adjacentId(this.groups, id, step);
  }

  showMore(): void {
    this.limit += STEP;
    this.list.refresh();
  }

  /** Id of the new conversation; null when the service refused it. */
  async create(model: string): Promise<number | null> {
    const made = await this.app.run("chats.create", { model, ...this.settings });
    if (made) this.settings = DEFAULT_SETTINGS;
    return made?.conversation.id ?? null;
  }

  /** Change a conversation. The list shows the change at once, and takes it back when the service refuses. */
  async update(id: number, changes: Changes): Promise<void> {
    const old = this.get(id);
    if (old) this.list.onItems([{ kind: "upsert", conversation: withChanges(old, changes) }]);
    const done = await this.app.run("chats.update", { id, ...changes });
    const now = done?.conversation ?? old;
    if (now) this.list.onItems([{ kind: "upsert", conversation: now }]);
  }

  /** Hide a conversation at once and delete it when the time to undo is over. */
  remove({ id, title }: Conversation): void {
    this.#pendingDeletions = new Set(this.#pendingDeletions).add(id);
    const toast = this.app.offer(text.list.deleted(title), text.list.undo, () => this.#restore(id));
    this.#timers.set(
      id,
      setTimeout(() => {
        this.app.dismiss(toast);
        void this.#delete(id);
      }, UNDO_MS),
    );
    if (this.app.router.id === id) this.app.router.go(this.app.router.href("chat"));
  }

  /** Import the conversations of a file. A toast says how many there were, or what is wrong with the file. */
  async import(file: File): Promise<void> {
    try {
      const document = JSON.parse(await file.text()) as Record<string, unknown>;
      const { count } = await this.app.client.send(importConversations(document));
      this.app.toast("ok", text.list.imported(count));
    } catch (error) {
      if (error instanceof SyntaxError) this.app.toast("bad", text.list.notJson(file.name), error.message);
      else if (error instanceof ApiError) this.app.toast("bad", error.message, error.details ?? null);
      else throw error;
    }
  }

  #restore(id: number): void {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
    const pending = new Set(this.#pendingDeletions);
    pending.delete(id);
    this.#pendingDeletions = pending;
  }

  async #delete(id: number): Promise<void> {
    await this.app.run("chats.delete", { id });
    this.#restore(id);
  }

  #deleteOnExit(id: number): void {
    const { method, path } = deleteConversation(id);
    void fetch(this.app.router.base + path.slice(1), { method, keepalive: true });
  }
}

/** A change of null keeps the value, as in the operation. */
function withChanges(conversation: Conversation, { title, is_pinned, is_archived }: Changes): Conversation {
  return {
    ...conversation,
    title: title ?? conversation.title,
    is_pinned: is_pinned ?? conversation.is_pinned,
    is_archived: is_archived ?? conversation.is_archived,
  };
}
