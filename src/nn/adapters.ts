// Adapters on a model's Linear layers: LoRA, DoRA and LoKr. One object holds the adapters of all modules: their variables in
// pools of their own, how they begin, what files give them and get from them, and the strength that they act with.

import { LongtailError } from "../base/errors.ts";
import { RandomStream } from "../base/random.ts";
import { isLokr, type LokrLayer, type LoraLayer } from "../formats/adapter_layers.ts";
import { RANDOM_KEY_WORDS, randomKey } from "../ops/random.ts";
import type { Plan, Session } from "../tensor/session.ts";
import type { Pool, Variable } from "../tensor/variable.ts";
import { DoraModule } from "./adapters/dora.ts";
import { KroneckerModule } from "./adapters/lokr.ts";
import { LowRankModule } from "./adapters/low_rank.ts";
import { type AdapterModule, InputDropout } from "./adapters/module.ts";
import { type AdapterKind, type AdapterShape, noSuchModule } from "./adapters/targets.ts";
import type { Linear } from "./linear.ts";
import type { Parameters } from "./parameters.ts";

export type { AdapterModule } from "./adapters/module.ts";
export {
  type AdapterKind,
  type AdapterPreset,
  type AdapterSettings,
  type AdapterShape,
  ATTENTION_TARGETS,
  adaptersOf,
  chooseAdapters,
  DIFFUSERS_TARGETS,
  DIFFUSERS_TARGETS_2,
  type FactorShape,
  type KroneckerShape,
  type LowRankShape,
} from "./adapters/targets.ts";

/** Words that a random counter numbers in one stream. */
const STREAM_WORDS = 2 ** 34;

/** A pool for an optimizer. */
export interface AdapterGroup {
  pool: Pool;
  /** Set where this pool wants another decay than the rest. */
  weightDecay?: number;
}

/** The adapters of one model. */
export class Adapter {
  /** "dora" or "lokr" where any module has one. */
  readonly kind: AdapterKind;
  /** The factors, in the model's order, f32. */
  readonly pool: Pool;
  /** DoRA's magnitudes, f32. */
  readonly magnitudes: Pool | null;
  readonly layers: ReadonlyMap<string, AdapterModule>;
  /** True where a training plan drops elements: then `writeDropout` must precede every replay. */
  readonly drops: boolean;
  private readonly scales = new Map<number, Variable>();
  private readonly constants = new Map<number, Variable>();
  private readonly strength: Variable | null;
  private readonly dropoutKey: Variable | null;
  private readonly measurement: Plan | null;

  /**
   * Attaches adapters to the model's layers; plans traced afterwards contain them. Variables have PEFT's names:
   * `<module>.lora_A.weight` [r, in], `.lora_B.weight` [out, r], `.lora_magnitude_vector` [out]; `.lokr_w1`, or
   * `.lokr_w1_a` and `.lokr_w1_b`, and the same for w2. Modules of equal scale share one variable [1] of the session's data.
   * @throws LongtailError E-CFG-040 where the model has no such Linear layer
   */
  constructor(session: Session, parameters: Parameters, shapes: ReadonlyMap<string, AdapterShape>, name = "adapter") {
    const linears = new Map<string, Linear>();
    for (const module of shapes.keys()) {
      const linear = parameters.linears.get(module);
      if (!linear) throw noSuchModule(module, [...parameters.linears.keys()], "the adapter");
      linears.set(module, linear);
    }
    const kinds = [...shapes.values()].map((shape) => shape.kind ?? "lora");
    this.kind = kinds.find((kind) => kind !== "lora") ?? "lora";
    this.pool = session.pool(name, "adapter");
    this.magnitudes = kinds.includes("dora") ? session.pool(`${name}.magnitudes`, "adapter") : null;
    this.strength = this.magnitudes ? session.data(`${name}.strength`, [1]) : null;
    this.drops = [...shapes.values()].some((shape) => (shape.dropout ?? 0) > 0);
    this.dropoutKey = this.drops ? session.data(`${name}.dropout`, [RANDOM_KEY_WORDS], "u32") : null;
    // Each module draws from a stretch of one stream: as many rows as fit when every module gets the same number.
    const width = [...linears.values()].reduce((sum, linear) => sum + Math.ceil(linear.inputs / 4) * 4, 0);
    const rows = Math.floor(STREAM_WORDS / width);
    let first = 0;
    const scaleOf = (table: Map<number, Variable>, scale: number, label: string): Variable => {
      const known = table.get(scale);
      if (known) return known;
      const variable = session.data(`${name}.${label}.${table.size}`, [1]);
      table.set(scale, variable);
      return variable;
    };
    const layers = new Map<string, AdapterModule>();
    for (const [module, shape] of shapes) {
      const linear = linears.get(module)!;
      const dropout = new InputDropout(shape.dropout ?? 0, this.dropoutKey, first);
      first += rows * Math.ceil(linear.inputs / 4) * 4;
      let made: AdapterModule;
      if (shape.kind === "dora") {
        made = new DoraModule({ factors: this.pool, magnitudes: this.magnitudes! }, module, linear, shape, {
          scale: scaleOf(this.constants, shape.scale, "constant"),
          dropout,
          strength: this.strength!,
          squares: session.data(`${name}.squares.${module}`, [linear.outputs]),
        });
      } else {
        const parts = { scale: scaleOf(this.scales, shape.scale, "scale"), dropout };
        made =
          shape.kind === "lokr"
            ? new KroneckerModule(this.pool, module, linear, shape, parts)
            : new LowRankModule(this.pool, module, linear, shape, parts);
      }
      linear.adapter = made;
      layers.set(module, made);
    }
    this.layers = layers;
    this.measurement = this.magnitudes ? this.planMeasurement(session, name) : null;
  }

  private planMeasurement(session: Session, name: string): Plan {
    return session.plan(`${name} row norms`, (graph) => {
      for (const [module, layer] of this.layers) {
        if (layer instanceof DoraModule) graph.scope(module, () => layer.traceMeasure(graph));
      }
    });
  }

  /**
   * The trained variables for an optimizer: the factors, and DoRA's magnitudes apart from them without weight decay,
   * which would shrink the base weight's rows and not the change.
   */
  groups(): AdapterGroup[] {
    return [{ pool: this.pool }, ...(this.magnitudes ? [{ pool: this.magnitudes, weightDecay: 0 }] : [])];
  }

  /** Sets how strongly the adapter acts: 1 as trained, 0 the model without it, between them a mixture of both. */
  setStrength(session: Session, strength: number): void {
    for (const [scale, variable] of this.scales) session.write(variable, Float32Array.of(scale * strength));
    for (const [scale, variable] of this.constants) session.write(variable, Float32Array.of(scale));
    if (this.strength) session.write(this.strength, Float32Array.of(strength));
  }

  /**
   * Chooses the masks of the next replay of training plans (`markTraining`), the same for the same numbers. A step that
   * consists of several replays counts them all.
   */
  writeDropout(session: Session, seed: number, step: number): void {
    if (this.dropoutKey) session.write(this.dropoutKey, randomKey(new RandomStream(seed, "adapter dropout"), step));
  }

  /**
   * DoRA: measures the rows of the base weights, which must be loaded. `initialise` and `load` do so themselves; a
   * caller that changes the base weights later calls it, and writes the magnitudes after it.
   */
  measure(session: Session): void {
    if (this.measurement) session.run(this.measurement);
  }

  /**
   * Begins without effect and deterministic by (seed, module): LoRA and DoRA with A ~ normal of standard deviation 1/r and
   * B = 0, magnitudes as the row norms of the base weights, LoKr with an even first factor and a second that is zero.
   */
  initialise(session: Session, seed: number): void {
    this.measure(session);
    for (const layer of this.layers.values()) layer.initialise(session, seed);
    this.setStrength(session, 1);
  }

  /**
   * Takes the factors of a file. The adapter must have been made with the file's shapes (`adaptersOf`), or with shapes
   * that meet them; modules that the file does not name begin as `initialise` makes them, without effect.
   * @param where the file, for messages
   * @throws LongtailError E-FILE-060 where the file names a module without an adapter, or of another kind, size or scale
   */
  load(session: Session, layers: ReadonlyMap<string, LoraLayer | LokrLayer>, where: string, seed = 0): void {
    for (const [module, layer] of layers) {
      const own = this.layers.get(module);
      const why = own ? own.refusal(layer) : "the adapter has no such module";
      if (why === null) continue;
      throw new LongtailError("E-FILE-060", {
        what: `the ${isLokr(layer) ? "LoKr" : layer.magnitude ? "DoRA" : "LoRA"} of ${module} does not fit the adapter`,
        where,
        why,
        fix: "set adapter.kind, adapter.rank, adapter.alpha and adapter.targets as the file has them, and check that it is of this model",
      });
    }
    this.measure(session);
    for (const [module, own] of this.layers) {
      const layer = layers.get(module);
      if (layer) own.load(session, layer);
      else own.initialise(session, seed);
    }
    this.setStrength(session, 1);
  }

  /** Reads LoRA or DoRA back from the device, for a file; a LoKr is read by `readLokr`. */
  async read(session: Session): Promise<Map<string, LoraLayer>> {
    const layers = new Map<string, LoraLayer>();
    for (const [module, own] of this.layers) {
      if (!(own instanceof LowRankModule)) throw new Error(`${module} has a LoKr, which readLokr reads`);
      layers.set(module, await own.read(session));
    }
    return layers;
  }

  /** Reads LoKr back from the device, for a file. */
  async readLokr(session: Session): Promise<Map<string, LokrLayer>> {
    const layers = new Map<string, LokrLayer>();
    for (const [module, own] of this.layers) {
      if (!(own instanceof KroneckerModule)) throw new Error(`${module} has a LoRA, which read reads`);
      layers.set(module, await own.read(session));
    }
    return layers;
  }
}
