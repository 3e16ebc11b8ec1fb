// The embedded models against PyTorch: token ids, text encoders, velocity, autoencoder, a twelve-step sample, and the
// features of reward and judge.

import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { modelTime, rolloutSigmas } from "../../src/diffusion/sigmas.ts";
import { SINUSOID_WIDTH, sinusoids } from "../../src/models/flux/embeddings.ts";
import { pictureFeatures } from "../../src/rewards/clip_reward.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { Drawing } from "../../src/training/drawing.ts";
import { PromptEncoder } from "../../src/training/prompt_encoder.ts";
import { traceEulerStep } from "../../src/training/srpo/steps.ts";
import { Comparison, item, largestDifference } from "../helpers/compare.ts";
import { openSource } from "../helpers/dumps.ts";
import {
  EMBEDDED,
  embeddedTensors,
  embeddedFixture as fixture,
  openPipeline,
  openScorer,
  wholeTransformer,
} from "../helpers/embedded.ts";
import { testGpu } from "../helpers/gpu.ts";

const VALUES = 2e-5;
/** Largest difference of a pixel. */
const PICTURES = 1e-4;

describe("parity with the embedded fixture", () => {
  it("agrees on ids, text encoders, velocity, autoencoder, samples and features", async () => {
    const io = await embeddedTensors();
    const gpu = await testGpu();
    const session = new Session(targetOf(gpu));
    const comparison = new Comparison("embedded");
    try {
      const pipeline = await openPipeline(session, { encoder: true });
      const batch = fixture.texts.length;
      const encoder = new PromptEncoder(session, pipeline, batch);
      const scorers = [await openScorer(session, "reward"), await openScorer(session, "judge")];
      for (const scorer of scorers) scorer.planText(session, batch);
      const drawing = new Drawing(session, pipeline, [], {
        batch,
        steps: fixture.sigmas_12.length - 1,
        shift: 1.5,
        guidance: 1,
      });
      const data = (name: string, key: string) => session.data(name, io.shape(key));
      const vars = {
        z: data("z", "z"),
        states: data("states", "states"),
        pooled: data("pooled", "pooled"),
        time: session.data("time", [batch, SINUSOID_WIDTH]),
        step: session.data("step", [1]),
        picture: data("picture", "picture"),
        latents: data("latents", "latent_tokens"),
        decoded: data("decoded", "decoded"),
        velocity: data("velocity", "velocity"),
        features: scorers.map((scorer) => data(`${scorer.name} image`, `${scorer.name}_image`)),
      };
      const inputs = (graph: Parameters<Parameters<Session["plan"]>[1]>[0]) => ({
        states: graph.read(vars.states),
        pooled: graph.read(vars.pooled),
        time: graph.read(vars.time),
        ...pipeline.rotary(graph, session),
      });
      const velocity = session.plan("velocity", (graph) => {
        graph.assign(
          vars.velocity,
          wholeTransformer(pipeline).forward(graph, { latents: graph.read(vars.z), ...inputs(graph) }).output,
        );
      });
      const euler = session.plan("euler step", (graph) => {
        graph.assign(
          vars.z,
          traceEulerStep(graph, wholeTransformer(pipeline), graph.read(vars.z), {
            ...inputs(graph),
            step: graph.read(vars.step),
          }),
        );
      });
      const encode = session.plan("encode", (graph) => {
        graph.assign(vars.latents, pipeline.encode(graph, graph.read(vars.picture)));
        scorers.forEach((scorer, i) => {
          const constant = (name: string, values: Float32Array | Uint32Array, shape: readonly number[]) =>
            session.constant(graph, name, values, shape);
          graph.assign(
            vars.features[i]!,
            pictureFeatures(scorer.model, graph, graph.read(vars.picture), constant).features,
          );
        });
      });
      const decode = session.plan("decode", (graph) =>
        graph.assign(vars.decoded, pipeline.decode(graph, graph.read(vars.latents))),
      );
      await session.open(gpu);
      await pipeline.loadWeights(session);
      for (const scorer of scorers) await scorer.loadWeights(session);

      const embedded = await encoder.encode(fixture.texts);
      expect([...encoder.unknown]).toEqual([]);
      for (const [i, { states, pooled }] of embedded.entries()) {
        comparison.values("T5 states", fixture.texts[i]!, states, item(await io.load("states"), i, batch), VALUES);
        comparison.values("pooled vector", fixture.texts[i]!, pooled, item(await io.load("pooled"), i, batch), VALUES);
      }
      session.write(vars.states, await io.load("states"));
      session.write(vars.pooled, await io.load("pooled"));
      session.write(vars.z, await io.load("z"));
      session.write(vars.time, sinusoids([...(await io.load("t"))]));
      session.poison();
      session.run(velocity);
      comparison.values("velocity", "velocity", await session.read(vars.velocity), await io.load("velocity"), VALUES);

      session.write(vars.picture, await io.load("picture"));
      session.run(encode);
      comparison.values("latents", "latents", await session.read(vars.latents), await io.load("latent_tokens"), VALUES);
      session.write(vars.latents, await io.load("latent_tokens"));
      session.run(decode);
      comparison.note(
        "pictures",
        "decoded",
        largestDifference(await session.read(vars.decoded), await io.load("decoded")),
        PICTURES,
      );

      const sigmas = rolloutSigmas(fixture.sigmas_12.length - 1, 1.5);
      expect(largestDifference(sigmas, fixture.sigmas_12)).toBeLessThan(1e-7);
      for (let i = 0; i + 1 < sigmas.length; i++) {
        session.write(vars.time, sinusoids(fixture.texts.map(() => modelTime(sigmas[i]!))));
        session.write(vars.step, Float32Array.of(sigmas[i + 1]! - sigmas[i]!));
        session.run(euler);
      }
      comparison.values(
        "sample of 12 steps",
        "latents",
        await session.read(vars.z),
        await io.load("sample_12"),
        VALUES,
      );
      const noise = await io.load("z");
      const drawn = await drawing.draw(embedded.map((prompt, i) => ({ ...prompt, noise: item(noise, i, batch) })));
      const expected = (await io.load("sample_picture")).map((x) => Math.min(1, Math.max(0, x)));
      drawn.forEach(({ picture }, i) =>
        comparison.note("pictures", `sample ${i}`, largestDifference(picture, item(expected, i, batch)), PICTURES),
      );

      for (const [i, scorer] of scorers.entries()) {
        comparison.values(
          `${scorer.name} features`,
          "pictures",
          await session.read(vars.features[i]!),
          await io.load(`${scorer.name}_image`),
          VALUES,
        );
        const texts = await scorer.textFeatures(session, scorer.name === "judge" ? fixture.judge_texts : fixture.texts);
        for (const [k, text] of texts.entries())
          comparison.values(
            `${scorer.name} features`,
            `text ${k}`,
            text,
            item(await io.load(`${scorer.name}_text`), k, batch),
            VALUES,
          );
      }
      comparison.finish();
    } finally {
      session.close();
    }
  });

  it("maps the reference's token ids to the rows of the compact tables", async () => {
    const session = new Session(targetOf(await testGpu()));
    const pipeline = await openPipeline(session);
    const tokens = pipeline.tokenize(fixture.texts).tokens as Record<"clip" | "ends" | "t5", Uint32Array>;
    const clipLength = tokens.clip.length / fixture.texts.length;
    const clip = await (await openSource(join(EMBEDDED, "text_encoder/model.safetensors"))).readI32(
      "text_model.embeddings.token_embedding.ids",
    );
    const t5 = await (await openSource(join(EMBEDDED, "text_encoder_2/model.safetensors"))).readI32("shared.ids");
    const ids = (rows: Uint32Array, table: Int32Array, i: number, length: number) =>
      [...rows.subarray(i * length, (i + 1) * length)].map((row) => table[row]!);
    const padded = (list: number[], length: number, padding: number) => [
      ...list,
      ...new Array<number>(length - list.length).fill(padding),
    ];
    fixture.texts.forEach((text, i) => {
      expect(ids(tokens.clip, clip, i, clipLength), text).toEqual(padded(fixture.clip_ids[i]!, clipLength, 49407));
      expect(ids(tokens.t5, t5, i, pipeline.textLength), text).toEqual(
        padded(fixture.t5_ids[i]!, pipeline.textLength, 0),
      );
      expect(tokens.ends[i], text).toBe(fixture.clip_ids[i]!.length - 1);
    });
    session.close();
  });
});
