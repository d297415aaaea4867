/** One stored conversation as a page reads it, and what can be asked of it. Answers go on whoever leaves. */

import { chat, editMessage, regenerateAnswer, type ImageBody } from "../../../../clients/typescript/src/api";
import { ApiError, type Request } from "../../../../clients/typescript/src/request";
import type { App } from "../../app/context.svelte";
import { StoredFeed } from "../../live/resumable_feed.svelte";
import type { ConversationView, Message } from "../../live/protocol.gen";
import { applied, begun, isAnswering, newest, path, type ChatTopic, type Failure, type Thread } from "../../live/reducers/chat";

/** What was said and has not been stored yet. */
export interface Pending {
  text: string;
  /** The newest message before it. */
  after: number;
}

/** What was said is stored by then. */
const ENGINE_FAILED = "LLAMACPP_ERROR";

export class OpenConversation {
  readonly feed: StoredFeed<ChatTopic, ConversationView, Thread>;
  /** Why it cannot be read. */
  missing = $state<string | null>(null);

  #pending = $state.raw<Pending | null>(null);
  #isSending = $state(false);
  #refusal = $state.raw<Failure | null>(null);

  constructor(
    readonly id: number,
    readonly app: App,
  ) {
    this.feed = new StoredFeed<ChatTopic, ConversationView, Thread>(
      {
        topic: `chat:${id}`,
        load: () => this.#load(),
        begin: (view, { answer }, old) => begun(view, answer, old),
        apply: applied,
        isUnclear: (thread) => thread.isUnclear,
      },
      true,
    );
  }

  // Not $derived: that would end with the page that made this, which is outlived.

  get thread(): Thread | null {
    return this.feed.data;
  }

  /** What is read, oldest first. */
  get messages(): readonly Message[] {
    return this.thread ? path(this.thread) : [];
  }

  get answering(): boolean {
    return this.thread !== null && isAnswering(this.thread);
  }

  get busy(): boolean {
    return this.#isSending || this.answering;
  }

  get failure(): Failure | null {
    return this.busy ? null : (this.thread?.failure ?? this.#refusal);
  }

  get pending(): Pending | null {
    const stored = this.thread ? newest(this.thread) : 0;
    return this.#pending && stored <= this.#pending.after ? this.#pending : null;
  }

  /** False when it was not even stored. */
  async send(text: string, model: string, images: readonly ImageBody[]): Promise<boolean> {
    this.#pending = { text, after: this.#newest };
    const body = { conversation_id: this.id, message: text, model, stream: true };
    const isBegun = await this.#ask(chat(images.length ? { ...body, images: [...images] } : body));
    this.#pending = null;
    return isBegun;
  }

  edit(messageId: number, text: string, model: string): Promise<boolean> {
    return this.#ask(editMessage(this.id, messageId, { message: text, model, stream: true }));
  }

  /** `messageId`: an answer to have another of, or a message of the user that has none. */
  regenerate(messageId: number, model: string): Promise<boolean> {
    return this.#ask(regenerateAnswer(this.id, messageId, { model, stream: true }));
  }

  async stop(): Promise<void> {
    await this.app.run("chats.stop", { id: this.id });
  }

  async choose(messageId: number): Promise<void> {
    await this.app.run("chats.choose", { id: this.id, message_id: messageId });
  }

  /** Until the answer begins; its tokens, and why it failed, come by the feed, as for every other reader. */
  async #ask(request: Request<unknown>): Promise<boolean> {
    const after = this.#newest;
    this.#refusal = null;
    this.#isSending = true;
    try {
      for await (const event of this.app.client.stream(request)) if (event.type !== "message") break;
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (this.#newest > after || error.code === ENGINE_FAILED) return true;
      this.#refusal = { code: error.code, message: error.message };
      return false;
    } finally {
      this.#isSending = false;
    }
  }

  get #newest(): number {
    return this.feed.latest ? newest(this.feed.latest) : 0;
  }

  async #load(): Promise<ConversationView | null> {
    const result = await this.app.connection.call("chats.get", { id: this.id, every_branch: true });
    if (result.ok) this.missing = null;
    else if (result.error.code !== "CONNECTION_LOST") this.missing = result.error.message;
    return result.ok ? result.data : null;
  }
}
