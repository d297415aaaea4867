/** Messages about events in the background, as a pure reducer: at most three at a time, equal ones counted. */

export interface Toast {
  id: number;
  tone: "ok" | "bad";
  message: string;
  details: string | null;
  /** A button on the toast; null without one. */
  action: { label: string; run: () => void } | null;
  /** Number of equal messages. */
  count: number;
}

export const MAX_TOASTS = 3;
/** A success disappears by itself after this time; an error stays until it is dismissed. */
export const SUCCESS_MS = 4000;

export function addToast(toasts: readonly Toast[], toast: Omit<Toast, "count">): Toast[] {
  const same = toast.action ? undefined : toasts.find((t) => t.tone === toast.tone && t.message === toast.message);
  if (same) return toasts.map((t) => (t === same ? { ...toast, id: same.id, count: same.count + 1 } : t));
  return [...toasts, { ...toast, count: 1 }].slice(-MAX_TOASTS);
}

export function removeToast(toasts: readonly Toast[], id: number): Toast[] {
  return toasts.filter((toast) => toast.id !== id);
}
