// From [adapter] to an adapter on a model: made anew or started from a file, trained, read back and written in every form
// that other programs load. Alignment, training and sampling share it.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import type { LokrLayer, LoraLayer } from "../formats/adapter_layers.ts";
import { type LoraFacts, readAdapter, writeLoraPair } from "../formats/lora.ts";
import { Adapter, type AdapterSettings, adaptersOf, chooseAdapters } from "../nn/adapters.ts";
import type { Parameters } from "../nn/parameters.ts";
import type { ParameterGroup } from "../optim/optimizer.ts";
import type { Session } from "../tensor/session.ts";
import type { Pool } from "../tensor/variable.ts";
import type { Config } from "./config/schema.ts";

export type AdapterLayers = ReadonlyMap<string, LoraLayer | LokrLayer>;

/** The keys of [adapter] in the form that the layers are chosen by. */
export function adapterSettings({ adapter }: Config): AdapterSettings {
  if (adapter.kind === "full") throw new Error("full fine-tuning has no adapter");
  return {
    kind: adapter.kind,
    targets: adapter.targets,
    rank: adapter.rank,
    alpha: adapter.alpha,
    // The first match counts for both, also where it leaves one of them to the rest.
    rankOf: Object.fromEntries(adapter.layers.map(({ match, rank }) => [match, rank || adapter.rank])),
    alphaOf: Object.fromEntries(adapter.layers.map(({ match, alpha }) => [match, alpha || adapter.alpha])),
    exclude: adapter.exclude,
    dropout: adapter.dropout,
    rankStabilised: adapter.rank_stabilised,
    ...(adapter.factor > 0 ? { factor: adapter.factor } : {}),
  };
}

/** Reads an adapter file of any style. */
export async function readLayers(files: FileStore, path: string): Promise<AdapterLayers> {
  const file = await readAdapter(files, path);
  return file.kind === "lokr" ? file.lokr : file.layers;
}

/** An adapter that a run trains. */
export class RunAdapter {
  readonly adapter: Adapter;
  /** Rank and alpha of most layers: the configuration's, or those of the file that the run starts from. */
  readonly usual: { rank: number; alpha: number };
  private readonly session: Session;
  private readonly start: { layers: AdapterLayers; path: string } | null;

  constructor(session: Session, adapter: Adapter, usual: RunAdapter["usual"], start: RunAdapter["start"]) {
    this.session = session;
    this.adapter = adapter;
    this.usual = usual;
    this.start = start;
  }

  /** What the optimizer trains. */
  get groups(): ParameterGroup[] {
    return this.adapter.groups();
  }

  get pools(): Pool[] {
    return this.groups.map(({ pool }) => pool);
  }

  get layerCount(): number {
    return this.adapter.layers.size;
  }

  /** Starting values, from the seed or from the file that the run starts from; the base weights must be loaded. */
  begin(seed: number): void {
    if (this.start) this.adapter.load(this.session, this.start.layers, this.start.path, seed);
    else this.adapter.initialise(this.session, seed);
  }

  /** Reads the factors back from the device. */
  async read(): Promise<AdapterLayers> {
    return this.adapter.kind === "lokr"
      ? await this.adapter.readLokr(this.session)
      : await this.adapter.read(this.session);
  }

  /** Writes `<base>.safetensors` and `<base>.kohya.safetensors`. */
  async save(
    files: FileStore,
    base: string,
    options: { dtype: "f32" | "f16" | "bf16"; facts: LoraFacts },
  ): Promise<{ path: string; role: "diffusers" | "kohya"; what: string }[]> {
    const dtype = ({ f32: "F32", f16: "F16", bf16: "BF16" } as const)[options.dtype];
    const name = { lora: "LoRA", dora: "DoRA", lokr: "LoKr" }[this.adapter.kind];
    const pair = await writeLoraPair(files, base, (await this.read()) as never, options.facts, { dtype });
    return [
      { path: pair.diffusers, role: "diffusers", what: `the ${name} in diffusers' and PEFT's keys` },
      {
        path: pair.kohya,
        role: "kohya",
        what: `the same in kohya's keys, for ComfyUI and sd-scripts${pair.notes.length > 0 ? `; ${pair.notes.join("; ")}` : ""}`,
      },
    ];
  }
}

/**
 * Hangs the adapter of the configuration on a model; plans traced afterwards contain it.
 * @throws LongtailError E-CFG-042 where `adapter.start` is of another kind than `adapter.kind`
 */
export async function makeAdapter(
  files: FileStore,
  session: Session,
  parameters: Parameters,
  config: Config,
): Promise<RunAdapter> {
  const { start: path, kind } = config.adapter;
  if (path === "none")
    return new RunAdapter(
      session,
      new Adapter(session, parameters, chooseAdapters(parameters, adapterSettings(config))),
      { rank: config.adapter.rank, alpha: config.adapter.alpha },
      null,
    );
  const layers = await readLayers(files, path);
  // The file's own ranks and targets count: a continued adapter has to be what it was.
  const shapes = [...adaptersOf(layers)].map(
    ([module, shape]) =>
      [module, { ...shape, ...(config.adapter.dropout > 0 ? { dropout: config.adapter.dropout } : {}) }] as const,
  );
  const adapter = new Adapter(session, parameters, new Map(shapes));
  if (adapter.kind !== kind) {
    throw new LongtailError("E-CFG-042", {
      what: `the file is a ${adapter.kind}, and adapter.kind is ${kind}`,
      where: path,
      why: "a run goes on with the kind of adapter that it starts from",
      fix: `set adapter.kind = "${adapter.kind}", or adapter.start = "none"`,
    });
  }
  return new RunAdapter(session, adapter, usualOf(layers), { layers, path });
}

function usualOf(layers: AdapterLayers): RunAdapter["usual"] {
  const counts = new Map<string, { rank: number; alpha: number; count: number }>();
  for (const layer of layers.values()) {
    const second = "second" in layer ? layer.second : null;
    const rank = "rank" in layer ? layer.rank : second && "rank" in second ? second.rank : 1;
    const alpha = layer.scale * rank;
    const entry = counts.get(`${rank} ${alpha}`) ?? { rank, alpha, count: 0 };
    entry.count++;
    counts.set(`${rank} ${alpha}`, entry);
  }
  const { rank, alpha } = [...counts.values()].reduce((a, b) => (b.count > a.count ? b : a));
  return { rank, alpha };
}
