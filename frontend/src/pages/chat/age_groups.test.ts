import { describe, expect, it } from "vitest";
import type { Conversation } from "../../live/protocol.gen";
import { adjacentId, groupByAge } from "./age_groups";

const NOW = new Date(2026, 2, 18, 12).getTime();
const HOUR = 3_600_000;
const at = (id: number, hoursAgo: number, is_pinned = false): Conversation =>
  ({ id, is_pinned, updated_at_ms: NOW - hoursAgo * HOUR }) as Conversation;

describe("conversations by age", () => {
  it("stand in groups, pinned ones first, newest on top", () => {
    const groups = groupByAge([at(1, 2), at(2, 1), at(3, 13), at(4, 24 * 30), at(5, 24 * 40, true)], NOW);
    expect(groups.map((g) => [g.age, g.conversations.map((c) => c.id)])).toEqual([
      ["pinned", [5]],
      ["today", [2, 1]],
      ["week", [3]],
      ["older", [4]],
    ]);
    expect(groupByAge([], NOW)).toEqual([]);
  });

  it("have neighbours in the order shown", () => {
    const groups = groupByAge([at(1, 2), at(2, 1), at(3, 24 * 30)], NOW);
    expect([adjacentId(groups, 2, 1), adjacentId(groups, 1, 1), adjacentId(groups, 2, -1)]).toEqual([1, 3, null]);
    expect([adjacentId(groups, null, 1), adjacentId(groups, null, -1), adjacentId([], null, 1)]).toEqual([2, 3, null]);
  });
});
