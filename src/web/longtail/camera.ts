// The camera of the map: it orbits around a target and looks at it in perspective. Matrices are wgpu-matrix's; projecting and
// picking are plain functions of them, so that the WebGPU map, the canvas map and the tests see the same picture.

import { mat4, vec3, vec4 } from "wgpu-matrix";

export type Point = readonly [number, number, number];

export interface Camera {
  /** Radians around the vertical axis, and above the horizon. */
  yaw: number;
  pitch: number;
  /** From the target, in units of the map (whose radius is 1). */
  distance: number;
  target: Point;
}

export interface Viewport {
  /** In CSS pixels. */
  width: number;
  height: number;
}

/** A place on the screen: CSS pixels from the top left, and the distance from the camera's plane. */
export interface Projected {
  x: number;
  y: number;
  /** In units of the map; not above 0 behind the camera. */
  depth: number;
  /** CSS pixels that one unit takes up at this depth. */
  scale: number;
}

/** Vertical field of view; the narrower side of the screen gets it. */
const FIELD = (46 * Math.PI) / 180;
const NEAR = 0.01;
const FAR = 20;
export const NEAREST = 0.35;
export const FARTHEST = 6;
const STEEPEST = Math.PI / 2 - 0.05;

export const START: Camera = { yaw: 0.55, pitch: 0.28, distance: 2.45, target: [0, 0, 0] };

/** A camera within its bounds; the yaw stays within one turn. */
export function bounded(camera: Camera): Camera {
  const turn = 2 * Math.PI;
  return {
    yaw: ((camera.yaw % turn) + turn) % turn,
    pitch: Math.min(STEEPEST, Math.max(-STEEPEST, camera.pitch)),
    distance: Math.min(FARTHEST, Math.max(NEAREST, camera.distance)),
    target: camera.target,
  };
}

/** Turns the camera: the map follows a pointer that moved by so many CSS pixels. */
export function orbited(camera: Camera, dx: number, dy: number, viewport: Viewport): Camera {
  const perPixel = 3.2 / Math.max(200, Math.min(viewport.width, viewport.height));
  return bounded({ ...camera, yaw: camera.yaw - dx * perPixel, pitch: camera.pitch + dy * perPixel });
}

/** Comes nearer (factor below 1) or goes away. */
export function zoomed(camera: Camera, factor: number): Camera {
  return bounded({ ...camera, distance: camera.distance * factor });
}

/** Between two cameras, the shorter way around; `share` from 0 to 1. */
export function between(from: Camera, to: Camera, share: number): Camera {
  const turn = 2 * Math.PI;
  const mix = (a: number, b: number) => a + (b - a) * share;
  const way = ((((to.yaw - from.yaw + Math.PI) % turn) + turn) % turn) - Math.PI;
  return bounded({
    yaw: from.yaw + way * share,
    pitch: mix(from.pitch, to.pitch),
    distance: mix(from.distance, to.distance),
    target: [0, 1, 2].map((k) => mix(from.target[k]!, to.target[k]!)) as unknown as Point,
  });
}

/** The view-projection matrix, column-major as WebGPU takes it. */
export function viewProjection(camera: Camera, viewport: Viewport): Float32Array {
  const { yaw, pitch, distance, target } = camera;
  const flat = Math.cos(pitch) * distance;
  const eye = vec3.add(
    vec3.fromValues(...target),
    vec3.fromValues(flat * Math.sin(yaw), Math.sin(pitch) * distance, flat * Math.cos(yaw)),
  );
  const aspect = viewport.width / Math.max(1, viewport.height);
  // On a narrow screen the field is that of the width, so that the whole map fits there too.
  const field = aspect >= 1 ? FIELD : 2 * Math.atan(Math.tan(FIELD / 2) / aspect);
  const projection = mat4.perspective(field, aspect, NEAR, FAR);
  const view = mat4.lookAt(eye, vec3.fromValues(...target), vec3.fromValues(0, 1, 0));
  return mat4.multiply(projection, view) as Float32Array;
}

/** Where a point is on the screen. */
export function project(point: Point, matrix: Float32Array, viewport: Viewport): Projected {
  const [x, y, , w] = vec4.transformMat4(vec4.fromValues(point[0], point[1], point[2], 1), matrix) as Float32Array;
  const depth = w!;
  const by = 1 / Math.max(1e-6, depth);
  // Rows 0 and 1 of a rigid view scaled by the projection: the length of row 1 is the cotangent of half the field.
  const focal = Math.hypot(matrix[1]!, matrix[5]!, matrix[9]!);
  return {
    x: (0.5 + 0.5 * x! * by) * viewport.width,
    y: (0.5 - 0.5 * y! * by) * viewport.height,
    depth,
    scale: 0.5 * viewport.height * focal * by,
  };
}
