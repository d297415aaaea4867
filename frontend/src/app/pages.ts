/**
 * Every page, one row each. Router, sidebar, bottom bar, shortcuts, help, the service's list of addresses and the
 * build's check of sizes derive from these rows.
 *
 * A page is the folder pages/<name>/ with Page.svelte, which is loaded on the first visit, and text.ts. This file
 * imports nothing at run time, so that the build can read it too.
 */

import type { Topics } from "../live/protocol.gen";
import type { IconName } from "../ui/icons";

/** Topics with a feed that all pages share; the chat page has feeds of its own. */
export type SharedTopic = Exclude<keyof Topics, "chats" | `chat:${number}`>;

export interface PageRow {
  /** Folder below pages/. */
  name: string;
  /** Addresses below the base path; links lead to the first one. `:id` stands for a number. */
  paths: readonly string[];
  label: string;
  icon: IconName;
  /** Pressed after `g`, this key leads here. */
  chord: string;
  /** Heading in the sidebar under which the page stands. */
  section: "run" | "manage" | "observe";
  /** True for a page with a place in the bottom bar of phones, which has room for four. */
  onPhone: boolean;
  /** True for a page that scrolls inside itself; others scroll as a whole. */
  fillsScreen: boolean;
  /** Topics joined while the page is shown, besides those of the status bar. */
  topics: readonly SharedTopic[];
  /** Most JavaScript, gzipped, that the page may load beyond the first load; the build fails above it. 1 kB is 1000 bytes. */
  kilobytes: number;
}

export const PAGES = [
  {
    name: "dashboard",
    paths: ["/", "/dashboard"],
    label: "Dashboard",
    icon: "dashboard",
    chord: "d",
    section: "run",
    onPhone: true,
    fillsScreen: false,
    topics: ["requests", "live"],
    kilobytes: 35,
  },
  {
    name: "chat",
    paths: ["/chat", "/chat/:id"],
    label: "Chat",
    icon: "chat",
    chord: "c",
    section: "run",
    onPhone: true,
    fillsScreen: true,
    topics: [],
    kilobytes: 75,
  },
  {
    name: "models",
    paths: ["/models"],
    label: "Models",
    icon: "models",
    chord: "m",
    section: "manage",
    onPhone: true,
    fillsScreen: false,
    topics: [],
    kilobytes: 15,
  },
] as const satisfies readonly PageRow[];

export type PageName = (typeof PAGES)[number]["name"];

/** Most JavaScript, gzipped, that is loaded before a page's own code. */
export const FIRST_LOAD_KILOBYTES = 90;

const rows: ReadonlyMap<string, PageRow> = new Map(PAGES.map((row) => [row.name, row]));

export const pageRow = (name: PageName): PageRow => rows.get(name)!;

export interface Route {
  page: PageName | null;
  /** The number in the address, where the page's path has an `:id`. */
  id: number | null;
}

/** Page at a path below the base; null when there is none. A slash at the end makes no difference. */
export function matchRoute(path: string): Route {
  const bare = path.length > 1 ? path.replace(/\/$/, "") : path;
  const id = /\/([1-9]\d{0,18})$/.exec(bare)?.[1];
  const pattern = id === undefined ? bare : bare.replace(/\d+$/, ":id");
  const page = PAGES.find((row: PageRow) => row.paths.includes(pattern))?.name ?? null;
  return { page, id: page === null || id === undefined ? null : Number(id) };
}
