/** What was begun to be written, by conversation; kept over a reload. */

const key = (id: number | null): string => `draft ${id ?? "new"}`;

export function draftOf(id: number | null): string {
  try {
    return sessionStorage.getItem(key(id)) ?? "";
  } catch {
    return ""; // storage may be forbidden
  }
}

export function keepDraft(id: number | null, draft: string): void {
  try {
    if (draft === "") sessionStorage.removeItem(key(id));
    else sessionStorage.setItem(key(id), draft);
  } catch {
    // Nothing to do: it is only not kept.
  }
}
