/** Unsent messages, one for each conversation; they survive a reload of the tab. */

const key = (id: number | null): string => `draft ${id ?? "new"}`;

/** An `id` of null stands for the conversation that begins next. */
export function readDraft(id: number | null): string {
  try {
    return sessionStorage.getItem(key(id)) ?? "";
  } catch {
    return ""; // storage may be forbidden
  }
}

export function saveDraft(id: number | null, draft: string): void {
  try {
    if (draft === "") sessionStorage.removeItem(key(id));
    else sessionStorage.setItem(key(id), draft);
  } catch {
    // The draft is lost with a reload; the page works without.
  }
}
