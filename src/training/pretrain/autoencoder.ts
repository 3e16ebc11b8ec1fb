// TAEF2 as pretraining needs it: pictures to packed model latents for the generator, and pictures through both halves with
// noise on the latent between them, which shows a CLIP the artefacts of generated pictures.

import { joined } from "../../base/arrays.ts";
import type { FileStore } from "../../base/files.ts";
import type { RandomStream } from "../../base/random.ts";
import { Safetensors } from "../../formats/safetensors.ts";
import type { Gpu } from "../../gpu/device.ts";
import { Autoencoder } from "../../models/vae/autoencoder.ts";
import { tensorSource } from "../../models/weights_file.ts";
import { loadParameters, Parameters } from "../../nn/parameters.ts";
import { add, clamp, mul } from "../../ops/pointwise.ts";
import { RANDOM_KEY_WORDS, randomKey, randomNormal } from "../../ops/random.ts";
import type { Target } from "../../tensor/lower.ts";
import type { Plan } from "../../tensor/session.ts";
import { Session } from "../../tensor/session.ts";
import type { Variable } from "../../tensor/variable.ts";
import { CHANNELS, type PretrainSettings } from "./recipes.ts";

export class PretrainAutoencoder {
  /** Pictures through the device so far. */
  passed = 0;
  private readonly session: Session;
  private readonly batch: number;
  private readonly vars: Record<"pictures" | "latents" | "strength" | "key" | "out", Variable>;
  private readonly plans: { encode: Plan; through: Plan | null };

  private constructor(
    session: Session,
    batch: number,
    vars: PretrainAutoencoder["vars"],
    plans: PretrainAutoencoder["plans"],
  ) {
    this.session = session;
    this.batch = batch;
    this.vars = vars;
    this.plans = plans;
  }

  /** Opens a session of its own and loads the weights; `close` gives its memory back. */
  static async open(
    files: FileStore,
    gpu: Gpu,
    target: Target,
    path: string,
    settings: Pick<PretrainSettings, "imageSize" | "latentScale" | "latentShift">,
    options: { batch: number; decoder: boolean },
  ): Promise<PretrainAutoencoder> {
    const { batch, decoder } = options;
    const side = settings.imageSize;
    const tokens = (side / 16) ** 2;
    const session = new Session(target);
    const parameters = new Parameters(session.pool("autoencoder", "weights"));
    const { latentScale: scale, latentShift: shift } = settings;
    const autoencoder = new Autoencoder(
      parameters,
      { kind: "taef2", scale, shift, config: {} },
      { encoder: true, decoder },
    );
    const vars = {
      pictures: session.data("pictures", [batch, 3, side, side]),
      latents: session.data("latents", [batch, tokens, CHANNELS]),
      strength: session.data("strength", [batch, 1, 1]),
      key: session.data("key", [RANDOM_KEY_WORDS], "u32"),
      out: session.data("out", [batch, 3, side, side]),
    };
    const encode = session.plan("encode", (graph) => {
      graph.assign(vars.latents, autoencoder.encode(graph, graph.read(vars.pictures)));
    });
    const through = decoder
      ? session.plan("encode and decode", (graph) => {
          const z = autoencoder.encode(graph, graph.read(vars.pictures));
          const noise = mul(randomNormal(graph.read(vars.key), z.shape), graph.read(vars.strength));
          graph.assign(vars.out, clamp(autoencoder.decode(graph, add(z, noise), side / 16, side / 16), 0, 1));
        })
      : null;
    await session.open(gpu);
    const file = await Safetensors.open(files, path);
    await loadParameters(session, parameters, tensorSource(file));
    await file.close();
    return new PretrainAutoencoder(session, batch, vars, { encode, through });
  }

  /** Packed model latents of pictures. */
  encode(pictures: readonly Float32Array[]): Promise<Float32Array[]> {
    return this.run(pictures, this.plans.encode, this.vars.latents);
  }

  /**
   * Pictures through encoder and decoder, with normal noise of the given deviations on the latents.
   * @param strengths in the autoencoder's own units, one a picture
   */
  through(
    pictures: readonly Float32Array[],
    strengths: readonly number[],
    stream: RandomStream,
    index: number,
    latentScale: number,
  ): Promise<Float32Array[]> {
    if (!this.plans.through) throw new Error("the autoencoder was opened without its decoder");
    return this.run(pictures, this.plans.through, this.vars.out, (from) => {
      const own = Array.from({ length: this.batch }, (_, i) => (strengths[from + i] ?? 0) * latentScale);
      this.session.write(this.vars.strength, Float32Array.from(own));
      this.session.write(this.vars.key, randomKey(stream, index + from));
    });
  }

  private async run(
    pictures: readonly Float32Array[],
    plan: Plan,
    result: Variable,
    before?: (from: number) => void,
  ): Promise<Float32Array[]> {
    const out: Float32Array[] = [];
    for (let from = 0; from < pictures.length; from += this.batch) {
      const part = pictures.slice(from, from + this.batch);
      // The last batch is filled up with its first picture; the surplus is dropped.
      const filled = Array.from({ length: this.batch }, (_, i) => part[i] ?? part[0]!);
      this.session.write(this.vars.pictures, joined(filled));
      before?.(from);
      await this.session.replay(plan);
      const values = await this.session.read(result);
      const each = values.length / this.batch;
      part.forEach((_, i) => out.push(values.slice(i * each, (i + 1) * each)));
      this.passed += part.length;
    }
    return out;
  }

  close(): void {
    this.session.close();
  }
}
