// The long-tail mode's own state, as signals: the catalogue, what is picked, what is pointed at, what the list shows, and the
// numbers of the run to start.

import { batch, computed, effect, signal } from "@preact/signals";
import { askedPicks, pickedNames, pickProblems } from "./address.ts";
import type { Catalogue, Concept } from "./catalogue.ts";
import { type Filter, filtered, isFiltering, NO_FILTER, picksNamed, preset, toggled } from "./choice.ts";
import type { Sheet } from "./map_paint.ts";
import type { AlignForm } from "./request.ts";

export const catalogue = signal<Catalogue | null>(null);
export const catalogueError = signal<string | null>(null);
/** The sheet of pictures that map and list show; null until it is decoded. */
export const sheet = signal<Sheet | null>(null);

/** Indices of the tail concepts that are to be aligned. */
export const picked = signal<ReadonlySet<number>>(new Set());
export const hovered = signal<number | null>(null);
/** The concept whose card is shown. */
export const focused = signal<number | null>(null);
export const filter = signal<Filter>(NO_FILTER);

export const form = signal<AlignForm>({ length: null, weights: "full", pair: "mia", seed: 1, name: "" });

/** Arithmetic of an update of the run that was started last; null where this tab did not plan it. */
export const flopsPerUpdate = signal<number | null>(null);

export const visible = computed<Concept[]>(() =>
  catalogue.value ? filtered(catalogue.value.concepts, filter.value, picked.value) : [],
);

/** Indices that the filter leaves, for the map; null where there is no filter. */
export const shown = computed<ReadonlySet<number> | null>(() =>
  isFiltering(filter.value) ? new Set(visible.value.map((c) => c.index)) : null,
);

/** In the catalogue's order. */
export const pickedConcepts = computed<Concept[]>(() =>
  (catalogue.value?.concepts ?? []).filter((c) => picked.value.has(c.index)),
);

// What an address asked for is picked as soon as there are concepts; from then on the address follows.
effect(() => {
  const asked = askedPicks.value;
  if (!catalogue.value || !asked) return;
  const { picked: wanted, problems } = picksNamed(catalogue.value.concepts, asked);
  batch(() => {
    askedPicks.value = null;
    pickProblems.value = problems;
    if (problems.length === 0) picked.value = wanted;
  });
});
effect(() => {
  pickedNames.value = pickedConcepts.value.map(({ name }) => name);
});

export function togglePicked(concept: Concept): void {
  pickProblems.value = [];
  picked.value = toggled(picked.value, concept);
}

export function pickPreset(which: Parameters<typeof preset>[1] | null): void {
  pickProblems.value = [];
  picked.value = which && catalogue.value ? preset(catalogue.value.concepts, which) : new Set();
}

export function changeFilter(change: Partial<Filter>): void {
  filter.value = { ...filter.value, ...change };
}
