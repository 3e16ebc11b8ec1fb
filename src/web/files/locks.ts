// Two tabs of the page share one storage: whoever writes a run holds a Web Lock of its name, which the browser gives back by itself
// when the tab or its worker is gone. A lock is never taken away from another tab.

import { LongtailError } from "../../base/errors.ts";

const RUN = "longtail/runs/";

/**
 * Does `work` while this tab alone may write the run `name`.
 * @throws E-RUN-015 another tab has it
 */
export async function withRunLock<T>(name: string, work: () => Promise<T>): Promise<T> {
  return navigator.locks.request(RUN + name, { ifAvailable: true }, (lock) => {
    if (lock) return work();
    throw new LongtailError("E-RUN-015", {
      what: "another tab of this page is at work on this run",
      where: name,
      fix: "go on in that tab, or wait until it ends or close it",
    });
  });
}

/** Whether some tab, this one included, holds the run `name`. */
export async function isLocked(name: string): Promise<boolean> {
  const { held } = await navigator.locks.query();
  return held?.some((lock) => lock.name === RUN + name) ?? false;
}

/** Does `work` when no other tab is at work under `name`, after waiting for it. */
export function alone<T>(name: string, work: () => Promise<T>): Promise<T> {
  return navigator.locks.request(`longtail-${name}`, work) as Promise<T>;
}
