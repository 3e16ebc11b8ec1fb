// What other programs do with an adapter file, told from its keys. The rules were read in their loaders: diffusers 0.42
// (FluxLoraLoaderMixin, Flux2LoraLoaderMixin and their converters), PEFT 0.21, ComfyUI (its key map for FLUX) and sd-scripts
// (networks/lora_flux.py).

import type { LoraKeys } from "../../formats/lora_keys.ts";
import type { BaseModel } from "./base.ts";
import type { Verdict } from "./verify.ts";

interface Facts {
  keys: LoraKeys;
  kind: Verdict["kind"];
  metadata: ReadonlyMap<string, string>;
  base: BaseModel;
  /** By stem. */
  scales: ReadonlyMap<string, number>;
}

type Note = Verdict["notes"][number];

/** The sizes that diffusers' converter of kohya files takes for granted. */
const KOHYA_IN_DIFFUSERS = { width: 3072, doubles: 19, singles: 38 };

/** One note for each program. */
export function loadabilityNotes(facts: Facts): Note[] {
  return [
    { program: "diffusers", ...(facts.base.family === "flux2" ? diffusers2(facts) : diffusers(facts)) },
    { program: "PEFT", ...peft(facts) },
    { program: "ComfyUI", ...comfy(facts) },
    { program: "sd-scripts", ...scripts(facts) },
  ];
}

type Verdicts = Omit<Note, "program">;
const yes = (text: string): Verdicts => ({ loads: "yes", text });
const partly = (text: string): Verdicts => ({ loads: "partly", text });
const no = (text: string): Verdicts => ({ loads: "no", text });

function diffusers({ keys, kind, metadata, base }: Facts): Verdicts {
  const stems = [...keys.layers.keys()];
  const { style } = keys;
  if (kind === "lokr") {
    return style === "diffusers"
      ? partly(
          'FluxPipeline.load_lora_weights asks for "lora" in a key; transformer.load_lora_adapter(…, prefix="transformer") loads it',
        )
      : no("a LoKr loads with transformer.load_lora_adapter alone, and in diffusers' keys");
  }
  if (style === "peft") return no("FluxPipeline takes base_model.model. keys for another format; load it with PEFT");
  if (style === "diffusers") {
    const alphas = [...keys.layers.values()].some(({ parts }) => parts.has("alpha"));
    if (alphas && metadata.has("lora_adapter_metadata")) {
      return no("it has alpha tensors and lora_adapter_metadata, which diffusers refuses together");
    }
    return yes("every layer");
  }
  if (style === "xlabs") return yes("through its XLabs converter");
  if (style === "lycoris") return no("it knows no lycoris_ keys");
  if (style === "onetrainer") {
    const others = stems.filter((stem) => /_blocks_\d+_(?!attn_)/.test(stem)).length;
    return others > 0
      ? partly(`its converter knows the attention's layers; ${others} others of the blocks are lost without a word`)
      : yes("through its converter of mixed files");
  }
  if (kind === "dora") return partly("its converter drops the DoRA magnitudes of kohya keys, which changes the result");
  const { width, doubles, singles } = KOHYA_IN_DIFFUSERS;
  if (base.config.width !== width && stems.some((stem) => /linear1$/.test(stem))) {
    return no(
      `its converter has the row counts of width ${width} written into it for linear1; this model has width ${base.config.width}`,
    );
  }
  if (base.config.doubleBlocks > doubles || base.config.singleBlocks > singles) {
    return no(`its converter stops at ${doubles} double and ${singles} single blocks`);
  }
  const outer = stems.filter((stem) => !/_(double|single)_blocks|\.(double|single)_blocks/.test(stem)).length;
  if (outer > 0)
    return partly(`it loses the ${outer} layers outside the blocks, whose names its converter gives no prefix`);
  return yes("through its kohya converter");
}

/** Layers that diffusers' kohya converter for FLUX.2 leaves out with a warning. */
const LOST_2 = /_stream_modulation_|final_layer_adaLN/;

/** FLUX.2's pipelines refuse alpha tensors in their own keys and know fewer styles than FLUX.1's. */
function diffusers2({ keys, kind }: Facts): Verdicts {
  const { style } = keys;
  const stems = [...keys.layers.keys()];
  if (style === "diffusers") {
    const alphas = [...keys.layers.values()].some(({ parts }) => parts.has("alpha"));
    return alphas
      ? no("FLUX.2's pipelines refuse alpha tensors in its own keys; write it with --scales=folded")
      : yes("every layer");
  }
  if (style === "lycoris" && kind === "lokr") {
    const outer = stems.filter((stem) => !/transformer_blocks_\d/.test(stem)).length;
    return outer > 0 ? no(`its LyCORIS converter refuses the ${outer} layers outside the blocks`) : yes("every layer");
  }
  if (style !== "bfl" && style !== "kohya") {
    return no("it has no converter of these keys for FLUX.2; write it with --style=diffusers");
  }
  if (kind === "dora") return partly("its converters drop DoRA magnitudes, which changes the result");
  const lost = style === "kohya" ? stems.filter((stem) => LOST_2.test(stem)).length : 0;
  return lost > 0
    ? partly(`its kohya converter loses ${lost} layers of the modulations`)
    : yes("through its converter");
}

function peft({ keys, kind, metadata }: Facts): Verdicts {
  if (keys.style === "peft") return yes("PeftModel.from_pretrained, with adapter_config.json beside the file");
  if (keys.style === "diffusers") {
    const named = metadata.has("lora_adapter_metadata") ? "" : ", and a configuration";
    return partly(`set_peft_model_state_dict takes the keys without "transformer."${named}`);
  }
  return no(`convert it with --style=peft${kind === "lokr" ? " (where the factors allow it)" : ""}`);
}

function comfy({ keys, kind, scales }: Facts): Verdicts {
  const { style } = keys;
  if (style === "peft") return no("its key map for FLUX has no base_model.model. names");
  if (style === "xlabs") return no("only through XLabs' own nodes");
  const magnitudeNames = [...keys.layers.values()].map(({ parts }) => parts.get("magnitude") ?? "");
  if (magnitudeNames.some((name) => name.includes("lora_magnitude_vector"))) {
    return partly("it does not read lora_magnitude_vector, and a DoRA without magnitudes is another change");
  }
  if (kind === "dora") {
    return partly(
      "it divides by the norm of the unchanged weights, so the result differs a little from the training's",
    );
  }
  if (style === "diffusers") {
    const off = [...keys.layers].filter(([stem, { parts }]) => !parts.has("alpha") && (scales.get(stem) ?? 1) !== 1);
    if (off.length > 0) {
      const scale = scales.get(off[0]![0])!;
      return partly(
        `it does not read alpha from the metadata: at strength ${Number(scale.toPrecision(6))} it acts as trained`,
      );
    }
  }
  return yes("every layer");
}

function scripts({ keys, kind, base }: Facts): Verdicts {
  if (base.family === "flux2") return no("networks.lora_flux is for FLUX.1");
  if (keys.style !== "kohya") return no("it reads lora_unet_ keys alone; convert it with --style=kohya");
  if (kind !== "lora") return no("networks.lora_flux knows plain LoRAs alone");
  const outer = [...keys.layers.keys()].filter((stem) => /final_layer/.test(stem)).length;
  return outer > 0 ? partly("it has no LoRA for the final layer") : yes("networks.lora_flux");
}
