// The picture that `longtail sample --image` starts from: which file, how much of it is drawn anew, and the pixels that the
// autoencoder reads.

import { LongtailError } from "../../base/errors.ts";
import { sha256 } from "../../base/hash.ts";
import { fitPicture } from "../../data/pictures/prepare.ts";
import { firstStep } from "../../diffusion/image_start.ts";
import { decodePicture } from "../../formats/picture.ts";
import { type Geometry, TOKEN_PIXELS } from "../../models/pipeline.ts";
import type { PictureWant } from "../../runs/train/encode.ts";
import { numberFlag } from "../choice.ts";
import type { CommandContext } from "../command.ts";

/** diffusers' default. */
const STRENGTH = 0.6;

export interface StartPicture {
  strength: number;
  /** The first step that is taken. */
  first: number;
  /** What the autoencoder encodes, cut to the size that is drawn. */
  want: PictureWant;
  /** Hash of the file. */
  id: string;
}

/** Whether `--strength` is the picture's: it can mean nothing else where there is a picture and no adapter. */
const isPictureStrength = (flags: CommandContext["arguments"]["flags"]) =>
  flags["image"] !== undefined && flags["weights"] === undefined;

/**
 * The picture of `--image`, decoded, or null without one.
 * @throws LongtailError E-ARG-051 a strength that is none, E-ARG-053 one that leaves no step, E-ARG-054 a strength without a
 * picture, and what reading and decoding the file throws
 */
export async function startPictureOf(
  context: CommandContext,
  steps: number,
  geometry: Geometry,
): Promise<StartPicture | null> {
  const { flags } = context.arguments;
  const path = flags["image"];
  if (typeof path !== "string") {
    if (flags["image-strength"] === undefined) return null;
    throw new LongtailError("E-ARG-054", {
      what: "--image-strength says how much of a picture is drawn anew, and there is no picture",
      where: String(flags["image-strength"]),
      fix: "give one with --image=FILE, or leave --image-strength out",
    });
  }
  const name = flags["image-strength"] === undefined && isPictureStrength(flags) ? "strength" : "image-strength";
  const strength = numberFlag(flags[name], name, STRENGTH, 0, 1);
  const first = firstStep(steps, strength);
  if (first >= steps) {
    throw new LongtailError("E-ARG-053", {
      what: "a strength of 0 leaves no step to take",
      where: `--${name}`,
      why: "strength is the share of the steps that redraw the picture",
      fix: "give a strength above 0",
    });
  }
  const bytes = await context.files.readBytes(path);
  const picture = await decodePicture(bytes, path);
  const bucket = { width: geometry.columns * TOKEN_PIXELS, height: geometry.rows * TOKEN_PIXELS };
  const id = await sha256(bytes);
  return {
    strength,
    first,
    id,
    want: {
      geometry,
      facts: { picture: id, ...bucket, flip: false, crop: "center" },
      load: async () => fitPicture(picture, bucket),
    },
  };
}

/** The strength of the adapter: `--strength`, unless that is the picture's. */
export function adapterStrengthFlag(flags: CommandContext["arguments"]["flags"]): string | true | undefined {
  return isPictureStrength(flags) ? undefined : flags["strength"];
}
