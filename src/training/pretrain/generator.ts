// The generator of the embedded experiment, trained from nothing: a small FLUX and both of its text encoders together, by
// flow matching (Lipman et al. 2023) on encoded pictures. Noise is made on the device from counters.

import { joined } from "../../base/arrays.ts";
import { RandomStream } from "../../base/random.ts";
import { ClipTextModel } from "../../models/clip/text.ts";
import { type FluxConfig, fluxConfig } from "../../models/flux/config.ts";
import { positionIds, ropeTables, SINUSOID_WIDTH, sinusoids } from "../../models/flux/embeddings.ts";
import { FluxTransformer } from "../../models/flux/transformer.ts";
import { bucketTable, T5Encoder, t5Config } from "../../models/t5/encoder.ts";
import { Parameters } from "../../nn/parameters.ts";
import { RANDOM_KEY_WORDS, randomKey, randomNormal } from "../../ops/random.ts";
import type { Session } from "../../tensor/session.ts";
import type { Variable } from "../../tensor/variable.ts";
import { traceFlowLoss } from "../flow/steps.ts";
import { writeStart } from "./initial.ts";
import { CHANNELS, type PretrainSettings } from "./recipes.ts";
import { SplitPool } from "./split_pool.ts";
import { PretrainLoop } from "./trainer.ts";
import type { CaptionRows } from "./vocabulary.ts";

export interface GeneratorSample {
  /** Packed model latents [tokens · 128]. */
  latents: Float32Array;
  rows: CaptionRows;
  sigma: number;
}

/** Configurations in the public formats, as they are written beside the weights. */
export function generatorConfigs(settings: PretrainSettings): Record<"flux" | "clip" | "t5", Record<string, unknown>> {
  const { flux, clip, t5 } = settings.generator;
  return {
    flux: {
      _class_name: "FluxTransformer2DModel",
      patch_size: 1,
      out_channels: null,
      in_channels: CHANNELS,
      num_layers: flux.doubleBlocks,
      num_single_layers: flux.singleBlocks,
      attention_head_dim: flux.headSize,
      num_attention_heads: flux.heads,
      joint_attention_dim: t5.width,
      pooled_projection_dim: clip.width,
      guidance_embeds: false,
      axes_dims_rope: [...flux.ropeAxes],
    },
    clip: {
      architectures: ["CLIPTextModel"],
      model_type: "clip_text_model",
      vocab_size: 49408,
      hidden_act: "quick_gelu",
      layer_norm_eps: 1e-5,
      projection_dim: clip.width,
      bos_token_id: 49406,
      eos_token_id: 49407,
      pad_token_id: 49407,
      hidden_size: clip.width,
      num_hidden_layers: clip.layers,
      num_attention_heads: clip.heads,
      intermediate_size: clip.inner,
      max_position_embeddings: settings.clipLength,
    },
    t5: {
      architectures: ["T5EncoderModel"],
      model_type: "t5",
      vocab_size: 32128,
      feed_forward_proj: "gated-gelu",
      is_gated_act: true,
      dense_act_fn: "gelu_new",
      layer_norm_epsilon: 1e-6,
      tie_word_embeddings: false,
      d_model: t5.width,
      d_kv: t5.headSize,
      num_heads: t5.heads,
      num_layers: t5.layers,
      d_ff: t5.inner,
      relative_attention_num_buckets: 32,
      relative_attention_max_distance: 128,
    },
  };
}

export class GeneratorTrainer {
  readonly loop: PretrainLoop;
  readonly parts: { flux: Parameters; clip: Parameters; t5: Parameters };
  readonly config: FluxConfig;
  private readonly session: Session;
  private readonly settings: PretrainSettings;
  private readonly vars: Record<
    "clean" | "sigma" | "keep" | "time" | "factor" | "clip" | "ends" | "t5" | "key",
    Variable
  >;

  /** Declares everything and traces the step; the session must not be open. `rows` are the sizes of the token tables. */
  constructor(session: Session, settings: PretrainSettings, rows: { clip: number; t5: number }) {
    this.session = session;
    this.settings = settings;
    const { generator, clipLength, t5Length, imageSize } = settings;
    const configs = generatorConfigs(settings);
    const pool = new SplitPool(session, "generator");
    this.parts = { flux: new Parameters(pool), clip: new Parameters(pool), t5: new Parameters(pool) };
    this.config = fluxConfig(configs.flux, "recipe");
    const flux = new FluxTransformer(this.parts.flux, this.config);
    const clip = new ClipTextModel(this.parts.clip, {
      ...generator.clip,
      rows: rows.clip,
      positions: clipLength,
      activation: "quick_gelu",
    });
    const t5 = new T5Encoder(this.parts.t5, t5Config(configs.t5, rows.t5));
    this.loop = new PretrainLoop(session, pool, generator, generator.accumulation);
    const batch = this.microBatch;
    const side = imageSize / 16;
    const tokens = side * side;
    const data = (name: string, shape: number[], dtype?: "u32") => session.data(`generator.${name}`, shape, dtype);
    this.vars = {
      clean: data("clean", [batch, tokens, CHANNELS]),
      sigma: data("sigma", [batch, 1, 1]),
      keep: data("keep", [batch, 1, 1]),
      time: data("time", [batch, SINUSOID_WIDTH]),
      factor: data("factor", [batch]),
      clip: data("clip", [batch, clipLength], "u32"),
      ends: data("ends", [batch], "u32"),
      t5: data("t5", [batch, t5Length], "u32"),
      key: data("key", [RANDOM_KEY_WORDS], "u32"),
    };
    const { cosine, sine } = ropeTables(positionIds(t5Length, side, side), this.config.ropeAxes, this.config.ropeTheta);
    const table = [t5Length + tokens, this.config.headSize / 2];
    this.loop.trace((graph) => {
      const read = (name: keyof typeof this.vars) => graph.read(this.vars[name]);
      const { pooled } = graph.scope("clip", () => clip.forward(graph, read("clip"), read("ends")));
      const buckets = session.constant(graph, "t5 buckets", bucketTable(t5Length), [t5Length, t5Length]);
      const states = graph.scope("t5", () => t5.forward(graph, read("t5"), buckets));
      const inputs = {
        clean: read("clean"),
        noise: randomNormal(read("key"), [batch, tokens, CHANNELS]),
        sigma: read("sigma"),
        keep: read("keep"),
        time: read("time"),
        factor: read("factor"),
        states,
        pooled,
        cosine: session.constant(graph, "rotary cosine", cosine, table),
        sine: session.constant(graph, "rotary sine", sine, table),
      };
      return traceFlowLoss(graph, flux, inputs, { loss: "mse" }).loss;
    });
  }

  get microBatch(): number {
    return this.settings.generator.batch / this.settings.generator.accumulation;
  }

  /** Starting values of weights and optimizer; the session must be open. */
  initialise(): void {
    const { session, parts } = this;
    const { seed, t5 } = this.settings.generator;
    // Nothing of these trees is stored in another form than f32 variables.
    const variables = (tree: Parameters) => tree.variables as ReadonlyMap<string, Variable>;
    writeStart(session, "flux", variables(parts.flux), seed);
    writeStart(session, "clip text", variables(parts.clip), seed);
    writeStart(session, "t5", variables(parts.t5), seed, { headSize: t5.headSize });
    session.write(this.vars.factor, new Float32Array(this.microBatch).fill(1 / this.settings.generator.batch));
    this.loop.initialise();
  }

  /** Submits step `t`, counted from 1, with a whole batch of samples. */
  step(t: number, samples: readonly GeneratorSample[]): void {
    const { session, vars, microBatch } = this;
    const { seed, accumulation } = this.settings.generator;
    const noise = new RandomStream(seed, "pretrain noise");
    this.loop.step(t, (part) => {
      const own = samples.slice(part * microBatch, (part + 1) * microBatch);
      session.write(vars.clean, joined(own.map((s) => s.latents)));
      session.write(
        vars.sigma,
        Float32Array.from(own, (s) => s.sigma),
      );
      session.write(
        vars.keep,
        Float32Array.from(own, (s) => 1 - s.sigma),
      );
      session.write(vars.time, sinusoids(own.map((s) => s.sigma)));
      session.write(
        vars.clip,
        joined(
          own.map((s) => s.rows.clip),
          (n) => new Uint32Array(n),
        ),
      );
      session.write(
        vars.ends,
        Uint32Array.from(own, (s) => s.rows.end),
      );
      session.write(
        vars.t5,
        joined(
          own.map((s) => s.rows.t5),
          (n) => new Uint32Array(n),
        ),
      );
      session.write(vars.key, randomKey(noise, t * accumulation + part));
    });
  }
}
