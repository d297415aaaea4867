/** A small line over time on a canvas, drawn by uPlot; loaded with the first chart on the page. */

import uPlot from "uplot";

const HEIGHT = 40;

export class LineChart {
  readonly #plot: uPlot;
  readonly #resize: ResizeObserver;

  constructor(element: HTMLElement, colour: string) {
    this.#plot = new uPlot(
      {
        width: Math.max(1, element.clientWidth),
        height: HEIGHT,
        padding: [2, 0, 2, 0],
        legend: { show: false },
        cursor: { show: false },
        axes: [{ show: false }, { show: false }],
        scales: { x: { time: true, auto: false }, y: { auto: false, range: [0, 100] } },
        series: [
          {},
          { stroke: colour, width: 1.5, fill: `color-mix(in srgb, ${colour} 12%, transparent)`, points: { show: false } },
        ],
      },
      [[], []],
      element,
    );
    this.#resize = new ResizeObserver(() => {
      this.#plot.setSize({ width: Math.max(1, element.clientWidth), height: HEIGHT });
    });
    this.#resize.observe(element);
  }

  show(times: number[], points: (number | null)[], start: number, end: number): void {
    this.#plot.batch(() => {
      this.#plot.setData([times, points], false);
      this.#plot.setScale("x", { min: start, max: end });
    });
  }

  destroy(): void {
    this.#resize.disconnect();
    this.#plot.destroy();
  }
}
