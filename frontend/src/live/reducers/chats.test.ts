import { expect, it } from "vitest";
import type { Conversation } from "../protocol.gen";
import { applyToList, startList } from "./chats";

const conversation = (id: number): Conversation => ({ id, title: `c${id}` }) as Conversation;

it("the list of conversations follows the items of its topic", () => {
  const list = applyToList(startList([conversation(1)], [1]), [
    { kind: "upsert", conversation: conversation(2) },
    { kind: "answering", id: 2, is_answering: true },
    { kind: "remove", id: 1 },
  ]);
  expect([...list.conversations.keys()]).toEqual([2]);
  expect([...list.answering]).toEqual([2]);
});
