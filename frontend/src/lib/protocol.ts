/**
 * What travels on the namespace `/ui`. Sizes are bytes, times milliseconds since the Unix epoch unless the name says
 * otherwise; `null` always means "not known".
 */

export type ModelKind = "chat" | "embedding" | "rerank";
export type ModelStatus = "unloaded" | "queued" | "loading" | "ready" | "sleeping" | "stopping" | "failed";

export interface LoadProgress {
  /** What the engine does now, in its own words. */
  stage: string;
  /** 0 to 1 of the stage. */
  fraction: number;
  startedAtMs: number;
}

/** Who waits for a model that has no place, or whose turn is over. */
export interface QueueState {
  /** Of the model among all that wait, counted from 1. */
  position: number;
  /** How many wait for this model. */
  requests: number;
  /** Why, in the service's words. */
  reason: string;
  /** Arrival of the request that has waited longest. */
  sinceMs: number;
}

export interface UiModel {
  id: number;
  slug: string;
  name: string;
  path: string;
  kind: ModelKind;
  architecture: string;
  parameterCount: number | null;
  quantization: string | null;
  sizeBytes: number;
  /** Tokens the model was trained for. */
  contextLength: number | null;
  isFavorite: boolean;
  seesImages: boolean;
  status: ModelStatus;
  queue: QueueState | null;
  progress: LoadProgress | null;
  error: string | null;
  logTail: string[];
  loadedAtMs: number | null;
  loadDurationMs: number | null;
  /** Tokens per slot while loaded. */
  contextSize: number | null;
  slots: number | null;
  rssBytes: number | null;
  pid: number | null;
  restarts: number;
  lastUsedAtMs: number | null;
}

export interface UiGpu {
  index: number;
  name: string;
  vendor: string;
  /** Percent. */
  usage: number | null;
  memoryUsed: number | null;
  memoryTotal: number | null;
  /** Degrees Celsius. */
  temperature: number | null;
  /** Watts. */
  power: number | null;
}

export interface UiSample {
  t: number;
  /** Percent of all cores. */
  cpu: number;
  memoryUsed: number;
  memoryTotal: number;
  swapUsed: number;
  swapTotal: number;
  diskUsed: number;
  diskTotal: number;
  gpus: UiGpu[];
  modelsLoaded: number;
  modelsMemory: number;
  requestsTotal: number;
  requestsActive: number;
  /** Mean of the last minute. */
  responseMs: number | null;
  uptimeS: number;
}

export interface UiEngine {
  status: "idle" | "running" | "error";
  kind: string;
  binary: string | null;
  version: string | null;
  error: string | null;
  startedAtMs: number | null;
  serviceVersion: string;
  modelsDir: string;
  url: string;
}

export interface UiRequest {
  id: string;
  t: number;
  route: string;
  model: string;
  /** HTTP status. */
  status: number;
  streamed: boolean;
  firstTokenMs: number | null;
  totalMs: number;
  promptTokens: number | null;
  completionTokens: number | null;
  tokensPerSecond: number | null;
  error: string | null;
}

export type ModelItem = { kind: "upsert"; model: UiModel } | { kind: "remove"; id: number };

/** Per topic: the snapshot's data and one item of a delta. */
export interface Topics {
  models: { data: { models: UiModel[] }; item: ModelItem };
  metrics: { data: { samples: UiSample[] }; item: UiSample };
  engine: { data: { engine: UiEngine }; item: UiEngine };
  requests: { data: { records: UiRequest[] }; item: UiRequest };
}
export type Topic = keyof Topics;

export interface Snapshot<T extends Topic = Topic> {
  topic: T;
  seq: number;
  data: Topics[T]["data"];
}

export interface Delta<T extends Topic = Topic> {
  topic: T;
  seq: number;
  items: Topics[T]["item"][];
  /** How many items were lost before these because this client was slow. */
  dropped: number;
}

export interface ScanReport {
  /** New models. */
  scanned: number;
  /** Known ones whose file changed. */
  updated: number;
  /** All there are now. */
  total: number;
  /** Files that look like models and are none. */
  failed: { path: string; reason: string }[];
}

/** Bytes. */
export interface MemoryUse {
  host_bytes: number;
  gpu_bytes: number;
}

/** What a load would take, and what it really takes once it is there. */
export interface MemoryReport {
  use: MemoryUse;
  fits: "yes" | "after_evictions" | "host_only" | "tight" | "no";
  /** Options with which it would fit, each set enough by itself. */
  alternatives: Record<string, string | number | boolean>[];
  measured_host_bytes: number | null;
  measured_gpu_bytes: number | null;
  /** By the engine itself, after the load. */
  counted: MemoryUse | null;
}

type Nothing = Record<string, never>;

/** Operations the UI calls, with what goes in and, where it is used, what comes out. */
export interface Operations {
  "models.scan": { input: Nothing; output: ScanReport };
  "models.load": { input: { id: number; force?: boolean }; output: unknown };
  "models.estimate": { input: { id: number }; output: MemoryReport };
  "models.unload": { input: { id: number }; output: unknown };
  "engine.start": { input: Nothing; output: unknown };
  "engine.stop": { input: Nothing; output: unknown };
  "engine.restart": { input: Nothing; output: unknown };
}
export type Operation = keyof Operations;

export interface CallError {
  code: string;
  message: string;
  field?: string;
  details?: string;
}

export type CallResult<O extends Operation> =
  | { ok: true; data: Operations[O]["output"] }
  | { ok: false; error: CallError };
