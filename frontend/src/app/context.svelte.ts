/** Everything the pages share, built once and handed down as context. */

import { createContext } from "svelte";
import { Client } from "../../../clients/typescript/src/request";
import type { Chats } from "../pages/chat/conversations.svelte";
import { Clock } from "./clock.svelte";
import { Connection } from "../live/connection.svelte";
import { Feed } from "../live/feed.svelte";
import * as topics from "../live/reducers/topics";
import { remember, remembered } from "./preferences";
import type { OperationName, Operations, ModelSummary } from "../live/protocol.gen";
import { Router } from "./router.svelte";
import { Theme } from "./theme.svelte";
import { added, removed, SUCCESS_MS, type Toast } from "./toasts";

export class App {
  readonly router = new Router(document.baseURI);
  readonly connection = new Connection(this.router.base);
  readonly client = new Client(location.origin + this.router.base);
  readonly theme = new Theme();
  readonly clock = new Clock();

  readonly models = new Feed(topics.models);
  readonly engine = new Feed(topics.engine);
  readonly metrics = new Feed(topics.metrics);
  readonly requests = new Feed(topics.requests);
  readonly live = new Feed(topics.live);

  readonly loaded = $derived((this.models.data ?? []).filter(isLoaded));

  /** When the connection was lost, if it is. */
  readonly lostAt = $derived(this.connection.state.phase === "lost" ? this.connection.state.lostAt : null);

  toasts = $state.raw<readonly Toast[]>([]);
  sidebarOpen = $state(remembered("sidebar") !== "rail");
  singleKeys = $state(remembered("singleKeys") !== "off");
  helpOpen = $state(false);
  /** Made by the chat page on its first visit; outlives it, so that a deletion can still be undone elsewhere. */
  chats: Chats | null = null;
  /** Where the focus goes with the next visit of a page, instead of its title. */
  focusNext: string | null = null;

  #toastIds = 0;

  /** The time of what is shown: it stands still while nothing new arrives. */
  get now(): number {
    return this.lostAt ?? this.clock.now;
  }

  /** Call an operation; what goes wrong becomes a toast. The answer's data, or null. */
  async run<O extends OperationName>(operation: O, input: Operations[O]["input"]): Promise<Operations[O]["output"] | null> {
    const result = await this.connection.call(operation, input);
    if (result.ok) return result.data;
    this.toast("bad", result.error.message, result.error.details ?? null);
    return null;
  }

  toast(tone: Toast["tone"], message: string, details: string | null = null): void {
    const id = this.#add({ tone, message, details, action: null });
    if (tone === "ok") setTimeout(() => this.dismiss(id), SUCCESS_MS);
  }

  /** A message with something to do about it, until it is dismissed by the id that this returns. */
  offer(message: string, label: string, run: () => void): number {
    return this.#add({ tone: "ok", message, details: null, action: { label, run } });
  }

  newChat(): void {
    this.focusNext = "[data-composer]";
    this.router.go(this.router.href("chat"));
  }

  #add(toast: Omit<Toast, "id" | "count">): number {
    const id = (this.#toastIds += 1);
    this.toasts = added(this.toasts, { ...toast, id });
    return id;
  }

  dismiss(id: number): void {
    this.toasts = removed(this.toasts, id);
  }

  toggleSidebar(): void {
    this.sidebarOpen = !this.sidebarOpen;
    remember("sidebar", this.sidebarOpen ? null : "rail");
  }

  useSingleKeys(on: boolean): void {
    this.singleKeys = on;
    remember("singleKeys", on ? null : "off");
  }
}

export function isLoaded(model: ModelSummary): boolean {
  return model.status === "ready" || model.status === "sleeping" || model.status === "stopping";
}

export const [useApp, provideApp] = createContext<App>();
