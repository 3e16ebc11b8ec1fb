// One SRPO update on small models, in six cases: rollout, both micro-steps with everything in between and its gradients,
// gradients of the trained weights, their norm, and the weights after AdamW with clipping.

import { afterAll, it } from "vitest";
import { modelTime, rolloutSigmas } from "../../src/diffusion/sigmas.ts";
import { SCALED_REWARD_DIVISOR } from "../../src/rewards/clip_reward.ts";
import { type BranchKind, branchesOf } from "../../src/training/srpo/branches.ts";
import { rewardFactors } from "../../src/training/srpo/reports.ts";
import { branchScalars } from "../../src/training/srpo/steps.ts";
import { Comparison, firstLargest, idRows, item, largestDifference } from "../helpers/compare.ts";
import { type Dump, openSource, suite, tolerance } from "../helpers/dumps.ts";
import { relativeError } from "../helpers/gpu.ts";
import { dumpSinusoids } from "../helpers/sinusoids.ts";
import { type SrpoDumpOptions, srpoBranchOptions } from "../helpers/srpo.ts";
import { missingFiles, openWorld, type World } from "../helpers/srpo_world.ts";

interface Case {
  options: SrpoDumpOptions;
  m0: number;
  step: number;
  "f32_vs_f64 relative L2": Record<string, number>;
  "f32_vs_f64 gradients": { worst_relative_l2: number };
  "f32_vs_f64 after the step, largest difference": number;
}

const VALUES = 5e-5;
const GRADIENTS = 5e-4;

/** Values that are dot products of unit vectors, and what rounding may leave in one. */
const COSINES = new Set(["s_pos", "s_neg", "reward"]);
const COSINE_ROUNDING = 1e-6;

async function makeClean(
  world: World,
  dump: Dump,
  name: string,
  recorded: Case,
  comparison: Comparison,
): Promise<void> {
  const io = await dump.open("io");
  const { session, data, plans } = world;
  const bound = tolerance(VALUES, recorded["f32_vs_f64 relative L2"]["x"]);
  if (name === "offline") {
    session.write(data["picture"]!, await io.load("picture"));
    session.write(data["posterior noise"]!, await io.load("posterior_noise"));
    session.write(data["latent noise"]!, await io.load("fresh_noise"));
    session.run(plans.encode);
    comparison.values(
      "rollout",
      "packed noise",
      await session.read(data["noise"]!),
      await io.load(`${name}.noise`),
      bound,
    );
  } else {
    const noise = await io.load(`${name}.noise`);
    session.write(data["noise"]!, noise);
    session.write(data["clean"]!, noise);
    session.write(data["guidance"]!, await dumpSinusoids([recorded.options.rollout_guidance]));
    const { sampling_steps, shift } = recorded.options;
    const sigmas = rolloutSigmas(sampling_steps, shift);
    for (let i = 0; i < sampling_steps; i++) {
      const state = `${name}.rollout.${i}`;
      if (io.has(state))
        comparison.values("rollout", state, await session.read(data["clean"]!), await io.load(state), bound);
      session.write(data["time"]!, await dumpSinusoids([modelTime(sigmas[i]!)]));
      session.write(data["step"]!, Float32Array.of(sigmas[i + 1]! - sigmas[i]!));
      session.run(plans.rollout);
    }
  }
  comparison.values("rollout", `${name}.x`, await session.read(data["clean"]!), await io.load(`${name}.x`), bound);
}

async function runCase(world: World, dump: Dump, name: string, recorded: Case): Promise<void> {
  const io = await dump.open("io");
  const { session, data, plans } = world;
  const { options } = recorded;
  const own = recorded["f32_vs_f64 relative L2"];
  const comparison = new Comparison(`srpo_step ${name}`);
  await world.reset();
  session.write(data["states"]!, await io.load("encoder_hidden_states"));
  session.write(data["pooled"]!, await io.load("pooled_projections"));

  const tokens = await idRows(io, `${name}.tokens`);
  session.write(data["tokens"]!, Uint32Array.from(tokens.flat()));
  session.write(data["ends"]!, Uint32Array.from(tokens, firstLargest));
  session.run(plans.text);
  const texts = await session.read(data["texts"]!);
  for (const [i, text] of ["t_pos", "t_neg"].entries()) {
    comparison.values("texts", text, item(texts, i, 2), await io.load(`${name}.${text}`), VALUES);
    session.write(data[text]!, item(texts, i, 2));
  }
  await makeClean(world, dump, name, recorded, comparison);

  const logitScale = (
    await (await openSource(`${dump.folder}/${dump.config["weights"]["reward"]}`)).load("logit_scale")
  )[0]!;
  const factor = options.reward === "pickscore" ? Math.exp(logitScale) / SCALED_REWARD_DIVISOR : 1;
  const branches = branchesOf(srpoBranchOptions(options), recorded.m0);
  session.write(data["guidance"]!, await dumpSinusoids([options.train_guidance]));
  session.write(data["lossWeight"]!, Float32Array.of(1 / options.branches));
  for (const kind of dump.config["order of micro-steps"] as BranchKind[]) {
    const branch = branches[kind];
    session.write(data["time"]!, await dumpSinusoids([branch.time]));
    for (const [scalar, value] of Object.entries(branchScalars(branch.from, branch.to)))
      session.write(data[scalar]!, Float32Array.of(value));
    const factors = rewardFactors(branch, true);
    session.write(data["positiveFactor"]!, Float32Array.of(factors.positive * factor));
    session.write(data["negativeFactor"]!, Float32Array.of(factors.negative * factor));
    session.poison();
    session.run(plans.micro);
    for (const output of world.outputs) {
      const key = `${name}.${kind}.${output}`;
      if (!io.has(key)) continue;
      const gradient = output.startsWith("grad.");
      const bound = tolerance(gradient ? GRADIENTS : VALUES, own[`${kind}.${output}`]);
      const [actual, expected] = [await session.read(data[`micro.${output}`]!), await io.load(key)];
      const group = gradient ? "inner gradients" : "inner values";
      let error = relativeError(actual, expected);
      // A cosine near zero is a sum of products of unit vectors that cancel: its rounding is a few units in the last
      // place of those, whatever is left of the sum.
      if (COSINES.has(output) && largestDifference(actual, expected) < COSINE_ROUNDING)
        error = Math.min(error, bound / 2);
      comparison.note(group, `${kind}.${output}`, error, bound);
    }
  }

  const bound = tolerance(GRADIENTS, recorded["f32_vs_f64 gradients"].worst_relative_l2);
  const gradients: Record<string, Float32Array> = {};
  for (const variable of world.trained.variables)
    gradients[world.publicName(variable)] = await session.read(variable.gradient!);
  await comparison.gradients("gradients", gradients, await dump.open(`${name}_grads`), bound);

  world.optimizer.write(session, options.learning_rate, 1);
  session.run(plans.optimizer);
  const report = await world.optimizer.read(session);
  comparison.values(
    "norm",
    "gradient norm",
    [report.norm],
    await io.load(`${name}.grad_norm`),
    tolerance(GRADIENTS, own["grad_norm"]),
  );
  comparison.note("finite", "flag", report.finite ? 0 : 1, 0.5);
  const after = await dump.open(`${name}_after`).catch(() => null);
  if (after) await compareWeights(world, after, recorded, comparison);
  comparison.finish();
}

/** Every weight within 2 lr, as where a gradient's sign is rounding; nearly all within 1e-6. */
async function compareWeights(
  world: World,
  after: Awaited<ReturnType<Dump["open"]>>,
  recorded: Case,
  comparison: Comparison,
): Promise<void> {
  const typical = tolerance(1e-6, recorded["f32_vs_f64 after the step, largest difference"]);
  let [far, all] = [0, 0];
  for (const variable of world.trained.variables) {
    const name = world.publicName(variable);
    if (!after.has(name)) continue;
    const [values, expected] = [await world.session.read(variable), await after.load(name)];
    comparison.note(
      "weights after the step",
      name,
      largestDifference(values, expected),
      2 * recorded.options.learning_rate,
    );
    far += values.filter((value, i) => Math.abs(value - expected[i]!) > typical).length;
    all += values.length;
  }
  comparison.note("weights after the step, share beyond the typical difference", `${all} weights`, far / all, 1e-3);
}

suite("srpo_step", (dump) => {
  const missing = missingFiles(dump);
  if (missing.length > 0) {
    it.skip(`needs ${missing.join(", ")}`, () => {});
    return;
  }
  // One world for all cases that train the same weights through the same decoder: they differ in data alone.
  const worlds = new Map<string, Promise<World>>();
  afterAll(async () => {
    for (const world of worlds.values()) (await world).close();
  });
  for (const [name, recorded] of Object.entries(dump.config["cases"] as Record<string, Case>)) {
    it(`makes the same update in case ${name}`, async () => {
      const options = {
        trained: name === "full" ? "full" : "lora",
        decoder: name === "tae" ? "tiny" : "kl",
        threshold: recorded.options.threshold,
        weightDecay: recorded.options.weight_decay,
        maxNorm: recorded.options.max_grad_norm,
      } as const;
      const key = Object.values(options).join(" ");
      if (!worlds.has(key)) worlds.set(key, openWorld(dump, options));
      await runCase(await worlds.get(key)!, dump, name, recorded);
    });
  }
});
