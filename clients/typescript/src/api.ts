// Every operation of the REST interface, typed. Made by clients/generate.py from the OpenAPI document.

import { pathOf, type Request } from "./request.js";

export interface Amount {
  free: number;
  total: number;
  usagePercent: number;
  used: number;
}

export interface AnswerStopped {
  message: MessageInfo | null;
  /** An answer was being generated. */
  stopped: boolean;
  success?: true;
}

export interface ApplicationStatus {
  /** Always production: there is but one way to run the service. */
  environment: string;
  name: string;
  start_time: string;
  uptime: number;
  version: string;
}

export interface AttachmentInfo {
  id: number;
  media_type: string;
  name: string;
  /** Bytes. */
  size: number;
  url: string;
}

export interface BrokenModelFile {
  path: string;
  reason: string;
}

export interface CancelledData {
  /** Several when clients gave them the same id. */
  cancelled: RunningRequest[];
}

export interface Change {
  after?: string | null;
  /** Absent: it was not there. */
  before?: string | null;
  key: string;
  section: string;
}

export interface ChangesBody {
  /** Values by key; null removes one, what is absent stays. */
  config: Record<string, string | number | boolean | null>;
}

export interface ChatAnswer {
  conversation_id: number;
  estimated_tokens: number;
  /** Of the answer. */
  message_id: number;
  metrics: ChatMetrics;
  model: string;
  reasoning: string | null;
  response: string;
  response_time_ms: number;
  status: "complete" | "generating" | "stopped" | "interrupted";
}

export interface ChatBody {
  conversation_id: number;
  images?: ImageBody[];
  message: string;
  model: string;
  /** Server-sent events instead of one JSON answer. */
  stream?: boolean;
}

export interface ChatMetrics {
  completion_tokens: number;
  /** Oldest messages that the model's context does not hold, so that it did not get them; null: not known any more. */
  omitted_messages: number | null;
  /** null: the engine did not say. */
  prompt_tokens: number | null;
  tokens_per_second: number | null;
  total_tokens: number;
}

export interface CleanedUpModels {
  deleted: string[];
  deletedCount: number;
}

export interface ConfigAnswer {
  data: EngineConfig;
  model_options: SamplingDefaults;
  performance: Performance;
  response_optimization: ResponseOptimization;
  /** Every setting, nested as in the configuration file. */
  settings: Record<string, unknown>;
  success?: true;
  timeouts: Timeouts;
  timestamp?: string;
}

/** Any part of the configuration file; what is absent keeps its value. */
export interface ConfigBody {
  basePath?: string;
  batch_size?: number;
  ctx_size?: number;
  gpu_layers?: number;
  host?: string;
  port?: number;
  serverPath?: string;
  threads?: number;
}

export interface ConfigUpdatedAnswer {
  data: EngineConfig;
  message?: string | null;
  /** Keys that the command line or the environment set at the next start. */
  overridden: string[];
  restartRequired: boolean;
  success?: true;
  timestamp?: string;
  warnings: string[];
}

export interface ConversationAnswer {
  conversation: ConversationDetails;
  messages: MessageInfo[];
  stats: ConversationTotals;
}

/** What is absent keeps its value. A system_prompt of null is the setting's; `options` replaces all of them. */
export interface ConversationChangesBody {
  archived?: boolean;
  model?: string;
  options?: SamplingOptions;
  pinned?: boolean;
  system_prompt?: string | null;
  title?: string;
}

export interface ConversationCreated {
  conversation_id: number;
}

export interface ConversationDetails {
  /** An answer is being generated. */
  answering: boolean;
  archived: boolean;
  created_at: string;
  id: number;
  model: string;
  options: SamplingOptions;
  pinned: boolean;
  /** null: the setting chat.systemPrompt. */
  system_prompt: string | null;
  title: string;
  updated_at: string;
}

export interface ConversationInfo {
  /** An answer is being generated. */
  answering: boolean;
  archived: boolean;
  created_at: string;
  id: number;
  model: string;
  pinned: boolean;
  title: string;
  updated_at: string;
}

export interface ConversationStats {
  by_role: RoleStats[];
  summary: ConversationTotals;
}

export interface ConversationTotals {
  assistant_messages: number;
  /** Milliseconds. */
  avg_response_time: number | null;
  total_messages: number;
  total_tokens: number;
}

export interface ConversationUpdated {
  success?: true;
  title: string;
}

export interface ConversationsAnswer {
  conversations: ConversationInfo[];
}

export interface Cpu {
  cores: number;
  /** 1, 5 and 15 minutes. */
  loadAverage: [number, number, number];
  usage: number;
}

export interface DayModelUsage {
  /** Milliseconds. */
  avg_response_time: number | null;
  cached_tokens: number;
  completion_tokens: number;
  /** ISO date, UTC. */
  day: string;
  errors: number;
  model: string;
  prompt_tokens: number;
  requests: number;
  /** While generating. */
  tokens_per_second: number | null;
}

export interface DayUsage {
  /** Milliseconds. */
  avg_response_time: number | null;
  cached_tokens: number;
  completion_tokens: number;
  /** ISO date, UTC. */
  day: string;
  errors: number;
  prompt_tokens: number;
  requests: number;
  /** While generating. */
  tokens_per_second: number | null;
}

export interface Defaults {
  config: Record<string, string | number | boolean>;
  name: string;
}

export interface Difference {
  changes: Change[];
  /** As diff -u prints it. */
  text: string;
}

export interface DirectoryInfo {
  directory: string;
  models: FileInfo[];
}

export interface DiscoverBody {
  excludePatterns?: string[];
  includePatterns?: string[];
  /** Absolute; none: the models directory. */
  paths?: string[];
  recursive?: boolean;
}

export interface DiscoveredModels {
  discovered: FoundModel[];
  failed: BrokenModelFile[];
  scannedPaths: string[];
  totalFound: number;
}

export interface EditBody {
  message: string;
  /** null: the conversation's. */
  model?: string | null;
  stream?: boolean;
}

export interface EndedRequest {
  arrivedAt: string;
  cachedTokens: number | null;
  client: string;
  completionTokens: number | null;
  error: string | null;
  firstTokenMs: number | null;
  id: string;
  /** First eight digits of the SHA-256 of the API key it came with. */
  key: string | null;
  loadMs: number | null;
  model: string;
  promptTokens: number | null;
  queuedMs: number | null;
  route: string;
  /** Of HTTP; 499 when the client left or the request was cancelled. */
  status: number;
  streamed: boolean;
  tokensPerSecond: number | null;
  totalMs: number;
}

/** The engine's part of the configuration file; -1 leaves a number to the engine. */
export interface EngineConfig {
  /** Directory of the GGUF files. */
  basePath: string;
  batch_size: number;
  ctx_size: number;
  gpu_layers: number;
  host: string;
  port: number;
  /** The llama-server binary; empty: found by itself. */
  serverPath: string;
  threads: number;
}

export interface EngineData {
  binary?: string | null;
  error?: string | null;
  host: string;
  /** How models are run: workers, embedded, router. */
  kind: string;
  mode?: "router";
  port: number;
  /** The one it runs with. */
  preset?: string | null;
  startedAt?: string | null;
  status: "idle" | "running" | "error";
  /** Where inference is answered. */
  url: string;
  version?: string | null;
}

export interface EngineHealth {
  error?: string | null;
  host: string;
  last_health_check: string;
  models_loaded: number;
  port: number;
  status: "healthy" | "unhealthy";
}

/** What is absent stays. */
export interface EngineOptionsBody {
  maxModels?: number | null;
  /** By option; null removes one. */
  options?: Record<string, string | number | boolean | null>;
}

export type FileFormat = "json" | "markdown";

export interface FileInfo {
  /** Tokens that `estimatedVram` holds for. */
  contextSize?: number | null;
  /** The latter, loaded or not. */
  estimatedVram?: number | null;
  name: string;
  path: string;
  size: number;
  /** Bytes it takes of GPU and main memory if it is loaded, else of the GPU with every layer there. */
  vram?: number | null;
}

export type Fit = "yes" | "after_evictions" | "host_only" | "tight" | "no";

/** A model file; registered or not. */
export interface FoundModel {
  /** Tokens. */
  contextSize?: number | null;
  description?: string | null;
  /** Architecture. */
  family: string;
  format?: "gguf";
  name: string;
  path: string;
  quantization?: string | null;
  /** Bytes, all shards together. */
  size: number;
  version?: string | null;
}

export interface Gpu {
  id: number;
  memory?: Amount | null;
  name: string;
  temperature?: number | null;
  utilization?: number | null;
}

export interface HealthData {
  services: ServicesHealth;
  /** starting: the first scan for models has not ended. */
  status: "healthy" | "unhealthy" | "starting";
  system: SystemHealth;
  timestamp: string;
}

export interface HistoryData {
  metrics: HistoryEntry[];
  period: Period;
  summary: Summary;
}

export interface HistoryEntry {
  cpu: number;
  gpu?: number | null;
  memory: number;
  requests: number;
  responseTime: number;
  timestamp: string;
}

export interface ImageBody {
  /** Base64. */
  data: string;
  media_type: "image/png" | "image/jpeg" | "image/gif" | "image/webp";
  name?: string;
}

export interface ImportBody {
  /** The INI file's text. */
  content: string;
  name: string;
  /** Replace a preset of that name. */
  replace?: boolean;
}

export interface ImportedAnswer {
  conversations: ConversationInfo[];
  count: number;
}

export interface InheritedOptions {
  finalConfig: Record<string, string | number | boolean>;
  inheritancePath: string[];
  /** default, global, group or model, by the same keys. */
  sources: Record<string, string>;
}

export type JsonValue = unknown;

export interface LoadBody {
  /** Load it although it needs more memory than the machine has. */
  force?: boolean;
  /** Engine options of this load, by long flag name. */
  options?: Record<string, string | number | boolean>;
}

/** Any part of it; what is absent keeps its value. */
export interface LoggerBody {
  console?: boolean;
  file?: boolean;
  level?: "debug" | "info" | "warn" | "error";
  maxFiles?: number;
}

export interface LoggerData {
  console: boolean;
  file: boolean;
  /** Least severe level that is logged. */
  level: string;
  /** Rotated files that are kept of each log. */
  maxFiles: number;
}

/** MiB. */
export interface MachineMemory {
  /** All GPUs together; absent without one. */
  gpu?: number | null;
  host: number;
}

/** MiB. */
export interface MemoryFootprint {
  compute: number;
  /** Cached keys and values, and recurrent state. */
  context: number;
  total: number;
  weights: number;
}

export interface MessageInfo {
  /** Part of the branch that is read and continued. */
  active: boolean;
  attachments: AttachmentInfo[];
  content: string;
  conversation_id: number;
  /** The engine's count where it gave one. */
  estimated_tokens: number;
  id: number;
  model: string | null;
  parent_id: number | null;
  reasoning: string | null;
  response_time_ms: number | null;
  role: "system" | "user" | "assistant";
  status: "complete" | "generating" | "stopped" | "interrupted";
  timestamp: string;
  tokens_per_second: number | null;
}

/** What is absent or null keeps its value. */
export interface ModelChangesBody {
  aliases?: string[] | null;
  contextSize?: number | null;
  description?: string | null;
  family?: string | null;
  isFavorite?: boolean | null;
  isPinned?: boolean | null;
  name?: string | null;
  options?: Record<string, string | number | boolean> | null;
  quantization?: string | null;
  variants?: ModelVariant[] | null;
}

export interface ModelCounts {
  failed: number;
  loaded: number;
  loading: number;
  registered: number;
}

export interface ModelMemory {
  allLayers: number;
  /** Engine options with which it would fit, each set enough by itself; empty when it fits. */
  alternatives: (Record<string, string | number | boolean>)[];
  contextPerSlot: number;
  /** Tokens of all slots together, as the engine rounds them. */
  contextSize: number;
  /** By the engine itself after the load, where it tells. */
  counted?: MachineMemory | null;
  /** after_evictions: once others were unloaded, which the service does by itself. host_only: not as asked, but without the GPU. tight: only in what is not free, the system may have to swap. */
  fits: Fit;
  /** Now, and what this model's process would give back. */
  free: MachineMemory;
  gpu: MemoryFootprint;
  /** The output layer counts as one. */
  gpuLayers: number;
  /** Each GPU, where there are several; else empty. */
  gpus: MemoryFootprint[];
  host: MemoryFootprint;
  /** The architecture is not modelled; the numbers may be off by some percent. */
  isRough: boolean;
  /** Tokens of all slots that fit; absent when none does. */
  largestContext?: number | null;
  /** What the model's process takes; absent while none runs. */
  measured?: MachineMemory | null;
  /** Absent without a GPU, or when the rest does not fit. */
  mostGpuLayers?: number | null;
  slots: number;
  /** MiB, host and GPU. */
  total: number;
  /** The estimate, and what a draft model takes. */
  withDraft: MachineMemory;
}

export interface ModelUsage {
  /** Milliseconds. */
  avg_response_time: number | null;
  cached_tokens: number;
  completion_tokens: number;
  errors: number;
  model: string;
  prompt_tokens: number;
  requests: number;
  /** While generating. */
  tokens_per_second: number | null;
}

export interface ModelVariant {
  name: string;
  /** Keys of a request's body, for requests that do not have them. */
  parameters?: Record<string, JsonValue>;
  /** For conversations that have none. */
  systemPrompt?: string | null;
}

/** The same list twice: whole in `data`, and as file names beside it. */
export interface ModelsAnswer {
  count: number;
  data: ModelsData;
  llamacpp_url: string;
  models: string[];
  success?: true;
  timestamp?: string;
}

export interface ModelsData {
  count: number;
  models: RegisteredModel[];
  /** The first scan since the start has not ended: models may be missing here. */
  scanning: boolean;
}

export interface ModelsUse {
  active: number;
  memoryUsage: number;
  total: number;
}

export interface MonitoringData {
  cpu: Cpu;
  /** Bytes. */
  disk: Amount;
  /** Absent where there is none. */
  gpu?: Gpu[] | null;
  /** MiB. */
  memory: Amount;
  models: ModelsUse;
  requests: RequestsUse;
  timestamp: string;
  uptime: number;
}

export interface NewConversationBody {
  model: string;
  options?: SamplingOptions;
  system_prompt?: string | null;
  /** null: named after what is said first. */
  title: string | null;
}

export interface NewModelBody {
  contextSize?: number | null;
  description?: string | null;
  family?: string | null;
  name?: string | null;
  /** Engine options, or the command that serves the model. */
  options?: Record<string, string | number | boolean>;
  /** Absolute path of a GGUF file; for a split model, of its first shard. Not needed with a command. */
  path?: string | null;
  quantization?: string | null;
  version?: string | null;
}

export interface NewModelsBody {
  models: NewModelBody[];
}

export interface NewNameBody {
  name: string;
}

export interface NewPresetBody {
  description?: string | null;
  name: string;
  /** Name of a template; absent: an empty preset. */
  template?: string | null;
}

export interface OptionCatalogue {
  binary?: string | null;
  groups: OptionGroupInfo[];
  version?: string | null;
}

export interface OptionGroupInfo {
  name: string;
  options: OptionInfo[];
}

export interface OptionInfo {
  aliases: string[];
  choices: string[];
  default?: string | null;
  description: string;
  env: string[];
  /** For presets, not for loads. */
  isPresetOnly: boolean;
  isRemoved: boolean;
  /** The service's own business; ignored in presets. */
  isReserved: boolean;
  name: string;
  negativeAliases: string[];
  type: string;
}

export interface OptionsOfEngine {
  maxModels: number;
  options: Record<string, string | number | boolean>;
}

export interface OptionsOfModel {
  id: string;
  options: SetOption[];
  /** Of the preset in force that speaks of the model. */
  section?: string | null;
}

export interface Performance {
  /** Newest messages of a conversation the model sees; 0: all. */
  context_history_limit: number;
  num_thread: number;
  use_mlock?: boolean | null;
  use_mmap?: boolean | null;
}

export interface PerformanceStatus {
  /** Milliseconds, over the last minute; 0 without requests. */
  average_response_time: number;
  error_rate: number;
  requests_active: number;
  requests_total: number;
}

export interface Period {
  end: string;
  resolution: string;
  start: string;
}

/** Either of the two. */
export interface PresetBody {
  /** Values by section and key. Comments in the file are kept. */
  config?: Record<string, Record<string, string | number | boolean>> | null;
  content?: string | null;
}

export interface PresetDetails {
  /** The INI file's text. */
  content: string;
  description: string;
  errors: PresetProblem[];
  file: string;
  /** The engine runs with it. */
  isActive: boolean;
  modifiedAt: string;
  name: string;
  path: string;
  /** Why the file is no preset. */
  problem?: string | null;
  /** Values as written, by section and key. */
  sections: Record<string, Record<string, string>>;
  size: number;
  title: string;
  /** What the sections say, typed. */
  values: Record<string, Record<string, string | number | boolean>>;
  warnings: PresetProblem[];
}

export interface PresetFileText {
  /** The INI file's text. */
  content: string;
  file: string;
}

export interface PresetInfo {
  description: string;
  file: string;
  /** The engine runs with it. */
  isActive: boolean;
  modifiedAt: string;
  name: string;
  path: string;
  /** Why the file is no preset. */
  problem?: string | null;
  /** Values as written, by section and key. */
  sections: Record<string, Record<string, string>>;
  size: number;
  title: string;
}

export interface PresetProblem {
  column?: number | null;
  key?: string | null;
  /** invalid: the engine would refuse it. owner: only the machine's owner may say it, in the file. */
  kind?: ProblemKind;
  line?: number | null;
  message: string;
  section?: string | null;
}

export interface PresetRemoved {
  name: string;
}

export interface PresetVerdict {
  errors: PresetProblem[];
  valid: boolean;
  warnings: PresetProblem[];
}

export interface Presets {
  active?: string | null;
  presets: PresetInfo[];
  /** Why the chosen preset is not in force. */
  problem?: string | null;
}

export type ProblemKind = "invalid" | "owner";

export interface ProxyHealth {
  status: "healthy" | "unhealthy";
  uptime: number;
  version: string;
}

export interface RegenerateBody {
  /** null: the conversation's. */
  model?: string | null;
  stream?: boolean;
}

export interface RegisteredModel {
  aliases: string[];
  /** Tokens. */
  contextSize?: number | null;
  description?: string | null;
  /** Why the last load failed. */
  error?: string | null;
  /** Architecture. */
  family: string;
  format?: "gguf";
  id: string;
  isFavorite: boolean;
  isPinned: boolean;
  lastUsed?: string | null;
  loadedAt?: string | null;
  /** MiB, measured. */
  memoryUsage?: number | null;
  /** The last scan did not find its file; the model comes back with it. */
  missing: boolean;
  name: string;
  /** Engine options of this model, by long flag name. */
  options: Record<string, string | number | boolean>;
  path: string;
  quantization?: string | null;
  /** Bytes, all shards together. */
  size: number;
  status: "running" | "loading" | "stopped" | "error" | "discovered" | "registered";
  /** Further names with defaults of their own, on the same process. */
  variants: ModelVariant[];
  version?: string | null;
}

export interface RegisteredModels {
  models: RegisteredModel[];
  registered: number;
}

export interface RemovedModel {
  modelId: string;
}

export type RequestPhase = "queued" | "loading" | "prompt" | "generating";

export interface Requests {
  live: RunningRequest[];
  recent: EndedRequest[];
}

export interface RequestsUse {
  active: number;
  averageResponseTime: number;
  errorRate: number;
  total: number;
}

export interface ResponseOptimization {
  /** How long an unused model stays loaded: "600s"; "-1" is for ever. */
  keep_alive: string;
  /** Whether /api/chat streams when it is not told to. */
  stream: boolean;
}

export interface RoleStats {
  /** Characters. */
  avg_length: number;
  avg_response_time: number | null;
  count: number;
  role: "system" | "user" | "assistant";
  total_tokens: number;
}

export interface RunningRequest {
  arrivedAt: string;
  client: string;
  elapsedMs: number;
  /** Also in the answer's header X-Request-Id; the client's own if it sent one. */
  id: string;
  model: string;
  queue: Waiting | null;
  route: string;
  status: RequestPhase;
  /** Pieces of the answer so far: one for each token. */
  tokens: number;
}

/** Of answers in conversations that say nothing else; null: the model's own default rules. */
export interface SamplingDefaults {
  min_p?: number | null;
  num_predict?: number | null;
  repeat_penalty?: number | null;
  stop?: string[] | null;
  temperature?: number | null;
  top_k?: number | null;
  top_p?: number | null;
}

/** null: the setting's value, or the model's own default. */
export interface SamplingOptions {
  /** Newest messages the model sees; 0: all. */
  context_history_limit?: number | null;
  frequency_penalty?: number | null;
  min_p?: number | null;
  /** Most tokens of an answer. */
  num_predict?: number | null;
  presence_penalty?: number | null;
  repeat_penalty?: number | null;
  seed?: number | null;
  stop?: string[] | null;
  temperature?: number | null;
  top_k?: number | null;
  top_p?: number | null;
}

export interface ScannedModels {
  failed: BrokenModelFile[];
  /** New models. */
  scanned: number;
  total: number;
  /** Known models whose file changed. */
  updated: number;
}

export interface SearchAnswer {
  count: number;
  query: string;
  results: SearchResult[];
}

export interface SearchResult {
  /** Of the message; empty for a conversation that was found by its title. */
  content: string;
  estimated_tokens: number | null;
  /** Of the conversation. */
  id: number;
  message_id: number | null;
  model: string;
  response_time_ms: number | null;
  role: "system" | "user" | "assistant" | null;
  /** HTML: the surroundings of the match, matches in <mark>, all else escaped. */
  snippet: string;
  timestamp: string;
  title: string;
  updated_at: string;
}

export interface SectionBody {
  /** Values by key. */
  config?: Record<string, string | number | boolean>;
  name: string;
}

export interface SectionInfo {
  /** What the section itself says. */
  config: Record<string, string | number | boolean>;
  group?: string | null;
  name: string;
  /** With what it inherits, by the options' own names. */
  options: Record<string, string | number | boolean>;
  path?: string | null;
  sources: Record<string, string>;
}

export interface Sections {
  models: SectionInfo[];
  name: string;
}

export interface ServerStatus {
  /** Whether other origins may call. */
  cors_enabled: boolean;
  host: string;
  port: number;
  /** false: the service speaks plain HTTP. */
  ssl: boolean;
}

export interface ServicesHealth {
  llama_server: EngineHealth;
  proxy: ProxyHealth;
}

export interface SetOption {
  name: string;
  source: string;
  value: string | number | boolean;
}

export interface StartBody {
  maxModels?: number | null;
  /** By option; null removes one. */
  options?: Record<string, string | number | boolean | null>;
  preset: string;
}

export interface StatusData {
  application: ApplicationStatus;
  models: ModelCounts;
  performance: PerformanceStatus;
  server: ServerStatus;
  websocket: WebsocketStatus;
}

export interface SuccessAnswer {
  success?: true;
}

export interface Summary {
  avgCpu: number;
  avgMemory: number;
  avgResponseTime: number;
  maxCpu: number;
  maxMemory: number;
  totalRequests: number;
}

export interface SystemHealth {
  cpu_usage: number;
  disk_usage: number;
  memory_usage: number;
}

export interface TemplateInfo {
  /** The INI file's text. */
  content: string;
  description: string;
  name: string;
  title: string;
}

export interface Templates {
  templates: TemplateInfo[];
}

export interface Timeouts {
  /** Seconds. */
  llamacpp_connect_timeout: number;
  /** Seconds without a byte of the answer. */
  llamacpp_timeout: number;
}

export interface UsageAnswer {
  by_day: DayUsage[];
  by_day_and_model: DayModelUsage[];
  by_model: ModelUsage[];
  days: number;
  total: UsageTotals;
}

export interface UsageTotals {
  /** Milliseconds. */
  avg_response_time: number | null;
  cached_tokens: number;
  completion_tokens: number;
  errors: number;
  prompt_tokens: number;
  requests: number;
  /** While generating. */
  tokens_per_second: number | null;
}

export interface VersionInfo {
  id: number;
  replacedAt: string;
  size: number;
}

export interface Versions {
  name: string;
  /** Newest first. */
  versions: VersionInfo[];
}

export interface Waiting {
  /** Of the model among all that wait, from 1. */
  position: number;
  reason: string;
  /** How many wait for the model. */
  requests: number;
}

export interface WebsocketStatus {
  /** The same: a session is one connection. */
  active_connections: number;
  /** Socket.IO sessions. */
  connected_clients: number;
  messages_per_second: number;
}

/** An image of a message. */
export const getAttachment = (attachmentId: number): Request<Blob> => ({ method: "GET", path: pathOf("/api/attachments/{attachment_id}", { attachment_id: attachmentId }) });

/** Send something and get the answer. It is generated to its end and stored, whether or not its reader stays. */
export const chat = (body: ChatBody): Request<ChatAnswer> => ({ method: "POST", path: "/api/chat", body });

/** The configuration in force. */
export const getConfig = (): Request<ConfigAnswer> => ({ method: "GET", path: "/api/config" });

/** Change any part of the configuration: all of it or, when a value is wrong, nothing. */
export const updateConfig = (body: ConfigBody): Request<ConfigUpdatedAnswer> => ({ method: "POST", path: "/api/config", body });

/** Conversations, last updated first. */
export const listConversations = (options: { limit?: number | null; offset?: number; archived?: boolean } = {}): Request<ConversationsAnswer> => ({ method: "GET", path: "/api/conversations", query: { "limit": options.limit, "offset": options.offset, "archived": options.archived } });

/** Begin a conversation. */
export const createConversation = (body: NewConversationBody): Request<ConversationCreated> => ({ method: "POST", path: "/api/conversations", body });

/** All conversations as one file, which can be imported again. */
export const exportConversations = (): Request<Blob> => ({ method: "GET", path: "/api/conversations/export" });

/** Add the conversations of a file of this service, of llama.cpp's web UI or of Open WebUI: all or none. */
export const importConversations = (body: Record<string, unknown> | unknown[]): Request<ImportedAnswer> => ({ method: "POST", path: "/api/conversations/import", body });

/** Delete a conversation and all its messages; an answer that is being generated ends. */
export const deleteConversation = (conversationId: number): Request<SuccessAnswer> => ({ method: "DELETE", path: pathOf("/api/conversations/{conversation_id}", { conversation_id: conversationId }) });

/** A conversation with its messages, oldest first. */
export const getConversation = (conversationId: number, options: { branches?: boolean } = {}): Request<ConversationAnswer> => ({ method: "GET", path: pathOf("/api/conversations/{conversation_id}", { conversation_id: conversationId }), query: { "branches": options.branches } });

/** Rename, pin or archive a conversation, or change its model, system prompt or options. */
export const updateConversation = (conversationId: number, body: ConversationChangesBody): Request<ConversationUpdated> => ({ method: "PUT", path: pathOf("/api/conversations/{conversation_id}", { conversation_id: conversationId }), body });

/** A conversation as a file. */
export const exportConversation = (conversationId: number, options: { format?: FileFormat } = {}): Request<Blob> => ({ method: "GET", path: pathOf("/api/conversations/{conversation_id}/export", { conversation_id: conversationId }), query: { "format": options.format } });

/** Make the branch through a message the one that is read and continued. */
export const chooseBranch = (conversationId: number, messageId: number): Request<ConversationAnswer> => ({ method: "POST", path: pathOf("/api/conversations/{conversation_id}/messages/{message_id}/choose", { conversation_id: conversationId, message_id: messageId }) });

/** Send something else in place of an earlier message, in a branch of its own. */
export const editMessage = (conversationId: number, messageId: number, body: EditBody): Request<ChatAnswer> => ({ method: "POST", path: pathOf("/api/conversations/{conversation_id}/messages/{message_id}/edit", { conversation_id: conversationId, message_id: messageId }), body });

/** Answer again, beside the earlier answer. */
export const regenerateAnswer = (conversationId: number, messageId: number, body?: RegenerateBody | null): Request<ChatAnswer> => ({ method: "POST", path: pathOf("/api/conversations/{conversation_id}/messages/{message_id}/regenerate", { conversation_id: conversationId, message_id: messageId }), body });

/** End the answer that is being generated; what there is of it is kept. */
export const stopAnswer = (conversationId: number): Request<AnswerStopped> => ({ method: "POST", path: pathOf("/api/conversations/{conversation_id}/stop", { conversation_id: conversationId }) });

/** The answer that is being generated, or the rest of the one that was being read; 204 when there is no more. */
export const resumeStream = (conversationId: number, options: { lastEventId?: string | null } = {}): Request<Blob> => ({ method: "GET", path: pathOf("/api/conversations/{conversation_id}/stream", { conversation_id: conversationId }), headers: { "last-event-id": options.lastEventId } });

/** 200 when all is well, 503 saying what is not. */
export const getHealth = (): Request<HealthData> => ({ method: "GET", path: "/api/health", isWrapped: true });

/** What runs the models, and where inference is answered. */
export const getEngine = (): Request<EngineData> => ({ method: "GET", path: "/api/llama-server", isWrapped: true });

/** What holds for every model, unless a preset, the model or a load says otherwise. */
export const getEngineOptions = (): Request<OptionsOfEngine> => ({ method: "GET", path: "/api/llama-server/options", isWrapped: true });

/** Change it, from the next load of each model on. */
export const configureEngine = (body: EngineOptionsBody): Request<OptionsOfEngine> => ({ method: "PATCH", path: "/api/llama-server/options", body, isWrapped: true });

/** Run without a preset. */
export const leavePreset = (): Request<EngineData> => ({ method: "DELETE", path: "/api/llama-server/preset", isWrapped: true });

/** Run with a preset, over restarts too. Models whose effective options stay the same stay loaded. */
export const startWithPreset = (body: StartBody): Request<EngineData> => ({ method: "POST", path: "/api/llama-server/preset", body, isWrapped: true });

/** Register the new files of the models directory and refresh the changed ones. */
export const rescan = (): Request<ScannedModels> => ({ method: "POST", path: "/api/llama-server/rescan", isWrapped: true });

/** Stop, wait two seconds, start. */
export const restartEngine = (): Request<EngineData> => ({ method: "POST", path: "/api/llama-server/restart", isWrapped: true });

/** Be ready to load models; nothing happens when it is. */
export const startEngine = (): Request<EngineData> => ({ method: "POST", path: "/api/llama-server/start", isWrapped: true });

/** Unload all models and refuse to load any until the next start. */
export const stopEngine = (): Request<EngineData> => ({ method: "POST", path: "/api/llama-server/stop", isWrapped: true });

/** What is logged, and where to. */
export const getLogger = (): Request<LoggerData> => ({ method: "GET", path: "/api/logger", isWrapped: true });

/** Change what is logged and where to, at once and for later starts. */
export const updateLogger = (body: LoggerBody): Request<LoggerData> => ({ method: "POST", path: "/api/logger", body, isWrapped: true });

/** Registered models and how they are doing. */
export const listModels = (): Request<ModelsAnswer> => ({ method: "GET", path: "/api/models" });

/** Register model files: all of them or none. */
export const createModels = (body: NewModelsBody): Request<RegisteredModels> => ({ method: "POST", path: "/api/models", body, isWrapped: true });

/** The files of the models directory, and the GPU memory each would take. */
export const listModelsDirectory = (): Request<DirectoryInfo> => ({ method: "GET", path: "/api/models-directory", isWrapped: true });

/** Forget the models whose file is gone. */
export const cleanUpModels = (): Request<CleanedUpModels> => ({ method: "POST", path: "/api/models/cleanup", isWrapped: true });

/** Look for model files without registering them. */
export const discoverModels = (body?: DiscoverBody | null): Request<DiscoveredModels> => ({ method: "POST", path: "/api/models/discover", body, isWrapped: true });

/** Register the new files of the models directory and refresh the changed ones. */
export const scanModels = (): Request<ScannedModels> => ({ method: "POST", path: "/api/models/scan", isWrapped: true });

/** Forget a model. Its file stays. */
export const deleteModel = (modelId: string): Request<RemovedModel> => ({ method: "DELETE", path: pathOf("/api/models/{model_id}", { model_id: modelId }), isWrapped: true });

/** One model, by its id or any other name of it. */
export const getModel = (modelId: string): Request<RegisteredModel> => ({ method: "GET", path: pathOf("/api/models/{model_id}", { model_id: modelId }), isWrapped: true });

/** Change what is stored of a model. Its id never changes. */
export const updateModel = (modelId: string, body: ModelChangesBody): Request<RegisteredModel> => ({ method: "PATCH", path: pathOf("/api/models/{model_id}", { model_id: modelId }), body, isWrapped: true });

/** Run a model; answers when it is ready. */
export const loadModel = (modelId: string, body?: LoadBody | null): Request<RegisteredModel> => ({ method: "POST", path: pathOf("/api/models/{model_id}/load", { model_id: modelId }), body, isWrapped: true });

/** What a load would take, beside what is free and what the model takes while it runs. */
export const getModelMemory = (modelId: string, options: { ctxSize?: number | null; slots?: number | null; gpuLayers?: number | null; cacheType?: string | null } = {}): Request<ModelMemory> => ({ method: "GET", path: pathOf("/api/models/{model_id}/memory", { model_id: modelId }), query: { "ctx_size": options.ctxSize, "slots": options.slots, "gpu_layers": options.gpuLayers, "cache_type": options.cacheType }, isWrapped: true });

/** Every option that a load of the model would have, and who set it. */
export const getModelOptions = (modelId: string): Request<OptionsOfModel> => ({ method: "GET", path: pathOf("/api/models/{model_id}/options", { model_id: modelId }), isWrapped: true });

/** Run a model; answers when it is ready. */
export const startModel = (modelId: string, body?: LoadBody | null): Request<RegisteredModel> => ({ method: "POST", path: pathOf("/api/models/{model_id}/start", { model_id: modelId }), body, isWrapped: true });

/** Stop a model once its requests have ended. */
export const stopModel = (modelId: string): Request<RegisteredModel> => ({ method: "POST", path: pathOf("/api/models/{model_id}/stop", { model_id: modelId }), isWrapped: true });

/** Stop a model once its requests have ended. */
export const unloadModel = (modelId: string): Request<RegisteredModel> => ({ method: "POST", path: pathOf("/api/models/{model_id}/unload", { model_id: modelId }), isWrapped: true });

/** The machine now. */
export const getMetrics = (): Request<MonitoringData> => ({ method: "GET", path: "/api/monitoring", isWrapped: true });

/** The machine before: means over equal pieces of time, oldest first. */
export const getHistory = (options: { hours?: number; resolution?: string } = {}): Request<HistoryData> => ({ method: "GET", path: "/api/monitoring/history", query: { "hours": options.hours, "resolution": options.resolution }, isWrapped: true });

/** Every option of the installed engine, grouped for people. */
export const listOptions = (): Request<OptionCatalogue> => ({ method: "GET", path: "/api/options", isWrapped: true });

/** Make a preset of the text of a file. */
export const importPreset = (body: ImportBody): Request<PresetDetails> => ({ method: "POST", path: "/api/preset-import", body, isWrapped: true });

/** Presets to begin with. */
export const listPresetTemplates = (): Request<Templates> => ({ method: "GET", path: "/api/preset-templates", isWrapped: true });

/** What the engine would refuse. Nothing is stored. */
export const validatePreset = (body: PresetBody): Request<PresetVerdict> => ({ method: "POST", path: "/api/preset-validation", body, isWrapped: true });

/** Every preset, and which of them the engine runs with. */
export const listPresets = (): Request<Presets> => ({ method: "GET", path: "/api/presets", isWrapped: true });

/** Make a preset, empty or from a template. */
export const createPreset = (body: NewPresetBody): Request<PresetDetails> => ({ method: "POST", path: "/api/presets", body, isWrapped: true });

/** Delete a preset. Its versions stay, so that it can be restored. */
export const deletePreset = (name: string): Request<PresetRemoved> => ({ method: "DELETE", path: pathOf("/api/presets/{name}", { name: name }), isWrapped: true });

/** One preset: its text, what it says, and what is wrong with it. */
export const readPreset = (name: string): Request<PresetDetails> => ({ method: "GET", path: pathOf("/api/presets/{name}", { name: name }), isWrapped: true });

/** Make or replace a preset; what the engine would refuse changes nothing. */
export const savePreset = (name: string, body: PresetBody): Request<PresetDetails> => ({ method: "PUT", path: pathOf("/api/presets/{name}", { name: name }), body, isWrapped: true });

/** Copy a preset. */
export const clonePreset = (name: string, body: NewNameBody): Request<PresetDetails> => ({ method: "POST", path: pathOf("/api/presets/{name}/clone", { name: name }), body, isWrapped: true });

/** What a preset says for every model. */
export const getPresetDefaults = (name: string): Request<Defaults> => ({ method: "GET", path: pathOf("/api/presets/{name}/defaults", { name: name }), isWrapped: true });

/** Change some of what a preset says for every model. */
export const updatePresetDefaults = (name: string, body: ChangesBody): Request<PresetDetails> => ({ method: "PATCH", path: pathOf("/api/presets/{name}/defaults", { name: name }), body, isWrapped: true });

/** What changes from a preset to another one, or to an earlier version of itself. */
export const diffPresets = (name: string, options: { other?: string | null; version?: number | null } = {}): Request<Difference> => ({ method: "GET", path: pathOf("/api/presets/{name}/diff", { name: name }), query: { "other": options.other, "version": options.version }, isWrapped: true });

/** A preset's file. */
export const exportPreset = (name: string, options: { flat?: boolean } = {}): Request<PresetFileText> => ({ method: "GET", path: pathOf("/api/presets/{name}/export", { name: name }), query: { "flat": options.flat }, isWrapped: true });

/** What holds for a model of a preset after all, and where each value comes from. */
export const showInheritance = (name: string, options: { model: string }): Request<InheritedOptions> => ({ method: "GET", path: pathOf("/api/presets/{name}/inheritance", { name: name }), query: { "model": options.model }, isWrapped: true });

/** The models of a preset, with what they inherit. */
export const listPresetModels = (name: string): Request<Sections> => ({ method: "GET", path: pathOf("/api/presets/{name}/models", { name: name }), isWrapped: true });

/** Add a model's section. */
export const addPresetModel = (name: string, body: SectionBody): Request<PresetDetails> => ({ method: "POST", path: pathOf("/api/presets/{name}/models", { name: name }), body, isWrapped: true });

/** Remove a model's section. */
export const removePresetModel = (name: string, modelName: string): Request<PresetDetails> => ({ method: "DELETE", path: pathOf("/api/presets/{name}/models/{model_name}", { name: name, model_name: modelName }), isWrapped: true });

/** Change some values of a model's section. */
export const updatePresetModel = (name: string, modelName: string, body: ChangesBody): Request<PresetDetails> => ({ method: "PATCH", path: pathOf("/api/presets/{name}/models/{model_name}", { name: name, model_name: modelName }), body, isWrapped: true });

/** Rename a preset; its versions go with it. */
export const renamePreset = (name: string, body: NewNameBody): Request<PresetDetails> => ({ method: "POST", path: pathOf("/api/presets/{name}/rename", { name: name }), body, isWrapped: true });

/** Earlier texts of a preset, at most ten; of a deleted one, too. */
export const listPresetVersions = (name: string): Request<Versions> => ({ method: "GET", path: pathOf("/api/presets/{name}/versions", { name: name }), isWrapped: true });

/** Make an earlier text the present one. */
export const restorePreset = (name: string, version: number): Request<PresetDetails> => ({ method: "POST", path: pathOf("/api/presets/{name}/versions/{version}/restore", { name: name, version: version }), isWrapped: true });

/** Inference requests, running and ended, newest first. */
export const listRequests = (options: { limit?: number; model?: string | null } = {}): Request<Requests> => ({ method: "GET", path: "/api/requests", query: { "limit": options.limit, "model": options.model }, isWrapped: true });

/** Break off a running request. Its client gets an error, its slot is free after the token then computed. */
export const cancelRequest = (requestId: string): Request<CancelledData> => ({ method: "DELETE", path: pathOf("/api/requests/{request_id}", { request_id: requestId }), isWrapped: true });

/** Find messages, and conversations by their title. */
export const search = (options: { q: string; limit?: number; sort?: "rank" | "newest"; typing?: boolean; client?: string }): Request<SearchAnswer> => ({ method: "GET", path: "/api/search", query: { "q": options.q, "limit": options.limit, "sort": options.sort, "typing": options.typing, "client": options.client } });

/** Requests, tokens and speed by model and by day, of all inference and not only of chats. */
export const getUsage = (options: { days?: number } = {}): Request<UsageAnswer> => ({ method: "GET", path: "/api/stats", query: { "days": options.days } });

/** Messages, lengths, tokens and response times of one conversation. */
export const getConversationStats = (conversationId: number): Request<ConversationStats> => ({ method: "GET", path: pathOf("/api/stats/{conversation_id}", { conversation_id: conversationId }) });

/** The service itself: versions, clients, models, requests. */
export const getStatus = (): Request<StatusData> => ({ method: "GET", path: "/api/status", isWrapped: true });
