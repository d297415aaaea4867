import type { ModelSummary } from "../../live/protocol.gen";

/** The model to talk to: the one picked, else one that is ready, a favourite, the last used, the first. */
export function preferred(models: readonly ModelSummary[], picked: string | null): ModelSummary | null {
  const byUse = [...models].sort((a, b) => (b.last_used_at_ms ?? 0) - (a.last_used_at_ms ?? 0));
  return (
    models.find((model) => model.slug === picked) ??
    byUse.find((model) => model.status === "ready") ??
    byUse.find((model) => model.is_favorite) ??
    byUse[0] ??
    null
  );
}
