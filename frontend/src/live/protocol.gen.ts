// Messages of the namespace `/ui`. Made by clients/generate.py from src/llama_async_proxy/api/ui/schema.py and the
// records of the operations; `make docs` makes this file anew. null means "not known".

export interface AddPresetModel {
  name: string;
  model_name: string;
  config: Record<string, string | number | boolean>;
}

export interface AnswerBegun {
  said: Message;
  answer: Message;
}

export interface AnswerFailure {
  kind: "failure";
  code: string;
  message: string;
}

export interface AnswerSnapshot {
  answer: Message | null;
}

export interface AnswerSoFar {
  message: Message | null;
}

export interface Attachment {
  id: number;
  media_type: string;
  name: string;
  size_bytes: number;
}

export interface BranchesChanged {
  kind: "branches";
}

export interface BrokenFile {
  path: string;
  reason: string;
}

export interface CallError {
  code: string;
  message: string;
  field?: string;
  details?: string;
}

export interface CancelRequest {
  id: string;
}

export interface CancelledRequests {
  requests: LiveRequest[];
}

export interface ChooseBranch {
  id: number;
  message_id: number;
}

export type CleanUpModels = Record<string, never>;

export interface CleanUpReport {
  deleted: DeletedModel[];
}

export type ClearLogFiles = Record<string, never>;

export type ClearLogs = Record<string, never>;

export interface ClearedLogs {
  cleared: number;
}

export interface ClonePreset {
  name: string;
  new_name: string;
}

export interface CommandLine {
  arguments: string[];
  preset: string | null;
}

export interface ConfigUpdated {
  settings: Settings;
  change: ConfigurationChange;
}

export interface ConfigView {
  settings: Settings;
}

export interface ConfigurationChange {
  changed: string[];
  restart_required: boolean;
  overridden: string[];
  warnings: string[];
}

export interface ConfigureEngine {
  max_models?: number | null;
  options?: Record<string, string | number | boolean | null>;
}

export interface Conversation {
  id: number;
  title: string;
  has_automatic_title: boolean;
  model: string;
  system_prompt: string | null;
  sampling: Sampling;
  is_pinned: boolean;
  is_archived: boolean;
  created_at_ms: number;
  updated_at_ms: number;
}

export interface ConversationAnswering {
  kind: "answering";
  id: number;
  is_answering: boolean;
}

export interface ConversationChange {
  conversation: Conversation;
}

export interface ConversationList {
  conversations: Conversation[];
  answering: number[];
}

export interface ConversationRemove {
  kind: "remove";
  id: number;
}

export interface ConversationUpsert {
  kind: "upsert";
  conversation: Conversation;
}

export interface ConversationView {
  conversation: Conversation;
  messages: Message[];
  totals: RoleTotals[];
  is_answering: boolean;
}

export interface ConversationsSnapshot {
  answering: number[];
}

export interface CreateConversation {
  model: string;
  title?: string | null;
  system_prompt?: string | null;
  sampling?: SamplingInput;
}

export interface CreateModels {
  models: NewModel[];
}

export interface CreatePreset {
  name: string;
  description?: string | null;
  template?: string | null;
}

export interface DayTotals {
  day: string;
  model: string;
  requests: number;
  errors: number;
  prompt_tokens: number;
  completion_tokens: number;
  cached_tokens: number;
  total_ms: number;
  generation_ms: number;
  timed_tokens: number;
}

export interface DeleteConversation {
  id: number;
}

export interface DeleteModel {
  id: number | string;
}

export interface DeletePreset {
  name: string;
}

export interface DeletedConversation {
  id: number;
}

export interface DeletedModel {
  id: number;
  slug: string;
  name: string;
}

export interface DeletedPreset {
  name: string;
}

export interface DiffPresets {
  name: string;
  other?: string | null;
  version?: number | null;
}

export interface DirectoryModel {
  name: string;
  path: string;
  size_bytes: number;
  vram_bytes: number | null;
  context_size: number | null;
  measured_bytes: number | null;
}

export interface DiscoverModels {
  paths?: string[];
  recursive?: boolean;
  include_patterns?: string[];
  exclude_patterns?: string[];
}

export interface Discovery {
  found: ModelFile[];
  scanned_paths: string[];
  failed: BrokenFile[];
}

export interface EditMessage {
  id: number;
  message_id: number;
  message: string;
  model?: string | null;
  client?: string;
}

export interface EffectiveOption {
  name: string;
  value: string | number | boolean;
  source: OptionSource;
}

export interface EndedRequests {
  model: string;
  status: number;
  count: number;
}

export interface Endpoint {
  host: string;
  port: number;
  model: string | null;
  api_key: string | null;
}

export interface EngineActivity {
  status: EngineStatus;
  active_models: number;
  tokens_per_second: number | null;
  queue_size: number;
  total_requests: number | null;
  uptime_s: number;
}

export interface EngineOption {
  name: string;
  names: string[];
  type: OptionType;
  negatives: string[];
  env: string[];
  choices: string[];
  default: string | null;
  description: string;
  hint: string | null;
  is_removed: boolean;
  is_reserved: boolean;
  is_preset_only: boolean;
}

export interface EngineOptionsView {
  max_models: number;
  options: Record<string, string | number | boolean>;
}

export interface EngineSnapshot {
  engine: EngineSummary;
}

export interface EngineState {
  status: EngineStatus;
  kind: string;
  binary: string | null;
  version: string | null;
  error: string | null;
  started_at_ms: number | null;
  endpoint: Endpoint | null;
}

export type EngineStatus = "idle" | "running" | "error";

export interface EngineSummary {
  status: EngineStatus;
  kind: string;
  binary: string | null;
  version: string | null;
  error: string | null;
  started_at_ms: number | null;
  service_version: string;
  models_dir: string;
  url: string;
}

export interface EngineView {
  state: EngineState;
  host: string;
  port: number;
  preset: string | null;
}

export interface EstimateMemory {
  id: number | string;
  options?: Record<string, string | number | boolean>;
}

export interface Export {
  text: string;
}

export interface ExportConversations {
  ids?: number[];
  format?: FileFormat;
}

export interface ExportPreset {
  name: string;
  is_flat?: boolean;
}

export interface ExportedPreset {
  file: string;
  content: string;
}

export type FileFormat = "json" | "markdown";

export type Fit = "yes" | "after_evictions" | "host_only" | "tight" | "no";

export interface Footprint {
  weights_bytes: number;
  context_bytes: number;
  compute_bytes: number;
}

export interface GetCommandLine {
  id: number | string;
}

export type GetConfig = Record<string, never>;

export interface GetConversation {
  id: number;
  every_branch?: boolean;
}

export type GetCounters = Record<string, never>;

export type GetEngine = Record<string, never>;

export type GetEngineActivity = Record<string, never>;

export type GetEngineOptions = Record<string, never>;

export type GetHealth = Record<string, never>;

export interface GetHistory {
  hours?: number;
  resolution?: string;
}

export interface GetImage {
  id: number;
}

export type GetMetrics = Record<string, never>;

export interface GetModel {
  id: number | string;
}

export interface GetModelOptions {
  id: number | string;
}

export type GetPreferences = Record<string, never>;

export interface GetPresetDefaults {
  name: string;
}

export interface GetPresetModels {
  name: string;
}

export interface GetRunningAnswer {
  conversation_id: number;
}

export interface GetSamples {
  limit?: number;
  start_ms?: number | null;
  end_ms?: number | null;
}

export type GetStatus = Record<string, never>;

export interface GetUsage {
  days?: number;
}

export interface GpuSample {
  index: number;
  name: string;
  vendor: string;
  usage_percent: number | null;
  memory_used_bytes: number | null;
  memory_total_bytes: number | null;
  temperature_c: number | null;
  power_w: number | null;
}

export interface Health {
  healthy: boolean;
  is_starting: boolean;
  problems: string[];
  checked_at_ms: number;
  uptime_s: number;
  engine: EngineView;
  models_loaded: number;
  sample: Sample;
}

export interface History {
  start_ms: number;
  end_ms: number;
  resolution: string;
  points: HistoryPoint[];
}

export interface HistoryPoint {
  timestamp_ms: number;
  cpu_percent: number;
  memory_percent: number;
  disk_percent: number;
  swap_percent: number;
  gpu_percent: number | null;
  gpu_memory_used_bytes: number | null;
  gpu_memory_total_bytes: number | null;
  requests: number;
  response_ms: number | null;
}

export interface Hit {
  conversation_id: number;
  title: string;
  model: string;
  updated_at_ms: number;
  snippet: Piece[];
  message_id: number | null;
  content: string;
  role: Role | null;
  created_at_ms: number | null;
  response_ms: number | null;
  tokens: number | null;
}

export interface Image {
  media_type: string;
  data: string;
  name: string;
}

export interface ImageInput {
  media_type: string;
  data: string;
  name?: string;
}

export interface ImportConversations {
  document: unknown;
}

export interface ImportPreset {
  name: string;
  content: string;
  replace?: boolean;
}

export interface Imported {
  conversations: Conversation[];
}

export interface Inheritance {
  values: Record<string, string | number | boolean>;
  sources: Record<string, Level>;
  path: Level[];
}

export type LeavePreset = Record<string, never>;

export type Level = "default" | "global" | "group" | "model";

export interface ListConversations {
  limit?: number | null;
  offset?: number;
  archived?: boolean | null;
}

export type ListLogFiles = Record<string, never>;

export interface ListLogs {
  limit?: number;
  level?: LogLevel;
  since_ms?: number | null;
  source?: string | null;
}

export type ListModels = Record<string, never>;

export type ListModelsDirectory = Record<string, never>;

export type ListOptions = Record<string, never>;

export interface ListPresetVersions {
  name: string;
}

export type ListPresets = Record<string, never>;

export interface ListRequests {
  limit?: number;
  model?: string | null;
}

export type ListRunningAnswers = Record<string, never>;

export type ListTemplates = Record<string, never>;

export interface LiveRequest {
  id: string;
  arrived_at_ms: number;
  client: string;
  route: string;
  model: string;
  phase: RequestPhase;
  queue: QueueState | null;
  tokens: number;
  elapsed_ms: number;
  position: number | null;
}

export interface LiveSnapshot {
  live: LiveRequest[];
}

export interface LoadModel {
  id: number | string;
  options?: Record<string, string | number | boolean>;
  force?: boolean;
}

export interface LoadProgress {
  stage: string;
  fraction: number;
  started_at_ms: number;
}

export interface LogFile {
  name: string;
  size_bytes: number;
  modified_at_ms: number;
}

export interface LogFileContent {
  name: string;
  content: string;
  lines: LogLine[];
  truncated: boolean;
}

export interface LogFileList {
  files: LogFile[];
}

export type LogLevel = "debug" | "info" | "warn" | "error";

export interface LogLine {
  timestamp_ms: number;
  level: LogLevel;
  source: string;
  message: string;
  id: number | null;
}

export interface LogLines {
  lines: LogLine[];
}

export interface MemoryEstimate {
  host: Footprint;
  gpu: Footprint;
  gpus: Footprint[];
  context_size: number;
  context_per_slot: number;
  slots: number;
  gpu_layers: number;
  all_layers: number;
  is_rough: boolean;
}

export interface MemoryReport {
  model_id: number;
  estimate: MemoryEstimate;
  use: MemoryUse;
  free_host_bytes: number;
  free_gpu_bytes: number | null;
  fits: Fit;
  largest_context: number | null;
  most_gpu_layers: number | null;
  alternatives: (Record<string, string | number | boolean>)[];
  measured_host_bytes: number | null;
  measured_gpu_bytes: number | null;
  counted: MemoryUse | null;
}

export interface MemoryUse {
  host_bytes: number;
  gpu_bytes: number;
  gpus: number[];
}

export interface Message {
  id: number;
  conversation_id: number;
  parent_id: number | null;
  role: Role;
  content: string;
  reasoning: string | null;
  model: string | null;
  status: MessageStatus;
  is_active: boolean;
  created_at_ms: number;
  response_ms: number | null;
  prompt_tokens: number | null;
  tokens: number | null;
  tokens_per_second: number | null;
  attachments: Attachment[];
}

export interface MessageGrow {
  kind: "grow";
  id: number;
  content: string;
  reasoning: string;
  content_at: number;
  reasoning_at: number;
}

export interface MessageRemove {
  kind: "remove_message";
  id: number;
}

export type MessageStatus = "complete" | "generating" | "stopped" | "interrupted";

export interface MessageUpsert {
  kind: "message";
  message: Message;
}

export interface Metrics {
  sample: Sample;
  models_registered: number;
}

export interface MetricsSnapshot {
  samples: Sample[];
}

export interface Model {
  id: number;
  slug: string;
  name: string;
  path: string;
  origin: ModelOrigin;
  facts: ModelFacts;
  size_bytes: number;
  mtime_ns: number;
  shards: string[];
  mmproj_path: string | null;
  links: string[];
  is_missing: boolean;
  description: string | null;
  version: string | null;
  family: string | null;
  quantization: string | null;
  context_size: number | null;
  options: Record<string, string | number | boolean>;
  aliases: string[];
  variants: Variant[];
  is_favorite: boolean;
  is_pinned: boolean;
  created_at_ms: number;
  updated_at_ms: number;
  last_used_at_ms: number | null;
}

export interface ModelFacts {
  architecture: string;
  kind: ModelKind;
  name: string | null;
  description: string | null;
  version: string | null;
  quantization: string | null;
  parameter_count: number | null;
  context_length: number | null;
  embedding_length: number | null;
  block_count: number | null;
  has_chat_template: boolean;
  metadata: Record<string, unknown>;
}

export interface ModelFile {
  path: string;
  size_bytes: number;
  mtime_ns: number;
  facts: ModelFacts;
  shards: string[];
  mmproj_path: string | null;
  links: string[];
}

export interface ModelGauges {
  model: string;
  runtime: ModelRuntime;
  gpu_bytes: number | null;
  in_flight: number;
}

export type ModelKind = "chat" | "embedding" | "rerank";

export interface ModelList {
  models: ModelView[];
  is_complete: boolean;
}

export interface ModelOptions {
  model: Model;
  section: string | null;
  options: EffectiveOption[];
}

export type ModelOrigin = "scanned" | "registered";

export interface ModelRemove {
  kind: "remove";
  id: number;
}

export interface ModelRuntime {
  model_id: number;
  status: ModelStatus;
  endpoint: Endpoint | null;
  pid: number | null;
  progress: LoadProgress | null;
  error: string | null;
  exit_code: number | null;
  log_tail: string[];
  loaded_at_ms: number | null;
  load_duration_ms: number | null;
  context_size: number | null;
  slots: number | null;
  rss_bytes: number | null;
  gpu_bytes: number | null;
  memory: MemoryUse | null;
  restarts: number;
  options: Record<string, string | number | boolean>;
  queue: QueueState | null;
}

export type ModelStatus = "unloaded" | "queued" | "loading" | "ready" | "sleeping" | "stopping" | "failed";

export interface ModelSummary {
  id: number;
  slug: string;
  name: string;
  path: string;
  kind: ModelKind;
  architecture: string;
  parameter_count: number | null;
  quantization: string | null;
  size_bytes: number;
  context_length: number | null;
  is_favorite: boolean;
  sees_images: boolean;
  status: ModelStatus;
  queue: QueueState | null;
  progress: LoadProgress | null;
  error: string | null;
  log_tail: string[];
  loaded_at_ms: number | null;
  load_duration_ms: number | null;
  context_size: number | null;
  slots: number | null;
  rss_bytes: number | null;
  pid: number | null;
  restarts: number;
  last_used_at_ms: number | null;
}

export interface ModelTotals {
  model: string;
  prompt_tokens: number;
  cached_tokens: number;
  completion_tokens: number;
  duration_ms: number;
}

export interface ModelUpsert {
  kind: "upsert";
  model: ModelSummary;
}

export interface ModelView {
  model: Model;
  runtime: ModelRuntime;
  served_name: string;
}

export interface ModelsDirectory {
  directory: string;
  models: DirectoryModel[];
  failed: BrokenFile[];
}

export interface ModelsSnapshot {
  models: ModelSummary[];
}

export interface NewModel {
  path: string | null;
  name?: string | null;
  description?: string | null;
  version?: string | null;
  family?: string | null;
  quantization?: string | null;
  context_size?: number | null;
  options?: Record<string, string | number | boolean>;
}

export interface OptionGroup {
  name: string;
  options: EngineOption[];
}

export interface OptionList {
  groups: OptionGroup[];
  binary: string | null;
  version: string | null;
}

export type OptionSource = "engine" | "configuration" | "engine options" | "preset" | "preset group" | "preset model" | "model" | "load" | "start";

export type OptionType = "bool" | "int" | "float" | "string" | "path" | "enum";

export interface Piece {
  text: string;
  is_match: boolean;
}

export interface Preferences {
  values: Record<string, unknown>;
}

export interface PresetDefaults {
  name: string;
  config: Record<string, string | number | boolean>;
}

export interface PresetDiff {
  changes: ValueChange[];
  text: string;
}

export interface PresetList {
  presets: PresetSummary[];
  active: string | null;
  problem: string | null;
}

export interface PresetModel {
  name: string;
  path: string | null;
  group: string | null;
  own: Record<string, string | number | boolean>;
  options: Record<string, string | number | boolean>;
  sources: Record<string, Level>;
}

export interface PresetModels {
  name: string;
  models: PresetModel[];
}

export interface PresetSummary {
  name: string;
  path: string;
  file: string;
  title: string;
  description: string;
  sections: Record<string, Record<string, string>>;
  size_bytes: number;
  modified_at_ms: number;
  is_active: boolean;
  problem: string | null;
}

export interface PresetVersion {
  id: number;
  size_bytes: number;
}

export interface PresetVersions {
  name: string;
  versions: PresetVersion[];
}

export interface PresetView {
  summary: PresetSummary;
  content: string;
  values: Record<string, Record<string, string | number | boolean>>;
  verdict: Verdict;
}

export interface Problem {
  message: string;
  section: string;
  key: string;
  line: number;
  column: number;
  kind: ProblemKind;
}

export type ProblemKind = "invalid" | "owner";

export interface QueueState {
  position: number;
  requests: number;
  reason: string;
  since_ms: number;
}

export type ReadEngineLog = Record<string, never>;

export interface ReadLogFile {
  name?: string;
}

export interface ReadPreset {
  name: string;
}

export interface RegenerateAnswer {
  id: number;
  message_id: number;
  model?: string | null;
  client?: string;
}

export interface RemovePresetModel {
  name: string;
  model_name: string;
}

export interface RenamePreset {
  name: string;
  new_name: string;
}

export interface RequestCounters {
  total: number;
  active: number;
  errors: number;
  average_response_ms: number | null;
}

export interface RequestList {
  live: LiveRequest[];
  recent: RequestRecord[];
}

export type RequestPhase = "queued" | "loading" | "prompt" | "generating";

export interface RequestRecord {
  id: string;
  arrived_at_ms: number;
  client: string;
  route: string;
  model: string;
  status: number;
  streamed: boolean;
  queued_ms: number | null;
  load_ms: number | null;
  first_token_ms: number | null;
  total_ms: number;
  prompt_tokens: number | null;
  completion_tokens: number | null;
  cached_tokens: number | null;
  tokens_per_second: number | null;
  error: string | null;
  key: string | null;
}

export interface RequestsSnapshot {
  records: RequestRecord[];
}

export type RestartEngine = Record<string, never>;

export interface RestorePreset {
  name: string;
  version: number;
}

export type Role = "system" | "user" | "assistant";

export interface RoleTotals {
  role: Role;
  count: number;
  average_length: number;
  tokens: number;
  average_response_ms: number | null;
}

export interface RunningAnswers {
  conversation_ids: number[];
}

export interface Sample {
  timestamp_ms: number;
  cpu_percent: number;
  cpu_cores: number;
  load_average: [number, number, number] | null;
  memory_used_bytes: number;
  memory_total_bytes: number;
  memory_available_bytes: number;
  swap_used_bytes: number;
  swap_total_bytes: number;
  disk_used_bytes: number;
  disk_total_bytes: number;
  disk_free_bytes: number;
  gpus: GpuSample[];
  models_loaded: number;
  models_memory_bytes: number;
  models_private_bytes: number;
  models_gpu_bytes: number;
  requests: RequestCounters;
  uptime_s: number;
}

export interface Samples {
  samples: Sample[];
}

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

export interface SamplingInput {
  temperature?: number | null;
  top_p?: number | null;
  top_k?: number | null;
  min_p?: number | null;
  num_predict?: number | null;
  repeat_penalty?: number | null;
  presence_penalty?: number | null;
  frequency_penalty?: number | null;
  seed?: number | null;
  stop?: string[] | null;
  context_history_limit?: number | null;
}

export interface SavePreset {
  name: string;
  config?: Record<string, Record<string, string | number | boolean>> | null;
  content?: string | null;
}

export type ScanModels = Record<string, never>;

export interface ScanReport {
  scanned: number;
  updated: number;
  total: number;
  failed: BrokenFile[];
}

export interface Search {
  text: string;
  limit?: number;
  newest_first?: boolean;
  is_typing?: boolean;
  client?: string;
}

export interface SearchResults {
  hits: Hit[];
}

export interface SendMessage {
  id: number;
  message: string;
  model: string;
  images?: ImageInput[];
  client?: string;
}

export interface ServiceCounters {
  started_at_ms: number;
  engine: EngineState;
  http: RequestCounters;
  inference_in_flight: number;
  ended: EndedRequests[];
  totals: ModelTotals[];
  models: ModelGauges[];
  statuses: StatusCount[];
  sample: Sample;
}

export interface ServiceStatus {
  started_at_ms: number;
  uptime_s: number;
  settings: Settings;
  connected_clients: number;
  messages_per_second: number;
  models_registered: number;
  models_loaded: number;
  models_loading: number;
  models_failed: number;
  requests: RequestCounters;
}

export interface Settings {
  host: string;
  port: number;
  insecure_no_auth: boolean;
  allowed_hosts: string[];
  allowed_origins: string[];
  data_dir: string;
  models_dir: string;
  engine: string;
  llama_server: string;
  requested_llama_server: string;
  engine_host: string;
  engine_port: number;
  router_url: string;
  router_api_key_file: string;
  custom_commands: boolean;
  default_chat_model: string;
  default_vision_model: string;
  default_embedding_model: string;
  default_rerank_model: string;
  max_models: number;
  load_on_request: boolean;
  load_timeout_s: number;
  idle_ttl_s: number;
  drain_s: number;
  fairness_s: number;
  queue_limit: number;
  queue_timeout_s: number;
  memory_limit_mib: number;
  gpu_memory_limit_mib: number;
  memory_margin_mib: number;
  gpu_memory_margin_mib: number;
  memory_strict: boolean;
  memory_retry: boolean;
  groups: Record<string, unknown>;
  ctx_size: number;
  batch_size: number;
  threads: number;
  gpu_layers: number;
  engine_options: string[];
  engine_environment: string[];
  preset: string;
  connect_timeout_s: number;
  first_token_timeout_s: number;
  idle_timeout_s: number;
  max_body_mib: number;
  request_memory_mib: number;
  chat_system_prompt: string;
  chat_history_limit: number;
  chat_titles: string;
  chat_temperature: number;
  chat_top_p: number;
  chat_top_k: number;
  chat_min_p: number;
  chat_num_predict: number;
  chat_repeat_penalty: number;
  chat_stop: string[];
  sample_watched_s: number;
  sample_idle_s: number;
  metrics_broadcast_s: number;
  metrics_broadcast_idle_s: number;
  engine_broadcast_s: number;
  models_feed_s: number;
  logs_feed_s: number;
  log_level: string;
  log_console: boolean;
  log_file: boolean;
  log_max_mib: number;
  log_max_files: number;
  log_max_rows: number;
  sources: Record<string, Source>;
}

export interface ShowInheritance {
  name: string;
  model_name: string;
}

export type Source = "default" | "file" | "environment" | "command line" | "runtime";

export type StartEngine = Record<string, never>;

export interface StartWithPreset {
  name: string;
  max_models?: number | null;
  options?: Record<string, string | number | boolean | null>;
}

export interface StatusCount {
  status: ModelStatus;
  models: number;
}

export interface StopAnswer {
  id: number;
}

export type StopEngine = Record<string, never>;

export interface StoppedAnswer {
  message: Message | null;
}

export interface Template {
  name: string;
  title: string;
  description: string;
  content: string;
}

export interface TemplateList {
  templates: Template[];
}

export interface UnloadModel {
  id: number | string;
}

export interface UpdateConfig {
  changes: Record<string, unknown>;
}

export interface UpdateConversation {
  id: number;
  title?: string | null;
  model?: string | null;
  system_prompt?: string | null;
  uses_default_system_prompt?: boolean;
  sampling?: SamplingInput | null;
  is_pinned?: boolean | null;
  is_archived?: boolean | null;
}

export interface UpdateModel {
  id: number | string;
  name?: string | null;
  description?: string | null;
  context_size?: number | null;
  quantization?: string | null;
  family?: string | null;
  options?: Record<string, string | number | boolean> | null;
  aliases?: string[] | null;
  variants?: VariantInput[] | null;
  is_favorite?: boolean | null;
  is_pinned?: boolean | null;
}

export interface UpdatePreferences {
  changes: Record<string, unknown>;
}

export interface UpdatePresetDefaults {
  name: string;
  config: Record<string, string | number | boolean | null>;
}

export interface UpdatePresetModel {
  name: string;
  model_name: string;
  config: Record<string, string | number | boolean | null>;
}

export interface Usage {
  days: number;
  totals: DayTotals[];
}

export interface ValidatePreset {
  config?: Record<string, Record<string, string | number | boolean>> | null;
  content?: string | null;
}

export interface Validation {
  verdict: Verdict;
}

export interface ValueChange {
  section: string;
  key: string;
  before: string | null;
  after: string | null;
}

export interface Variant {
  name: string;
  parameters: Record<string, unknown>;
  system_prompt: string | null;
}

export interface VariantInput {
  name: string;
  parameters?: Record<string, unknown>;
  system_prompt?: string | null;
}

export interface Verdict {
  errors: Problem[];
  warnings: Problem[];
}

/** Data of a snapshot and one item of a delta, by topic. */
export interface Topics {
  models: { data: ModelsSnapshot; item: ModelUpsert | ModelRemove };
  metrics: { data: MetricsSnapshot; item: Sample };
  engine: { data: EngineSnapshot; item: EngineSummary };
  requests: { data: RequestsSnapshot; item: RequestRecord };
  live: { data: LiveSnapshot; item: LiveRequest[] };
  chats: { data: ConversationsSnapshot; item: ConversationUpsert | ConversationRemove | ConversationAnswering };
  [topic: `chat:${number}`]: { data: AnswerSnapshot; item: ConversationUpsert | ConversationRemove | MessageUpsert | MessageGrow | MessageRemove | AnswerFailure | BranchesChanged };
}

/** Input and output, by operation. */
export interface Operations {
  "models.list": { input: ListModels; output: ModelList };
  "models.get": { input: GetModel; output: ModelView };
  "models.create": { input: CreateModels; output: ModelList };
  "models.update": { input: UpdateModel; output: ModelView };
  "models.delete": { input: DeleteModel; output: DeletedModel };
  "models.load": { input: LoadModel; output: ModelView };
  "models.unload": { input: UnloadModel; output: ModelView };
  "models.scan": { input: ScanModels; output: ScanReport };
  "models.discover": { input: DiscoverModels; output: Discovery };
  "models.cleanup": { input: CleanUpModels; output: CleanUpReport };
  "models.estimate": { input: EstimateMemory; output: MemoryReport };
  "engine.get": { input: GetEngine; output: EngineView };
  "engine.command_line": { input: GetCommandLine; output: CommandLine };
  "engine.start": { input: StartEngine; output: EngineView };
  "engine.stop": { input: StopEngine; output: EngineView };
  "engine.restart": { input: RestartEngine; output: EngineView };
  "engine.activity": { input: GetEngineActivity; output: EngineActivity };
  "metrics.get": { input: GetMetrics; output: Metrics };
  "metrics.samples": { input: GetSamples; output: Samples };
  "metrics.history": { input: GetHistory; output: History };
  "metrics.counters": { input: GetCounters; output: ServiceCounters };
  "config.get": { input: GetConfig; output: ConfigView };
  "config.update": { input: UpdateConfig; output: ConfigUpdated };
  "logs.list": { input: ListLogs; output: LogLines };
  "logs.clear": { input: ClearLogs; output: ClearedLogs };
  "logs.files": { input: ListLogFiles; output: LogFileList };
  "logs.read_file": { input: ReadLogFile; output: LogFileContent };
  "logs.read_engine": { input: ReadEngineLog; output: LogFileContent };
  "logs.clear_files": { input: ClearLogFiles; output: ClearedLogs };
  "preferences.get": { input: GetPreferences; output: Preferences };
  "preferences.update": { input: UpdatePreferences; output: Preferences };
  "health.get": { input: GetHealth; output: Health };
  "status.get": { input: GetStatus; output: ServiceStatus };
  "requests.list": { input: ListRequests; output: RequestList };
  "requests.cancel": { input: CancelRequest; output: CancelledRequests };
  "presets.list": { input: ListPresets; output: PresetList };
  "presets.read": { input: ReadPreset; output: PresetView };
  "presets.export": { input: ExportPreset; output: ExportedPreset };
  "presets.validate": { input: ValidatePreset; output: Validation };
  "presets.versions": { input: ListPresetVersions; output: PresetVersions };
  "presets.diff": { input: DiffPresets; output: PresetDiff };
  "presets.templates": { input: ListTemplates; output: TemplateList };
  "presets.save": { input: SavePreset; output: PresetView };
  "presets.create": { input: CreatePreset; output: PresetView };
  "presets.import": { input: ImportPreset; output: PresetView };
  "presets.clone": { input: ClonePreset; output: PresetView };
  "presets.delete": { input: DeletePreset; output: DeletedPreset };
  "presets.rename": { input: RenamePreset; output: PresetView };
  "presets.restore": { input: RestorePreset; output: PresetView };
  "presets.models": { input: GetPresetModels; output: PresetModels };
  "presets.add_model": { input: AddPresetModel; output: PresetView };
  "presets.update_model": { input: UpdatePresetModel; output: PresetView };
  "presets.remove_model": { input: RemovePresetModel; output: PresetView };
  "presets.defaults": { input: GetPresetDefaults; output: PresetDefaults };
  "presets.update_defaults": { input: UpdatePresetDefaults; output: PresetView };
  "presets.inheritance": { input: ShowInheritance; output: Inheritance };
  "presets.models_directory": { input: ListModelsDirectory; output: ModelsDirectory };
  "options.list": { input: ListOptions; output: OptionList };
  "options.model": { input: GetModelOptions; output: ModelOptions };
  "options.engine": { input: GetEngineOptions; output: EngineOptionsView };
  "options.configure": { input: ConfigureEngine; output: EngineOptionsView };
  "presets.start": { input: StartWithPreset; output: EngineView };
  "presets.leave": { input: LeavePreset; output: EngineView };
  "chats.list": { input: ListConversations; output: ConversationList };
  "chats.get": { input: GetConversation; output: ConversationView };
  "chats.create": { input: CreateConversation; output: ConversationChange };
  "chats.update": { input: UpdateConversation; output: ConversationChange };
  "chats.delete": { input: DeleteConversation; output: DeletedConversation };
  "chats.choose": { input: ChooseBranch; output: ConversationView };
  "chats.image": { input: GetImage; output: Image };
  "chats.send": { input: SendMessage; output: AnswerBegun };
  "chats.edit": { input: EditMessage; output: AnswerBegun };
  "chats.regenerate": { input: RegenerateAnswer; output: AnswerBegun };
  "chats.stop": { input: StopAnswer; output: StoppedAnswer };
  "chats.answering": { input: ListRunningAnswers; output: RunningAnswers };
  "chats.answer": { input: GetRunningAnswer; output: AnswerSoFar };
  "chats.export": { input: ExportConversations; output: Export };
  "chats.import": { input: ImportConversations; output: Imported };
  "chats.search": { input: Search; output: SearchResults };
  "usage.get": { input: GetUsage; output: Usage };
}

export type Topic = keyof Topics;

/** All of a topic at one moment; `seq` numbers the topic's messages. */
export interface Snapshot<T extends Topic = Topic> {
  topic: T;
  seq: number;
  data: Topics[T]["data"];
}

/** Changes since the message before; `dropped` counts the items that this client was too slow to get. */
export interface Delta<T extends Topic = Topic> {
  topic: T;
  seq: number;
  items: Topics[T]["item"][];
  dropped: number;
}

export type OperationName = keyof Operations;

export type CallResult<O extends OperationName> =
  | { ok: true; data: Operations[O]["output"] }
  | { ok: false; error: CallError };
