// Low-rank adapters on a model's Linear layers (Hu et al. 2021): which layers get one, their variables in a pool of their
// own, and how they begin. Layers are chosen by module names as PEFT matches them, so that a LoRA trained here names
// exactly the modules that other programs expect.

import { LongtailError, nearestName } from "../base/errors.ts";
import { RandomStream } from "../base/random.ts";
import type { LoraLayer } from "../formats/lora.ts";
import { matchesEntry } from "../formats/lora_metadata.ts";
import type { Session } from "../tensor/session.ts";
import type { Pool, Variable } from "../tensor/variable.ts";
import type { LowRank } from "./linear.ts";
import type { Parameters } from "./parameters.ts";

/** The set of diffusers' FLUX training scripts; the three to_* entries also meet the single blocks. */
export const DIFFUSERS_TARGETS: readonly string[] = [
  "attn.to_k",
  "attn.to_q",
  "attn.to_v",
  "attn.to_out.0",
  "attn.add_k_proj",
  "attn.add_q_proj",
  "attn.add_v_proj",
  "attn.to_add_out",
  "ff.net.0.proj",
  "ff.net.2",
  "ff_context.net.0.proj",
  "ff_context.net.2",
];

export interface AdapterTargets {
  /** A preset, or names or endings of module names. */
  targets: "diffusers" | "all-linear" | readonly string[];
  rank: number;
  alpha: number;
  /** Another rank or alpha for modules of these names or endings; the first that fits counts. */
  rankOf?: Readonly<Record<string, number>>;
  alphaOf?: Readonly<Record<string, number>>;
}

/** What one module's adapter looks like. */
export interface AdapterShape {
  rank: number;
  /** alpha / rank, before the strength. */
  scale: number;
}

/**
 * The modules that the targets mean, in the model's order.
 * @throws LongtailError E-CFG-040 where an entry meets no Linear layer of the model
 */
export function chooseAdapters(parameters: Parameters, wanted: AdapterTargets): Map<string, AdapterShape> {
  const modules = [...parameters.linears.keys()];
  const entries =
    typeof wanted.targets === "string" ? (wanted.targets === "diffusers" ? DIFFUSERS_TARGETS : null) : wanted.targets;
  for (const entry of entries ?? []) {
    if (!modules.some((module) => matchesEntry(module, entry))) throw noSuchModule(entry, modules, "adapter.targets");
  }
  const find = (table: Readonly<Record<string, number>> | undefined, module: string) =>
    Object.entries(table ?? {}).find(([entry]) => matchesEntry(module, entry))?.[1];
  const chosen = new Map<string, AdapterShape>();
  for (const module of modules) {
    if (entries && !entries.some((entry) => matchesEntry(module, entry))) continue;
    const rank = find(wanted.rankOf, module) ?? wanted.rank;
    chosen.set(module, { rank, scale: (find(wanted.alphaOf, module) ?? wanted.alpha) / rank });
  }
  return chosen;
}

function noSuchModule(name: string, modules: readonly string[], where: string): LongtailError {
  // A short entry is compared with endings of its own length, else nothing would be near.
  const parts = name.split(".").length;
  const endings = new Set(modules.map((module) => module.split(".").slice(-parts).join(".")));
  const near = nearestName(name, endings);
  return new LongtailError("E-CFG-040", {
    what: `no Linear layer of the model is named ${JSON.stringify(name)} or ends with it`,
    where,
    why: `the model has ${modules.length} Linear layers${near === null ? "" : `; the nearest is ${JSON.stringify(near)}`}`,
    fix: 'use names like "attn.to_q", or "diffusers" or "all-linear"',
  });
}

/** One LoRA on a model: its variables, and the layers that read them. */
export class Adapter {
  /** The factors alone, in the model's order; an optimizer trains this pool. */
  readonly pool: Pool;
  readonly layers: ReadonlyMap<string, LowRank>;
  private readonly shapes: ReadonlyMap<string, AdapterShape>;
  private readonly scales = new Map<number, Variable>();

  /**
   * Attaches factors `<module>.lora_A.weight` [r, in] and `<module>.lora_B.weight` [out, r] to the model's layers. Plans
   * traced afterwards contain them. Modules of equal scale share one variable [1] of the session's data.
   * @throws LongtailError E-CFG-040 where the model has no such Linear layer
   */
  constructor(session: Session, parameters: Parameters, shapes: ReadonlyMap<string, AdapterShape>, name = "adapter") {
    this.pool = session.pool(name, "adapter");
    this.shapes = shapes;
    const layers = new Map<string, LowRank>();
    for (const [module, { rank, scale }] of shapes) {
      const linear = parameters.linears.get(module);
      if (!linear) throw noSuchModule(module, [...parameters.linears.keys()], "the LoRA");
      let factor = this.scales.get(scale);
      if (!factor) {
        factor = session.data(`${name}.scale.${this.scales.size}`, [1]);
        this.scales.set(scale, factor);
      }
      linear.adapter = {
        down: this.pool.add(`${module}.lora_A.weight`, [rank, linear.inputs], "f32"),
        up: this.pool.add(`${module}.lora_B.weight`, [linear.outputs, rank], "f32"),
        scale: factor,
      };
      layers.set(module, linear.adapter);
    }
    this.layers = layers;
  }

  /** Sets what the adapter's output is multiplied with: 1 as trained, 0 the model without it. */
  setStrength(session: Session, strength: number): void {
    for (const [scale, variable] of this.scales) session.write(variable, Float32Array.of(scale * strength));
  }

  /**
   * A ~ normal with standard deviation 1/r, from a stream of the module's own, B = 0: the model begins unchanged.
   * diffusers' FLUX scripts begin the same way (PEFT's "gaussian").
   */
  initialise(session: Session, seed: number): void {
    for (const [module, { down, up }] of this.layers) {
      const rank = down.shape[0]!;
      const values = new RandomStream(seed, `lora.${module}`).normals(0, down.size);
      session.write(
        down,
        values.map((value) => value / rank),
      );
      session.write(up, new Float32Array(up.size));
    }
    this.setStrength(session, 1);
  }

  /**
   * Takes the factors of a file. The adapter must have been made with the file's shapes (`adaptersOf`); modules that
   * the file does not name become zero.
   * @throws LongtailError E-FILE-060 where the file names a module without an adapter, or of another size or scale
   */
  load(session: Session, layers: ReadonlyMap<string, LoraLayer>, where: string): void {
    for (const [module, layer] of layers) {
      const refuse = (why: string): never => {
        throw new LongtailError("E-FILE-060", {
          what: `the LoRA of ${module} does not fit the adapter`,
          where,
          why,
          fix: "set adapter.rank, adapter.alpha and adapter.targets as the file has them, and check that it is of this model",
        });
      };
      const own = this.layers.get(module) ?? refuse("the adapter has no such module");
      const [rank, inputs] = own.down.shape as [number, number];
      if (layer.rank !== rank || layer.inputs !== inputs || layer.outputs !== own.up.shape[0]) {
        refuse(
          `rank ${layer.rank} of ${layer.outputs} × ${layer.inputs}, expected ${rank} of ${own.up.shape[0]} × ${inputs}`,
        );
      }
      const { scale } = this.shapes.get(module)!;
      // Files hold alpha in float32 or less, or as a product with the number of fused parts.
      if (Math.abs(layer.scale - scale) > 1e-6 * Math.abs(scale))
        refuse(`its alpha / rank is ${layer.scale}, expected ${scale}`);
    }
    for (const [module, { down, up }] of this.layers) {
      const layer = layers.get(module);
      session.write(down, layer?.down ?? new Float32Array(down.size));
      session.write(up, layer?.up ?? new Float32Array(up.size));
    }
    this.setStrength(session, 1);
  }

  /** Reads the factors back from the device, for a file. */
  async read(session: Session): Promise<Map<string, LoraLayer>> {
    const layers = new Map<string, LoraLayer>();
    for (const [module, { down, up }] of this.layers) {
      const [rank, inputs] = down.shape as [number, number];
      layers.set(module, {
        rank,
        inputs,
        outputs: up.shape[0]!,
        down: await session.read(down),
        up: await session.read(up),
        scale: this.shapes.get(module)!.scale,
      });
    }
    return layers;
  }
}

/** The shapes of a file's layers, for an adapter that will hold them. */
export function adaptersOf(layers: ReadonlyMap<string, LoraLayer>): Map<string, AdapterShape> {
  return new Map([...layers].map(([module, { rank, scale }]) => [module, { rank, scale }]));
}
