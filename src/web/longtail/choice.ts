// Which concepts the list shows and which are picked to be aligned. Pure: the map, the list and the address line use it.

import { nearestName } from "../../base/errors.ts";
import type { Concept } from "./catalogue.ts";

export interface Filter {
  /** Words that the name, category or region must all contain. */
  search: string;
  /** Empty: any. */
  category: string;
  region: string;
  part: "all" | "tail" | "head" | "picked";
}

export const NO_FILTER: Filter = { search: "", category: "", region: "", part: "all" };

/** As many items as the experiment aligns. */
export const MOST_PICKED = 32;

/** Letters without accents and case, so that "pinata" finds "piñata". */
const folded = (text: string) =>
  text
    .normalize("NFD")
    .replace(/\p{Mn}/gu, "")
    .toLowerCase();

/** Whether a filter leaves anything out at all. */
export function isFiltering({ search, category, region, part }: Filter): boolean {
  return search.trim() !== "" || category !== "" || region !== "" || part !== "all";
}

/** Concepts that pass, tail first, in the catalogue's order otherwise. */
export function filtered(concepts: readonly Concept[], filter: Filter, picked: ReadonlySet<number>): Concept[] {
  const wanted = folded(filter.search).split(/\s+/).filter(Boolean);
  const passing = concepts.filter((concept) => {
    if (filter.category !== "" && concept.category !== filter.category) return false;
    if (filter.region !== "" && concept.region !== filter.region) return false;
    if (filter.part === "tail" && !concept.tail) return false;
    if (filter.part === "head" && concept.tail) return false;
    if (filter.part === "picked" && !picked.has(concept.index)) return false;
    const text = folded(`${concept.name} ${concept.category} ${concept.region}`);
    return wanted.every((word) => text.includes(word));
  });
  return [...passing.filter((c) => c.tail), ...passing.filter((c) => !c.tail)];
}

/** Values of a field with how many concepts have each, the most frequent first. */
export function countsOf(concepts: readonly Concept[], field: "category" | "region"): [name: string, count: number][] {
  const counts = new Map<string, number>();
  for (const concept of concepts)
    if (concept[field] !== "") counts.set(concept[field], (counts.get(concept[field]) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
}

/** Adds or takes out one tail concept; head concepts cannot be picked, and beyond the limit nothing is added. */
export function toggled(picked: ReadonlySet<number>, concept: Concept): ReadonlySet<number> {
  const next = new Set(picked);
  if (next.delete(concept.index)) return next;
  if (!concept.tail || next.size >= MOST_PICKED) return picked;
  return next.add(concept.index);
}

/**
 * Concepts by the names of an address.
 * @returns what is picked then, or what is wrong with the names, one sentence each
 */
export function picksNamed(
  concepts: readonly Concept[],
  names: readonly string[],
): { picked: ReadonlySet<number>; problems: string[] } {
  const byName = new Map(concepts.map((concept) => [concept.name, concept]));
  const problems = names.flatMap((name) => {
    const concept = byName.get(name);
    if (concept?.tail) return [];
    const near = concept ? null : nearestName(name, [...byName.keys()]);
    if (concept) return [`“${name}” is no rare concept, and only those can be picked`];
    return [`“${name}” is not a concept of this page${near ? `; did you mean “${near}”?` : ""}`];
  });
  if (names.length > MOST_PICKED) problems.push(`${names.length} concepts; at most ${MOST_PICKED} can be picked`);
  return { picked: new Set(problems.length > 0 ? [] : names.map((name) => byName.get(name)!.index)), problems };
}

/** The 32 of the experiment, or the tail concepts of a category or region, as many as there is room for. */
export function preset(
  concepts: readonly Concept[],
  which: { kind: "experiment" } | { kind: "category" | "region"; name: string },
): ReadonlySet<number> {
  const tail = concepts.filter((c) => c.tail);
  const chosen =
    which.kind === "experiment" ? tail.filter((c) => c.align) : tail.filter((c) => c[which.kind] === which.name);
  return new Set(chosen.slice(0, MOST_PICKED).map((c) => c.index));
}
