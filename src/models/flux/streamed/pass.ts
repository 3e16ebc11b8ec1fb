// One size of a streamed transformer: the velocity from packed latents, and the gradients of all adapters from dL/dv, as the
// whole transformer gives them, in one plan a piece: embedders, each block, output, and the backward of each. Between pieces
// only the joint sequence is kept, the input of every block where a backward pass follows; there the block is traced again
// from it (gradient checkpointing, Chen et al. 2016). The residual stream is f32 throughout: FLUX's exceeds f16.
//
// What a trainer does around the model lies in plans of its own (training/stage.ts): one that ends by assigning `latents`,
// then `forward`, one that reads `velocity` as a leaf with gradient and assigns its gradient to `velocityGradient`, then
// `backward`, which adds to the adapter's gradient buffers, and last the optimizer's plan.

import { LongtailError } from "../../../base/errors.ts";
import { DoraModule } from "../../../nn/adapters/dora.ts";
import { markTraining } from "../../../nn/training_mode.ts";
import { backward } from "../../../ops/backward.ts";
import { add } from "../../../ops/pointwise.ts";
import { concat, slice, split } from "../../../ops/slab.ts";
import type { Graph, Tensor } from "../../../tensor/graph.ts";
import type { Plan, Session } from "../../../tensor/session.ts";
import type { Variable } from "../../../tensor/variable.ts";
import type { PassShape, VelocityPass } from "../../velocity_network.ts";
import type { Block } from "./ring.ts";
import type { StreamedFlux } from "./streamed.ts";

/** Pieces besides the blocks. */
const EMBED = "embed";
const OUTPUT = "output";

export class StreamedPass implements VelocityPass {
  readonly shape: PassShape;
  readonly latents: Variable;
  readonly velocity: Variable;
  readonly velocityGradient: Variable | null;
  readonly forwardPlans: ReadonlyMap<string, Plan>;
  readonly backwardPlans: ReadonlyMap<string, Plan>;
  private readonly session: Session;
  private readonly model: StreamedFlux;
  private readonly textTokens: number;
  /** SiLU of the conditioning vector [B, D]. */
  private readonly active: Variable;
  /** Inputs of the blocks and the last one's output [B, Lt + Li, D]; two in turn where they are not all kept. */
  private readonly streams: readonly Variable[];
  private readonly streamGradient: Variable | null = null;
  private readonly activeGradient: Variable | null = null;
  private tables: { cosine: Variable; sine: Variable } | null = null;
  private readonly spilled = new Map<number, Float32Array>();
  /** The first block that the backward pass must reach. */
  private readonly firstTrained: number = 0;

  constructor(session: Session, model: StreamedFlux, shape: PassShape) {
    this.session = session;
    this.model = model;
    this.shape = shape;
    const { config } = model;
    const { conditioning, imageTokens, training = false, spill = false, name } = shape;
    const [batch, textTokens] = conditioning.states.shape as [number, number];
    this.textTokens = textTokens;
    const data = (key: string, ...sizes: number[]) => session.data(`${name}.${key}`, sizes);
    const joint = [batch, textTokens + imageTokens, config.width];
    this.latents = data("latents", batch, imageTokens, config.inChannels);
    this.velocity = data("velocity", batch, imageTokens, config.outChannels);
    this.active = data("active", batch, config.width);
    const kept = training && !spill ? model.blocks.length + 1 : 2;
    this.streams = Array.from({ length: kept }, (_, i) => model.places.take(`stream ${i}`, joint));
    this.velocityGradient = training ? data("velocityGradient", batch, imageTokens, config.outChannels) : null;
    this.refuseUnmeasured();
    this.forwardPlans = this.planForward();
    if (training) {
      const adapted = new Set([...model.parameters.linears].filter(([, l]) => l.adapter).map(([module]) => module));
      const inside = (block: Block) => [...adapted].some((module) => module.startsWith(`${block.name}.`));
      const first = model.blocks.findIndex(inside);
      const embeds = [...adapted].some((module) => /^(x_embedder|context_embedder|time_text_embed)\b/.test(module));
      this.firstTrained = embeds ? 0 : first < 0 ? model.blocks.length : first;
      this.streamGradient = model.places.take("gradient", joint);
      this.activeGradient = embeds ? data("activeGradient", batch, config.width) : null;
      this.backwardPlans = this.planBackward();
    } else {
      this.backwardPlans = new Map();
    }
  }

  /** DoRA needs the norms of its weight's rows, which a slot shows of one block at a time. */
  private refuseUnmeasured(): void {
    for (const block of this.model.blocks) {
      for (const [module, linear] of this.model.parameters.linears) {
        if (!module.startsWith(`${block.name}.`) || !(linear.adapter instanceof DoraModule)) continue;
        throw new LongtailError("E-CFG-044", {
          what: "a DoRA cannot be trained on a model whose blocks are streamed",
          where: module,
          why: "it measures the weights of all layers at once, and they are never on the device together",
          fix: 'use adapter.kind = "lora" or "lokr", or a device that holds the model',
        });
      }
    }
  }

  private stream(i: number): Variable {
    return this.streams[i % this.streams.length]!;
  }

  private mark(graph: Graph): void {
    if (this.shape.training) markTraining(graph);
  }

  private rotary(graph: Graph): { cosine: Tensor; sine: Tensor } {
    // Tables of a large picture take a while to work out, and every block reads them.
    const known = this.tables;
    if (known) return { cosine: graph.read(known.cosine), sine: graph.read(known.sine) };
    const leaves = this.shape.rotary(graph);
    this.tables = { cosine: leaves.cosine.variable!, sine: leaves.sine.variable! };
    return leaves;
  }

  /** Block `at` on the joint sequence; double blocks take it apart and put it together again. */
  private traceBlock(graph: Graph, at: number, joint: Tensor, active: Tensor): Tensor {
    const { transformer, blocks } = this.model;
    const { kind, index, name } = blocks[at]!;
    const rotary = this.rotary(graph);
    return graph.scope(name, () => {
      if (kind === "single") return transformer.singleBlock(graph, index, joint, active, rotary);
      const [text, image] = split(joint, 1, [this.textTokens, this.shape.imageTokens]) as [Tensor, Tensor];
      const [imageOut, textOut] = transformer.doubleBlock(graph, index, [image, text], active, rotary);
      return concat([textOut, imageOut], 1);
    });
  }

  private traceEmbed(graph: Graph): { joint: Tensor; active: Tensor } {
    const conditioning = this.shape.conditioning.read(graph);
    const inputs = { latents: graph.read(this.latents), ...conditioning };
    const { image, text, active } = this.model.transformer.embed(graph, inputs);
    return { joint: concat([text, image], 1), active };
  }

  private traceOutput(graph: Graph, joint: Tensor, active: Tensor): Tensor {
    return this.model.transformer.finish(graph, slice(joint, 1, this.textTokens, this.shape.imageTokens), active);
  }

  private planForward(): Map<string, Plan> {
    const { session, model, shape } = this;
    const plans = new Map<string, Plan>();
    const piece = (key: string, body: (graph: Graph) => void, like: Plan | null = null): Plan => {
      const traced = (graph: Graph) => {
        this.mark(graph);
        body(graph);
      };
      const plan = session.plan(`${shape.name} ${key}`, traced, like);
      plans.set(key, plan);
      return plan;
    };
    piece(EMBED, (graph) => {
      const { joint, active } = this.traceEmbed(graph);
      graph.assign(this.stream(0), joint);
      graph.assign(this.active, active);
    });
    const first = new Map<string, Plan>();
    model.blocks.forEach((block, at) => {
      const body = (graph: Graph) => {
        const out = this.traceBlock(graph, at, graph.read(this.stream(at)), graph.read(this.active));
        graph.assign(this.stream(at + 1), out);
      };
      const plan = piece(block.name, body, first.get(block.kind) ?? null);
      if (!first.has(block.kind)) first.set(block.kind, plan);
    });
    piece(OUTPUT, (graph) => {
      const joint = graph.read(this.stream(model.blocks.length));
      graph.assign(this.velocity, this.traceOutput(graph, joint, graph.read(this.active)));
    });
    return plans;
  }

  private planBackward(): Map<string, Plan> {
    const { session, model, shape } = this;
    const plans = new Map<string, Plan>();
    const last = model.blocks.length;
    /** Differentiates a piece whose gradient is given; `at` is the stream that it reads. */
    const piece = (
      key: string,
      at: number,
      given: Variable,
      body: (graph: Graph, joint: Tensor, active: Tensor) => Tensor,
      like: Plan | null = null,
    ): Plan => {
      const trace = (graph: Graph) => {
        this.mark(graph);
        const joint = graph.read(this.stream(at), true);
        const active = graph.read(this.active, this.activeGradient !== null);
        const out = body(graph, joint, active);
        const wanted = this.activeGradient ? [joint, active] : [joint];
        const [dJoint, dActive] = backward(graph, [[out, graph.read(given)]], wanted);
        graph.assign(this.streamGradient!, dJoint!);
        if (!this.activeGradient || !dActive) return;
        // The output is the first to be differentiated: what it gives begins the sum.
        const sum = at === last ? dActive : add(graph.read(this.activeGradient), dActive);
        graph.assign(this.activeGradient, sum);
      };
      const plan = session.plan(`${shape.name} ${key} backward`, trace, like);
      plans.set(key, plan);
      return plan;
    };
    piece(OUTPUT, last, this.velocityGradient!, (graph, joint, active) => this.traceOutput(graph, joint, active));
    const first = new Map<string, Plan>();
    for (let at = last - 1; at >= this.firstTrained; at--) {
      const { kind, name } = model.blocks[at]!;
      const body = (graph: Graph, joint: Tensor, active: Tensor) => this.traceBlock(graph, at, joint, active);
      const plan = piece(name, at, this.streamGradient!, body, first.get(kind) ?? null);
      if (!first.has(kind)) first.set(kind, plan);
    }
    const { activeGradient } = this;
    if (activeGradient) {
      const trace = (graph: Graph) => {
        this.mark(graph);
        const { joint, active } = this.traceEmbed(graph);
        const seeds: [Tensor, Tensor][] = [
          [joint, graph.read(this.streamGradient!)],
          [active, graph.read(activeGradient)],
        ];
        backward(
          graph,
          seeds.filter(([value]) => value.needsGradient),
        );
      };
      plans.set(EMBED, session.plan(`${shape.name} ${EMBED} backward`, trace));
    }
    return plans;
  }

  /** The pieces of a pass in order, each with the block whose slot it reads and, going back, the stream it needs again. */
  private route(direction: "forward" | "backward"): { plan: Plan; at: number | null }[] {
    const plans = direction === "forward" ? this.forwardPlans : this.backwardPlans;
    const whole = (key: string) => (plans.has(key) ? [{ plan: plans.get(key)!, at: null }] : []);
    const numbers = [...this.model.blocks.keys()];
    const blocks = (order: number[]) => order.map((at) => ({ plan: plans.get(this.model.blocks[at]!.name)!, at }));
    if (direction === "forward") return [...whole(EMBED), ...blocks(numbers), ...whole(OUTPUT)];
    return [...whole(OUTPUT), ...blocks(numbers.slice(this.firstTrained).reverse()), ...whole(EMBED)];
  }

  /** Runs the pieces of a direction with every block in its slot by then; `run` replays one. */
  private async sweep(
    direction: "forward" | "backward",
    run: (plan: Plan) => Promise<void> = (plan) => this.session.replay(plan),
  ): Promise<void> {
    const { session, shape } = this;
    const { blocks, ring } = this.model;
    const route = this.route(direction);
    const order = route.flatMap(({ at }) => (at === null ? [] : [blocks[at]!]));
    let step = 0;
    for (const { plan, at } of route) {
      if (at === null) {
        await run(plan);
        continue;
      }
      await ring.bring(blocks[at]!);
      const spilled = direction === "backward" ? this.spilled.get(at) : undefined;
      if (spilled) session.write(this.stream(at), spilled);
      await run(plan);
      ring.used(blocks[at]!);
      await ring.bringAhead(order, step++);
      // The block after the next overwrites this one's input.
      if (direction === "forward" && shape.training && shape.spill && at >= this.firstTrained)
        this.spilled.set(at, await session.read(this.stream(at)));
    }
  }

  async forward(): Promise<void> {
    await this.sweep("forward");
  }

  async backward(): Promise<void> {
    if (!this.shape.training) throw new Error(`the pass ${this.shape.name} was made without training`);
    await this.sweep("backward");
    this.spilled.clear();
  }

  async firstNotFinite(direction: "forward" | "backward"): ReturnType<VelocityPass["firstNotFinite"]> {
    // What an earlier run left in what a piece writes would be taken for what was there before.
    const { active, streams, velocity, streamGradient, activeGradient } = this;
    const written = direction === "forward" ? [active, ...streams, velocity] : [streamGradient, activeGradient];
    for (const variable of written) if (variable) this.session.write(variable, new Float32Array(variable.size));
    let found: Awaited<ReturnType<VelocityPass["firstNotFinite"]>> = null;
    await this.sweep(direction, async (plan) => {
      if (found) return;
      const call = await this.session.firstNotFinite(plan);
      if (call) found = { label: call.label, scope: call.scope, plan: plan.name };
    });
    return found;
  }
}
