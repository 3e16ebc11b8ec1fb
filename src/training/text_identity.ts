// What decides the embedding of a prompt besides the prompt: the encoders' weights and configurations, their tokenizers, how many
// tokens and which layers are read. Keys of cached encodings and the records of preprocessed prompts are made of it.

import type { FileStore } from "../base/files.ts";
import type { PipelineLayout } from "../models/pipeline_layout.ts";
import { fileIdentity } from "./file_identity.ts";

/** @param tokenizers folder of the tokenizers that come along, which FLUX.1's encoders read */
export async function textIdentity(
  files: FileStore,
  { text, textLength }: PipelineLayout,
  tokenizers: string,
): Promise<Record<string, string | number>> {
  const identity = (path: string) => fileIdentity(files, path);
  if (text.kind === "clip-t5") {
    return {
      clip: await identity(text.clip.weights),
      t5: await identity(text.t5.weights),
      // The same weights make other embeddings of other tokens, and with other heads or activations.
      clipTokenizer: await identity(`${tokenizers}/clip/bpe_simple_vocab_16e6.txt.gz`),
      t5Tokenizer: await identity(`${tokenizers}/t5/tokenizer.json`),
      clipConfig: JSON.stringify(text.clip.config),
      t5Config: JSON.stringify(text.t5.config),
      clipLength: text.clipLength,
      t5Length: textLength,
    };
  }
  if (text.kind === "qwen3") {
    return {
      qwen: await identity(text.encoder.weights),
      qwenTokenizer: await identity(text.tokenizer),
      qwenConfig: JSON.stringify(text.encoder.config),
      qwenLayers: text.layers.join(),
      textLength,
    };
  }
  // Such an encoder is refused where it would be opened.
  return { textEncoder: text.model, textLength };
}
