// Parts of the engine that computes nothing: a clock that can be paused and stepped, and small pictures that grow out of noise.

import { encodePng } from "../../formats/png.ts";

/** A number from a text, the same every time (FNV-1a). */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** Waits that a pause holds up and a number of steps lets through. */
export class FakeClock {
  private paused = false;
  private left = 0;
  private wake: (() => void) | null = null;

  wait(ms: number): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, ms));
  }

  /** Called before an update: holds while paused. `onPause` and `onGo` tell of a change. */
  async turn(onPause: () => void, onGo: () => void): Promise<void> {
    if (this.left > 0 && --this.left === 0) this.paused = true;
    if (!this.paused) return;
    onPause();
    await new Promise<void>((resolve) => {
      this.wake = resolve;
    });
    this.wake = null;
    onGo();
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
    this.left = 0;
    this.wake?.();
  }

  step(updates: number): void {
    this.paused = false;
    // The turn that is waiting now is let through without being counted.
    this.left = updates + (this.wake ? 0 : 1);
    this.wake?.();
  }
}

const SIDE = 64;

/** A 64×64 RGBA picture: a flower whose colours and petals come from the prompt, under noise that `learnt` (0 to 1) takes away. */
export function fakePixels(prompt: string, seed: number, learnt: number): Uint8ClampedArray<ArrayBuffer> {
  const rgba = new Uint8ClampedArray(SIDE * SIDE * 4);
  const hash = hashOf(prompt);
  const hue = (hash % 360) / 360;
  const petals = 3 + (hash % 6);
  let random = (seed * 2654435761) >>> 0 || 1;
  const next = () => {
    random ^= random << 13;
    random ^= random >>> 17;
    random ^= random << 5;
    return (random >>> 0) / 2 ** 32;
  };
  const cloud = Array.from({ length: 81 }, next);
  const turn = next() * Math.PI;
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const dx = (x - 31.5) / 30;
      const dy = (y - 31.5) / 30;
      const radius = Math.hypot(dx, dy);
      const edge = 0.6 + 0.25 * Math.cos(petals * Math.atan2(dy, dx) + turn);
      const inside = Math.min(1, Math.max(0, (edge - radius) * 12));
      const heart = Math.min(1, Math.max(0, (0.22 - radius) * 14));
      const blur = cloud[((y >> 3) % 9) * 9 + ((x >> 3) % 9)]!;
      for (let c = 0; c < 3; c++) {
        const petal = 0.55 + 0.4 * Math.cos(2 * Math.PI * (hue + c / 3) + radius);
        const clean = 1 - inside * (1 - petal) - heart * (petal - 0.2 - 0.3 * c);
        const noisy = 0.45 + 0.35 * blur + 0.2 * Math.cos(6 * (hue + c / 3) + 3 * dy) + 0.12 * (next() - 0.5);
        const share = Math.min(1, 0.15 + 0.85 * learnt);
        rgba[(y * SIDE + x) * 4 + c] = 255 * (share * clean + (1 - share) * noisy);
      }
      rgba[(y * SIDE + x) * 4 + 3] = 255;
    }
  }
  return rgba;
}

/** The same picture as a PNG file's bytes. */
export function fakePictureBytes(prompt: string, seed: number, learnt: number): Uint8Array {
  const rgba = fakePixels(prompt, seed, learnt);
  const data = new Uint8Array(SIDE * SIDE * 3);
  for (let i = 0; i < SIDE * SIDE; i++) for (let c = 0; c < 3; c++) data[i * 3 + c] = rgba[i * 4 + c]!;
  return encodePng({ width: SIDE, height: SIDE, channels: 3, depth: 8, data });
}
