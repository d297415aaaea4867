/** Choices that this browser keeps. Where storage is forbidden, a choice lasts until the page is loaded again. */

export function readPreference(name: string): string | null {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** A value of null removes the choice. */
export function writePreference(name: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    // The choice is not kept; the page works without.
  }
}
