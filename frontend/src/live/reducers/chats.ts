/** The list of conversations, and in which of them an answer is being generated. */

import type { Conversation, Topics } from "../protocol.gen";

export interface ConversationList {
  readonly conversations: ReadonlyMap<number, Conversation>;
  /** Ids of the conversations in which an answer is being generated. */
  readonly answering: ReadonlySet<number>;
}

export function startList(conversations: readonly Conversation[], answering: readonly number[]): ConversationList {
  return { conversations: new Map(conversations.map((one) => [one.id, one])), answering: new Set(answering) };
}

export function applyToList(list: ConversationList, items: readonly Topics["chats"]["item"][]): ConversationList {
  const conversations = new Map(list.conversations);
  const answering = new Set(list.answering);
  for (const item of items) {
    if (item.kind === "upsert") conversations.set(item.conversation.id, item.conversation);
    else if (item.kind === "answering") answering[item.is_answering ? "add" : "delete"](item.id);
    else {
      conversations.delete(item.id);
      answering.delete(item.id);
    }
  }
  return { conversations, answering };
}
