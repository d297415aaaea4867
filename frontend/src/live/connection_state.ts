/** State of the connection to the service, as a pure reducer. */

export type ConnectionState =
  | { phase: "connecting" }
  | { phase: "online" }
  /** `lostAt` null: there never was a connection. `retryAt` null: an attempt is under way. */
  | { phase: "lost"; lostAt: number | null; attempt: number; retryAt: number | null };

export type ConnectionEvent =
  | { type: "connected" }
  | { type: "disconnected"; now: number }
  | { type: "refused"; now: number }
  | { type: "retrying" };

/** 1, 2, 4, 8, then 10 s: quick after a short break, and no load on a service that is down for long. */
export function retryDelayMs(attempt: number): number {
  return Math.min(1000 * 2 ** (attempt - 1), 10_000);
}

export function nextState(state: ConnectionState, event: ConnectionEvent): ConnectionState {
  switch (event.type) {
    case "connected":
      return { phase: "online" };
    case "disconnected":
      return { phase: "lost", lostAt: event.now, attempt: 1, retryAt: event.now + retryDelayMs(1) };
    case "refused": {
      const attempt = state.phase === "lost" ? state.attempt + 1 : 1;
      const lostAt = state.phase === "lost" ? state.lostAt : null;
      return { phase: "lost", lostAt, attempt, retryAt: event.now + retryDelayMs(attempt) };
    }
    case "retrying":
      return state.phase === "lost" ? { ...state, retryAt: null } : state;
  }
}
