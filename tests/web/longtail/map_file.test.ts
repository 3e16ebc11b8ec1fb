// models/embedded/map.json and the layout that makes it: whole, in bounds, near neighbours near, the same for a seed.

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { layout, nearest, preservedNeighbours, principalComponents } from "../../../scripts/concept_layout.ts";
import { RandomStream } from "../../../src/base/random.ts";
import { embeddedCatalogue } from "./files.ts";

/** Vectors in `groups` clumps, far from one another. */
function clumps(groups: number, each: number, width: number): Float32Array[] {
  const random = new RandomStream(5, "clumps");
  let at = 0;
  const next = () => random.uniform(0, at++) - 0.5;
  const centres = Array.from({ length: groups }, () => Float32Array.from({ length: width }, next));
  return centres.flatMap((centre) => Array.from({ length: each }, () => centre.map((value) => value + 0.15 * next())));
}

test("the map has a place for every concept, once, within radius 1", () => {
  const { concepts } = embeddedCatalogue();
  expect(concepts).toHaveLength(525);
  const places = new Set(concepts.map(({ place }) => place.join()));
  expect(places.size).toBeGreaterThan(520);
  for (const { place, neighbours, index } of concepts) {
    expect(Math.hypot(...place)).toBeLessThan(1.001);
    expect(neighbours).toHaveLength(6);
    expect(neighbours.every((n) => Number.isInteger(n) && n >= 0 && n < 525 && n !== index)).toBe(true);
  }
});

test("the map's file stays small and says how many neighbours it keeps", () => {
  const text = readFileSync("models/embedded/map.json", "utf8");
  expect(text.length).toBeLessThan(40_000);
  const { kept, measured } = JSON.parse(text) as { kept: number; measured: number };
  expect(measured).toBe(10);
  expect(kept).toBeGreaterThan(0.5);
});

test("concepts that the judge sees as alike lie nearer on the map than others do", () => {
  const { concepts } = embeddedCatalogue();
  const distance = (a: number, b: number) =>
    Math.hypot(...[0, 1, 2].map((k) => concepts[a]!.place[k]! - concepts[b]!.place[k]!));
  const near = concepts.flatMap((c) => c.neighbours.slice(0, 3).map((n) => distance(c.index, n)));
  const any = concepts.map((c) => distance(c.index, (c.index * 263 + 17) % 525));
  const mean = (values: number[]) => values.reduce((sum, v) => sum + v, 0) / values.length;
  expect(mean(near)).toBeLessThan(0.4 * mean(any));
});

test("a layout is the same for a seed and keeps clumps together", () => {
  const vectors = clumps(5, 8, 12);
  const options = { seed: 3, perplexity: 5, iterations: 200 };
  const places = layout(vectors, options);
  expect(layout(vectors, options)).toEqual(places);
  expect(preservedNeighbours(vectors, places, 7)).toBeGreaterThan(0.9);
  for (const place of places) expect(Math.hypot(...place)).toBeLessThan(1.001);
});

test("principal components lie along the largest spread, with signs that do not depend on luck", () => {
  const vectors = Array.from({ length: 20 }, (_, i) => Float32Array.of(i, 0.1 * (i % 3), 0.01 * (i % 2)));
  const rows = principalComponents(vectors, 2);
  expect(rows[19]![0]! - rows[0]![0]!).toBeCloseTo(19, 2);
  expect(Math.abs(rows[0]![1]!)).toBeLessThan(0.2);
});

test("nearest neighbours leave a vector itself out and break ties by order", () => {
  const points = [[0], [1], [2], [1]];
  expect(nearest(points, 2)).toEqual([
    [1, 3],
    [3, 0],
    [1, 3],
    [1, 0],
  ]);
});
