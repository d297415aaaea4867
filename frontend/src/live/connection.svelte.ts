/** The one connection to the service: who is joined to what, calls with an answer, and reconnecting. */

import { io, type Socket } from "socket.io-client";
import { text } from "../app/strings";
import type { CallResult, Delta, OperationName, Operations, Snapshot, Topic } from "./protocol.gen";
import { linked, type LinkEvent, type LinkState } from "./connection_state";

/** What a topic's messages go to. */
export interface Listener {
  readonly topic: Topic;
  /** Sequence number to resume from; undefined asks for a snapshot. */
  readonly since: number | undefined;
  onSnapshot(message: Snapshot): void;
  onDelta(message: Delta): void;
}

export class Connection {
  state = $state.raw<LinkState>({ phase: "connecting" });
  readonly online = $derived(this.state.phase === "online");

  readonly #socket: Socket;
  readonly #listeners = new Map<Topic, Listener>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(base: string) {
    this.#socket = io("/ui", {
      path: `${base}llamaproxws`,
      transports: ["websocket", "polling"],
      tryAllTransports: true,
      // Retried here, so that the time until the next attempt is known and can be shown.
      reconnection: false,
    });
    this.#socket.on("connect", () => this.#connected());
    this.#socket.on("disconnect", () => this.#move({ type: "disconnected", now: Date.now() }));
    this.#socket.on("connect_error", () => this.#move({ type: "refused", now: Date.now() }));
    this.#socket.on("snapshot", (message: Snapshot) => this.#listeners.get(message.topic)?.onSnapshot(message));
    this.#socket.on("delta", (message: Delta) => this.#listeners.get(message.topic)?.onDelta(message));
    addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.retryNow();
    });
  }

  /** Receive a topic until the returned function is called. One listener per topic. */
  join(listener: Listener): () => void {
    this.#listeners.set(listener.topic, listener);
    if (this.#socket.connected) this.#emitJoin(listener);
    return () => {
      if (this.#listeners.get(listener.topic) !== listener) return;
      this.#listeners.delete(listener.topic);
      if (this.#socket.connected) this.#socket.emit("leave", { topic: listener.topic });
    };
  }

  /** Have the listener's topic begin anew, with what `since` says now. */
  refresh(listener: Listener): void {
    if (this.#socket.connected && this.#listeners.get(listener.topic) === listener) this.#emitJoin(listener);
  }

  /** The answer, however long it takes; a broken connection is an answer too. */
  async call<O extends OperationName>(operation: O, input: Operations[O]["input"]): Promise<CallResult<O>> {
    const unanswered: CallResult<O> = { ok: false, error: { code: "CONNECTION_LOST", message: text.call.unanswered } };
    if (!this.#socket.connected) return unanswered;
    return new Promise((resolve) => {
      const broken = (): void => resolve(unanswered);
      this.#socket.once("disconnect", broken);
      this.#socket.emit("call", { operation, input }, (result: CallResult<O>) => {
        this.#socket.off("disconnect", broken);
        resolve(result);
      });
    });
  }

  retryNow(): void {
    if (this.state.phase !== "lost" || this.state.retryAt === null) return;
    clearTimeout(this.#timer);
    this.#move({ type: "retrying" });
    this.#socket.connect();
  }

  #connected(): void {
    this.#move({ type: "connected" });
    for (const listener of this.#listeners.values()) this.#emitJoin(listener);
  }

  #emitJoin({ topic, since }: Listener): void {
    this.#socket.emit("join", since === undefined ? { topic } : { topic, since });
  }

  #move(event: LinkEvent): void {
    this.state = linked(this.state, event);
    clearTimeout(this.#timer);
    if (this.state.phase === "lost" && this.state.retryAt !== null) {
      this.#timer = setTimeout(() => this.retryNow(), this.state.retryAt - Date.now());
    }
  }
}
