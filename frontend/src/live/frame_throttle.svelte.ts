/** State that may change many times a frame, shown to components at most once a frame. */

/** With reduced motion, streamed text appears in steps of this length instead of once a frame. */
const REDUCED_MOTION_STEP_MS = 250;

export class FrameThrottle<State> {
  /** The state that components read. */
  shown = $state.raw<State | null>(null);
  /** The newest state; `shown` follows it. */
  latest: State | null = null;

  readonly #isText: boolean;
  #frame = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `isText`: the state is text that streams in, which reduced motion slows down. */
  constructor(isText = false) {
    this.#isText = isText;
  }

  set(state: State): void {
    this.latest = state;
    // A hidden tab draws no frames, so its state is shown at once.
    if (document.hidden) this.#show();
    else if (this.#isText && matchMedia("(prefers-reduced-motion: reduce)").matches)
      this.#timer ??= setTimeout(() => this.#show(), REDUCED_MOTION_STEP_MS);
    else this.#frame ||= requestAnimationFrame(() => this.#show());
  }

  #show(): void {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#frame = 0;
    this.#timer = undefined;
    this.shown = this.latest;
  }
}
