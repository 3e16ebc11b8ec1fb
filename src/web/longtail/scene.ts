// What the map draws from where the camera stands: one disc a concept, with its picture when it is large enough and a plain
// dot when it is not, sorted from far to near. Both renderers draw this list, and picking reads it, so that what is hit is
// what is seen.

import { type Camera, project, type Viewport, viewProjection } from "./camera.ts";
import type { Concept } from "./catalogue.ts";

export interface Disc {
  /** Index of the concept. */
  index: number;
  x: number;
  y: number;
  /** In CSS pixels. */
  radius: number;
  depth: number;
  /** 1: the picture; 0: a dot; between them both. */
  picture: number;
  /** How much of the colour is left at this depth, (0, 1]. */
  strength: number;
  tail: boolean;
  picked: boolean;
  /** Hovered or focused. */
  lit: boolean;
}

export interface SceneState {
  picked: ReadonlySet<number>;
  /** Concepts that a filter leaves; null: all. The others are drawn as faint dots. */
  shown: ReadonlySet<number> | null;
  hovered: number | null;
  focused: number | null;
}

export const EMPTY_STATE: SceneState = { picked: new Set(), shown: null, hovered: null, focused: null };

/** Radius of a disc in units of the map. */
const RADIUS = { head: 0.032, tail: 0.038 };
/** Radii in CSS pixels between which a dot becomes a picture. */
const DOT = 5;
const PICTURE = 7.5;
const SMALLEST = 2.2;
/** What a filter leaves out. */
const FAINT = 0.16;

/** Discs of the concepts in front of the camera, far ones first. */
export function sceneOf(
  concepts: readonly Concept[],
  camera: Camera,
  viewport: Viewport,
  state: SceneState = EMPTY_STATE,
): Disc[] {
  const matrix = viewProjection(camera, viewport);
  const discs: Disc[] = [];
  for (const concept of concepts) {
    const { x, y, depth, scale } = project(concept.place, matrix, viewport);
    if (depth <= 0.08) continue;
    const { index, tail } = concept;
    const lit = index === state.hovered || index === state.focused;
    const picked = state.picked.has(index);
    const out = state.shown !== null && !state.shown.has(index) && !lit && !picked;
    const usual = Math.max(SMALLEST, (tail ? RADIUS.tail : RADIUS.head) * scale);
    const radius = out ? Math.min(usual, 3) : lit ? Math.max(usual * 1.25, 16) : picked ? usual * 1.1 : usual;
    if (x < -radius || y < -radius || x > viewport.width + radius || y > viewport.height + radius) continue;
    discs.push({
      index,
      x,
      y,
      radius,
      depth,
      picture: out ? 0 : Math.min(1, Math.max(0, (radius - DOT) / (PICTURE - DOT))),
      strength: out ? FAINT : lit || picked ? 1 : fogged(depth, camera.distance),
      tail,
      picked,
      lit,
    });
  }
  // What is pointed at comes last, on top; equal depths keep an order, so that nothing flickers.
  return discs.sort((a, b) => Number(a.lit) - Number(b.lit) || b.depth - a.depth || a.index - b.index);
}

/** Far concepts fade, so that depth is seen in a still picture. */
function fogged(depth: number, distance: number): number {
  const behind = (depth - distance + 0.9) / 1.8;
  return 1 - 0.62 * Math.min(1, Math.max(0, behind));
}

/** Slack around a disc for fingers and small dots, CSS pixels. */
const SLACK = 5;

/** The concept at a place on the screen: the topmost disc there, else the nearest within a little slack; null for none. */
export function pick(discs: readonly Disc[], x: number, y: number, slack = SLACK): number | null {
  let best: { index: number; away: number } | null = null;
  for (let i = discs.length - 1; i >= 0; i--) {
    const disc = discs[i]!;
    // What a filter left out is scenery.
    if (disc.strength <= FAINT) continue;
    const away = Math.hypot(disc.x - x, disc.y - y) - disc.radius;
    if (away <= 0) return disc.index;
    if (away <= slack && (best === null || away < best.away)) best = { index: disc.index, away };
  }
  return best?.index ?? null;
}

export interface Label {
  text: string;
  x: number;
  y: number;
  strength: number;
}

/** Names of the categories, each at the member that lies in its middle; labels that would overlap are left out. */
export function labelsOf(concepts: readonly Concept[], camera: Camera, viewport: Viewport): Label[] {
  const matrix = viewProjection(camera, viewport);
  const members = new Map<string, Concept[]>();
  for (const concept of concepts) members.set(concept.category, [...(members.get(concept.category) ?? []), concept]);
  const labels: Label[] = [];
  const taken: { left: number; right: number; top: number; bottom: number }[] = [];
  for (const [text, list] of [...members].sort((a, b) => b[1].length - a[1].length)) {
    if (list.length < 7) break;
    const middle = [0, 1, 2].map((k) => median(list.map((c) => c.place[k]!))) as [number, number, number];
    const { x, y, depth } = project(middle, matrix, viewport);
    const box = { left: x - 4 * text.length - 6, right: x + 4 * text.length + 6, top: y - 11, bottom: y + 11 };
    const isOut =
      depth <= 0.1 || box.left < 0 || box.right > viewport.width || box.top < 0 || box.bottom > viewport.height;
    if (
      isOut ||
      taken.some((t) => t.left < box.right && box.left < t.right && t.top < box.bottom && box.top < t.bottom)
    )
      continue;
    taken.push(box);
    labels.push({ text, x, y, strength: fogged(depth, camera.distance) });
  }
  return labels;
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}
