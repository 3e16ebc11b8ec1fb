// The speed that training reached on this machine's adapters, remembered between visits, for estimates that are measured.

import { signal } from "@preact/signals";
import { recall, remember } from "../small_state.ts";
import { verdict } from "../store.ts";

const speeds = signal<Readonly<Record<string, number>>>({});

void recall("speeds").then((known) => {
  speeds.value = { ...known, ...speeds.value };
});

/** FLOP a second that an earlier run reached on this adapter, or undefined. */
export const knownSpeed = (): number | undefined => speeds.value[verdict.value?.adapter ?? ""];

/** Keeps the speed of a run that has just ended. */
export function recordSpeed(flopsPerSecond: number): void {
  const name = verdict.value?.adapter;
  if (!name) return;
  speeds.value = { ...speeds.value, [name]: flopsPerSecond };
  void remember("speeds", { ...speeds.value });
}
