/** Every page: where it is and how its code is loaded. */

import type { Component } from "svelte";

export type PageName = "dashboard" | "models" | "chat";

export interface Route {
  path: string;
  page: PageName;
}

/** The server answers these paths with the UI; the first path of a page is the one links use. `:id` is a number. */
export const routes: readonly Route[] = [
  { path: "/", page: "dashboard" },
  { path: "/dashboard", page: "dashboard" },
  { path: "/models", page: "models" },
  { path: "/chat", page: "chat" },
  { path: "/chat/:id", page: "chat" },
];

export const loaders: Record<PageName, () => Promise<{ default: Component }>> = {
  dashboard: () => import("../pages/dashboard/Page.svelte"),
  models: () => import("../pages/models/Page.svelte"),
  chat: () => import("../pages/chat/Page.svelte"),
};

/** The page at a path below the base, and which of its things. A trailing slash is forgiven. */
export function placeAt(path: string): { page: PageName | null; id: number | null } {
  const bare = path.length > 1 ? path.replace(/\/$/, "") : path;
  const id = /\/([1-9]\d{0,18})$/.exec(bare)?.[1];
  const wanted = id === undefined ? bare : bare.replace(/\d+$/, ":id");
  const page = routes.find((route) => route.path === wanted)?.page ?? null;
  return { page, id: page === null || id === undefined ? null : Number(id) };
}

export function pathOf(page: PageName): string {
  return routes.find((route) => route.page === page)!.path;
}
