// Made by docs/generate.py from the tables of events; `make docs` makes it anew.

export interface AckAmount {
  used: number;
  total: number;
}

export interface AckConfig {
  server: AckServer;
  llama: AckLlama;
  logging: AckLogging;
}

export interface AckConfigUpdated {
  updated: boolean;
  restartRequired: boolean;
  overridden: string[];
  warnings: string[];
}

export interface AckCpu {
  usage: number;
  cores: number;
}

export interface AckGpu {
  name: string;
  usage: number | null;
  memoryUsed: number | null;
  memoryTotal: number | null;
}

export interface AckLlama {
  serverPath: string;
  modelsDir: string;
  port: number;
  maxModels: number;
}

export interface AckLogEntry {
  entry: AckLogLine;
}

export interface AckLogLine {
  timestamp: string;
  level: LogLevel;
  source: string;
  message: string;
}

export interface AckLogQuery {
  level?: LogLevel;
  limit?: number;
  since?: string | null;
}

export interface AckLogging {
  level: string;
  path: string;
}

export interface AckLogs {
  logs: AckLogLine[];
  total: number;
}

export interface AckMetrics {
  system: AckSystem;
  llama: AckRequests;
  gpu: AckGpu[];
  timestamp: string;
}

export interface AckModel {
  id: string;
  name: string;
  path: string;
  size: number;
  status: string;
  parameters: Record<string, Record<string, unknown>> | null;
}

export interface AckModelInfo {
  id: string;
  name: string;
  path: string;
  size: number;
  status: string;
  parameters: Record<string, Record<string, unknown>> | null;
  memoryUsage: number | null;
  loadedAt: string | null;
  error: string | null;
}

export interface AckModelNotice {
  modelId: string;
}

export interface AckModelStatus {
  modelId: string;
  modelName: string;
  status: string;
  error?: string | null;
}

export interface AckModels {
  models: AckModel[];
  total: number;
}

export interface AckParameter {
  name: string;
  type: string;
  default: string;
  description: string;
}

export interface AckParameters {
  parameters: Record<string, AckParameter[]>;
  categories: Record<string, AckParameter[]>;
}

export interface AckPreset {
  filename: string;
  name: string;
  description: string;
  models: Record<string, Record<string, string>>;
}

export interface AckPresetText {
  filename: string;
  name: string;
  description: string;
  models: Record<string, Record<string, string>>;
  content: string;
}

export interface AckPresets {
  presets: AckPreset[];
}

export interface AckRequests {
  activeConnections: number;
  requestsProcessed: number;
  averageResponseTime: number | null;
}

export interface AckServer {
  port: number;
  host: string;
}

export interface AckSystem {
  cpu: AckCpu;
  memory: AckAmount;
  disk: AckAmount;
}

export interface AckValidated {
  valid: boolean;
  errors: string[];
  warnings: string[];
}

export interface ClientNotice {
  clientId: string;
}

export interface Deleted {
  deleted: boolean;
}

export interface Load {
  id: string;
  force?: boolean;
}

export interface Loaded {
  id: string;
  status: string;
  memoryUsage: number | null;
  loadedAt: string | null;
}

export type LogLevel = "debug" | "error" | "info" | "warn";

export interface MetricsSubscription {
  subscribed: boolean;
}

export interface ModelId {
  id: string;
}

export interface Nothing {
}

export interface PresetCandidate {
  config: Record<string, Record<string, string | number | boolean>>;
  filename?: string | null;
}

export interface PresetConfig {
  filename: string;
  config: Record<string, Record<string, string | number | boolean>>;
}

export interface PresetName {
  filename: string;
}

export interface Saved {
  filename: string;
  savedAt: string;
}

export interface Unloaded {
  id: string;
  status: string;
  unloadedAt: string;
}

/** Requests: event -> data of the request and of the answer. */
export interface Calls {
  "models:list": { request: Nothing; answer: AckModels };
  "models:load": { request: Load; answer: Loaded };
  "models:unload": { request: ModelId; answer: Unloaded };
  "models:info": { request: ModelId; answer: AckModelInfo };
  "presets:list": { request: Nothing; answer: AckPresets };
  "presets:read": { request: PresetName; answer: AckPresetText };
  "presets:save": { request: PresetConfig; answer: Saved };
  "presets:delete": { request: PresetName; answer: Deleted };
  "presets:get-llama-params": { request: Nothing; answer: AckParameters };
  "presets:validate-config": { request: PresetCandidate; answer: AckValidated };
  "config:get": { request: Nothing; answer: AckConfig };
  "config:update": { request: Record<string, unknown>; answer: AckConfigUpdated };
  "metrics:get": { request: Nothing; answer: AckMetrics };
  "metrics:subscribe": { request: Nothing; answer: MetricsSubscription };
  "metrics:unsubscribe": { request: Nothing; answer: MetricsSubscription };
  "logs:get": { request: AckLogQuery; answer: AckLogs };
}

/** Events that come without a request: event -> data. */
export interface Events {
  "client:connected": ClientNotice;
  "client:disconnected": ClientNotice;
  "models:status": AckModelStatus;
  "models:loaded": AckModelNotice;
  "models:unloaded": AckModelNotice;
  "metrics:update": AckMetrics;
  "logs:entry": AckLogEntry;
}

export type ErrorCode =
  | "MODEL_NOT_FOUND"
  | "MODEL_LOAD_FAILED"
  | "MODEL_UNLOAD_FAILED"
  | "PRESET_NOT_FOUND"
  | "PRESET_SAVE_FAILED"
  | "CONFIG_INVALID"
  | "PERMISSION_DENIED"
  | "INVALID_REQUEST"
  | "SERVER_ERROR";
