/** State that every page shares: built once by App.svelte and handed down as a Svelte context. */

import { createContext } from "svelte";
import { Client } from "../../../clients/typescript/src/request";
import { Connection } from "../live/connection.svelte";
import { Feed } from "../live/feed.svelte";
import type { ModelSummary, OperationName, Operations } from "../live/protocol.gen";
import { engine } from "../live/reducers/engine";
import { live } from "../live/reducers/live";
import { metrics } from "../live/reducers/metrics";
import { models } from "../live/reducers/models";
import { requests } from "../live/reducers/requests";
import { Clock } from "./clock.svelte";
import { readPreference, writePreference } from "./preferences";
import { Router } from "./router.svelte";
import { text } from "./text";
import { Theme } from "./theme.svelte";
import { addToast, removeToast, SUCCESS_MS, type Toast } from "./toasts";

export class AppContext {
  readonly router = new Router(document.baseURI);
  readonly connection = new Connection(this.router.base);
  readonly client = new Client(location.origin + this.router.base);
  readonly theme = new Theme();
  readonly clock = new Clock();

  readonly models = new Feed(models);
  readonly engine = new Feed(engine);
  readonly metrics = new Feed(metrics);
  readonly requests = new Feed(requests);
  readonly live = new Feed(live);

  readonly loaded = $derived((this.models.data ?? []).filter(isLoaded));

  /** Time at which the connection was lost; null while there is one. */
  readonly lostAt = $derived(this.connection.state.phase === "lost" ? this.connection.state.lostAt : null);

  /** Why actions are disabled now; undefined while they are not. */
  readonly offlineReason = $derived(this.connection.online ? undefined : text.connection.disabled);

  toasts = $state.raw<readonly Toast[]>([]);
  sidebarOpen = $state(readPreference("sidebar") !== "rail");
  singleKeys = $state(readPreference("singleKeys") !== "off");
  helpOpen = $state(false);
  /** Selector of the element that gets the focus after the next navigation, instead of the page's title. */
  focusNext: string | null = null;

  readonly #pageStates = new Map<string, unknown>();
  #toastIds = 0;

  /** Time of the data on the page: the present, but the moment of the loss while the connection is lost. */
  get now(): number {
    return this.lostAt ?? this.clock.now;
  }

  /** State of a page that outlives its visits, made on the first one: a deletion in chat can be undone on other pages. */
  pageState<T>(page: string, make: () => T): T {
    if (!this.#pageStates.has(page)) this.#pageStates.set(page, make());
    return this.#pageStates.get(page) as T;
  }

  /** Call an operation. Returns its output; shows a toast and returns null when it fails. */
  async run<O extends OperationName>(
    operation: O,
    input: Operations[O]["input"],
  ): Promise<Operations[O]["output"] | null> {
    const result = await this.connection.call(operation, input);
    if (result.ok) return result.data;
    this.toast("bad", result.error.message, result.error.details ?? null);
    return null;
  }

  toast(tone: Toast["tone"], message: string, details: string | null = null): void {
    const id = this.#addToast({ tone, message, details, action: null });
    if (tone === "ok") setTimeout(() => this.dismiss(id), SUCCESS_MS);
  }

  /** Show a message with a button until it is pressed or dismissed. Returns the toast's id. */
  offer(message: string, label: string, run: () => void): number {
    return this.#addToast({ tone: "ok", message, details: null, action: { label, run } });
  }

  newChat(): void {
    this.focusNext = "[data-composer]";
    this.router.go(this.router.href("chat"));
  }

  #addToast(toast: Omit<Toast, "id" | "count">): number {
    const id = (this.#toastIds += 1);
    this.toasts = addToast(this.toasts, { ...toast, id });
    return id;
  }

  dismiss(id: number): void {
    this.toasts = removeToast(this.toasts, id);
  }

  toggleSidebar(): void {
    this.sidebarOpen = !this.sidebarOpen;
    writePreference("sidebar", this.sidebarOpen ? null : "rail");
  }

  useSingleKeys(on: boolean): void {
    this.singleKeys = on;
    writePreference("singleKeys", on ? null : "off");
  }
}

function isLoaded(model: ModelSummary): boolean {
  return model.status === "ready" || model.status === "sleeping" || model.status === "stopping";
}

export const [useApp, provideApp] = createContext<AppContext>();
