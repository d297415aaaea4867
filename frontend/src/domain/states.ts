/** Badges for the states of models and of the engine. */

import type { EngineStatus, ModelStatus } from "../live/protocol.gen";
import type { BadgeContent } from "../ui/badge";
import { text } from "./text";

const word = text.modelStatus;

export const modelBadges: Record<ModelStatus, BadgeContent> = {
  unloaded: { word: word.unloaded, icon: "circle", tone: "none" },
  queued: { word: word.queued, icon: "clock", tone: "info" },
  loading: { word: word.loading, icon: "busy", tone: "info", moving: true },
  ready: { word: word.ready, icon: "check", tone: "ok" },
  sleeping: { word: word.sleeping, icon: "moon", tone: "none" },
  stopping: { word: word.stopping, icon: "busy", tone: "warn", moving: true },
  failed: { word: word.failed, icon: "alert", tone: "bad" },
};

export const engineBadges: Record<EngineStatus, BadgeContent> = {
  running: { word: text.engineStatus.running, icon: "check", tone: "ok" },
  idle: { word: text.engineStatus.idle, icon: "stop", tone: "none" },
  error: { word: text.engineStatus.error, icon: "alert", tone: "bad" },
};
