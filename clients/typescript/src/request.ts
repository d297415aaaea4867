/** What a request is, how it is sent, and what it can fail with. */

/** An operation with its arguments; `T` is what its answer becomes. */
export interface Request<T> {
  method: string;
  path: string;
  query?: Record<string, Value | null | undefined>;
  headers?: Record<string, string | null | undefined>;
  body?: unknown;
  /** The answer is an envelope of which only `data` matters. */
  isWrapped?: boolean;
  /** Never there: it ties `T` to the request. */
  readonly result?: T;
}

export type Value = string | number | boolean;

/** One server-sent event of a streamed answer. */
export interface StreamEvent {
  type: string;
  id: string;
  data: Record<string, unknown>;
}

/** Every failure of a call. `status` is that of HTTP, 0 where there was no answer. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
    readonly details?: string,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

export interface ClientOptions {
  apiKey?: string;
  /** For tests and for runtimes whose own is to be replaced. */
  fetch?: typeof fetch;
}

/** Sends requests to one service. `base` is its address; in a browser "" means the page's own. */
export class Client {
  readonly #base: string;
  readonly #options: ClientOptions;

  constructor(base = defaultBase(), options: ClientOptions = {}) {
    this.#base = base.replace(/\/+$/, "");
    this.#options = options;
  }

  /** Throws ApiError; what `signal` aborts throws as `fetch` does. */
  async send<T>(request: Request<T>, signal?: AbortSignal): Promise<T> {
    const response = await this.#fetch(request, signal);
    if (response.status === 204) return undefined as T;
    if (!isJson(response)) return (await response.blob()) as T;
    const body: unknown = await response.json();
    return (request.isWrapped ? (body as { data: unknown }).data : body) as T;
  }

  /** The events of a streamed answer as they come. Leaving the loop ends the reading. */
  async *stream(request: Request<unknown>, signal?: AbortSignal): AsyncGenerator<StreamEvent> {
    const response = await this.#fetch(request, signal);
    if (!response.body) return;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    try {
      let text = "";
      for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
        const blocks = (text + piece.value).replaceAll("\r\n", "\n").split("\n\n");
        text = blocks.pop() ?? "";
        for (const block of blocks) {
          const event = parsed(block);
          if (event) yield event;
        }
      }
    } finally {
      await reader.cancel();
    }
  }

  async #fetch(request: Request<unknown>, signal?: AbortSignal): Promise<Response> {
    const headers: Record<string, string> = present(request.headers);
    if (this.#options.apiKey) headers["Authorization"] = `Bearer ${this.#options.apiKey}`;
    const init: RequestInit = { method: request.method, headers };
    if (request.body !== undefined) {
      headers["Content-Type"] = "application/json";
      init.body = JSON.stringify(request.body);
    }
    if (signal) init.signal = signal;
    const query = new URLSearchParams(present(request.query)).toString();
    const url = `${this.#base}${request.path}${query && "?"}${query}`;
    const response = await this.#reached(url, init);
    if (!response.ok) throw await failure(response);
    return response;
  }

  async #reached(url: string, init: RequestInit): Promise<Response> {
    try {
      return await (this.#options.fetch ?? fetch)(url, init);
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw new ApiError(`Nobody answers at ${url}: ${String(error)}`, 0, "CONNECTION_FAILED");
    }
  }
}

/** `/api/models/{model_id}` with its parameters filled in. */
export function pathOf(template: string, values: Record<string, Value>): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(values[name])));
}

function defaultBase(): string {
  return "document" in globalThis ? "" : "http://127.0.0.1:3000";
}

function present(values: Record<string, Value | null | undefined> = {}): Record<string, string> {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
  return Object.fromEntries(given.map(([name, value]) => [name, String(value)]));
}

function isJson(response: Response): boolean {
  return response.headers.get("content-type")?.startsWith("application/json") ?? false;
}

/** Both forms of the service's errors: an object in `error`, or a sentence there and the rest beside it. */
async function failure(response: Response): Promise<ApiError> {
  const body = (isJson(response) ? await response.json() : {}) as { error?: unknown };
  const source = (typeof body.error === "object" && body.error ? body.error : body) as Record<string, unknown>;
  const message = typeof body.error === "string" ? body.error : String(source["message"] ?? response.statusText);
  const details = typeof source["details"] === "string" ? source["details"] : undefined;
  return new ApiError(message, response.status, String(source["code"] ?? ""), details);
}

/** Undefined for a comment, which only keeps the connection in use. */
function parsed(block: string): StreamEvent | undefined {
  const fields: Record<string, string> = {};
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 1).replace(/^ /, "");
  }
  const { data, event = "message", id = "" } = fields;
  return data === undefined ? undefined : { type: event, id, data: JSON.parse(data) as Record<string, unknown> };
}
