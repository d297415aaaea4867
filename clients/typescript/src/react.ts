/** Hooks for React: the service's state once and on demand, and its live feed. Need react and socket.io-client. */

import { useCallback, useEffect, useRef, useState } from "react";
import { io, type Socket } from "socket.io-client";

import type { EngineConfig, MonitoringData, RegisteredModel } from "./api.js";
import { ApiService } from "./service.js";

/** An array that also says how long it is, as the service does. */
export type ModelArray = RegisteredModel[] & { count: number };

export interface UseApiResult {
  config: EngineConfig | null;
  models: ModelArray | null;
  metrics: MonitoringData | null;
  loading: boolean;
  error: Error | null;
  refetch: () => void;
}

export interface LogEntry {
  id: string;
  timestamp: string;
  level: "error" | "warn" | "info" | "debug";
  source: string;
  message: string;
  metadata?: Record<string, unknown>;
}

export interface WebSocketMessage {
  type: string;
  data: unknown;
  timestamp: number;
  requestId?: string;
}

export interface UseWebSocketResult {
  connected: boolean;
  metrics: MonitoringData | null;
  models: RegisteredModel[] | null;
  logs: LogEntry[] | null;
  sendMessage: (message: WebSocketMessage) => void;
  subscribe: (type: string) => void;
}

type Loaded = Pick<UseApiResult, "config" | "models" | "metrics" | "error">;
type Feed = Pick<UseWebSocketResult, "metrics" | "models" | "logs">;

const NOTHING: Loaded = { config: null, models: null, metrics: null, error: null };
const FEEDS = ["metrics", "models", "logs"] as const;

/** Asks for configuration, models and metrics, and again at each `refetch`. */
export function useApi(base?: string): UseApiResult {
  const [loaded, setLoaded] = useState(NOTHING);
  const [loading, setLoading] = useState(true);
  const [round, setRound] = useState(0);
  useEffect(() => {
    let isCurrent = true;
    setLoading(true);
    void load(new ApiService(base)).then((result) => {
      if (!isCurrent) return;
      setLoaded((before) => (result instanceof Error ? { ...before, error: result } : result));
      setLoading(false);
    });
    return () => {
      isCurrent = false;
    };
  }, [base, round]);
  const refetch = useCallback(() => setRound((n) => n + 1), []);
  return { ...loaded, loading, refetch };
}

async function load(service: ApiService): Promise<Loaded | Error> {
  try {
    const [config, { models, count }, metrics] = await Promise.all([
      service.getConfig(),
      service.getModels(),
      service.getMetrics(),
    ]);
    return { config, models: Object.assign(models, { count }), metrics, error: null };
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** Joins the live feed: metrics, models and logs from the start, other types by `subscribe`. */
export function useWebSocket(base?: string): UseWebSocketResult {
  const [connected, setConnected] = useState(false);
  const [feed, setFeed] = useState<Feed>({ metrics: null, models: null, logs: null });
  const socket = useRef<Socket | null>(null);
  useEffect(() => {
    const options = { path: "/llamaproxws" };
    const joined = base === undefined ? io(options) : io(base, options);
    socket.current = joined;
    joined.on("connect", () => {
      setConnected(true);
      for (const type of FEEDS) joined.emit("subscribe", { type });
    });
    joined.on("disconnect", () => setConnected(false));
    joined.on("metrics_update", (metrics: MonitoringData) => setFeed((before) => ({ ...before, metrics })));
    joined.on("models_update", (update: { models: RegisteredModel[] }) =>
      setFeed((before) => ({ ...before, models: update.models })),
    );
    joined.on("logs_update", (update: { logs: LogEntry[] }) => setFeed((before) => ({ ...before, logs: update.logs })));
    return () => {
      socket.current = null;
      joined.disconnect();
    };
  }, [base]);
  const sendMessage = useCallback((message: WebSocketMessage) => void socket.current?.emit("message", message), []);
  const subscribe = useCallback((type: string) => void socket.current?.emit("subscribe", { type }), []);
  return { connected, ...feed, sendMessage, subscribe };
}
