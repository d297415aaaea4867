/** Choice of the model that answers. */

import type { ModelSummary } from "../../live/protocol.gen";

/** The picked model, else one that is ready, a favourite, the one used last, the first; null without any. */
export function defaultModel(models: readonly ModelSummary[], picked: string | null): ModelSummary | null {
  const byUse = [...models].sort((a, b) => (b.last_used_at_ms ?? 0) - (a.last_used_at_ms ?? 0));
  return (
    models.find((model) => model.slug === picked) ??
    byUse.find((model) => model.status === "ready") ??
    byUse.find((model) => model.is_favorite) ??
    byUse[0] ??
    null
  );
}
