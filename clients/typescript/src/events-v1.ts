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

export interface Changes {
  config: Record<string, unknown>;
}

export interface CleanUp {
  deletedCount: number;
}

export interface Cleared {
  cleared: number;
}

export interface Configuration {
  config: Record<string, unknown>;
}

export interface ConfigurationUpdate {
  config: Record<string, unknown>;
  restartRequired: boolean;
  overridden: string[];
  warnings: string[];
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

export interface FeedLogLine {
  id: string;
  timestamp: string;
  level: string;
  source: string;
  message: string;
}

export interface Gpus {
  usage: number | null;
  memoryUsed: number | null;
  memoryTotal: number | null;
  list: V1Gpu[];
}

export interface History {
  limit?: number;
  start?: number | null;
  end?: number | null;
}

export interface Inherited {
  finalConfig: Record<string, string | number | boolean>;
  sources: Record<string, string>;
  inheritancePath: string[];
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

export interface LogFile {
  fileName: string;
  logs: V1LogLine[];
  content: string;
  truncated: boolean;
}

export interface LogFileName {
  fileName?: string | null;
}

export interface LogFiles {
  files: string[];
  size: number;
}

export type LogLevel = "debug" | "error" | "info" | "warn";

export interface LogQuery {
  limit?: number;
}

export interface Logs {
  logs: V1StoredLogLine[];
}

export interface LogsUpdate {
  logs: FeedLogLine[];
  timestamp: string;
  type: "logs_update";
  data: LogBatch;
}

export interface Message {
  type: string;
  data?: Topic | null;
}

export interface MetricsHistory {
  history: V1Metrics[];
}

export interface MetricsUpdate {
  type: "metrics_update";
  data: Record<string, unknown>;
  timestamp: string;
  cpu: Record<string, unknown>;
  memory: Record<string, unknown>;
  disk: Record<string, unknown>;
  models: Record<string, unknown>;
  requests: Record<string, unknown>;
  uptime: number;
  gpu?: Record<string, unknown>[];
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
  type: "models_update";
  data: Record<string, unknown>;
  timestamp: string;
  models: Record<string, unknown>[];
}

export interface Named {
  filename: string;
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

export interface Parameter {
  name: string;
  type: string;
  default: string | null;
  description: string;
  names: string[];
  env: string[];
  choices: string[];
}

export interface Parameters {
  categories: Record<string, Parameter[]>;
  parameters: Record<string, Parameter[]>;
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

export interface Section {
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
  data?: Topic | null;
}

export interface Subscribed {
  type: string;
}

export interface Topic {
  type: string;
}

export interface Update {
  modelId: number;
  updates: ModelFields;
}

export interface Usage {
  usage: number;
}

export interface Used {
  used: number;
}

export interface UserSettings {
  settings: Record<string, unknown>;
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

export interface V1LogLine {
  level: LogLevel;
  message: string;
  source: string;
  timestamp: number;
}

export interface V1Metrics {
  cpu: Usage;
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

/** What may be asked: event -> data of the request and of the answer. */
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
  "metrics:history": { request: History; answer: MetricsHistory };
  "logs:get": { request: LogQuery; answer: Logs };
  "logs:read-file": { request: LogFileName; answer: LogFile };
  "logs:list-files": { request: Nothing; answer: LogFiles };
  "logs:clear": { request: Nothing; answer: Cleared };
  "logs:clear-files": { request: Nothing; answer: Cleared };
  "logs:read-llama-server": { request: Nothing; answer: EngineLog };
  "config:get": { request: Nothing; answer: Configuration };
  "config:update": { request: Changes; answer: ConfigurationUpdate };
  "settings:get": { request: Nothing; answer: UserSettings };
  "settings:update": { request: SettingsChanges; answer: UserSettings };
  "presets:list": { request: Nothing; answer: V1Presets };
  "presets:read": { request: Named; answer: V1Preset };
  "presets:save": { request: Save; answer: V1Preset };
  "presets:create": { request: Create; answer: V1Preset };
  "presets:delete": { request: Named; answer: PresetDeleted };
  "presets:get-models": { request: Named; answer: V1PresetModels };
  "presets:add-model": { request: NewSection; answer: V1Preset };
  "presets:update-model": { request: SectionChanges; answer: V1Preset };
  "presets:remove-model": { request: Section; answer: V1Preset };
  "presets:get-defaults": { request: Named; answer: V1PresetDefaults };
  "presets:update-defaults": { request: DefaultChanges; answer: V1Preset };
  "presets:get-models-dir": { request: Nothing; answer: Directory };
  "presets:available-models": { request: Nothing; answer: Directory };
  "presets:get-llama-params": { request: Nothing; answer: Parameters };
  "presets:validate-config": { request: Validate; answer: Validated };
  "presets:show-inheritance": { request: Section; answer: Inherited };
  "presets:start-with-preset": { request: Start; answer: StartedWithPreset };
  "presets:stop-server": { request: Nothing; answer: V1Engine };
  "llama:status": { request: Nothing; answer: V1Engine };
  "llama:start": { request: Nothing; answer: V1EngineStarted };
  "llama:stop": { request: Nothing; answer: V1Engine };
  "llama:restart": { request: Nothing; answer: V1EngineStarted };
  "llama:config": { request: EngineSettings; answer: EngineSettingsView };
  "llama:start-with-preset": { request: StartNamed; answer: StartedWithPreset };
  "llama-server:status": { request: Nothing; answer: V1EngineActivity };
  "connection:ack": { request: Nothing; answer: Acknowledged };
  "subscribe": { request: Subscribe; answer: Subscribed };
  "message": { request: Message; answer: Subscribed };
}

/** What is heard without asking: event -> its data. */
export interface Events {
  "models:created": OneModel;
  "models:updated": OneModel;
  "models:deleted": DeletionNotice;
  "models:status": ModelState;
  "models:scanned": ScanCounts;
  "models:scan-progress": ScanProgress;
  "models:router-stopped": RouterStopped;
  "metrics:update": CurrentMetrics;
  "logs:entry": LogEntry;
  "llama:status": V1Engine;
  "llama:server-event": EngineNotice;
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
