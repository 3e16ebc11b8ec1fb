// What an adapter file holds for one Linear layer, whatever program wrote it: the low-rank factors of LoRA (Hu et al.
// 2021), with a magnitude for DoRA (Liu et al. 2024), or the Kronecker factors of LoKr (Yeh et al. 2023, LyCORIS).

/** ΔW = scale · up · down; with a magnitude (DoRA) W' = magnitude · (W + ΔW) / ‖W + ΔW‖, the norm taken over each row. */
export interface LoraLayer {
  rank: number;
  inputs: number;
  outputs: number;
  /** A, [rank, inputs]. */
  down: Float32Array;
  /** B, [outputs, rank]. */
  up: Float32Array;
  /** alpha / rank. */
  scale: number;
  /** DoRA's magnitude, [outputs]; absent in a plain LoRA. */
  magnitude?: Float32Array;
}

/** A matrix of LoKr: whole, or as a product of two factors. */
export type KroneckerFactor =
  | { rows: number; columns: number; whole: Float32Array }
  | { rows: number; columns: number; rank: number; left: Float32Array; right: Float32Array };

/** ΔW = scale · (first ⊗ second); outputs = first.rows · second.rows, inputs = first.columns · second.columns. */
export interface LokrLayer {
  inputs: number;
  outputs: number;
  first: KroneckerFactor;
  second: KroneckerFactor;
  scale: number;
}

/** Whether a layer is a LoKr's. */
export const isLokr = (layer: LoraLayer | LokrLayer): layer is LokrLayer => "first" in layer;

/** Layers by module path without a prefix: "transformer_blocks.0.attn.to_q". */
export type LoraLayers = ReadonlyMap<string, LoraLayer>;
export type LokrLayers = ReadonlyMap<string, LokrLayer>;
