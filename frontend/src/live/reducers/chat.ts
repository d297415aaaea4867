/** One conversation's tree of messages: how it starts from the stored messages and grows by the items of its topic. */

import type { AnswerFailure, Conversation, ConversationView, Message, MessageGrow, Topics } from "../protocol.gen";

export type ChatTopic = `chat:${number}`;
export type ChatItem = Topics[ChatTopic]["item"];

/** Why there is no complete answer. */
export type ChatError = Pick<AnswerFailure, "code" | "message">;

export interface Thread {
  readonly conversation: Conversation;
  readonly messages: ReadonlyMap<number, Message>;
  /** Ids of the messages that follow a message, oldest first; those of null begin the conversation. */
  readonly children: ReadonlyMap<number | null, readonly number[]>;
  /** Id of the last message of the active branch. */
  readonly leaf: number | null;
  readonly error: ChatError | null;
  readonly isDeleted: boolean;
  /** True when only the service knows how the conversation goes on. */
  readonly needsReload: boolean;
  /** Lengths of the growing message's text, in characters. */
  readonly growing: TextLengths | null;
}

interface TextLengths {
  id: number;
  content: number;
  reasoning: number;
}

/** `answer` is the message that is being generated; its text may be longer than the stored one. */
export function startThread(view: ConversationView, answer: Message | null, previous: Thread | null): Thread {
  const messages = new Map(view.messages.map((message) => [message.id, message]));
  const leaf = view.messages.reduce<number | null>((last, m) => (m.is_active ? Math.max(last ?? 0, m.id) : last), null);
  const thread = withChildren({
    conversation: view.conversation,
    messages,
    children: new Map(),
    leaf,
    error: previous && lastMessageId(previous) >= Math.max(0, ...messages.keys()) ? previous.error : null,
    isDeleted: false,
    needsReload: false,
    growing: null,
  });
  return answer ? putMessage(thread, answer) : thread;
}

export function applyToThread(thread: Thread, items: readonly ChatItem[]): Thread {
  return items.reduce(applyItem, thread);
}

function applyItem(thread: Thread, item: ChatItem): Thread {
  switch (item.kind) {
    case "upsert":
      return { ...thread, conversation: item.conversation };
    case "remove":
      return { ...thread, isDeleted: true };
    case "message":
      return putMessage(thread, item.message);
    case "grow":
      return appendText(thread, item);
    case "remove_message": {
      // Another branch may be active now, so the messages are loaded again.
      const messages = new Map(thread.messages);
      const removed = messages.get(item.id);
      messages.delete(item.id);
      const leaf = thread.leaf === item.id ? (removed?.parent_id ?? null) : thread.leaf;
      return withChildren({ ...thread, messages, leaf, needsReload: true });
    }
    case "failure":
      return { ...thread, error: { code: item.code, message: item.message } };
    case "branches":
      return { ...thread, needsReload: true };
  }
}

/** Store a message. A new one becomes the end of the active branch, as every new message does. */
function putMessage(thread: Thread, message: Message): Thread {
  const known = thread.messages.get(message.id);
  if (known && !isNewer(message, known)) return thread;
  const messages = new Map(thread.messages).set(message.id, message);
  if (known) return { ...thread, messages, growing: null };
  return withChildren({ ...thread, messages, leaf: message.id, error: null, growing: null });
}

/** A complete message never changes; one that is being generated only grows. */
function isNewer(message: Message, known: Message): boolean {
  if (known.status !== "generating") return false;
  return message.status !== "generating" || textLength(message) > textLength(known);
}

const textLength = (message: Message): number => message.content.length + (message.reasoning?.length ?? 0);

function appendText(thread: Thread, grow: MessageGrow): Thread {
  const old = thread.messages.get(grow.id);
  if (!old) return { ...thread, needsReload: true };
  if (old.status !== "generating") return thread;
  const had = thread.growing?.id === old.id ? thread.growing : lengthsOf(old);
  if (had.content < grow.content_at || had.reasoning < grow.reasoning_at) return { ...thread, needsReload: true };
  const content = characterSlice(grow.content, had.content - grow.content_at);
  const reasoning = characterSlice(grow.reasoning, had.reasoning - grow.reasoning_at);
  if (!content && !reasoning) return thread;
  const message = { ...old, content: old.content + content, reasoning: (old.reasoning ?? "") + reasoning || null };
  return {
    ...thread,
    messages: new Map(thread.messages).set(old.id, message),
    growing: {
      id: old.id,
      content: had.content + characterCount(content),
      reasoning: had.reasoning + characterCount(reasoning),
    },
  };
}

const lengthsOf = (message: Message): TextLengths => ({
  id: message.id,
  content: characterCount(message.content),
  reasoning: characterCount(message.reasoning ?? ""),
});

/** Characters of Unicode, as the service counts; `length` of a string counts some of them twice. */
const characterCount = (text: string): number =>
  text.length - (text.match(/[\ud800-\udbff][\udc00-\udfff]/g)?.length ?? 0);

const characterSlice = (text: string, from: number): string => (from === 0 ? text : [...text].slice(from).join(""));

function withChildren(thread: Thread): Thread {
  const children = new Map<number | null, number[]>();
  for (const { id, parent_id } of [...thread.messages.values()].sort((a, b) => a.id - b.id)) {
    const known = children.get(parent_id);
    if (known) known.push(id);
    else children.set(parent_id, [id]);
  }
  return { ...thread, children };
}

// --- reading ---------------------------------------------------------------------------------------------------------

/** Messages of the active branch, oldest first. */
export function activeBranch(thread: Thread): Message[] {
  const found: Message[] = [];
  let id = thread.leaf;
  while (id !== null) {
    const message = thread.messages.get(id);
    if (!message) break;
    found.push(message);
    id = message.parent_id;
  }
  return found.reverse();
}

/** Ids of the messages with the same parent, the message's own included. */
export const siblings = (thread: Thread, message: Message): readonly number[] =>
  thread.children.get(message.parent_id) ?? [message.id];

/** Highest id of a message; 0 without any. */
export const lastMessageId = (thread: Thread): number => Math.max(0, ...thread.messages.keys());

export function isAnswering(thread: Thread): boolean {
  const last = thread.leaf === null ? undefined : thread.messages.get(thread.leaf);
  return last?.status === "generating";
}
