// The first updates of the embedded experiment's recipes through the trainer that `npm start` uses: rollout, pictures,
// rewards, losses, gradient norm and change of the weights, for full fine-tuning and for a LoRA.

import { describe, expect, it } from "vitest";
import type { LoraLayer } from "../../src/formats/lora.ts";
import { Adapter } from "../../src/nn/adapters.ts";
import { clamp } from "../../src/ops/pointwise.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import type { Pool, Variable } from "../../src/tensor/variable.ts";
import { PromptEncoder } from "../../src/training/prompt_encoder.ts";
import type { BranchKind } from "../../src/training/srpo/branches.ts";
import { SrpoTrainer } from "../../src/training/srpo/trainer.ts";
import { Comparison, item, largestDifference } from "../helpers/compare.ts";
import {
  type EmbeddedRecipe,
  type EmbeddedUpdate,
  embeddedTensors,
  embeddedFixture as fixture,
  openPipeline,
  openScorer,
} from "../helpers/embedded.ts";
import { testGpu } from "../helpers/gpu.ts";

const VALUES = 2e-5;
const PICTURES = 1e-4;
/** Norms and weight changes: rounding switches ReLUs of the autoencoder. */
const NORMS = 2e-2;

interface Run {
  prefix: "srpo" | "lora_srpo";
  recipe: EmbeddedRecipe;
  updates: EmbeddedUpdate[];
  branches: BranchKind[];
  stacked: boolean;
}

async function runUpdates(
  run: Run,
  check: (world: {
    session: Session;
    trainer: SrpoTrainer;
    trained: Pool;
    pictures: Variable;
    update: (index: number) => ReturnType<SrpoTrainer["update"]>;
  }) => Promise<void>,
): Promise<void> {
  const { recipe, branches, stacked } = run;
  const io = await embeddedTensors();
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  try {
    const pipeline = await openPipeline(session);
    const reward = await openScorer(session, "reward");
    reward.planText(session, 2 * recipe.batch);
    const encoder = new PromptEncoder(session, pipeline, recipe.batch);
    const lora = new Map<string, LoraLayer>();
    let adapter: Adapter | null = null;
    if (recipe.lora) {
      const scale = (recipe.alpha ?? recipe.lora) / recipe.lora;
      for (const name of io.names().filter((name) => name.startsWith("lora_A."))) {
        const module = name.slice("lora_A.".length);
        const [rank, inputs] = io.shape(name) as [number, number];
        const linear = pipeline.transformer.parameters.linears.get(module)!;
        lora.set(module, {
          rank,
          inputs,
          outputs: linear.outputs,
          scale,
          down: await io.load(name),
          up: new Float32Array(linear.outputs * rank),
        });
      }
      adapter = new Adapter(session, pipeline.transformer.parameters, lora);
    }
    const trained = adapter?.pool ?? pipeline.transformerPool;
    const samples = recipe.batch * (stacked ? branches.length : 1);
    const pictures = session.data("pictures", [samples, 3, pipeline.imageSize, pipeline.imageSize]);
    // The trainer keeps no pictures: the decoder that it is given hands them out.
    const decode = pipeline.decode.bind(pipeline);
    pipeline.decode = (graph, packed) => {
      const picture = decode(graph, packed);
      graph.assign(pictures, clamp(picture, 0, 1));
      return picture;
    };
    const trainer = new SrpoTrainer(
      session,
      pipeline,
      [{ pool: trained }],
      [{ scorer: reward, kind: "hps", weight: 1 }],
      {
        batch: recipe.batch,
        accumulation: 1,
        rolloutSteps: recipe.rollout_steps,
        shift: recipe.shift,
        branch: {
          sigmaHigh: recipe.sigma[0],
          sigmaLow: recipe.sigma[1],
          timestepLength: recipe.N,
          groundtruthRatio: recipe.ratio,
          discountPos: recipe.d_pos,
          discountInv: recipe.d_inv,
        },
        branches,
        stacked,
        timestepMargin: 5,
        threshold: recipe.threshold,
        offline: false,
        sameNoise: true,
        rolloutGuidance: 1,
        trainGuidance: 3.5,
        seed: 0,
        optimizer: {
          kind: "adamw",
          beta1: recipe.betas[0],
          beta2: recipe.betas[1],
          epsilon: 1e-8,
          weightDecay: recipe.wd,
          maxNorm: recipe.clip,
        },
        schedule: { kind: "constant_with_warmup", rate: recipe.lr, warmup: recipe.warmup, total: 0 },
        checkpointing: false,
      },
    );
    await session.open(gpu);
    await pipeline.loadWeights(session);
    await reward.loadWeights(session);
    if (adapter) adapter.load(session, lora, "the fixture");
    trainer.optimizer.initialise(session);
    const noise = await io.load("srpo_noise");
    await check({
      session,
      trainer,
      trained,
      pictures,
      update: async (index) => {
        const { prompts, pos, m0 } = run.updates[index]!;
        const embedded = await encoder.encode(prompts);
        const positive = await reward.textFeatures(session, pos);
        const negative = await reward.textFeatures(session, prompts);
        const one = item(noise, index, run.updates.length);
        const shared = new Float32Array(recipe.batch * one.length);
        for (let i = 0; i < recipe.batch; i++) shared.set(one, i * one.length);
        const prepared = embedded.map((prompt, i) => ({
          ...prompt,
          texts: [{ positive: positive[i]!, negative: negative[i]! }],
        }));
        return trainer.update(index + 1, prepared, { m0, noise: shared });
      },
    });
  } finally {
    session.close();
  }
}

function variable(session: Session, name: string): Variable {
  return session.pools.find((pool) => pool.name === "data")!.variables.find((v) => v.name === name)!;
}

async function changeOf(session: Session, pool: Pool, start: Float32Array[]): Promise<number> {
  let squares = 0;
  for (const [i, v] of pool.variables.entries()) {
    const now = await session.read(v);
    for (let k = 0; k < now.length; k++) squares += (now[k]! - start[i]![k]!) ** 2;
  }
  return Math.sqrt(squares);
}

async function compareRecipe(run: Run): Promise<void> {
  const io = await embeddedTensors();
  const comparison = new Comparison(`embedded ${run.prefix}`);
  await runUpdates(run, async ({ session, trained, pictures, update }) => {
    const start: Float32Array[] = [];
    for (const v of trained.variables) start.push(await session.read(v));
    for (const [index, want] of run.updates.entries()) {
      const label = `update ${index + 1}`;
      const report = await update(index);
      expect(report.finite).toBe(true);
      expect(Math.abs(report.rate / want.lr - 1), label).toBeLessThan(1e-12);
      // From the second update on, weights differ by what rounding did to AdamW's sign-like first steps.
      const own = index === 0 ? VALUES : 10 * VALUES;
      comparison.values(
        `rollout, ${index === 0 ? "first update" : "later"}`,
        label,
        await session.read(variable(session, "srpo.clean")),
        await io.load(`${run.prefix}_${index}_rollout`),
        own,
      );
      if (index === 0) {
        const shown = await session.read(pictures);
        const kinds = run.stacked ? run.branches : run.branches.slice(-1);
        for (const [k, kind] of kinds.entries()) {
          comparison.note(
            "pictures",
            kind,
            largestDifference(item(shown, k, kinds.length), await io.load(`${run.prefix}_0_${kind}_picture`)),
            PICTURES,
          );
        }
      }
      for (const [k, micro] of want.micro_steps.entries()) {
        const mine = report.micro[k]!;
        expect(mine.branch.kind).toBe(micro.branch);
        comparison.note(
          "rewards",
          `${label} ${micro.branch}`,
          largestDifference(mine.reward, micro.reward),
          index === 0 ? 1e-5 : 1e-3,
        );
      }
      if (!run.stacked) {
        for (const [k, micro] of want.micro_steps.entries())
          comparison.note(
            "losses",
            `${label} ${micro.branch}`,
            Math.abs(report.micro[k]!.loss / micro.loss - 1),
            index === 0 ? VALUES : NORMS,
          );
      }
      const total = want.micro_steps.reduce((sum, m) => sum + m.loss, 0);
      comparison.note("losses", label, Math.abs(report.loss / total - 1), index === 0 ? VALUES : NORMS);
      comparison.note("gradient norm", label, Math.abs(report.gradientNorm / want.grad_norm - 1), NORMS);
      comparison.note(
        "change of the weights",
        label,
        Math.abs((await changeOf(session, trained, start)) / want.weight_change - 1),
        NORMS,
      );
    }
  });
  comparison.finish();
}

const BOTH: BranchKind[] = ["denoise", "inversion"];

describe("parity with the first updates of the embedded recipes", () => {
  it("agrees on three updates of the full fine-tuning", () =>
    compareRecipe({ prefix: "srpo", recipe: fixture.recipe, updates: fixture.srpo, branches: BOTH, stacked: false }));

  it("agrees on three updates of the LoRA, both branches in one batch", () =>
    compareRecipe({
      prefix: "lora_srpo",
      recipe: fixture.lora_recipe,
      updates: fixture.lora_srpo,
      branches: BOTH,
      stacked: true,
    }));

  it("gives the inversion branch its own gradient", async () => {
    const run: Run = {
      prefix: "srpo",
      recipe: fixture.recipe,
      updates: fixture.srpo,
      branches: ["inversion"],
      stacked: false,
    };
    await runUpdates(run, async ({ update }) => {
      const report = await update(0);
      const want = fixture.srpo[0]!.micro_steps.find((m) => m.branch === "inversion")!;
      // Alone, the branch is the whole update and not half of it.
      expect(Math.abs(report.gradientNorm / (2 * want.grad_norm) - 1)).toBeLessThan(NORMS);
      expect(Math.abs(report.loss / (2 * want.loss) - 1)).toBeLessThan(VALUES);
    });
  });
});
