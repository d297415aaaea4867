/** How states look: always a word and an icon, the colour only adds. */

import type { LiveRequest, ModelStatus, EngineSummary } from "../live/protocol.gen";
import { text } from "../app/strings";
import type { IconName } from "../ui/icons";

export interface Badge {
  word: string;
  icon: IconName;
  tone: "ok" | "warn" | "bad" | "info" | "none";
  moving?: boolean;
}

const word = text.models.status;

export const modelBadges: Record<ModelStatus, Badge> = {
  unloaded: { word: word.unloaded, icon: "circle", tone: "none" },
  queued: { word: word.queued, icon: "clock", tone: "info" },
  loading: { word: word.loading, icon: "busy", tone: "info", moving: true },
  ready: { word: word.ready, icon: "check", tone: "ok" },
  sleeping: { word: word.sleeping, icon: "moon", tone: "none" },
  stopping: { word: word.stopping, icon: "busy", tone: "warn", moving: true },
  failed: { word: word.failed, icon: "alert", tone: "bad" },
};

export const engineBadges: Record<EngineSummary["status"], Badge> = {
  running: { word: text.engine.running, icon: "check", tone: "ok" },
  idle: { word: text.engine.idle, icon: "stop", tone: "none" },
  error: { word: text.engine.error, icon: "alert", tone: "bad" },
};

export const phaseBadges: Record<LiveRequest["phase"], Badge> = {
  queued: { word: text.live.phases.queued, icon: "clock", tone: "info" },
  loading: { word: text.live.phases.loading, icon: "busy", tone: "info", moving: true },
  prompt: { word: text.live.phases.prompt, icon: "busy", tone: "info", moving: true },
  generating: { word: text.live.phases.generating, icon: "busy", tone: "ok", moving: true },
};
