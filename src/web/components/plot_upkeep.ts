// What every plot on the page needs while it is shown: the width of its place, and the colours of the theme.

import type uPlot from "uplot";

/** Keeps a plot as wide as `place` and in the theme's colours; returns how to take it away. */
export function keepUp(plot: uPlot, place: HTMLElement, height: number): () => void {
  const resized = new ResizeObserver(() => {
    const width = place.clientWidth;
    if (width > 0 && width !== plot.width) plot.setSize({ width, height });
  });
  resized.observe(place);
  const redraw = () => plot.redraw(false);
  const themed = new MutationObserver(redraw);
  themed.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", redraw);
  return () => {
    resized.disconnect();
    themed.disconnect();
    scheme.removeEventListener("change", redraw);
    plot.destroy();
  };
}
