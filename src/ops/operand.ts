// How a kernel reads one operand of a product that may lie in memory as f32, f16 or as the words of a stored weight: the
// WGSL element type of its binding and the text of its loader, finished for insertion.

import decodeSource from "../../shaders/lib/decode.wgsl" with { type: "text" };
import eightHalvesSource from "../../shaders/lib/eight_halves.wgsl" with { type: "text" };
import { CODES_PER_WORD, type CompactStorage, hasScales } from "../base/quantize.ts";
import { expandTemplate } from "../gpu/template.ts";

/** What an operand's memory holds; f16 is the same as words of two halves. */
export type OperandType = "f32" | CompactStorage;

/** Constants that the decoder's text asks for. */
export function decodeConstants(storage: CompactStorage) {
  return {
    F16: storage === "f16",
    BF16: storage === "bf16",
    INT8: storage === "int8",
    NF4: storage === "nf4",
    SCALED: hasScales(storage),
    SHIFT: Math.log2(CODES_PER_WORD[storage]),
  };
}

/** The functions that decode a value of `storage`. */
export function decodeText(storage: CompactStorage): string {
  return expandTemplate(decodeSource, decodeConstants(storage));
}

/** Whether an operand is words that only a decoder reads. */
export function isCodes(type: OperandType): type is Exclude<CompactStorage, "f16"> {
  return type !== "f32" && type !== "f16";
}

export interface HalvesLoader {
  /** WGSL element type of the binding. */
  element: string;
  /** Text of `eight<name>(base, row, column)`; `halves` and, for nf4, `pairs` must be in scope. */
  text: string;
}

/**
 * The loader of an operand for subgroup matrices.
 * @param name of the binding
 * @param rows WGSL expression of its rows in memory
 * @param columns the same of its columns, which lie beside each other
 * @param columnCount their number
 * @param stride elements between batches
 * @param at WGSL expression of a value's place, where rows do not follow each other; needs groups of eight that stay whole
 */
export function halvesLoader(
  name: string,
  type: OperandType,
  [rows, columns]: readonly [string, string],
  columnCount: number,
  stride: number,
  at = `base + row * ${columns} + column`,
): HalvesLoader {
  const group = type === "f32" ? 4 : 8;
  const whole = columnCount % group === 0 && stride % group === 0;
  const codes = isCodes(type);
  const text = expandTemplate(eightHalvesSource, {
    X: name,
    F32: type === "f32",
    CODES: codes,
    WHOLE: whole,
    ROWS: rows,
    COLUMNS: columns,
    AT: at,
    ...decodeConstants(codes ? type : "f16"),
    F16: type === "f16",
  });
  const vectors = { f32: "vec4<f32>", f16: "vec4<u32>", bf16: "vec4<u32>", int8: "vec2<u32>", nf4: "u32" };
  return { element: whole ? vectors[type] : codes ? "u32" : type, text };
}
