/** A value that changes often and is shown once per frame; at once in a hidden tab, which has no frames. */

/** With reduced motion, text comes in steps this long instead of with every frame. */
const CALM_MS = 250;

export class Shown<State> {
  /** What is shown. */
  data = $state.raw<State | null>(null);
  /** What is known. */
  latest: State | null = null;

  readonly #isText: boolean;
  #frame = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(isText = false) {
    this.#isText = isText;
  }

  set(state: State): void {
    this.latest = state;
    if (document.hidden) this.#show();
    else if (this.#isText && matchMedia("(prefers-reduced-motion: reduce)").matches)
      this.#timer ??= setTimeout(() => this.#show(), CALM_MS);
    else this.#frame ||= requestAnimationFrame(() => this.#show());
  }

  #show(): void {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#frame = 0;
    this.#timer = undefined;
    this.data = this.latest;
  }
}
