/** Messages about what happened in the background, as a pure reducer: at most three, equal ones counted. */

export interface Toast {
  id: number;
  tone: "ok" | "bad";
  message: string;
  details: string | null;
  /** What can be done about it. */
  action: { label: string; run: () => void } | null;
  /** How often it happened. */
  count: number;
}

export const MOST = 3;
/** A success goes away by itself; an error stays until it is read. */
export const SUCCESS_MS = 4000;

export function added(toasts: readonly Toast[], toast: Omit<Toast, "count">): Toast[] {
  const same = toast.action ? undefined : toasts.find((t) => t.tone === toast.tone && t.message === toast.message);
  if (same) return toasts.map((t) => (t === same ? { ...toast, id: same.id, count: same.count + 1 } : t));
  return [...toasts, { ...toast, count: 1 }].slice(-MOST);
}

export function removed(toasts: readonly Toast[], id: number): Toast[] {
  return toasts.filter((toast) => toast.id !== id);
}
