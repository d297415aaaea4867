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
  /** It has a projector. */
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

export interface UiConversation {
  id: number;
  title: string;
  model: string;
  isPinned: boolean;
  isArchived: boolean;
  createdAtMs: number;
  updatedAtMs: number;
}

export interface UiAttachment {
  id: number;
  mediaType: string;
  name: string;
  sizeBytes: number;
}

export type MessageStatus = "complete" | "generating" | "stopped" | "interrupted";

export interface UiMessage {
  id: number;
  parentId: number | null;
  role: "system" | "user" | "assistant";
  content: string;
  reasoning: string | null;
  model: string | null;
  status: MessageStatus;
  createdAtMs: number;
  /** From sending to the last token. */
  responseMs: number | null;
  promptTokens: number | null;
  tokens: number | null;
  tokensPerSecond: number | null;
  attachments: UiAttachment[];
}

export type ConversationItem =
  | { kind: "upsert"; conversation: UiConversation }
  | { kind: "remove"; id: number };

export type ChatsItem = ConversationItem | { kind: "answering"; id: number; isAnswering: boolean };

/** More of a message; `...At` are the lengths that it had before, in characters of Unicode. */
export interface Growth {
  id: number;
  content: string;
  reasoning: string;
  contentAt: number;
  reasoningAt: number;
}

export type ChatItem =
  | ConversationItem
  | { kind: "message"; message: UiMessage }
  | ({ kind: "grow" } & Growth)
  | { kind: "removeMessage"; id: number }
  | { kind: "failure"; code: string; message: string }
  | { kind: "branches" };

export type ChatTopic = `chat:${number}`;

export type ModelItem = { kind: "upsert"; model: UiModel } | { kind: "remove"; id: number };

/** Per topic: the snapshot's data and one item of a delta. */
export interface Topics {
  models: { data: { models: UiModel[] }; item: ModelItem };
  metrics: { data: { samples: UiSample[] }; item: UiSample };
  engine: { data: { engine: UiEngine }; item: UiEngine };
  requests: { data: { records: UiRequest[] }; item: UiRequest };
  /** Those in flight, all of them in each item, newest first. */
  live: { data: { live: LiveRequest[] }; item: LiveRequest[] };
  /** A snapshot of these two holds only what is not stored; the rest is asked for by `chats.list` and `chats.get`. */
  chats: { data: { answering: number[] }; item: ChatsItem };
  [topic: ChatTopic]: { data: { answer: UiMessage | null }; item: ChatItem };
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

/** null: whatever rules otherwise. */
export interface Sampling {
  temperature: number | null;
  top_p: number | null;
  top_k: number | null;
  min_p: number | null;
  num_predict: number | null;
  repeat_penalty: number | null;
  presence_penalty: number | null;
  frequency_penalty: number | null;
  seed: number | null;
  stop: string[] | null;
  context_history_limit: number | null;
}

export interface ConversationRecord {
  id: number;
  title: string;
  has_automatic_title: boolean;
  model: string;
  /** null: the setting's. */
  system_prompt: string | null;
  sampling: Sampling;
  is_pinned: boolean;
  is_archived: boolean;
  created_at_ms: number;
  updated_at_ms: number;
}

export interface AttachmentRecord {
  id: number;
  media_type: string;
  name: string;
  size_bytes: number;
}

export interface MessageRecord {
  id: number;
  conversation_id: number;
  parent_id: number | null;
  role: UiMessage["role"];
  content: string;
  reasoning: string | null;
  model: string | null;
  status: MessageStatus;
  /** Part of the branch that is read and continued. */
  is_active: boolean;
  created_at_ms: number;
  response_ms: number | null;
  prompt_tokens: number | null;
  tokens: number | null;
  tokens_per_second: number | null;
  attachments: AttachmentRecord[];
}

export interface ConversationView {
  conversation: ConversationRecord;
  messages: MessageRecord[];
}

export interface ConversationChanges {
  title?: string;
  model?: string;
  system_prompt?: string;
  uses_default_system_prompt?: boolean;
  sampling?: Sampling;
  is_pinned?: boolean;
  is_archived?: boolean;
}

/** A message, or without `message_id` a conversation whose title matches. */
export interface Hit {
  conversation_id: number;
  title: string;
  model: string;
  updated_at_ms: number;
  snippet: { text: string; is_match: boolean }[];
  message_id: number | null;
  role: UiMessage["role"] | null;
  created_at_ms: number | null;
}

/** An inference request that has not ended. */
export interface LiveRequest {
  id: string;
  arrived_at_ms: number;
  client: string;
  route: string;
  model: string;
  phase: "queued" | "loading" | "prompt" | "generating";
  /** Of its model, while it is queued. */
  queue: { position: number; requests: number; reason: string; since_ms: number } | null;
  /** Pieces of the answer so far. */
  tokens: number;
  elapsed_ms: number;
  /** In its model's line, while it waits there. */
  position: number | null;
}

interface SearchInput {
  text: string;
  limit: number;
  newest_first: boolean;
  /** The last word may be unfinished. */
  is_typing: boolean;
  /** A newer search of the same client breaks this one off. */
  client: string;
}

type Nothing = Record<string, never>;

/** Operations the UI calls, with what goes in and, where it is used, what comes out. */
export interface Operations {
  "models.scan": { input: Nothing; output: ScanReport };
  "models.load": { input: { id: number; force?: boolean }; output: unknown };
  "models.estimate": { input: { id: number }; output: MemoryReport };
  "models.unload": { input: { id: number }; output: unknown };
  "chats.list": {
    input: { limit: number; archived: null };
    output: { conversations: ConversationRecord[]; answering: number[] };
  };
  "chats.get": { input: { id: number; every_branch: true }; output: ConversationView };
  "chats.create": {
    input: { model: string; system_prompt: string | null; sampling: Sampling };
    output: { conversation: ConversationRecord };
  };
  "chats.update": { input: { id: number } & ConversationChanges; output: { conversation: ConversationRecord } };
  "chats.delete": { input: { id: number }; output: unknown };
  "chats.stop": { input: { id: number }; output: unknown };
  "chats.choose": { input: { id: number; message_id: number }; output: unknown };
  "chats.search": { input: SearchInput; output: { hits: Hit[] } };
  "requests.cancel": { input: { id: string }; output: unknown };
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
