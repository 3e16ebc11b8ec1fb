// What is picked in the long-tail mode, as the page's address says it: `#mode=longtail&picks=diya lamp,moai`. The frame knows
// addresses before it knows concepts, so names wait here until there are some to tell them by.

import { computed, signal } from "@preact/signals";

/** Names that an address asked for, until they were looked up; null where none did. */
export const askedPicks = signal<readonly string[] | null>(null);
/** What was wrong with that address, one sentence each; then nothing of it is taken. */
export const pickProblems = signal<readonly string[]>([]);
/** Names of what is picked, in the catalogue's order. */
export const pickedNames = signal<readonly string[]>([]);

const KEYS = ["mode", "picks"];

/** Takes up the address of this mode; one without picks changes nothing. */
export function readPicks(hash: string): void {
  const query = new URLSearchParams(hash.replace(/^#/, ""));
  if (query.get("mode") !== "longtail") return;
  const strange = [...query.keys()].filter((key) => !KEYS.includes(key));
  pickProblems.value = strange.map((key) => `“${key}” is not a setting of this mode; there is “picks”`);
  const names = query.get("picks");
  if (names === null || strange.length > 0) return;
  askedPicks.value = [...new Set(names.split(",").filter((name) => name !== ""))];
}

/** The address of this mode with what is picked, or is about to be. */
export const longtailAddress = computed(() => {
  const names = askedPicks.value ?? pickedNames.value;
  // Commas are what separates names; written as they are they can be read.
  const picks = new URLSearchParams({ picks: names.join(",") }).toString().replaceAll("%2C", ",");
  return names.length > 0 ? `#mode=longtail&${picks}` : "#mode=longtail";
});
