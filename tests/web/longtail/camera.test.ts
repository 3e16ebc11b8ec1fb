// The map's camera: projecting and picking agree, orbit and zoom stay in their bounds, and a move goes the short way round.

import { expect, test } from "vitest";
import {
  between,
  bounded,
  type Camera,
  FARTHEST,
  NEAREST,
  orbited,
  project,
  START,
  viewProjection,
  zoomed,
} from "../../../src/web/longtail/camera.ts";
import { EMPTY_STATE, labelsOf, pick, sceneOf } from "../../../src/web/longtail/scene.ts";
import { embeddedCatalogue } from "./files.ts";

const WIDE = { width: 800, height: 560 };
const NARROW = { width: 328, height: 352 };
const CAMERAS: Camera[] = [
  START,
  { ...START, yaw: 4, pitch: -0.9, distance: 1.4 },
  { yaw: 2.2, pitch: 0.6, distance: 0.8, target: [0.2, -0.1, 0.3] },
];

test("what the camera looks at is in the middle of the screen, at its distance", () => {
  for (const camera of CAMERAS) {
    const { x, y, depth } = project(camera.target, viewProjection(camera, WIDE), WIDE);
    expect(x).toBeCloseTo(400, 2);
    expect(y).toBeCloseTo(280, 2);
    expect(depth).toBeCloseTo(camera.distance, 4);
  }
});

test("scale says how many pixels a unit at that depth takes up", () => {
  const camera: Camera = { yaw: 0, pitch: 0, distance: 2, target: [0, 0, 0] };
  for (const viewport of [WIDE, NARROW]) {
    const matrix = viewProjection(camera, viewport);
    const middle = project([0, 0, 0], matrix, viewport);
    expect(project([0.1, 0, 0], matrix, viewport).x - middle.x).toBeCloseTo(0.1 * middle.scale, 2);
    expect(middle.y - project([0, 0.1, 0], matrix, viewport).y).toBeCloseTo(0.1 * middle.scale, 2);
  }
});

test("the whole map is on the screen at the start, on a wide screen and on a narrow one", () => {
  const { concepts } = embeddedCatalogue();
  for (const viewport of [WIDE, NARROW]) {
    const matrix = viewProjection(START, viewport);
    for (const { place } of concepts) {
      const { x, y } = project(place, matrix, viewport);
      expect(x).toBeGreaterThan(0);
      expect(x).toBeLessThan(viewport.width);
      expect(y).toBeGreaterThan(0);
      expect(y).toBeLessThan(viewport.height);
    }
  }
});

test("picking where a concept is drawn finds it, or one that is drawn over it", () => {
  const { concepts } = embeddedCatalogue();
  for (const camera of CAMERAS) {
    const discs = sceneOf(concepts, camera, WIDE);
    expect(discs.length).toBeGreaterThan(20);
    let exact = 0;
    for (const [i, disc] of discs.entries()) {
      const found = pick(discs, disc.x, disc.y);
      if (found === disc.index) exact++;
      else {
        const over = discs.findIndex((d) => d.index === found);
        expect(over).toBeGreaterThan(i);
        expect(Math.hypot(discs[over]!.x - disc.x, discs[over]!.y - disc.y)).toBeLessThanOrEqual(discs[over]!.radius);
      }
    }
    expect(exact).toBeGreaterThan(0.4 * discs.length);
  }
});

test("nothing is picked where nothing is, and a finger has slack around a dot", () => {
  const { concepts } = embeddedCatalogue();
  const [disc] = sceneOf([concepts[0]!], START, WIDE);
  expect(pick([disc!], disc!.x + disc!.radius + 9, disc!.y, 4)).toBeNull();
  expect(pick([disc!], disc!.x + disc!.radius + 9, disc!.y, 14)).toBe(0);
});

test("far discs come first and fade; what is hovered comes last", () => {
  const { concepts } = embeddedCatalogue();
  const discs = sceneOf(concepts, START, WIDE, { ...EMPTY_STATE, hovered: 7 });
  const depths = discs.slice(0, -1).map((d) => d.depth);
  expect(depths).toEqual([...depths].sort((a, b) => b - a));
  expect(discs.at(-1)!.index).toBe(7);
  expect(discs[0]!.strength).toBeLessThan(discs.at(-2)!.strength);
});

test("a filter leaves the others as faint dots that cannot be picked, except those picked already", () => {
  const { concepts } = embeddedCatalogue();
  const state = { ...EMPTY_STATE, shown: new Set([3]), picked: new Set([9]) };
  const discs = sceneOf(concepts, START, WIDE, state);
  const of = (index: number) => discs.find((d) => d.index === index)!;
  expect(of(3).strength).toBeGreaterThan(0.3);
  expect(of(9).strength).toBe(1);
  expect(of(20).picture).toBe(0);
  expect(pick([of(20)], of(20).x, of(20).y, 0)).toBeNull();
});

test("orbit and zoom keep their bounds", () => {
  expect(zoomed(START, 1e-6).distance).toBe(NEAREST);
  expect(zoomed(START, 1e6).distance).toBe(FARTHEST);
  const up = orbited(START, 0, 1e5, WIDE);
  expect(up.pitch).toBeLessThan(Math.PI / 2);
  expect(orbited(START, 120, 0, WIDE).yaw).not.toBe(START.yaw);
  expect(bounded({ ...START, yaw: -1 }).yaw).toBeCloseTo(2 * Math.PI - 1);
});

test("the map follows the pointer: dragging to the right moves the near side to the right", () => {
  const camera: Camera = { yaw: 0, pitch: 0, distance: 3, target: [0, 0, 0] };
  const near: [number, number, number] = [0, 0, 0.9];
  const after = orbited(camera, 40, 0, WIDE);
  expect(project(near, viewProjection(after, WIDE), WIDE).x).toBeGreaterThan(
    project(near, viewProjection(camera, WIDE), WIDE).x,
  );
  const down = orbited(camera, 0, 40, WIDE);
  expect(project(near, viewProjection(down, WIDE), WIDE).y).toBeGreaterThan(
    project(near, viewProjection(camera, WIDE), WIDE).y,
  );
});

test("a move between two cameras goes the short way round", () => {
  const half = between({ ...START, yaw: 0.1 }, { ...START, yaw: 2 * Math.PI - 0.1 }, 0.5);
  expect(Math.min(half.yaw, 2 * Math.PI - half.yaw)).toBeCloseTo(0, 5);
  const end = between(START, CAMERAS[2]!, 1);
  expect(end.yaw).toBeCloseTo(CAMERAS[2]!.yaw);
  expect(end.target).toEqual(CAMERAS[2]!.target);
});

test("names of categories do not overlap", () => {
  const labels = labelsOf(embeddedCatalogue().concepts, START, WIDE);
  expect(labels.length).toBeGreaterThan(6);
  for (const [i, a] of labels.entries())
    for (const b of labels.slice(i + 1))
      expect(Math.abs(a.y - b.y) >= 22 || Math.abs(a.x - b.x) >= 4 * (a.text.length + b.text.length)).toBe(true);
});
