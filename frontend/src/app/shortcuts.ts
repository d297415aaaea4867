/** Which key means what, as a pure decision. */

export type Command = "dashboard" | "models" | "chat" | "sidebar" | "theme" | "help" | "search" | "newChat";

export interface Key {
  key: string;
  /** Ctrl, or Command on a Mac. */
  control: boolean;
  shift: boolean;
  alt: boolean;
  /** The key goes into a text field. */
  typing: boolean;
  /** A dialog is open. */
  modal: boolean;
}

/** `g` waits this long for its second key. */
export const CHORD_MS = 1500;

const AFTER_G: Record<string, Command> = { d: "dashboard", m: "models", c: "chat" };
const SINGLE: Record<string, Command> = { t: "theme", "?": "help", "/": "search" };

/** What to do now, and whether the next key completes a chord. */
export interface Decision {
  command: Command | null;
  waiting: boolean;
}

const NOTHING: Decision = { command: null, waiting: false };

/** `waiting`: `g` was pressed just before. `singleKeys`: they can be switched off, as WCAG 2.1.4 asks. */
export function decide(key: Key, waiting: boolean, singleKeys: boolean): Decision {
  if (key.modal || key.alt) return NOTHING;
  if (key.control) {
    const name = key.key.toLowerCase();
    if (name === "b" && !key.shift) return { command: "sidebar", waiting: false };
    if (name === "o" && key.shift) return { command: "newChat", waiting: false };
    return NOTHING;
  }
  if (key.typing || !singleKeys) return NOTHING;
  if (waiting) return { command: AFTER_G[key.key] ?? null, waiting: false };
  if (key.key === "g") return { command: null, waiting: true };
  return { command: SINGLE[key.key] ?? null, waiting: false };
}
