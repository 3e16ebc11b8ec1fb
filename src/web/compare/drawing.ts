// Drawing before and after: the same prompt and noise without and with what was learnt; without a run, or of one that has learnt
// nothing yet, the model as it is. The strength slider asks for previews of few steps, one at a time, the newest first; letting go of it
// draws in full.

import { signal } from "@preact/signals";
import type { DrawnPicture, WireError } from "../protocol.ts";
import { engine, forming, openDevice, wireError } from "../store.ts";
import { newestWins } from "./newest.ts";

export interface DrawForm {
  prompt: string;
  seed: number;
  /** The seed stays when "Draw" is pressed again. */
  locked: boolean;
  steps: number;
  count: number;
  strength: number;
}

interface Request extends DrawForm {
  /** Null draws the model as it is before training, and no "after". */
  run: string | null;
  preview: boolean;
  /** Requests of an earlier screen are answered to nobody. */
  screen: number;
}

/** The strength slider's range; beyond 1 exaggerates, below 0 does the opposite. */
export const STRENGTH = { min: -0.5, max: 1.5, step: 0.05 } as const;
/** Steps of a preview while the slider moves. */
export const PREVIEW_STEPS = 4;
/** Milliseconds of rest before a preview is begun. */
const REST = 60;

export const form = signal<DrawForm>({ prompt: "", seed: 1, locked: true, steps: 12, count: 2, strength: 1 });
export const before = signal<DrawnPicture[] | null>(null);
export const after = signal<DrawnPicture[] | null>(null);
/** What the pictures on the screen were drawn with. */
export const drawn = signal<Omit<Request, "screen"> | null>(null);
export const drawing = signal<"before" | "after" | null>(null);
export const drawError = signal<WireError | null>(null);

export function changeForm(change: Partial<DrawForm>): void {
  form.value = { ...form.value, ...change };
}

/** What "before" depends on; it is not drawn again for another strength or once there is a LoRA. */
const keyOf = ({ prompt, seed, steps, count }: Request) => JSON.stringify([prompt, seed, steps, count]);
let beforeKey = "";
let screen = 0;

async function draw(request: Request): Promise<{ request: Request; pictures: DrawnPicture[] | null }> {
  const { prompt, seed, steps, count, strength, run, preview } = request;
  const prompts = Array.from({ length: count }, () => prompt);
  await openDevice();
  const worker = await engine();
  if (keyOf(request) !== beforeKey) {
    drawing.value = "before";
    forming.value = [];
    // Strength 0 is the base model, without opening its weights a second time.
    const pictures = await worker.draw({ run, prompts, seed, first: 0, strength: 0, steps });
    if (request.screen === screen) {
      // An older "after" beside a new "before" would be a lie.
      after.value = null;
      before.value = pictures;
      beforeKey = keyOf(request);
    }
  }
  if (run === null) return { request, pictures: null };
  drawing.value = "after";
  forming.value = [];
  const fewer = preview ? Math.min(steps, PREVIEW_STEPS) : steps;
  return { request, pictures: await worker.draw({ run, prompts, seed, first: 0, strength, steps: fewer }) };
}

const newest = newestWins(
  draw,
  ({ request, pictures }) => {
    if (request.screen !== screen) return;
    after.value = pictures;
    drawn.value = request;
    drawError.value = null;
  },
  {
    wait: REST,
    busy: (busy) => {
      if (!busy) drawing.value = null;
    },
    failed: (error) => {
      drawError.value = wireError(error);
    },
  },
);

/** A seed that people can read and type. */
const freshSeed = () => crypto.getRandomValues(new Uint32Array(1))[0]! % 100_000;

/** Draws with the form as it stands; with an open lock from new noise. */
export function drawNow(run: string | null): void {
  if (!form.value.locked) changeForm({ seed: freshSeed() });
  newest.ask({ ...form.value, run, preview: false, screen });
}

/** Draws what is on the screen with another strength. */
export function drawStrength(run: string, strength: number, preview: boolean): void {
  changeForm({ strength });
  const shown = drawn.value;
  if (shown) newest.ask({ ...shown, strength, run, preview, screen });
}

/** Forgets what another run drew. Before training every run is the same model, so those pictures stay. */
export function clearDrawn(): void {
  screen++;
  after.value = drawError.value = null;
  if (drawn.value) drawn.value = { ...drawn.value, run: null, preview: false };
}
