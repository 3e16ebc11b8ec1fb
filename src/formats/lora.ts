// Adapter files of the FLUX.1 transformer: LoRA (Hu et al. 2021), DoRA (Liu et al. 2024) and LoKr (Yeh et al. 2023) in the
// styles that other programs write and read. Whatever the style, a file becomes one layer a module of diffusers' naming.

export type { KroneckerFactor, LokrLayer, LokrLayers, LoraLayer, LoraLayers } from "./adapter_layers.ts";
export type { LoraStyle } from "./lora_keys.ts";
export { type LoraPair, writeLoraPair } from "./lora_pair.ts";
export { type LoraFile, type ReadLoraOptions, readAdapter, readLora } from "./lora_read.ts";
export {
  type FusedResult,
  type LoraDtype,
  type WriteLoraOptions,
  writeInStyle,
  writeKohya,
  writeLora,
  writeLycoris,
  writeOneTrainer,
  writePeft,
  writePeftLokr,
} from "./lora_write.ts";
export type { LoraFacts } from "./model_spec.ts";
