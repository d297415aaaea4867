/** Every page: where it is and how its code is loaded. */

import type { Component } from "svelte";

export type PageName = "dashboard" | "models" | "chat";

export interface Route {
  path: string;
  page: PageName;
}

/** The server answers these paths with the UI; the first path of a page is the one links use. */
export const routes: readonly Route[] = [
  { path: "/", page: "dashboard" },
  { path: "/dashboard", page: "dashboard" },
  { path: "/models", page: "models" },
  { path: "/chat", page: "chat" },
];

export const loaders: Record<PageName, () => Promise<{ default: Component }>> = {
  dashboard: () => import("../pages/Dashboard.svelte"),
  models: () => import("../pages/Models.svelte"),
  chat: () => import("../pages/Chat.svelte"),
};

/** The page at a path below the base, if there is one. A trailing slash is forgiven. */
export function pageAt(path: string): PageName | null {
  const bare = path.length > 1 ? path.replace(/\/$/, "") : path;
  return routes.find((route) => route.path === bare)?.page ?? null;
}

export function pathOf(page: PageName): string {
  return routes.find((route) => route.page === page)!.path;
}
