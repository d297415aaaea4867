/** A state as people see it: always a word and an icon; the colour only adds. */

import type { IconName } from "./icons";

export interface BadgeContent {
  word: string;
  icon: IconName;
  tone: Tone;
  /** True for an icon that turns. */
  moving?: boolean;
}

export type Tone = "ok" | "warn" | "bad" | "info" | "none";

export const TONE_CLASSES: Record<Tone, string> = {
  ok: "text-ok",
  warn: "text-warn",
  bad: "text-bad",
  info: "text-info",
  none: "text-muted",
};
