// The tensors of Black Forest Labs' single files, which ComfyUI and most trainers use, in diffusers' names and back: query,
// key and value lie in one matrix (in FLUX.1's single blocks with the MLP's first layer), and the two halves of the last
// modulation stand in the other order. FLUX.1-dev has 1160 tensors in diffusers' layout and 780 in the other.

import { LongtailError } from "../../base/errors.ts";
import { fusePath } from "../../formats/lora_names.ts";
import { type MappedTensor, rowsOfTensor, stackedRows, swappedHalves, wholeTensor } from "../mapped_source.ts";

type Shape = readonly number[];
type Shapes = ReadonlyMap<string, Shape>;

/** The matrices: path in the original layout -> modules of diffusers' naming whose rows it holds, from the top. */
interface Layout {
  outer: ReadonlyMap<string, readonly string[]>;
  double: ReadonlyMap<string, readonly string[]>;
  single: ReadonlyMap<string, readonly string[]>;
}

const DOUBLE_PATHS = ["img", "txt"].flatMap((s) =>
  ["attn.qkv", "attn.proj", "mlp.0", "mlp.2", "mod.lin"].map((path) => `${s}_${path}`),
);
const SINGLE_PATHS = ["linear1", "linear2", "modulation.lin"];
const OUTER_PATHS = [
  "img_in",
  "txt_in",
  ...["time_in", "vector_in", "guidance_in"].flatMap((name) => [`${name}.in_layer`, `${name}.out_layer`]),
  "final_layer.linear",
  "final_layer.adaLN_modulation.1",
];

const tableOf = (paths: readonly string[], before = "", inBlock = "") =>
  new Map(paths.map((path) => [path, fusePath(before + path)!.modules.map((module) => module.slice(inBlock.length))]));

const LAYOUT: Layout = {
  outer: tableOf(OUTER_PATHS),
  double: tableOf(DOUBLE_PATHS, "double_blocks.0.", "transformer_blocks.0."),
  single: tableOf(SINGLE_PATHS, "single_blocks.0.", "single_transformer_blocks.0."),
};

/** Gains of the norms of queries and keys, with their place in a block. */
const NORMS = {
  double: new Map([
    ["img_attn.norm.query_norm", "attn.norm_q"],
    ["img_attn.norm.key_norm", "attn.norm_k"],
    ["txt_attn.norm.query_norm", "attn.norm_added_q"],
    ["txt_attn.norm.key_norm", "attn.norm_added_k"],
  ]),
  single: new Map([
    ["norm.query_norm", "attn.norm_q"],
    ["norm.key_norm", "attn.norm_k"],
  ]),
};

const SWAPPED = "final_layer.adaLN_modulation.1";
const BLOCKS = { double: "transformer_blocks", single: "single_transformer_blocks" } as const;

/**
 * diffusers' tensors as pieces of those of a file in the original layout, given by their bare names (no prefix). A name
 * that the layout does not have is left out.
 * @throws LongtailError E-FILE-124 where a fused matrix cannot be shared out among its parts
 */
export function fluxDiffusersMap(shapes: Shapes, where: string): Map<string, MappedTensor> {
  const map = new Map<string, MappedTensor>();
  for (const [name, shape] of shapes) {
    const block = /^(double|single)_blocks\.(\d+)\.(.+)$/.exec(name);
    const kind = block ? (block[1] as "double" | "single") : "outer";
    const rest = block ? block[3]! : name;
    const before = kind === "outer" ? "" : `${BLOCKS[kind]}.${block![2]}.`;
    const gain = kind === "outer" ? null : /^(.+)\.(?:scale|weight)$/.exec(rest);
    const norm = gain && kind !== "outer" ? NORMS[kind].get(gain[1]!) : undefined;
    if (norm) {
      map.set(`${before}${norm}.weight`, wholeTensor(name, shape));
      continue;
    }
    const [, path, leaf] = /^(.+)\.(weight|bias)$/.exec(rest) ?? [];
    const modules = path === undefined ? undefined : LAYOUT[kind].get(path);
    if (!modules) continue;
    const target = (module: string) => `${before}${module}.${leaf}`;
    if (path === SWAPPED) {
      if (shape[0]! % 2 !== 0) throw uneven(where, name, shape);
      map.set(target(modules[0]!), swappedHalves(name, shape));
    } else if (modules.length === 1) {
      map.set(target(modules[0]!), wholeTensor(name, shape));
    } else {
      const heights = partHeights(modules.length, name, shape, shapes);
      if (!heights) throw uneven(where, name, shape);
      let row = 0;
      modules.forEach((module, i) => {
        map.set(target(module), rowsOfTensor(name, shape, row, heights[i]!));
        row += heights[i]!;
      });
    }
  }
  return map;
}

/** Rows of the parts of a fused tensor. Three share it equally; with the MLP, the first three are as high as it is wide. */
function partHeights(parts: number, name: string, shape: Shape, shapes: Shapes): number[] | null {
  const rows = shape[0] ?? 0;
  const width = parts === 3 ? rows / 3 : (shapes.get(name.replace(/\.bias$/, ".weight"))?.[1] ?? 0);
  const heights = parts === 3 ? [width, width, width] : [width, width, width, rows - 3 * width];
  return heights.every((height) => Number.isInteger(height) && height > 0) ? heights : null;
}

function uneven(where: string, name: string, shape: Shape): LongtailError {
  return new LongtailError("E-FILE-124", {
    what: `tensor ${JSON.stringify(name)} of shape [${shape.join(", ")}] cannot be shared out among its layers`,
    where,
    why: "in the original layout it holds several matrices one below the other",
    fix: "check that the file is a FLUX.1 transformer and complete",
  });
}

/**
 * The tensors of the original layout as pieces of diffusers' tensors, for writing.
 * @throws LongtailError E-FILE-124 where a tensor has no place there, or a fused matrix lacks a part
 */
export function fluxOriginalMap(shapes: Shapes, where: string): Map<string, MappedTensor> {
  const map = new Map<string, MappedTensor>();
  const left = new Set(shapes.keys());
  const take = (name: string) => {
    left.delete(name);
    return { tensor: name, shape: shapes.get(name)! };
  };
  const place = (path: string, modules: readonly string[], before: string, target: string) => {
    for (const leaf of ["weight", "bias"]) {
      const names = modules.map((module) => `${before}${module}.${leaf}`);
      const present = names.filter((name) => shapes.has(name));
      if (present.length === 0) continue;
      if (present.length < names.length) {
        throw noPlace(where, `${names.find((name) => !shapes.has(name))} is missing beside ${present[0]}`);
      }
      const parts = names.map(take);
      const [{ tensor, shape }] = parts as [(typeof parts)[0]];
      const whole = path === SWAPPED ? swappedHalves(tensor, shape) : wholeTensor(tensor, shape);
      map.set(`${target}${path}.${leaf}`, parts.length > 1 ? stackedRows(parts) : whole);
    }
  };
  for (const [path, modules] of LAYOUT.outer) place(path, modules, "", "");
  for (const kind of ["double", "single"] as const) {
    for (const i of blockNumbers(shapes, BLOCKS[kind])) {
      const before = `${BLOCKS[kind]}.${i}.`;
      const target = `${kind}_blocks.${i}.`;
      for (const [path, modules] of LAYOUT[kind]) place(path, modules, before, target);
      for (const [path, norm] of NORMS[kind]) {
        const name = `${before}${norm}.weight`;
        if (!shapes.has(name)) continue;
        const { tensor, shape } = take(name);
        map.set(`${target}${path}.scale`, wholeTensor(tensor, shape));
      }
    }
  }
  if (left.size > 0) throw noPlace(where, `${[...left][0]} is no tensor of it`);
  return map;
}

function blockNumbers(shapes: Shapes, blocks: string): Set<number> {
  const names = [...shapes.keys()].filter((name) => name.startsWith(`${blocks}.`));
  return new Set(names.map((name) => Number.parseInt(name.slice(blocks.length + 1), 10)));
}

function noPlace(where: string, why: string): LongtailError {
  return new LongtailError("E-FILE-124", {
    what: "the tensors do not fill Black Forest Labs' layout",
    where,
    why,
    fix: "write the model in diffusers' layout, which has a name for every tensor",
  });
}
