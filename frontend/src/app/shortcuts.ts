/** Meaning of each key, as a pure decision. */

import { PAGES, type PageName } from "./pages";

export type Command = { go: PageName } | "sidebar" | "theme" | "help" | "search" | "newChat";

export interface Key {
  key: string;
  /** Ctrl, or Command on a Mac. */
  control: boolean;
  shift: boolean;
  alt: boolean;
  /** True when the key goes into a text field. */
  typing: boolean;
  /** True while a dialog is open. */
  modal: boolean;
}

/** A chord begins with `g`; its second key must follow within this time. */
export const CHORD_MS = 1500;

const PAGE_BY_CHORD: ReadonlyMap<string, PageName> = new Map(PAGES.map((row) => [row.chord, row.name]));
const COMMAND_BY_KEY: Record<string, Command> = { t: "theme", "?": "help", "/": "search" };

export interface Decision {
  command: Command | null;
  /** True when the next key completes a chord. */
  chordPending: boolean;
}

const NONE: Decision = { command: null, chordPending: false };

/** `singleKeys` is false when a person switched keys without Ctrl off, which WCAG 2.1.4 asks for. */
export function decide(key: Key, chordPending: boolean, singleKeys: boolean): Decision {
  if (key.modal || key.alt) return NONE;
  if (key.control) {
    const name = key.key.toLowerCase();
    if (name === "b" && !key.shift) return { command: "sidebar", chordPending: false };
    if (name === "o" && key.shift) return { command: "newChat", chordPending: false };
    return NONE;
  }
  if (key.typing || !singleKeys) return NONE;
  if (chordPending) {
    const page = PAGE_BY_CHORD.get(key.key);
    return { command: page ? { go: page } : null, chordPending: false };
  }
  if (key.key === "g") return { command: null, chordPending: true };
  return { command: COMMAND_BY_KEY[key.key] ?? null, chordPending: false };
}
