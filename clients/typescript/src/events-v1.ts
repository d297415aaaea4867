// Made by docs/generate.py from the tables of events; `make docs` makes it anew.

export interface Acknowledged {
  clientId: string;
}

export interface AllModels {
  models: V1Model[];
}

export interface ById {
  modelId: number;
}

export interface ByName {
  modelName?: string | null;
  modelId?: number | null;
}

export interface CleanUp {
  deletedCount: number;
}

export interface Cleared {
  cleared: number;
}

export interface ConfigChanges {
  config: Record<string, unknown>;
}

export interface CpuUsage {
  usage: number;
}

export interface Create {
  filename: string;
  description?: string | null;
}

export interface Creation {
  model: NewModelFields;
}

export interface CurrentMetrics {
  metrics: V1Metrics;
}

export interface DefaultChanges {
  filename: string;
  config: Record<string, string | number | boolean | null>;
}

export interface Deletion {
  deletedId: number;
}

export interface DeletionNotice {
  deletedId: number;
  modelName: string;
}

export interface Directory {
  models: DirectoryEntry[];
  directory: string;
}

export interface DirectoryEntry {
  name: string;
  path: string;
  size: number;
  sizeFormatted: string;
  vram: number | null;
  vramFormatted: string | null;
  estimatedVram: number | null;
}

export interface EngineLog {
  fileName: string;
  logs: V1LogLine[];
}

export interface EngineNotice {
  type: string;
  data: V1Engine;
}

export interface EngineSettings {
  settings: Record<string, string | number | boolean | null>;
}

export interface EngineSettingsView {
  settings: Record<string, string | number | boolean>;
}

export interface Established {
  clientId: string;
  timestamp: number;
}

export interface Favorite {
  modelId: number;
  favorite: boolean;
}

export interface FeedAmount {
  used: number;
  total: number;
  free: number;
  usagePercent: number;
}

export interface FeedCpu {
  usage: number;
  cores: number;
  loadAverage: number[];
}

export interface FeedError {
  code: string;
  message: string;
  reconnect?: boolean;
  retryIn?: number | null;
  type?: string;
  data?: FeedErrorData | null;
  timestamp?: string;
}

export interface FeedErrorData {
  code: string;
  message: string;
  reconnect?: boolean;
  retryIn?: number | null;
}

export interface FeedGpu {
  id: number;
  name: string;
  memory?: FeedAmount | null;
  utilization?: number | null;
  temperature?: number | null;
}

export interface FeedLogLine {
  id: string;
  timestamp: string;
  level: string;
  source: string;
  message: string;
}

export interface FeedMessage {
  type: string;
  data?: FeedName | null;
}

export interface FeedMetrics {
  timestamp: string;
  cpu: FeedCpu;
  memory: FeedAmount;
  disk: FeedAmount;
  models: FeedModelCounts;
  requests: FeedRequests;
  uptime: number;
  gpu?: FeedGpu[] | null;
}

export interface FeedModel {
  id: string;
  name: string;
  path: string;
  size: number;
  family: string;
  format: string;
  status: string;
  missing: boolean;
  isFavorite: boolean;
  isPinned: boolean;
  aliases: string[];
  variants: FeedVariant[];
  options: Record<string, string | number | boolean>;
  description?: string | null;
  version?: string | null;
  contextSize?: number | null;
  quantization?: string | null;
  loadedAt?: string | null;
  lastUsed?: string | null;
  memoryUsage?: number | null;
  error?: string | null;
}

export interface FeedModelCounts {
  active: number;
  total: number;
  memoryUsage: number;
}

export interface FeedModels {
  models: FeedModel[];
  timestamp: string;
}

export interface FeedName {
  type: string;
}

export interface FeedRequests {
  total: number;
  active: number;
  averageResponseTime: number;
  errorRate: number;
}

export interface FeedVariant {
  name: string;
  parameters: Record<string, unknown>;
  systemPrompt?: string | null;
}

export interface Gpus {
  usage: number | null;
  memoryUsed: number | null;
  memoryTotal: number | null;
  list: V1Gpu[];
}

export interface HistoryQuery {
  limit?: number;
  start?: number | null;
  end?: number | null;
}

export interface LoadByName {
  modelName?: string | null;
  modelId?: number | null;
  options?: Record<string, string | number | boolean>;
  force?: boolean;
}

export interface LogBatch {
  logs: FeedLogLine[];
  timestamp: string;
}

export interface LogEntry {
  entry: V1LogLine;
}

export interface LogFileName {
  fileName?: string | null;
}

export type LogLevel = "debug" | "error" | "info" | "warn";

export interface Logs {
  logs: V1StoredLogLine[];
}

export interface LogsUpdate {
  logs: FeedLogLine[];
  timestamp: string;
  type: "logs_update";
  data: LogBatch;
}

export interface MetricsHistory {
  history: V1Metrics[];
}

export interface MetricsUpdate {
  timestamp: string;
  cpu: FeedCpu;
  memory: FeedAmount;
  disk: FeedAmount;
  models: FeedModelCounts;
  requests: FeedRequests;
  uptime: number;
  gpu?: FeedGpu[] | null;
  type: "metrics_update";
  data: FeedMetrics;
}

export interface ModelFields {
  name?: string | null;
  ctx_size?: number | null;
  quantization?: string | null;
  type?: string | null;
  description?: string | null;
  params?: Record<string, string | number | boolean> | null;
  aliases?: string[] | null;
  variants?: VariantFields[] | null;
  is_favorite?: boolean | null;
  is_pinned?: boolean | null;
}

export type ModelKind = "chat" | "embedding" | "rerank";

export interface ModelState {
  modelName: string;
  status: string;
  error?: string | null;
}

export interface ModelsUpdate {
  models: FeedModel[];
  timestamp: string;
  type: "models_update";
  data: FeedModels;
}

export interface NewModelFields {
  name: string;
  model_path?: string | null;
  params?: Record<string, string | number | boolean>;
  type?: string | null;
  ctx_size?: number | null;
  quantization?: string | null;
  description?: string | null;
  version?: string | null;
}

export interface NewSection {
  filename: string;
  modelName: string;
  config: Record<string, string | number | boolean>;
}

export interface Nothing {
}

export interface OneModel {
  model: V1Model;
}

export interface PresetByName {
  filename: string;
}

export interface PresetDeleted {
  deleted: boolean;
  filename: string;
}

export interface RouterStopped {
  reason: string;
}

export interface Save {
  filename: string;
  config: Record<string, Record<string, string | number | boolean>>;
}

export interface ScanCounts {
  scanned: number;
  updated: number;
  total: number;
  failed: number;
}

export interface ScanProgress {
  done: number;
  total: number;
}

export interface SectionByName {
  filename: string;
  modelName: string;
}

export interface SectionChanges {
  filename: string;
  modelName: string;
  config: Record<string, string | number | boolean | null>;
}

export interface SettingsChanges {
  settings: Record<string, unknown>;
}

export interface Start {
  filename: string;
  options?: Record<string, string | number | boolean | null>;
}

export interface StartNamed {
  presetName: string;
  maxModels?: number | null;
  ctxSize?: number | null;
  threads?: number | null;
}

export interface StartedWithPreset {
  port: number;
  url: string;
  mode: string;
  preset: string | null;
}

export interface Subscribe {
  type: string;
  data?: FeedName | null;
}

export interface Subscribed {
  type: string;
}

export interface Update {
  modelId: number;
  updates: ModelFields;
}

export interface Used {
  used: number;
}

export interface UserSettings {
  settings: Record<string, unknown>;
}

export interface V1Config {
  config: Record<string, unknown>;
}

export interface V1ConfigUpdated {
  config: Record<string, unknown>;
  restartRequired: boolean;
  overridden: string[];
  warnings: string[];
}

export interface V1Engine {
  status: string;
  port?: number | null;
  url?: string | null;
  mode?: string | null;
  preset?: string | null;
  error?: string | null;
}

export interface V1EngineActivity {
  status: string;
  metrics: V1EngineMetrics;
  uptime: number;
}

export interface V1EngineMetrics {
  activeModels: number;
  tokensPerSecond: number | null;
  queueSize: number;
  totalRequests: number | null;
}

export interface V1EngineStarted {
  success: boolean;
  port: number;
  url: string;
  mode: string;
}

export interface V1Gpu {
  name: string;
  usage: number | null;
  memoryUsed: number | null;
  memoryTotal: number | null;
  vendor: string;
}

export interface V1Inheritance {
  finalConfig: Record<string, string | number | boolean>;
  sources: Record<string, string>;
  inheritancePath: string[];
}

export interface V1LogFile {
  fileName: string;
  logs: V1LogLine[];
  content: string;
  truncated: boolean;
}

export interface V1LogFiles {
  files: string[];
  size: number;
}

export interface V1LogLine {
  level: LogLevel;
  message: string;
  source: string;
  timestamp: number;
}

export interface V1LogQuery {
  limit?: number;
}

export interface V1Metrics {
  cpu: CpuUsage;
  memory: Used;
  swap: Used;
  disk: Used;
  gpu: Gpus;
  uptime: number;
  timestamp: number;
}

export interface V1Model {
  id: number;
  name: string;
  slug: string;
  model_path: string;
  type: string;
  kind: ModelKind;
  status: string;
  error: string | null;
  file_size: number;
  params: Record<string, string | number | boolean>;
  quantization: string | null;
  ctx_size: number | null;
  description: string | null;
  aliases: string[];
  variants: VariantFields[];
  is_favorite: boolean;
  is_pinned: boolean;
  created_at: number;
  updated_at: number;
  last_used_at: number | null;
}

export interface V1Parameter {
  name: string;
  type: string;
  default: string | null;
  description: string;
  names: string[];
  env: string[];
  choices: string[];
}

export interface V1Parameters {
  categories: Record<string, V1Parameter[]>;
  parameters: Record<string, V1Parameter[]>;
}

export interface V1Preset {
  filename: string;
  name: string;
  description: string;
  path: string;
  content: string;
  parsed: Record<string, Record<string, string | number | boolean>>;
  errors: string[];
  warnings: string[];
}

export interface V1PresetDefaults {
  filename: string;
  defaults: Record<string, string | number | boolean>;
}

export interface V1PresetModel {
  model: string | null;
  group: string | null;
  config: Record<string, string | number | boolean>;
  own: Record<string, string | number | boolean>;
  sources: Record<string, string>;
}

export interface V1PresetModels {
  filename: string;
  models: Record<string, V1PresetModel>;
}

export interface V1PresetSummary {
  name: string;
  path: string;
  file: string;
  title: string;
  description: string;
  isActive: boolean;
  problem: string | null;
}

export interface V1Presets {
  presets: V1PresetSummary[];
  active: string | null;
}

export interface V1StoredLogLine {
  level: LogLevel;
  message: string;
  source: string;
  timestamp: number;
  id: number | null;
}

export interface Validate {
  config: Record<string, Record<string, string | number | boolean>>;
}

export interface Validated {
  valid: boolean;
  errors: string[];
  warnings: string[];
}

export interface VariantFields {
  name: string;
  parameters?: Record<string, unknown>;
  system_prompt?: string | null;
}

/** Requests: event -> data of the request and of the answer. */
export interface Calls {
  "models:list": { request: Nothing; answer: AllModels };
  "models:get": { request: ById; answer: OneModel };
  "models:create": { request: Creation; answer: OneModel };
  "models:update": { request: Update; answer: OneModel };
  "models:delete": { request: ById; answer: Deletion };
  "models:toggle-favorite": { request: Favorite; answer: OneModel };
  "models:load": { request: LoadByName; answer: ModelState };
  "models:unload": { request: ByName; answer: ModelState };
  "models:scan": { request: Nothing; answer: ScanCounts };
  "models:cleanup": { request: Nothing; answer: CleanUp };
  "metrics:get": { request: Nothing; answer: CurrentMetrics };
  "metrics:history": { request: HistoryQuery; answer: MetricsHistory };
  "logs:get": { request: V1LogQuery; answer: Logs };
  "logs:read-file": { request: LogFileName; answer: V1LogFile };
  "logs:list-files": { request: Nothing; answer: V1LogFiles };
  "logs:clear": { request: Nothing; answer: Cleared };
  "logs:clear-files": { request: Nothing; answer: Cleared };
  "logs:read-llama-server": { request: Nothing; answer: EngineLog };
  "config:get": { request: Nothing; answer: V1Config };
  "config:update": { request: ConfigChanges; answer: V1ConfigUpdated };
  "settings:get": { request: Nothing; answer: UserSettings };
  "settings:update": { request: SettingsChanges; answer: UserSettings };
  "presets:list": { request: Nothing; answer: V1Presets };
  "presets:read": { request: PresetByName; answer: V1Preset };
  "presets:save": { request: Save; answer: V1Preset };
  "presets:create": { request: Create; answer: V1Preset };
  "presets:delete": { request: PresetByName; answer: PresetDeleted };
  "presets:validate-config": { request: Validate; answer: Validated };
  "presets:get-models-dir": { request: Nothing; answer: Directory };
  "presets:available-models": { request: Nothing; answer: Directory };
  "presets:get-models": { request: PresetByName; answer: V1PresetModels };
  "presets:add-model": { request: NewSection; answer: V1Preset };
  "presets:update-model": { request: SectionChanges; answer: V1Preset };
  "presets:remove-model": { request: SectionByName; answer: V1Preset };
  "presets:get-defaults": { request: PresetByName; answer: V1PresetDefaults };
  "presets:update-defaults": { request: DefaultChanges; answer: V1Preset };
  "presets:show-inheritance": { request: SectionByName; answer: V1Inheritance };
  "presets:get-llama-params": { request: Nothing; answer: V1Parameters };
  "presets:start-with-preset": { request: Start; answer: StartedWithPreset };
  "llama:start-with-preset": { request: StartNamed; answer: StartedWithPreset };
  "llama:config": { request: EngineSettings; answer: EngineSettingsView };
  "llama:status": { request: Nothing; answer: V1Engine };
  "llama:start": { request: Nothing; answer: V1EngineStarted };
  "llama:stop": { request: Nothing; answer: V1Engine };
  "presets:stop-server": { request: Nothing; answer: V1Engine };
  "llama:restart": { request: Nothing; answer: V1EngineStarted };
  "llama-server:status": { request: Nothing; answer: V1EngineActivity };
  "connection:ack": { request: Nothing; answer: Acknowledged };
  "subscribe": { request: Subscribe; answer: Subscribed };
  "message": { request: FeedMessage; answer: Subscribed };
}

/** Events that come without a request: event -> data. */
export interface Events {
  "models:created": OneModel;
  "models:updated": OneModel;
  "models:deleted": DeletionNotice;
  "models:status": ModelState;
  "models:scanned": ScanCounts;
  "models:scan-progress": ScanProgress;
  "metrics:update": CurrentMetrics;
  "logs:entry": LogEntry;
  "llama:status": V1Engine;
  "llama:server-event": EngineNotice;
  "models:router-stopped": RouterStopped;
  "llama-server:status": V1EngineActivity;
  "connection:established": Established;
  "metrics_update": MetricsUpdate;
  "models_update": ModelsUpdate;
  "logs_update": LogsUpdate;
  "error": FeedError;
}

export type ErrorCode =
  | "LIST_MODELS_FAILED"
  | "GET_MODEL_FAILED"
  | "CREATE_MODEL_FAILED"
  | "UPDATE_MODEL_FAILED"
  | "DELETE_MODEL_FAILED"
  | "LOAD_MODEL_FAILED"
  | "UNLOAD_MODEL_FAILED"
  | "SCAN_MODELS_FAILED"
  | "START_LLAMA_FAILED"
  | "STOP_LLAMA_FAILED"
  | "PRESET_NOT_FOUND"
  | "PRESET_SAVE_FAILED"
  | "PRESET_INVALID"
  | "CONFIG_UPDATE_FAILED"
  | "TIMEOUT"
  | "NOT_FOUND"
  | "PERMISSION_DENIED"
  | "INVALID_REQUEST"
  | "INTERNAL_ERROR";
