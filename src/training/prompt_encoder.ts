// Prompt embeddings computed once: states, and pooled vectors in families that have them, of every prompt that a run will need,
// kept on the host.

import type { Pipeline } from "../models/pipeline.ts";
import type { TextEmbedding } from "../models/velocity_network.ts";
import type { Plan, Session } from "../tensor/session.ts";
import type { Variable } from "../tensor/variable.ts";

export class PromptEncoder {
  readonly plan: Plan;
  /** Prompts with words that the embedded tables do not know. */
  readonly unknown = new Set<string>();
  /** Prompts of which the encoder that gives the states reads the beginning alone. */
  readonly cut = new Set<string>();
  private readonly session: Session;
  private readonly pipeline: Pipeline;
  readonly batch: number;
  private readonly remember: boolean;
  private readonly inputs: ReadonlyMap<string, Variable>;
  private readonly vars: { states: Variable; pooled: Variable | null };
  private readonly cache = new Map<string, TextEmbedding>();

  /** @param remember keeps every embedding, so that a text is computed once; a list without repeats needs no memory */
  constructor(session: Session, pipeline: Pipeline, batch: number, remember = true) {
    this.remember = remember;
    this.session = session;
    this.pipeline = pipeline;
    this.batch = batch;
    const { jointWidth, pooledWidth } = pipeline.config;
    const inputs = Object.entries(pipeline.textInputs(batch)).map(
      ([name, { shape, dtype }]) => [name, session.data(`prompt.${name}`, shape, dtype)] as const,
    );
    this.inputs = new Map(inputs);
    const vars = {
      states: session.data("prompt.states", [batch, pipeline.textLength, jointWidth]),
      pooled: pooledWidth > 0 ? session.data("prompt.pooled", [batch, pooledWidth]) : null,
    };
    this.vars = vars;
    this.plan = session.plan("prompt encoders", (graph) => {
      const tokens = Object.fromEntries(inputs.map(([name, variable]) => [name, graph.read(variable)]));
      const { states, pooled } = pipeline.traceText(graph, session, tokens);
      graph.assign(vars.states, states);
      if (vars.pooled && pooled) graph.assign(vars.pooled, pooled);
    });
  }

  /** Embeddings of the texts; each text is computed once. */
  async encode(texts: readonly string[], onDone?: (done: number, total: number) => void): Promise<TextEmbedding[]> {
    const { session, vars, batch } = this;
    const missing = [...new Set(texts)].filter((text) => !this.cache.has(text));
    for (let at = 0; at < missing.length; at += batch) {
      const part = missing.slice(at, at + batch);
      const padded = [...part, ...Array.from({ length: batch - part.length }, () => part[0]!)];
      const { tokens, unknown, cut: shortened } = this.pipeline.tokenize(padded);
      for (const text of unknown) this.unknown.add(text);
      for (const text of shortened) this.cut.add(text);
      const values = await this.pipeline.gatherText(tokens);
      for (const [name, variable] of this.inputs) session.write(variable, values[name]!);
      await session.replay(this.plan);
      const states = await session.read(vars.states);
      const pooled = vars.pooled ? await session.read(vars.pooled) : new Float32Array(0);
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
