// Converts an adapter between the styles of other programs and between number formats, and says what was lost. Values are
// copied, not computed, wherever the target style has room for them.

import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from "../../base/halves.ts";
import {
  type LoraDtype,
  type LoraFile,
  readAdapter,
  writeInStyle,
  writeLycoris,
  writePeftLokr,
} from "../../formats/lora.ts";
import { checkLokr, portableScales } from "../../formats/lora_write.ts";

/** Styles that can be written. */
export const WRITTEN_STYLES = ["diffusers", "peft", "kohya", "onetrainer", "lycoris"] as const;
export type WrittenStyle = (typeof WRITTEN_STYLES)[number];

export interface Conversion {
  from: { style: string; dtype: string };
  to: { style: WrittenStyle; dtype: LoraDtype };
  layers: number;
  /** What the new file does not hold exactly; empty where nothing was lost. */
  lost: string[];
}

/**
 * Reads `path` and writes `output`. Metadata travels along, except what describes the old file's bytes.
 * @param to by default the file's own style and number format where they can be written
 * @throws E-FILE-075 where the kind of adapter has no such style, E-FILE-071 where a number is too large for the format
 */
export async function convertLora(
  files: FileStore,
  path: string,
  output: string,
  to: { style?: WrittenStyle; dtype?: LoraDtype; scales?: "metadata" | "tensors" | "folded" } = {},
): Promise<Conversion> {
  const file = await readAdapter(files, path);
  const style = to.style ?? writableStyle(file);
  const dtype = to.dtype ?? writableDtype(file.dtype);
  const lost = roundingOf(file, dtype, path);
  const options = {
    dtype,
    metadata: travelling(file.metadata),
    fields: "portable" as const,
    scales: to.scales ?? portableScales(file.layers),
  };
  if (file.kind === "lokr") {
    checkLokr(path, file.lokr);
    if (style === "lycoris") await writeLycoris(files, output, file.lokr, options);
    else if (style === "peft") await writePeftLokr(files, output, file.lokr, options);
    else throw noSuchStyle(path, "a LoKr", style, "lycoris or peft");
  } else {
    if (style === "lycoris") throw noSuchStyle(path, "a LoRA", style, "diffusers, peft, kohya or onetrainer");
    lost.push(...(await writeInStyle(files, output, file.layers, style, options)));
  }
  return {
    from: { style: file.style, dtype: file.dtype },
    to: { style, dtype },
    layers: file.layers.size + file.lokr.size,
    lost,
  };
}

/** The file's own style, or the nearest that is written. */
export function writableStyle(file: LoraFile): WrittenStyle {
  if (file.kind === "lokr") return file.style === "peft" ? "peft" : "lycoris";
  if (file.style === "bfl") return "kohya";
  return file.style === "xlabs" || file.style === "lycoris" ? "diffusers" : file.style;
}

export const writableDtype = (dtype: string): LoraDtype => (dtype === "F16" || dtype === "BF16" ? dtype : "F32");

/** Strings of a file that still hold for another one with the same layers. */
export function travelling(metadata: ReadonlyMap<string, string>): Record<string, string> {
  const stale = /^(format|lora_adapter_metadata|sshs_.*|modelspec\.hash_sha256|modelspec\.thumbnail)$/;
  return Object.fromEntries([...metadata].filter(([key]) => !stale.test(key)));
}

function roundingOf(file: LoraFile, dtype: LoraDtype, path: string): string[] {
  if (dtype === "F32" || file.dtype === dtype) return [];
  const through = (values: Float32Array) =>
    dtype === "F16" ? f16ToF32(f32ToF16(values)) : bf16ToF32(f32ToBf16(values));
  let [changed, total, worst, vanished, error, energy] = [0, 0, 0, 0, 0, 0];
  for (const [module, values] of arraysOf(file)) {
    const rounded = through(values);
    for (let i = 0; i < values.length; i++) {
      const [was, is] = [values[i]!, rounded[i]!];
      total++;
      energy += was * was;
      if (is === was) continue;
      if (!Number.isFinite(is)) {
        throw new LongtailError("E-FILE-071", {
          what: `a value of ${module} is too large for ${dtype}`,
          where: path,
          why: `it is ${was}, and ${dtype} ends at 65504`,
          fix: "convert to bf16 or f32",
        });
      }
      changed++;
      error += (was - is) ** 2;
      if (is === 0) vanished++;
      else worst = Math.max(worst, Math.abs((was - is) / was));
    }
  }
  if (changed === 0) return [];
  const relative = Math.sqrt(error / Math.max(energy, Number.MIN_VALUE));
  const text = `${changed} of ${total} values were rounded to ${dtype}: relative error ${relative.toExponential(1)} over all, at most ${worst.toExponential(1)} for one`;
  return [vanished > 0 ? `${text}; ${vanished} became zero` : text];
}

function* arraysOf(file: LoraFile): Generator<[string, Float32Array]> {
  for (const [module, { down, up, magnitude }] of file.layers) {
    yield [module, down];
    yield [module, up];
    if (magnitude) yield [module, magnitude];
  }
  for (const [module, { first, second }] of file.lokr) {
    for (const factor of [first, second]) {
      if ("whole" in factor) yield [module, factor.whole];
      else {
        yield [module, factor.left];
        yield [module, factor.right];
      }
    }
  }
}

function noSuchStyle(path: string, what: string, style: string, fix: string): LongtailError {
  return new LongtailError("E-FILE-075", {
    what: `${what} cannot be written in the style ${style}`,
    where: path,
    why: "no program reads such a file",
    fix: `choose ${fix}`,
  });
}
