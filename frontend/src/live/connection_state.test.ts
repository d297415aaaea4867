import { describe, expect, it } from "vitest";
import { nextState, retryDelayMs, type ConnectionState } from "./connection_state";

describe("the state of the connection", () => {
  it("waits longer after each refusal, at most ten seconds", () => {
    expect([1, 2, 3, 4, 5, 50].map(retryDelayMs)).toEqual([1000, 2000, 4000, 8000, 10_000, 10_000]);
  });

  it("remembers when it was lost over all attempts", () => {
    let state: ConnectionState = { phase: "online" };
    state = nextState(state, { type: "disconnected", now: 1000 });
    state = nextState(state, { type: "retrying" });
    expect(state).toEqual({ phase: "lost", lostAt: 1000, attempt: 1, retryAt: null });
    state = nextState(state, { type: "refused", now: 2500 });
    expect(state).toEqual({ phase: "lost", lostAt: 1000, attempt: 2, retryAt: 4500 });
  });

  it("knows that a service which never answered was never connected", () => {
    expect(nextState({ phase: "connecting" }, { type: "refused", now: 500 })).toMatchObject({ lostAt: null, attempt: 1 });
  });

  it("starts afresh once connected", () => {
    const lost: ConnectionState = { phase: "lost", lostAt: 1, attempt: 7, retryAt: 9 };
    const again = nextState(nextState(lost, { type: "connected" }), { type: "disconnected", now: 100 });
    expect(again).toMatchObject({ attempt: 1, retryAt: 1100 });
  });

  it("does not lose a connection because an attempt is announced late", () => {
    expect(nextState({ phase: "online" }, { type: "retrying" })).toEqual({ phase: "online" });
  });
});
