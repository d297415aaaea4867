/** A conversation's tree of messages, kept up to date by a pure reducer. */

import type { Conversation, ConversationView, Message, MessageGrow, Topics } from "../protocol.gen";

export type ChatTopic = `chat:${number}`;
export type ChatItem = Topics[ChatTopic]["item"];

/** Why there is no whole answer. */
export interface Failure {
  code: string;
  message: string;
}

export interface Thread {
  readonly conversation: Conversation;
  readonly messages: ReadonlyMap<number, Message>;
  /** Ids of the messages that follow one, oldest first; null: the first ones. */
  readonly children: ReadonlyMap<number | null, readonly number[]>;
  /** The last message of the branch that is read. */
  readonly leaf: number | null;
  readonly failure: Failure | null;
  /** The conversation was deleted. */
  readonly isGone: boolean;
  /** Only the service knows how it goes on from here. */
  readonly isUnclear: boolean;
  /** Lengths in characters of the message that grows. */
  readonly grown: { id: number; content: number; reasoning: number } | null;
}

/** `answer` is the one being generated, which may be further than what is stored of it. */
export function begun(view: ConversationView, answer: Message | null, old: Thread | null): Thread {
  const messages = new Map(view.messages.map((record) => [record.id, record]));
  const leaf = view.messages.reduce<number | null>((last, m) => (m.is_active ? Math.max(last ?? 0, m.id) : last), null);
  const thread = shaped({
    conversation: view.conversation,
    messages,
    children: new Map(),
    leaf,
    failure: old && newest(old) >= Math.max(0, ...messages.keys()) ? old.failure : null,
    isGone: false,
    isUnclear: false,
    grown: null,
  });
  return answer ? put(thread, answer) : thread;
}

export function applied(thread: Thread, items: readonly ChatItem[]): Thread {
  return items.reduce(one, thread);
}

function one(thread: Thread, item: ChatItem): Thread {
  switch (item.kind) {
    case "upsert":
      return { ...thread, conversation: item.conversation };
    case "remove":
      return { ...thread, isGone: true };
    case "message":
      return put(thread, item.message);
    case "grow":
      return grow(thread, item);
    case "remove_message": {
      // What is read instead may be another branch.
      const messages = new Map(thread.messages);
      const removed = messages.get(item.id);
      messages.delete(item.id);
      const leaf = thread.leaf === item.id ? (removed?.parent_id ?? null) : thread.leaf;
      return shaped({ ...thread, messages, leaf, isUnclear: true });
    }
    case "failure":
      return { ...thread, failure: { code: item.code, message: item.message } };
    case "branches":
      return { ...thread, isUnclear: true };
  }
}

/** A message that was not known is the end of what is read, as that is where every new one goes. */
function put(thread: Thread, message: Message): Thread {
  const known = thread.messages.get(message.id);
  if (known && !isFresher(message, known)) return thread;
  const messages = new Map(thread.messages).set(message.id, message);
  if (known) return { ...thread, messages, grown: null };
  return shaped({ ...thread, messages, leaf: message.id, failure: null, grown: null });
}

/** What is complete does not change any more, what is not only grows. */
function isFresher(message: Message, known: Message): boolean {
  if (known.status !== "generating") return false;
  return message.status !== "generating" || extent(message) > extent(known);
}

const extent = (message: Message): number => message.content.length + (message.reasoning?.length ?? 0);

function grow(thread: Thread, growth: MessageGrow): Thread {
  const old = thread.messages.get(growth.id);
  if (!old) return { ...thread, isUnclear: true };
  if (old.status !== "generating") return thread;
  const had = thread.grown?.id === old.id ? thread.grown : lengths(old);
  if (had.content < growth.content_at || had.reasoning < growth.reasoning_at) return { ...thread, isUnclear: true };
  const content = tail(growth.content, had.content - growth.content_at);
  const reasoning = tail(growth.reasoning, had.reasoning - growth.reasoning_at);
  if (!content && !reasoning) return thread;
  const message = { ...old, content: old.content + content, reasoning: (old.reasoning ?? "") + reasoning || null };
  return {
    ...thread,
    messages: new Map(thread.messages).set(old.id, message),
    grown: { id: old.id, content: had.content + size(content), reasoning: had.reasoning + size(reasoning) },
  };
}

const lengths = (message: Message) => ({
  id: message.id,
  content: size(message.content),
  reasoning: size(message.reasoning ?? ""),
});

/** Characters of Unicode, as the service counts; a string's own length counts some twice. */
const size = (text: string): number => text.length - (text.match(/[\ud800-\udbff][\udc00-\udfff]/g)?.length ?? 0);

const tail = (text: string, from: number): string => (from === 0 ? text : [...text].slice(from).join(""));

function shaped(thread: Thread): Thread {
  const children = new Map<number | null, number[]>();
  for (const { id, parent_id } of [...thread.messages.values()].sort((a, b) => a.id - b.id)) {
    const known = children.get(parent_id);
    if (known) known.push(id);
    else children.set(parent_id, [id]);
  }
  return { ...thread, children };
}

// --- reading ---------------------------------------------------------------------------------------------------------

/** The branch that is read, oldest first. */
export function path(thread: Thread): Message[] {
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

/** Ids of the messages in whose place a message stands, itself included. */
export const alternatives = (thread: Thread, message: Message): readonly number[] =>
  thread.children.get(message.parent_id) ?? [message.id];

/** Highest id so far; 0 without any. */
export const newest = (thread: Thread): number => Math.max(0, ...thread.messages.keys());

export function isAnswering(thread: Thread): boolean {
  const last = thread.leaf === null ? undefined : thread.messages.get(thread.leaf);
  return last?.status === "generating";
}
