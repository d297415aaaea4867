/** The list of conversations, kept up to date by a pure reducer, and how it is laid out. */

import type { Conversation, Topics } from "../protocol.gen";

export interface List {
  readonly conversations: ReadonlyMap<number, Conversation>;
  /** In which an answer is being generated. */
  readonly answering: ReadonlySet<number>;
}

export function listed(records: readonly Conversation[], answering: readonly number[]): List {
  return {
    conversations: new Map(records.map((record) => [record.id, record])),
    answering: new Set(answering),
  };
}

export function changed(list: List, items: readonly Topics["chats"]["item"][]): List {
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

export type Age = "pinned" | "today" | "week" | "older";

export interface Group {
  age: Age;
  conversations: Conversation[];
}

const DAY_MS = 86_400_000;
const AGES: readonly Age[] = ["pinned", "today", "week", "older"];

/** Newest first, in groups that are not empty. `now` in the reader's time zone decides what is today. */
export function grouped(conversations: Iterable<Conversation>, now: number): Group[] {
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  const age = ({ is_pinned, updated_at_ms }: Conversation): Age => {
    if (is_pinned) return "pinned";
    if (updated_at_ms >= midnight) return "today";
    return updated_at_ms >= midnight - 6 * DAY_MS ? "week" : "older";
  };
  const groups = new Map<Age, Conversation[]>(AGES.map((name) => [name, []]));
  for (const one of [...conversations].sort((a, b) => b.updated_at_ms - a.updated_at_ms || b.id - a.id)) {
    groups.get(age(one))!.push(one);
  }
  return AGES.map((name) => ({ age: name, conversations: groups.get(name)! })).filter((g) => g.conversations.length);
}

/** The id `step` places from `id` in the order shown; the first or last one when `id` is not shown. */
export function neighbour(groups: readonly Group[], id: number | null, step: 1 | -1): number | null {
  const ids = groups.flatMap((group) => group.conversations.map((one) => one.id));
  const at = id === null ? -1 : ids.indexOf(id);
  if (at === -1) return (step === 1 ? ids[0] : ids.at(-1)) ?? null;
  return ids[at + step] ?? null;
}
