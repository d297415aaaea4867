/** The conversation on the page: its messages as they grow, and the requests about it. An answer goes on after the page is left. */

import { chat, editMessage, regenerateAnswer, type ImageBody } from "../../../../clients/typescript/src/api";
import { ApiError, type Request } from "../../../../clients/typescript/src/request";
import type { AppContext } from "../../app/context.svelte";
import type { ConversationView, Message } from "../../live/protocol.gen";
import {
  activeBranch,
  applyToThread,
  isAnswering,
  lastMessageId,
  startThread,
  type ChatError,
  type ChatTopic,
  type Thread,
} from "../../live/reducers/chat";
import { ResumableFeed } from "../../live/resumable_feed.svelte";

/** A sent message that the service has not stored yet. */
export interface PendingMessage {
  text: string;
  /** Id of the newest message before it. */
  after: number;
}

/** With this error the service has stored the message; only the answer is missing. */
const ENGINE_FAILED = "LLAMACPP_ERROR";

export class OpenConversation {
  readonly feed: ResumableFeed<ChatTopic, ConversationView, Thread>;
  /** Why the conversation cannot be read; null while it can. */
  missing = $state<string | null>(null);

  #pending = $state.raw<PendingMessage | null>(null);
  #isSending = $state(false);
  #refusal = $state.raw<ChatError | null>(null);

  constructor(
    readonly id: number,
    readonly app: AppContext,
  ) {
    this.feed = new ResumableFeed<ChatTopic, ConversationView, Thread>(
      {
        topic: `chat:${id}`,
        load: () => this.#load(),
        start: (view, { answer }, previous) => startThread(view, answer, previous),
        apply: applyToThread,
        needsReload: (thread) => thread.needsReload,
      },
      true,
    );
  }

  // These are no $derived: one would end with the component that made this object, which outlives it.

  get thread(): Thread | null {
    return this.feed.data;
  }

  /** Messages of the active branch, oldest first. */
  get messages(): readonly Message[] {
    return this.thread ? activeBranch(this.thread) : [];
  }

  get isAnswering(): boolean {
    return this.thread !== null && isAnswering(this.thread);
  }

  get busy(): boolean {
    return this.#isSending || this.isAnswering;
  }

  get error(): ChatError | null {
    return this.busy ? null : (this.thread?.error ?? this.#refusal);
  }

  get pending(): PendingMessage | null {
    const stored = this.thread ? lastMessageId(this.thread) : 0;
    return this.#pending && stored <= this.#pending.after ? this.#pending : null;
  }

  /** Send a message. False when the service did not store it. */
  async send(text: string, model: string, images: readonly ImageBody[]): Promise<boolean> {
    this.#pending = { text, after: this.#lastId };
    const body = { conversation_id: this.id, message: text, model, stream: true };
    const isStored = await this.#request(chat(images.length ? { ...body, images: [...images] } : body));
    this.#pending = null;
    return isStored;
  }

  edit(messageId: number, text: string, model: string): Promise<boolean> {
    return this.#request(editMessage(this.id, messageId, { message: text, model, stream: true }));
  }

  /** Answer again. `messageId` names an answer, or a message of the user that has none. */
  regenerate(messageId: number, model: string): Promise<boolean> {
    return this.#request(regenerateAnswer(this.id, messageId, { model, stream: true }));
  }

  async stop(): Promise<void> {
    await this.app.run("chats.stop", { id: this.id });
  }

  /** Make the branch with this message the active one. */
  async chooseBranch(messageId: number): Promise<void> {
    await this.app.run("chats.choose", { id: this.id, message_id: messageId });
  }

  /** Wait until the answer begins. Its text and its errors arrive by the feed, as for every other reader. */
  async #request(request: Request<unknown>): Promise<boolean> {
    const after = this.#lastId;
    this.#refusal = null;
    this.#isSending = true;
    try {
      for await (const event of this.app.client.stream(request)) if (event.type !== "message") break;
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (this.#lastId > after || error.code === ENGINE_FAILED) return true;
      this.#refusal = { code: error.code, message: error.message };
      return false;
    } finally {
      this.#isSending = false;
    }
  }

  get #lastId(): number {
    return this.feed.latest ? lastMessageId(this.feed.latest) : 0;
  }

  async #load(): Promise<ConversationView | null> {
    const result = await this.app.connection.call("chats.get", { id: this.id, every_branch: true });
    if (result.ok) this.missing = null;
    else if (result.error.code !== "CONNECTION_LOST") this.missing = result.error.message;
    return result.ok ? result.data : null;
  }
}
