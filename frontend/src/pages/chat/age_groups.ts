/** Conversations of the list in groups by age, newest first. */

import type { Conversation } from "../../live/protocol.gen";

export type Age = "pinned" | "today" | "week" | "older";

export interface AgeGroup {
  age: Age;
  conversations: Conversation[];
}

const DAY_MS = 86_400_000;
const AGES: readonly Age[] = ["pinned", "today", "week", "older"];

/** Groups that are not empty. `now` decides what is today, in the reader's time zone. */
export function groupByAge(conversations: Iterable<Conversation>, now: number): AgeGroup[] {
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  const ageOf = ({ is_pinned, updated_at_ms }: Conversation): Age => {
    if (is_pinned) return "pinned";
    if (updated_at_ms >= midnight) return "today";
    return updated_at_ms >= midnight - 6 * DAY_MS ? "week" : "older";
  };
  const groups = new Map<Age, Conversation[]>(AGES.map((age) => [age, []]));
  for (const one of [...conversations].sort((a, b) => b.updated_at_ms - a.updated_at_ms || b.id - a.id)) {
    groups.get(ageOf(one))!.push(one);
  }
  return AGES.map((age) => ({ age, conversations: groups.get(age)! })).filter((group) => group.conversations.length);
}

/** Id of the conversation before (-1) or after (1) another in the order shown; of the last or first when `id` is not shown. */
export function adjacentId(groups: readonly AgeGroup[], id: number | null, step: 1 | -1): number | null {
  const ids = groups.flatMap((group) => group.conversations.map((one) => one.id));
  const at = id === null ? -1 : ids.indexOf(id);
  if (at === -1) return (step === 1 ? ids[0] : ids.at(-1)) ?? null;
  return ids[at + step] ?? null;
}
