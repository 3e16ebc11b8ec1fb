// Module names of adapter files in the two layouts of FLUX.1 and FLUX.2: diffusers', and Black Forest Labs' own, which kohya's
// sd-scripts and ComfyUI follow. There query, key and value are one matrix, in FLUX.1's single blocks with the MLP's first layer.

export interface FusedNames {
  /** diffusers' modules whose rows lie in the matrix, from the top. */
  modules: readonly string[];
  /** How the rows are shared out. */
  rows: "equal" | "single-linear1";
  /** True where diffusers stores the two halves of the rows in the other order (scale before shift). */
  swapHalves?: boolean;
}

/** Which models a file is for: the same path means other layers in them. */
export type AdapterFamily = "flux1" | "flux2";

type Table = Readonly<Record<string, readonly string[]>>;

interface Names {
  double: Table;
  single: Table;
  outer: Readonly<Record<string, string>>;
}

const ATTENTION: Table = {
  img_attn_qkv: ["attn.to_q", "attn.to_k", "attn.to_v"],
  txt_attn_qkv: ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
  img_attn_proj: ["attn.to_out.0"],
  txt_attn_proj: ["attn.to_add_out"],
};

const OUTER = {
  img_in: "x_embedder",
  txt_in: "context_embedder",
  final_layer_linear: "proj_out",
  final_layer_adaLN_modulation_1: "norm_out.linear",
};

/** The embedders in a module of diffusers: `<path>_in_layer` and `<path>_out_layer`. */
const embedders = (module: string, paths: Readonly<Record<string, string>>) =>
  Object.fromEntries(
    Object.entries(paths).flatMap(([path, name]) => [
      [`${path}_in_layer`, `${module}.${name}.linear_1`],
      [`${path}_out_layer`, `${module}.${name}.linear_2`],
    ]),
  );

const FAMILIES: Readonly<Record<AdapterFamily, Names>> = {
  flux1: {
    double: {
      ...ATTENTION,
      img_mlp_0: ["ff.net.0.proj"],
      img_mlp_2: ["ff.net.2"],
      txt_mlp_0: ["ff_context.net.0.proj"],
      txt_mlp_2: ["ff_context.net.2"],
      img_mod_lin: ["norm1.linear"],
      txt_mod_lin: ["norm1_context.linear"],
    },
    single: {
      linear1: ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"],
      linear2: ["proj_out"],
      modulation_lin: ["norm.linear"],
    },
    outer: {
      ...OUTER,
      ...embedders("time_text_embed", {
        time_in: "timestep_embedder",
        vector_in: "text_embedder",
        guidance_in: "guidance_embedder",
      }),
    },
  },
  flux2: {
    double: {
      ...ATTENTION,
      img_mlp_0: ["ff.linear_in"],
      img_mlp_2: ["ff.linear_out"],
      txt_mlp_0: ["ff_context.linear_in"],
      txt_mlp_2: ["ff_context.linear_out"],
    },
    single: { linear1: ["attn.to_qkv_mlp_proj"], linear2: ["attn.to_out"] },
    outer: {
      ...OUTER,
      ...embedders("time_guidance_embed", { time_in: "timestep_embedder", guidance_in: "guidance_embedder" }),
      double_stream_modulation_img_lin: "double_stream_modulation_img.linear",
      double_stream_modulation_txt_lin: "double_stream_modulation_txt.linear",
      single_stream_modulation_lin: "single_stream_modulation.linear",
    },
  },
};

const own = <T>(table: Readonly<Record<string, T>>, key: string) =>
  Object.hasOwn(table, key) ? table[key] : undefined;

/** The part of a module's path that a table names, and the block before it. */
const BLOCK = /^(single_transformer_blocks|transformer_blocks)\.(\d+)\.(.+)$/;

const inverse = (table: Table) =>
  new Map(Object.entries(table).flatMap(([stem, modules]) => modules.map((module) => [module, stem])));
// No module of one family has another place in the other's layout.
const STEMS = (["flux1", "flux2"] as const).map((family) => ({
  family,
  double: inverse(FAMILIES[family].double),
  single: inverse(FAMILIES[family].single),
  outer: new Map(Object.entries(FAMILIES[family].outer).map(([stem, module]) => [module, stem])),
}));

/** The stem that holds a module of diffusers' naming, `lora_unet_…`, and what it holds; null where the layout has no such layer. */
export function stemOf(module: string): { stem: string; names: FusedNames } | null {
  const [, kind, index, rest] = BLOCK.exec(module) ?? [];
  for (const { family, double, single, outer } of STEMS) {
    const found = !kind ? outer.get(module) : (kind === "transformer_blocks" ? double : single).get(rest!);
    if (found === undefined) continue;
    const block = !kind ? "" : `${kind === "transformer_blocks" ? "double" : "single"}_blocks_${index}_`;
    const stem = `lora_unet_${block}${found}`;
    return { stem, names: fuseNames(stem, family)! };
  }
  return null;
}

/** What a path of Black Forest Labs' layout stands for, `double_blocks.0.img_attn.qkv`; null for an unknown one. */
export function fusePath(path: string, family: AdapterFamily = "flux1"): FusedNames | null {
  return /[^A-Za-z0-9_.]/.test(path) ? null : fuseNames(`lora_unet_${path.replaceAll(".", "_")}`, family);
}

/**
 * The module of diffusers' naming whose dots were replaced by underscores (OneTrainer, LyCORIS), or null for none:
 * "transformer_blocks_0_attn_to_out_0" is "transformer_blocks.0.attn.to_out.0".
 */
export function unflatten(flat: string): string | null {
  const block = /^(single_transformer_blocks|transformer_blocks)_(\d+)_(.+)$/.exec(flat);
  if (!block) return FLAT.outer.get(flat) ?? null;
  const found = (block[1] === "transformer_blocks" ? FLAT.double : FLAT.single).get(block[3]!);
  return found === undefined ? null : `${block[1]}.${block[2]}.${found}`;
}

const flattened = (kind: "double" | "single" | "outer") =>
  new Map(STEMS.flatMap((stems) => [...stems[kind].keys()]).map((module) => [module.replaceAll(".", "_"), module]));
const FLAT = { double: flattened("double"), single: flattened("single"), outer: flattened("outer") };

/** What a stem like `lora_unet_double_blocks_0_img_attn_qkv` stands for, or null where it is no transformer layer's. */
export function fuseNames(stem: string, family: AdapterFamily = "flux1"): FusedNames | null {
  const tables = FAMILIES[family];
  const block = /^lora_unet_(double|single)_blocks_(\d+)_(.+)$/.exec(stem);
  if (block) {
    const modules = own(block[1] === "double" ? tables.double : tables.single, block[3]!);
    if (!modules) return null;
    const prefix = `${block[1] === "double" ? "transformer_blocks" : "single_transformer_blocks"}.${block[2]}.`;
    const rows = block[3] === "linear1" && modules.length > 1 ? "single-linear1" : "equal";
    return { modules: modules.map((module) => prefix + module), rows };
  }
  const outer = /^lora_unet_(.+)$/.exec(stem);
  const module = outer && own(tables.outer, outer[1]!);
  if (!module) return null;
  return { modules: [module], rows: "equal", swapHalves: module === "norm_out.linear" };
}

/** Layers that one family alone has, by their names in any layout; FLUX.2's first. */
const SECOND =
  /(single|double)_stream_modulation|to_qkv_mlp_proj|time_guidance_embed|ff(_context)?[._]linear_(in|out)\b|single_transformer_blocks[._]\d+[._]attn[._]to_out\b/;
const FIRST =
  /_mod[._]lin\b|modulation[._]lin\b|vector_in|time_text_embed|proj_mlp|[._]net[._]|\bnorm1(_context)?[._]linear|processor/;

/**
 * Which family's layers an adapter file has: by names that one family alone has, else by the shapes of the layers that both
 * call alike. FLUX.2's gated layers make the single blocks' matrices 9 and 4 widths large where FLUX.1's are 7 and 5, and those
 * of its feed-forward 6 and 3 where they are 4. Where nothing tells, the layers mean the same in both.
 */
export function adapterFamily(tensors: ReadonlyMap<string, { shape: readonly number[] }>): AdapterFamily {
  for (const name of tensors.keys()) if (SECOND.test(name)) return "flux2";
  for (const name of tensors.keys()) if (FIRST.test(name)) return "flux1";
  for (const name of tensors.keys()) {
    const layer = /[._](linear1|linear2|(?:img|txt)_mlp[._][02])\.(?:lora_(?:up|B)|lokr_w1)/.exec(name);
    const size = layer && sizeOf(name, tensors);
    if (!size) continue;
    const [rows, columns] = size;
    const second = layer[1] === "linear1" ? 9 : layer[1] === "linear2" ? 4 : layer[1]!.endsWith("0") ? 6 : 3;
    const found = layer[1] === "linear1" || layer[1]!.endsWith("0") ? rows / columns : columns / rows;
    return Math.abs(found - second) < 0.5 ? "flux2" : "flux1";
  }
  return "flux1";
}

/** The same from modules of diffusers' naming alone. */
export function familyOfModules(modules: Iterable<string>): AdapterFamily {
  for (const module of modules) if (SECOND.test(module)) return "flux2";
  return "flux1";
}

/** Rows and columns of the layer that a tensor belongs to; null where its other factor is not there. */
function sizeOf(name: string, tensors: ReadonlyMap<string, { shape: readonly number[] }>): [number, number] | null {
  const shape = (key: string) => tensors.get(key)?.shape ?? null;
  const kronecker = /^(.*\.lokr_)w1/.exec(name);
  if (!kronecker) {
    const down = shape(name.replace("lora_up", "lora_down").replace("lora_B", "lora_A"));
    const up = shape(name);
    return up?.length === 2 && down?.length === 2 ? [up[0]!, down[1]!] : null;
  }
  const factor = (which: string) => {
    const stem = kronecker[1] + which;
    return {
      rows: (shape(stem) ?? shape(`${stem}_a`))?.[0] ?? 0,
      columns: (shape(stem) ?? shape(`${stem}_b`))?.[1] ?? 0,
    };
  };
  const [first, second] = [factor("w1"), factor("w2")];
  const size: [number, number] = [first.rows * second.rows, first.columns * second.columns];
  return size[0] > 0 && size[1] > 0 ? size : null;
}
