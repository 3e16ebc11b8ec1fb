// Small things that the page remembers between visits (theme, last run, speed of an adapter), in IndexedDB through
// idb-keyval. A browser that keeps nothing, as in some private windows, forgets them; nothing else changes.

import { get, set } from "idb-keyval";

export interface SmallState {
  theme: "light" | "dark";
  /** Name of the run that was started last. */
  lastRun: string;
  /** Panels that explain themselves. */
  explain: boolean;
  /** Whether one's own pictures were chosen last, and their trigger word; null where none was suggested or written yet. */
  own: { chosen: boolean; trigger: string | null };
  /** FLOP a second that training reached, by adapter name. */
  speeds: Record<string, number>;
}

/** What was remembered, or undefined. */
export async function recall<K extends keyof SmallState>(key: K): Promise<SmallState[K] | undefined> {
  try {
    return await get<SmallState[K]>(`longtail.${key}`);
  } catch {
    return undefined;
  }
}

export async function remember<K extends keyof SmallState>(key: K, value: SmallState[K]): Promise<void> {
  try {
    await set(`longtail.${key}`, value);
  } catch {
    // No storage: the page works without a memory.
  }
}
