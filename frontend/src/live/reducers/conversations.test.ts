import { describe, expect, it } from "vitest";
import type { Conversation } from "../protocol.gen";
import { changed, grouped, listed, neighbour } from "./conversations";

const NOW = new Date(2026, 2, 18, 12).getTime();
const HOUR = 3_600_000;
const at = (id: number, hoursAgo: number, is_pinned = false): Conversation =>
  ({ id, title: `c${id}`, is_pinned, updated_at_ms: NOW - hoursAgo * HOUR }) as Conversation;

describe("the list of conversations", () => {
  it("is laid out by age, pinned ones first, newest on top", () => {
    const groups = grouped([at(1, 2), at(2, 1), at(3, 13), at(4, 24 * 30), at(5, 24 * 40, true)], NOW);
    expect(groups.map((g) => [g.age, g.conversations.map((c) => c.id)])).toEqual([
      ["pinned", [5]],
      ["today", [2, 1]],
      ["week", [3]],
      ["older", [4]],
    ]);
    expect(grouped([], NOW)).toEqual([]);
  });

  it("knows the neighbours in the order shown", () => {
    const groups = grouped([at(1, 2), at(2, 1), at(3, 24 * 30)], NOW);
    expect([neighbour(groups, 2, 1), neighbour(groups, 1, 1), neighbour(groups, 2, -1)]).toEqual([1, 3, null]);
    expect([neighbour(groups, null, 1), neighbour(groups, null, -1), neighbour([], null, 1)]).toEqual([2, 3, null]);
  });

  it("follows what is told of it", () => {
    const record = { id: 1, title: "One", is_pinned: false, is_archived: false } as Conversation;
    const list = changed(listed([record], [1]), [
      { kind: "upsert", conversation: at(2, 1) },
      { kind: "answering", id: 2, is_answering: true },
      { kind: "remove", id: 1 },
    ]);
    expect([...list.conversations.keys()]).toEqual([2]);
    expect([...list.answering]).toEqual([2]);
  });
});
