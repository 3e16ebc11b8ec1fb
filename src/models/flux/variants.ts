// The public models of the FLUX family: their sizes, what they take besides text, and the settings that their makers sample
// with. A checkpoint is recognised by its tensors' sizes; models of one size (dev, Krea, Kontext) differ in their values
// alone, so the name of the file, folder or hub id decides between them.

/** What a transformer reads beside text and noise. */
export type Conditioning =
  | "text"
  /** Tokens of reference pictures after the image tokens; works without one. */
  | "reference picture"
  /** Latents of the masked picture and the mask, beside the noise's channels. */
  | "mask"
  /** Latents of a control picture beside the noise's channels. */
  | "control picture"
  /** Mask and control picture together. */
  | "mask and control picture";

export interface FluxVariant {
  /** The name by which the project speaks of it. */
  id: string;
  title: string;
  family: "flux1" | "flux2";
  /** Where it is published; null for shapes without one home. */
  hub: string | null;
  doubleBlocks: number;
  singleBlocks: number;
  heads: number;
  headSize: number;
  inChannels: number;
  outChannels: number;
  jointWidth: number;
  /** Width of the pooled text vector, 0 where there is none. */
  pooledWidth: number;
  /** True where a guidance scale is among the inputs. */
  guidance: boolean;
  conditioning: Conditioning;
  /** Sampling as its makers do it: Euler steps, guidance scale (0: none), tokens of text. */
  sampling: { steps: number; guidance: number; textLength: number };
  /** Matches names of files, folders, hub ids and pipelines that mean this model. */
  names: RegExp;
}

type Sampling = FluxVariant["sampling"];
const sampling = (steps: number, guidance: number, textLength = 512): Sampling => ({ steps, guidance, textLength });

const FLUX1 = {
  family: "flux1",
  doubleBlocks: 19,
  singleBlocks: 38,
  heads: 24,
  headSize: 128,
  inChannels: 64,
  outChannels: 64,
  jointWidth: 4096,
  pooledWidth: 768,
  guidance: true,
  conditioning: "text",
} as const;

const FLUX2 = {
  family: "flux2",
  headSize: 128,
  inChannels: 128,
  outChannels: 128,
  pooledWidth: 0,
  guidance: false,
  conditioning: "reference picture",
} as const;

const MAKER = "black-forest-labs";

/** Of several models of one size, the first is meant where no name decides. */
export const FLUX_VARIANTS: readonly FluxVariant[] = [
  {
    ...FLUX1,
    id: "flux1-dev",
    title: "FLUX.1 [dev]",
    hub: `${MAKER}/FLUX.1-dev`,
    sampling: sampling(50, 3.5),
    names: /flux[._-]?1?[._-]?dev/i,
  },
  {
    ...FLUX1,
    id: "srpo",
    title: "FLUX.1 [dev] aligned by SRPO",
    hub: "tencent/SRPO",
    sampling: sampling(50, 3.5),
    names: /srpo/i,
  },
  {
    ...FLUX1,
    id: "flux1-krea",
    title: "FLUX.1 Krea [dev]",
    hub: `${MAKER}/FLUX.1-Krea-dev`,
    sampling: sampling(28, 4.5),
    names: /krea/i,
  },
  {
    ...FLUX1,
    id: "flux1-kontext",
    title: "FLUX.1 Kontext [dev]",
    hub: `${MAKER}/FLUX.1-Kontext-dev`,
    conditioning: "reference picture",
    sampling: sampling(28, 2.5),
    names: /kontext/i,
  },
  {
    ...FLUX1,
    id: "flux1-schnell",
    title: "FLUX.1 [schnell]",
    hub: `${MAKER}/FLUX.1-schnell`,
    guidance: false,
    sampling: sampling(4, 0, 256),
    names: /schnell/i,
  },
  {
    ...FLUX1,
    id: "openflux",
    title: "OpenFLUX.1",
    hub: "ostris/OpenFLUX.1",
    guidance: false,
    sampling: sampling(20, 0),
    names: /open-?flux/i,
  },
  {
    ...FLUX1,
    id: "libreflux",
    title: "LibreFLUX",
    hub: "jimmycarter/LibreFLUX",
    guidance: false,
    sampling: sampling(28, 0),
    names: /libre-?flux/i,
  },
  {
    ...FLUX1,
    id: "flux1-fill",
    title: "FLUX.1 Fill [dev]",
    hub: `${MAKER}/FLUX.1-Fill-dev`,
    inChannels: 384,
    conditioning: "mask",
    sampling: sampling(50, 30),
    names: /fill/i,
  },
  {
    ...FLUX1,
    id: "flux1-canny",
    title: "FLUX.1 Canny [dev]",
    hub: `${MAKER}/FLUX.1-Canny-dev`,
    inChannels: 128,
    conditioning: "control picture",
    sampling: sampling(50, 30),
    names: /canny/i,
  },
  {
    ...FLUX1,
    id: "flux1-depth",
    title: "FLUX.1 Depth [dev]",
    hub: `${MAKER}/FLUX.1-Depth-dev`,
    inChannels: 128,
    conditioning: "control picture",
    sampling: sampling(30, 10),
    names: /depth/i,
  },
  {
    ...FLUX1,
    id: "flux-mini",
    title: "flux-mini",
    hub: "TencentARC/flux-mini",
    doubleBlocks: 5,
    singleBlocks: 10,
    sampling: sampling(25, 3.5),
    names: /mini/i,
  },
  {
    ...FLUX1,
    id: "flex1-alpha",
    title: "Flex.1-alpha",
    hub: "ostris/Flex.1-alpha",
    doubleBlocks: 8,
    sampling: sampling(25, 3.5),
    names: /flex/i,
  },
  {
    ...FLUX1,
    id: "flux1-lite",
    title: "FLUX.1-lite-8B",
    hub: "Freepik/flux.1-lite-8B",
    doubleBlocks: 8,
    sampling: sampling(28, 3.5),
    names: /lite/i,
  },
  {
    ...FLUX1,
    id: "flex2-preview",
    title: "Flex.2-preview",
    hub: "ostris/Flex.2-preview",
    doubleBlocks: 8,
    inChannels: 196,
    conditioning: "mask and control picture",
    sampling: sampling(50, 3.5),
    names: /flex/i,
  },
  {
    ...FLUX1,
    id: "tiny-flux",
    title: "tiny-flux-pipe (for tests)",
    hub: "hf-internal-testing/tiny-flux-pipe",
    doubleBlocks: 1,
    singleBlocks: 1,
    heads: 2,
    headSize: 16,
    inChannels: 4,
    outChannels: 4,
    jointWidth: 32,
    pooledWidth: 32,
    guidance: false,
    sampling: sampling(4, 0),
    names: /tiny/i,
  },
  {
    ...FLUX1,
    id: "tiny-flux-guided",
    title: "tiny-flux with guidance (for tests)",
    hub: null,
    doubleBlocks: 1,
    singleBlocks: 1,
    heads: 2,
    headSize: 16,
    inChannels: 4,
    outChannels: 4,
    jointWidth: 32,
    pooledWidth: 32,
    sampling: sampling(4, 3.5),
    names: /tiny/i,
  },
  {
    ...FLUX2,
    id: "flux2-dev",
    title: "FLUX.2 [dev]",
    hub: `${MAKER}/FLUX.2-dev`,
    doubleBlocks: 8,
    singleBlocks: 48,
    heads: 48,
    jointWidth: 15360,
    guidance: true,
    sampling: sampling(50, 4),
    names: /dev/i,
  },
  {
    ...FLUX2,
    id: "flux2-klein-4b",
    title: "FLUX.2 [klein] 4B",
    hub: `${MAKER}/FLUX.2-klein-4B`,
    doubleBlocks: 5,
    singleBlocks: 20,
    heads: 24,
    jointWidth: 7680,
    sampling: sampling(4, 0),
    names: /klein(?![._-]?base)/i,
  },
  {
    ...FLUX2,
    id: "flux2-klein-base-4b",
    title: "FLUX.2 [klein] base 4B",
    hub: `${MAKER}/FLUX.2-klein-base-4B`,
    doubleBlocks: 5,
    singleBlocks: 20,
    heads: 24,
    jointWidth: 7680,
    sampling: sampling(50, 4),
    names: /klein[._-]?base/i,
  },
  {
    ...FLUX2,
    id: "flux2-klein-9b",
    title: "FLUX.2 [klein] 9B",
    hub: `${MAKER}/FLUX.2-klein-9B`,
    doubleBlocks: 8,
    singleBlocks: 24,
    heads: 32,
    jointWidth: 12288,
    sampling: sampling(4, 0),
    names: /klein(?![._-]?base)/i,
  },
  {
    ...FLUX2,
    id: "flux2-klein-base-9b",
    title: "FLUX.2 [klein] base 9B",
    hub: `${MAKER}/FLUX.2-klein-base-9B`,
    doubleBlocks: 8,
    singleBlocks: 24,
    heads: 32,
    jointWidth: 12288,
    sampling: sampling(50, 4),
    names: /klein[._-]?base/i,
  },
];

/** Sizes of a transformer, as its tensors show them. */
export type TransformerSizes = Pick<
  FluxVariant,
  | "family"
  | "doubleBlocks"
  | "singleBlocks"
  | "heads"
  | "headSize"
  | "inChannels"
  | "outChannels"
  | "jointWidth"
  | "pooledWidth"
  | "guidance"
>;

const SIZE_KEYS = [
  "family",
  "doubleBlocks",
  "singleBlocks",
  "heads",
  "headSize",
  "inChannels",
  "outChannels",
  "jointWidth",
  "pooledWidth",
  "guidance",
] as const satisfies readonly (keyof TransformerSizes)[];

/**
 * The public model of these sizes, or null where there is none.
 * @param hints path, hub id, class of the pipeline: whatever may name the model; of several hits the last name in a path wins
 * @returns `certain` is false where models of the same size exist and no hint tells them apart
 */
export function recogniseVariant(
  sizes: TransformerSizes,
  hints: readonly string[],
): { variant: FluxVariant; certain: boolean } | null {
  const fitting = FLUX_VARIANTS.filter((variant) => SIZE_KEYS.every((key) => variant[key] === sizes[key]));
  if (fitting.length === 0) return null;
  if (fitting.length === 1) return { variant: fitting[0]!, certain: true };
  for (const part of hints.flatMap((hint) => hint.split("/").reverse())) {
    // "FLUX.1-Krea-dev" names dev as well: the general name counts last.
    const named = fitting.filter(({ names }) => names.test(part));
    const special = named.find((variant) => variant.id !== "flux1-dev") ?? named[0];
    if (special) return { variant: special, certain: true };
  }
  return { variant: fitting[0]!, certain: false };
}
