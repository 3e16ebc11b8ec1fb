// Prompt embeddings computed once: T5 states and pooled CLIP vectors of every prompt that a run will need, kept on the host.

import type { Pipeline } from "../models/pipeline.ts";
import type { TextEmbedding } from "../models/velocity_network.ts";
import type { Plan, Session } from "../tensor/session.ts";
import type { Variable } from "../tensor/variable.ts";

export class PromptEncoder {
  readonly plan: Plan;
  /** Prompts with words that the embedded tables do not know. */
  readonly unknown = new Set<string>();
  /** Prompts of which the second encoder reads the beginning alone. */
  readonly cut = new Set<string>();
  private readonly session: Session;
  private readonly pipeline: Pipeline;
  readonly batch: number;
  private readonly remember: boolean;
  private readonly vars: { clip: Variable; ends: Variable; t5: Variable; states: Variable; pooled: Variable };
  private readonly cache = new Map<string, TextEmbedding>();

  /** @param remember keeps every embedding, so that a text is computed once; a list without repeats needs no memory */
  constructor(session: Session, pipeline: Pipeline, batch: number, remember = true) {
    this.remember = remember;
    this.session = session;
    this.pipeline = pipeline;
    this.batch = batch;
    const inputs = pipeline.textInputs(batch);
    const vars = {
      clip: session.data("prompt.clip", inputs.clip.shape, inputs.clip.dtype),
      ends: session.data("prompt.ends", [batch], "u32"),
      t5: session.data("prompt.t5", inputs.t5.shape, inputs.t5.dtype),
      states: session.data("prompt.states", [batch, pipeline.textLength, pipeline.config.jointWidth]),
      pooled: session.data("prompt.pooled", [batch, pipeline.config.pooledWidth]),
    };
    this.vars = vars;
    this.plan = session.plan("prompt encoders", (graph) => {
      const { states, pooled } = pipeline.traceText(graph, session, {
        clip: graph.read(vars.clip),
        ends: graph.read(vars.ends),
        t5: graph.read(vars.t5),
      });
      graph.assign(vars.states, states);
      graph.assign(vars.pooled, pooled);
    });
  }

  /** Embeddings of the texts; each text is computed once. */
  async encode(texts: readonly string[], onDone?: (done: number, total: number) => void): Promise<TextEmbedding[]> {
    const { session, vars, batch } = this;
    const missing = [...new Set(texts)].filter((text) => !this.cache.has(text));
    for (let at = 0; at < missing.length; at += batch) {
      const part = missing.slice(at, at + batch);
      const padded = [...part, ...Array.from({ length: batch - part.length }, () => part[0]!)];
      const tokens = this.pipeline.tokenize(padded);
      for (const text of tokens.unknown) this.unknown.add(text);
      for (const text of tokens.cut) this.cut.add(text);
      const { clip, t5 } = await this.pipeline.gatherText(tokens);
      session.write(vars.clip, clip);
      session.write(vars.ends, tokens.ends);
      session.write(vars.t5, t5);
      session.run(this.plan);
      const states = await session.read(vars.states);
      const pooled = await session.read(vars.pooled);
      part.forEach((text, i) => {
        const cut = (all: Float32Array) => all.slice(i * (all.length / batch), (i + 1) * (all.length / batch));
        this.cache.set(text, { states: cut(states), pooled: cut(pooled) });
      });
      onDone?.(Math.min(at + batch, missing.length), missing.length);
    }
    const found = texts.map((text) => this.cache.get(text)!);
    if (!this.remember) this.cache.clear();
    return found;
  }
}
