// Sigmas, latent packing and position ids against diffusers, and six Euler steps of the small FLUX.1 with the dump's own
// sigmas. The tables are diffusers' own: sigmas linspace(1, 1/steps, steps), then the shift, then a zero.

import { existsSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { type ShiftConfig, samplerSigmas, shiftExponent, trainingSigmas } from "../../src/diffusion/shifting.ts";
import { rolloutSigmas } from "../../src/diffusion/sigmas.ts";
import { fluxConfig } from "../../src/models/flux/config.ts";
import { positionIds, ropeTables, SINUSOID_WIDTH } from "../../src/models/flux/embeddings.ts";
import { FluxTransformer } from "../../src/models/flux/transformer.ts";
import { packLatents, unpackLatents } from "../../src/models/vae/packing.ts";
import { loadParameters, Parameters } from "../../src/nn/parameters.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { traceEulerStep } from "../../src/training/srpo/steps.ts";
import { Comparison, item, largestDifference } from "../helpers/compare.ts";
import { openSource, readConfig, suite, tolerance } from "../helpers/dumps.ts";
import { runOps, testGpu } from "../helpers/gpu.ts";
import { dumpSinusoids } from "../helpers/sinusoids.ts";

interface Table {
  steps: number;
  tokens?: number;
  mu?: number | null;
  sigmas: number[];
  timesteps: number[];
}

/**
 * What the reference's scheduler gives when it is asked for a number of steps alone: equal times between the ends of the
 * training table, which is shifted already, and the static shift once more. Worked out in double precision, as there.
 */
function sigmasBetweenTrainingEnds(steps: number, config: ShiftConfig): Float32Array {
  const table = trainingSigmas(config);
  const [first, last] = [table[0]!, table.at(-1)!];
  const out = new Float32Array(steps + 1);
  for (let i = 0; i < steps; i++) {
    const t = steps === 1 ? first : first + ((last - first) * i) / (steps - 1);
    out[i] = (config.shift * t) / (1 + (config.shift - 1) * t);
  }
  return out;
}

suite("scheduler", (dump) => {
  const weights = dump.path(dump.config["weights"]);
  const schedules = JSON.parse(readFileSync(dump.path("schedules.json"), "utf8")) as {
    configs: Record<string, any>;
    inference: Record<string, Table[]>;
    training: Record<string, Pick<Table, "sigmas" | "timesteps">>;
  };

  const shiftOf = (name: string): ShiftConfig => {
    const own = schedules.configs[name.replace(" without sigmas", "")]!;
    return {
      shift: own.shift,
      dynamic: own.use_dynamic_shifting,
      baseShift: own.base_shift,
      maxShift: own.max_shift,
      baseTokens: own.base_image_seq_len,
      maxTokens: own.max_image_seq_len,
    };
  };

  for (const [name, tables] of Object.entries(schedules.inference)) {
    it(`makes the sigmas of table ${name} for every number of steps`, () => {
      const config = shiftOf(name);
      expect(tables.length).toBeGreaterThan(0);
      for (const { steps, tokens, mu, sigmas, timesteps } of tables) {
        const where = `${steps} steps, ${tokens} tokens`;
        const own = name.endsWith("without sigmas")
          ? sigmasBetweenTrainingEnds(steps, config)
          : samplerSigmas(steps, config, tokens!);
        expect(largestDifference(own, sigmas), where).toBeLessThan(1e-6);
        const times = own.subarray(0, steps).map((s) => 1000 * s);
        expect(largestDifference(times, timesteps), where).toBeLessThan(1e-3);
        if (typeof mu === "number") expect(shiftExponent(tokens!, config), where).toBeCloseTo(mu, 12);
        // The sampler of this program counts 1 - i/steps, with 0 at the end: the same values under a static shift.
        if (config.dynamic || name.endsWith("without sigmas")) continue;
        expect(largestDifference(rolloutSigmas(steps, config.shift), sigmas), where).toBeLessThan(1e-6);
      }
    });
  }

  for (const [name, { sigmas, timesteps }] of Object.entries(schedules.training)) {
    it(`makes the training table ${name}`, () => {
      const own = trainingSigmas(shiftOf(name));
      expect(largestDifference(own, sigmas)).toBeLessThan(1e-6);
      expect(
        largestDifference(
          own.map((s) => 1000 * s),
          timesteps,
        ),
      ).toBeLessThan(1e-3);
    });
  }

  it("packs latents into tokens and back, and numbers them as diffusers does", async () => {
    const io = await dump.open("io");
    const sizes = io.names().flatMap((name) => name.match(/^pack(\d+x\d+)\.latent$/)?.[1] ?? []);
    expect(sizes.length).toBeGreaterThan(0);
    for (const size of sizes) {
      const [h, w] = size.split("x").map(Number) as [number, number];
      const latent = await io.load(`pack${size}.latent`);
      const { outputs } = await runOps([{ shape: io.shape(`pack${size}.latent`), values: latent }], ([z]) => {
        const packed = packLatents(z!);
        return [packed, unpackLatents(packed, h / 2, w / 2)];
      });
      expect(outputs[0], size).toEqual(await io.load(`pack${size}.packed`));
      expect(outputs[1], size).toEqual(latent);
      expect(positionIds(0, h / 2, w / 2).flat(), size).toEqual([...(await io.load(`pack${size}.img_ids`))]);
    }
  });

  it.skipIf(!existsSync(weights))(`follows every Euler step of the model in ${dump.config["weights"]}`, async () => {
    const {
      steps,
      latent: [h, w],
      tokens,
      guidance,
    } = dump.config as { steps: number; latent: [number, number]; tokens: number; guidance: number };
    const io = await dump.open("io");
    const config = fluxConfig(readConfig(weights), weights);
    const [sigmas, times, latents, velocities] = (await Promise.all(
      ["sigmas", "timesteps", "latents", "velocities"].map((name) => io.load(`sample.${name}`)),
    )) as [Float32Array, Float32Array, Float32Array, Float32Array];
    const textTokens = io.shape("sample.encoder_hidden_states")[1]!;
    const rotary = ropeTables(positionIds(textTokens, h / 2, w / 2), config.ropeAxes, config.ropeTheta);
    const gpu = await testGpu();
    const session = new Session(targetOf(gpu));
    try {
      const parameters = new Parameters(session.pool("weights", "weights"));
      const model = new FluxTransformer(parameters, config);
      const z = session.data("z", [1, tokens, config.inChannels]);
      const states = session.data("states", io.shape("sample.encoder_hidden_states"));
      const pooled = session.data("pooled", io.shape("sample.pooled_projections"));
      const time = session.data("time", [1, SINUSOID_WIDTH]);
      const scale = session.data("guidance", [1, SINUSOID_WIDTH]);
      const step = session.data("step", [1]);
      const unpacked = session.data("unpacked", io.shape("sample.unpacked"));
      const half = config.headSize / 2;
      const plan = session.plan("step", (graph) => {
        const next = traceEulerStep(graph, model, graph.read(z), {
          states: graph.read(states),
          pooled: graph.read(pooled),
          time: graph.read(time),
          guidance: config.guidance ? graph.read(scale) : undefined,
          step: graph.read(step),
          cosine: session.constant(graph, "cosine", rotary.cosine, [textTokens + tokens, half]),
          sine: session.constant(graph, "sine", rotary.sine, [textTokens + tokens, half]),
        });
        graph.assign(z, next);
        graph.assign(unpacked, unpackLatents(next, h / 2, w / 2));
      });
      await session.open(gpu);
      await loadParameters(session, parameters, await openSource(weights));
      session.write(z, item(latents, 0, steps + 1));
      session.write(states, await io.load("sample.encoder_hidden_states"));
      session.write(pooled, await io.load("sample.pooled_projections"));
      session.write(scale, await dumpSinusoids([guidance]));
      const own = dump.config["_oracle"]["f32_vs_f64"];
      const bound = tolerance(2e-5, own[`latent after step ${steps}`]?.relative_l2);
      const comparison = new Comparison("scheduler");
      for (let i = 0; i < steps; i++) {
        const dt = Math.fround(sigmas[i + 1]! - sigmas[i]!);
        session.write(time, await dumpSinusoids([Math.fround(times[i]! / 1000)]));
        session.write(step, Float32Array.of(dt));
        session.poison();
        const before = await session.read(z);
        session.run(plan);
        const after = await session.read(z);
        comparison.values("latents", `step ${i + 1}`, after, item(latents, i + 1, steps + 1), bound);
        // The velocity is what the step added; the difference loses a digit where the step is small.
        const velocity = after.map((value, k) => (value - before[k]!) / dt);
        comparison.values("velocities", `step ${i + 1}`, velocity, item(velocities, i, steps), 10 * bound);
      }
      comparison.values(
        "unpacked",
        "picture latent",
        await session.read(unpacked),
        await io.load("sample.unpacked"),
        bound,
      );
      comparison.finish();
    } finally {
      session.close();
    }
  });
});
