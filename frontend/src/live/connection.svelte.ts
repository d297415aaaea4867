/** The page's one connection to the service: joined topics, calls of operations, reconnecting. */

import { io, type Socket } from "socket.io-client";
import { nextState, type ConnectionEvent, type ConnectionState } from "./connection_state";
import type { CallResult, Delta, OperationName, Operations, Snapshot, Topic } from "./protocol.gen";

const CONNECTION_LOST = {
  code: "CONNECTION_LOST",
  message: "The connection broke before the service answered.",
} as const;

/** A subscriber receives the messages of its topic. */
export interface Subscriber {
  readonly topic: Topic;
  /** Sequence number to resume from; undefined asks for a snapshot. */
  readonly since: number | undefined;
  onSnapshot(message: Snapshot): void;
  onDelta(message: Delta): void;
}

export class Connection {
  state = $state.raw<ConnectionState>({ phase: "connecting" });
  readonly online = $derived(this.state.phase === "online");

  readonly #socket: Socket;
  readonly #subscribers = new Map<Topic, Subscriber>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `base` is the path below which the service is found: "/" or "/some/prefix/". */
  constructor(base: string) {
    this.#socket = io("/ui", {
      path: `${base}llamaproxws`,
      transports: ["websocket", "polling"],
      tryAllTransports: true,
      // This class retries by itself, so that it can show the time until the next attempt.
      reconnection: false,
    });
    this.#socket.on("connect", () => this.#onConnect());
    this.#socket.on("disconnect", () => this.#dispatch({ type: "disconnected", now: Date.now() }));
    this.#socket.on("connect_error", () => this.#dispatch({ type: "refused", now: Date.now() }));
    this.#socket.on("snapshot", (message: Snapshot) => this.#subscribers.get(message.topic)?.onSnapshot(message));
    this.#socket.on("delta", (message: Delta) => this.#subscribers.get(message.topic)?.onDelta(message));
    addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.retryNow();
    });
  }

  /** Receive a topic until the returned function is called. A topic has one subscriber; a new one replaces the old. */
  join(subscriber: Subscriber): () => void {
    this.#subscribers.set(subscriber.topic, subscriber);
    if (this.#socket.connected) this.#emitJoin(subscriber);
    return () => {
      if (this.#subscribers.get(subscriber.topic) !== subscriber) return;
      this.#subscribers.delete(subscriber.topic);
      if (this.#socket.connected) this.#socket.emit("leave", { topic: subscriber.topic });
    };
  }

  /** Join the subscriber's topic again, from its present `since`. */
  refresh(subscriber: Subscriber): void {
    const isJoined = this.#subscribers.get(subscriber.topic) === subscriber;
    if (this.#socket.connected && isJoined) this.#emitJoin(subscriber);
  }

  /** Call an operation and wait for its result, without a limit. A lost connection is a result, too. */
  async call<O extends OperationName>(operation: O, input: Operations[O]["input"]): Promise<CallResult<O>> {
    const lost: CallResult<O> = { ok: false, error: CONNECTION_LOST };
    if (!this.#socket.connected) return lost;
    return new Promise((resolve) => {
      const onDisconnect = (): void => resolve(lost);
      this.#socket.once("disconnect", onDisconnect);
      this.#socket.emit("call", { operation, input }, (result: CallResult<O>) => {
        this.#socket.off("disconnect", onDisconnect);
        resolve(result);
      });
    });
  }

  retryNow(): void {
    if (this.state.phase !== "lost" || this.state.retryAt === null) return;
    clearTimeout(this.#timer);
    this.#dispatch({ type: "retrying" });
    this.#socket.connect();
  }

  #onConnect(): void {
    this.#dispatch({ type: "connected" });
    for (const subscriber of this.#subscribers.values()) this.#emitJoin(subscriber);
  }

  #emitJoin({ topic, since }: Subscriber): void {
    this.#socket.emit("join", since === undefined ? { topic } : { topic, since });
  }

  #dispatch(event: ConnectionEvent): void {
    this.state = nextState(this.state, event);
    clearTimeout(this.#timer);
    if (this.state.phase === "lost" && this.state.retryAt !== null) {
      this.#timer = setTimeout(() => this.retryNow(), this.state.retryAt - Date.now());
    }
  }
}
