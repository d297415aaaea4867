import { describe, expect, it } from "vitest";
import { isBusy, next, turns, type Answer, type Thread, type ThreadEvent } from "./thread";

const asked: ThreadEvent = { type: "asked", text: "Hello", model: "qwen", modelName: "Qwen", now: 1000 };
const play = (...events: ThreadEvent[]): Thread => events.reduce<Thread>(next, []);
const answer = (thread: Thread): Answer => thread.at(-1) as Answer;
const words = (text: string): ThreadEvent => ({ type: "received", pieces: [{ kind: "text", text }], now: 1500 });

describe("a conversation", () => {
  it("grows by a question and its answer", () => {
    const thread = play(asked, words("Hi"), words(" there"), { type: "finished" });
    expect(thread.map((m) => [m.role, m.text])).toEqual([
      ["user", "Hello"],
      ["assistant", "Hi there"],
    ]);
    expect(answer(thread)).toMatchObject({ status: "done", firstAtMs: 1500, askedAtMs: 1000 });
  });

  it("is busy from the question to the end of the answer", () => {
    expect(isBusy([])).toBe(false);
    expect(isBusy(play(asked))).toBe(true);
    expect(isBusy(play(asked, words("Hi")))).toBe(true);
    expect(isBusy(play(asked, words("Hi"), { type: "stopped" }))).toBe(false);
  });

  it("leaves finished messages alone, so that they are not drawn again", () => {
    const before = play(asked, words("Hi"), { type: "finished" }, asked);
    const after = next(before, words("More"));
    expect(after.slice(0, 3).every((message, index) => message === before[index])).toBe(true);
  });

  it("keeps thoughts out of the answer and of what the model is told", () => {
    const thread = play(asked, { type: "received", pieces: [{ kind: "thinking", text: "Hm" }], now: 1200 }, words("Hi"));
    expect(answer(thread)).toMatchObject({ thinking: "Hm", text: "Hi", firstAtMs: 1200 });
    expect(turns(thread)).toEqual([
      { role: "user", content: "Hello" },
      { role: "assistant", content: "Hi" },
    ]);
  });

  it("keeps what a stopped answer had, and does not send an empty one", () => {
    expect(turns(play(asked, words("Half"), { type: "stopped" })).at(-1)?.content).toBe("Half");
    expect(turns(play(asked, { type: "failed", message: "m", hint: "h" }))).toEqual([{ role: "user", content: "Hello" }]);
  });

  it("tries again in place of the failed answer, with a new identity", () => {
    const failed = play(asked, { type: "failed", message: "gone", hint: "wait" });
    const again = next(failed, { type: "retried", model: "gemma", modelName: "Gemma", now: 9000 });
    expect(again).toHaveLength(2);
    expect(answer(again)).toMatchObject({ model: "gemma", status: "waiting", error: null });
    expect(answer(again).id).not.toBe(answer(failed).id);
  });

  it("does not lose a measurement to a later chunk that knows less", () => {
    const timings = { promptMs: 10, tokens: 3, tokensPerSecond: 50 };
    const usage = { promptMs: null, tokens: 3, tokensPerSecond: null };
    const pieces = [timings, usage].map((t) => ({ kind: "timings" as const, timings: t }));
    expect(answer(play(asked, { type: "received", pieces, now: 1 })).timings).toEqual(timings);
  });
});
