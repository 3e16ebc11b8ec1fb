// Reward and judge of the embedded experiment, trained from nothing: open_clip models under the multi-positive InfoNCE loss,
// with the last augmentation (similarity transform, colour, noise) on the device.

import { joined } from "../../base/arrays.ts";
import { RandomStream } from "../../base/random.ts";
import { OpenClip, openClipConfig } from "../../models/clip/open_clip.ts";
import { Parameters } from "../../nn/parameters.ts";
import { affineSample } from "../../ops/affine_sample.ts";
import { add, affine, clamp, mul } from "../../ops/pointwise.ts";
import { RANDOM_KEY_WORDS, randomKey, randomNormal } from "../../ops/random.ts";
import { preprocessPictures } from "../../rewards/clip_reward.ts";
import type { Session } from "../../tensor/session.ts";
import type { Variable } from "../../tensor/variable.ts";
import { contrastiveLoss } from "./contrastive.ts";
import type { ClipDraw } from "./draws.ts";
import { writeStart } from "./initial.ts";
import type { ClipRecipe, PretrainSettings } from "./recipes.ts";
import { SplitPool } from "./split_pool.ts";
import { PretrainLoop } from "./trainer.ts";
import type { CaptionRows } from "./vocabulary.ts";

/** CLIP's statistics of pictures. */
const MEAN = [0.48145466, 0.4578275, 0.40821073];
const STD = [0.26862954, 0.26130258, 0.27577711];

export function clipConfig(
  recipe: ClipRecipe,
  settings: Pick<PretrainSettings, "imageSize" | "clipLength">,
): Record<string, unknown> {
  const { shape } = recipe;
  return {
    model_cfg: {
      embed_dim: shape.embed,
      vision_cfg: {
        image_size: settings.imageSize,
        layers: shape.visionLayers,
        width: shape.visionWidth,
        head_width: shape.visionWidth / shape.visionHeads,
        patch_size: shape.patch,
      },
      text_cfg: {
        context_length: settings.clipLength,
        vocab_size: 49408,
        width: shape.textWidth,
        heads: shape.textHeads,
        layers: shape.textLayers,
      },
    },
    preprocess_cfg: { mean: MEAN, std: STD },
  };
}

/** What one sample of a step brings. */
export interface ClipSample {
  draw: ClipDraw;
  /** [3 · S · S] in [0, 1] */
  planes: Float32Array;
  rows: CaptionRows;
}

export class ClipTrainer {
  readonly loop: PretrainLoop;
  readonly parameters: Parameters;
  private readonly session: Session;
  private readonly recipe: ClipRecipe;
  private readonly vars: Record<
    "pictures" | "maps" | "gain" | "offset" | "noise" | "key" | "rows" | "ends" | "weights",
    Variable
  >;

  /** Declares everything and traces the step; the session must not be open. `rows` is the size of the token table. */
  constructor(session: Session, name: string, recipe: ClipRecipe, settings: PretrainSettings, rows: number) {
    this.session = session;
    this.recipe = recipe;
    const { batch } = recipe;
    const pool = new SplitPool(session, name);
    this.parameters = new Parameters(pool);
    const model = new OpenClip(this.parameters, openClipConfig(clipConfig(recipe, settings), "recipe", rows));
    const logScale = this.parameters.tensor("logit_scale", [1]);
    this.loop = new PretrainLoop(session, pool, recipe);
    const side = settings.imageSize;
    const data = (what: string, shape: number[], dtype?: "u32") => session.data(`${name}.${what}`, shape, dtype);
    this.vars = {
      pictures: data("pictures", [batch, 3, side, side]),
      maps: data("maps", [batch, 6]),
      gain: data("gain", [batch, 3, 1, 1]),
      offset: data("offset", [batch, 3, 1, 1]),
      noise: data("noise", [batch, 1, 1, 1]),
      key: data("key", [RANDOM_KEY_WORDS], "u32"),
      rows: data("rows", [batch, settings.clipLength], "u32"),
      ends: data("ends", [batch], "u32"),
      weights: data("weights", [batch, batch]),
    };
    this.loop.trace((graph) => {
      const read = (what: keyof typeof this.vars) => graph.read(this.vars[what]);
      const pictures = graph.scope("augmentation", () => {
        const moved = affineSample(read("pictures"), read("maps"), 1);
        const coloured = affine(add(mul(affine(moved, 1, -1), read("gain")), read("offset")), 1, 1);
        const noise = mul(randomNormal(read("key"), [batch, 3, side, side]), read("noise"));
        return clamp(add(coloured, noise), 0, 1);
      });
      const constant = (what: string, values: Float32Array | Uint32Array, shape: readonly number[]) =>
        session.constant(graph, what, values, shape);
      const seen = model.imageFeatures(graph, preprocessPictures(model, pictures, constant));
      const texts = model.textFeatures(graph, read("rows"), read("ends"));
      return contrastiveLoss(graph, texts, seen, graph.read(logScale), read("weights"));
    });
  }

  /** Starting values of weights and optimizer; the session must be open. */
  initialise(): void {
    const variables = this.parameters.variables as ReadonlyMap<string, Variable>;
    writeStart(this.session, "open_clip", variables, this.recipe.seed);
    this.loop.initialise();
  }

  /** Submits step `t`, counted from 1; `weights` [B, B] are those of `contrastiveWeights`. */
  step(t: number, samples: readonly ClipSample[], weights: Float32Array): void {
    const { session, vars } = this;
    this.loop.step(t, () => {
      session.write(vars.pictures, joined(samples.map((s) => s.planes)));
      session.write(vars.maps, joined(samples.map((s) => s.draw.map)));
      session.write(vars.gain, Float32Array.from(samples.flatMap((s) => s.draw.gain)));
      session.write(vars.offset, Float32Array.from(samples.flatMap((s) => s.draw.offset)));
      session.write(
        vars.noise,
        Float32Array.from(samples, (s) => s.draw.noise),
      );
      session.write(vars.key, randomKey(new RandomStream(this.recipe.seed, "clip noise"), t));
      session.write(
        vars.rows,
        joined(
          samples.map((s) => s.rows.clip),
          (n) => new Uint32Array(n),
        ),
      );
      session.write(
        vars.ends,
        Uint32Array.from(samples, (s) => s.rows.end),
      );
      session.write(vars.weights, weights);
    });
  }
}
