/** The time, once a second, while something on the page shows it. */

import { createSubscriber } from "svelte/reactivity";

export class Clock {
  readonly #subscribe = createSubscriber((update) => {
    const timer = setInterval(update, 1000);
    return () => clearInterval(timer);
  });

  get now(): number {
    this.#subscribe();
    return Date.now();
  }
}
