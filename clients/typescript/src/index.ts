export * as api from "./api.js";
export { ApiError, Client, type ClientOptions, type Request, type StreamEvent } from "./request.js";
export { ApiService, type DiscoverOptions } from "./service.js";
