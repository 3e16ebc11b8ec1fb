// The two public layouts of a CLIP model, open_clip's and transformers' CLIPModel, seen as one: every checkpoint is offered
// under open_clip's names. transformers keeps query, key and value apart and stores both projections the other way round.

import { LongtailError } from "../../base/errors.ts";
import type { RangedSource } from "../../base/tensor_source.ts";
import {
  bytesOf,
  type MappedTensor,
  mappedSource,
  shapesOf,
  stackedRows,
  wholeTensor,
  withoutPrefix,
} from "../mapped_source.ts";

export type ClipLayout = "open_clip" | "transformers";

/** Names that say which layout lies under a prefix (`module.` of a training checkpoint, for example). */
const MARKERS: readonly (readonly [string, ClipLayout])[] = [
  ["visual.conv1.weight", "open_clip"],
  ["vision_model.embeddings.patch_embedding.weight", "transformers"],
];

/** Towers that look like CLIP's and compute something else. */
const OTHERS: readonly (readonly [RegExp, string])[] = [
  [/(?:^|\.)vision_model\.head\.|(?:^|\.)vision_model\.embeddings\.patch_embedding\.bias$/, "SigLIP"],
  [/(?:^|\.)(?:visual\.attn_pool|text_decoder)\./, "CoCa"],
  [/(?:^|\.)visual\.trunk\./, "a CLIP whose picture tower is from timm"],
  [/(?:^|\.)visual\.layer1\./, "a CLIP with a ResNet"],
  [/(?:^|\.)visual\.blocks\.\d/, "EVA-CLIP"],
  [/(?:^|\.)visual\.transformer\.resblocks\.0\.ls_1\.gamma$/, "a CLIP with layer scale"],
  [/(?:^|\.)text\.transformer\.(?:embeddings|encoder|roberta)\b/, "a CLIP whose text tower is from transformers"],
  [/(?:^|\.)(?:blip|visual_encoder)\./, "BLIP or ImageReward"],
];

export interface ClipTensors {
  layout: ClipLayout;
  /** Tensors under open_clip's names. */
  source: RangedSource;
  /** The token table's name in the file. */
  table: string;
}

/**
 * A checkpoint under open_clip's names.
 * @throws LongtailError E-FILE-140 it holds no CLIP model, or one that is not computed here
 */
export function clipTensors(file: RangedSource): ClipTensors {
  const names = [...file.names()];
  for (const [marker, layout] of MARKERS) {
    const found = names.filter((name) => name === marker || name.endsWith(`.${marker}`));
    if (found.length === 0) continue;
    for (const [pattern, title] of OTHERS) if (names.some((name) => pattern.test(name))) throw notClip(file, title);
    const prefix = found.sort((a, b) => a.length - b.length)[0]!.slice(0, -marker.length);
    const inside = withoutPrefix(file, prefix);
    return layout === "open_clip"
      ? { layout, source: inside, table: `${prefix}token_embedding.weight` }
      : {
          layout,
          source: fromTransformers(inside),
          table: `${prefix}text_model.embeddings.token_embedding.weight`,
        };
  }
  const other = OTHERS.find(([pattern]) => names.some((name) => pattern.test(name)));
  throw notClip(file, other?.[1] ?? null);
}

function notClip(file: RangedSource, title: string | null): LongtailError {
  const first = [...file.names()][0];
  return new LongtailError("E-FILE-140", {
    what: title ? `this is ${title}, not a CLIP vision transformer` : "there is no CLIP model in it",
    where: file.name,
    why: title ? "its tensors have the names of that model" : `its first tensor is ${JSON.stringify(first ?? "none")}`,
    fix: "give a CLIP ViT with its text tower, such as HPS v2.1, PickScore or a LAION CLIP",
  });
}

/** Ending in transformers -> ending in open_clip of a block's tensors that are the same in both. */
const BLOCK: Readonly<Record<string, string>> = {
  "layer_norm1.weight": "ln_1.weight",
  "layer_norm1.bias": "ln_1.bias",
  "layer_norm2.weight": "ln_2.weight",
  "layer_norm2.bias": "ln_2.bias",
  "self_attn.out_proj.weight": "attn.out_proj.weight",
  "self_attn.out_proj.bias": "attn.out_proj.bias",
  "mlp.fc1.weight": "mlp.c_fc.weight",
  "mlp.fc1.bias": "mlp.c_fc.bias",
  "mlp.fc2.weight": "mlp.c_proj.weight",
  "mlp.fc2.bias": "mlp.c_proj.bias",
};

const SINGLE: Readonly<Record<string, string>> = {
  logit_scale: "logit_scale",
  "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
  "text_model.embeddings.token_embedding.ids": "token_embedding.ids",
  "text_model.embeddings.position_embedding.weight": "positional_embedding",
  "text_model.final_layer_norm.weight": "ln_final.weight",
  "text_model.final_layer_norm.bias": "ln_final.bias",
  "vision_model.embeddings.class_embedding": "visual.class_embedding",
  "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
  "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
  // The spelling of transformers.
  "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
  "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
  "vision_model.post_layernorm.weight": "visual.ln_post.weight",
  "vision_model.post_layernorm.bias": "visual.ln_post.bias",
};

/** [in, out] in open_clip, [out, in] in transformers. */
const TRANSPOSED: Readonly<Record<string, string>> = {
  "visual_projection.weight": "visual.proj",
  "text_projection.weight": "text_projection",
};

function fromTransformers(source: RangedSource): RangedSource {
  const shapes = shapesOf(source);
  const map = new Map<string, MappedTensor>();
  for (const [name, shape] of shapes) {
    const single = SINGLE[name] ?? TRANSPOSED[name];
    if (single) map.set(single, wholeTensor(name, shape));
    const block = /^(text_model|vision_model)\.encoder\.layers\.(\d+)\.(.+)$/.exec(name);
    if (!block) continue;
    const [, tower, layer, ending] = block as unknown as [string, string, string, string];
    const into = `${tower === "vision_model" ? "visual." : ""}transformer.resblocks.${layer}`;
    if (BLOCK[ending]) map.set(`${into}.${BLOCK[ending]}`, wholeTensor(name, shape));
    const part = /^self_attn\.q_proj\.(weight|bias)$/.exec(ending)?.[1];
    if (!part) continue;
    const parts = ["q", "k", "v"].map((letter) => name.replace("q_proj", `${letter}_proj`));
    // Where one is missing, so is the whole, and the model says which name it wants.
    if (parts.every((tensor) => shapes.has(tensor)))
      map.set(
        `${into}.attn.in_proj_${part}`,
        stackedRows(parts.map((tensor) => ({ tensor, shape: shapes.get(tensor)! }))),
      );
  }
  return transposed(mappedSource(source, map), new Set(Object.values(TRANSPOSED)));
}

/** `source` with some matrices the other way round; those are read whole. */
function transposed(source: RangedSource, turned: ReadonlySet<string>): RangedSource {
  const load = async (name: string): Promise<Float32Array> => {
    const values = await source.load(name);
    if (!turned.has(name)) return values;
    const [rows, columns] = source.shape(name) as [number, number];
    const out = new Float32Array(values.length);
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[c * rows + r] = values[r * columns + c]!;
    return out;
  };
  const range = async (name: string, first: number, count?: number) =>
    (await load(name)).slice(first, count === undefined ? undefined : first + count);
  return {
    name: source.name,
    names: () => source.names(),
    has: (name) => source.has(name),
    shape: (name) => (turned.has(name) ? [...source.shape(name)].reverse() : source.shape(name)),
    dtype: (name) => (turned.has(name) ? "F32" : source.dtype(name)),
    load,
    loadRange: (name, first, count) =>
      turned.has(name) ? range(name, first, count) : source.loadRange(name, first, count),
    loadBytes: async (name, first, count) =>
      turned.has(name) ? bytesOf(await range(name, first, count)) : source.loadBytes(name, first, count),
    close: () => source.close(),
  };
}
