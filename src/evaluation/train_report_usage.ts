// How the files of a training run are loaded elsewhere: lines to copy for diffusers, ComfyUI, sd-scripts and Longtail
// itself. The report page and the model card show the same ones.

import type { TrainReportData, TrainUsage } from "./train_report_data.ts";

/** The file of a role, or the first file whose name says so. */
function fileOf(data: TrainReportData, role: "diffusers" | "kohya" | "transformer"): string | undefined {
  const given = data.files?.find((f) => f.role === role)?.path;
  if (given !== undefined || data.files?.some((f) => f.role)) return given;
  const ending = {
    diffusers: ".lora.safetensors",
    kohya: ".kohya.safetensors",
    transformer: ".transformer.safetensors",
  };
  return data.files?.find((f) => f.path.endsWith(ending[role]))?.path;
}

/** A prompt to try: the first sample's, else the trigger word, else an empty scene. */
export function examplePrompt(data: TrainReportData): string {
  return data.samples?.prompts[0]?.prompt ?? data.trigger ?? "a photo";
}

/** A Python text literal: JSON's form is one as long as every character beyond ASCII is kept as it is. */
const python = (text: string) => JSON.stringify(text);
/** A word of a POSIX shell. */
const shell = (text: string) => (/^[\w./;=:@%+-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`);

/** Ways to load the run's files; empty where it left none. */
export function usagesOf(data: TrainReportData): TrainUsage[] {
  if (data.usage) return data.usage;
  const diffusers = fileOf(data, "diffusers");
  const kohya = fileOf(data, "kohya");
  const transformer = fileOf(data, "transformer");
  const list: TrainUsage[] = [];
  if (transformer) list.push(wholeTransformer(data, transformer));
  if (diffusers && data.method.adapter !== "lokr") {
    list.push(data.model.pipelineClass ? pipeline(data, diffusers) : bareTransformer(data, diffusers));
  }
  // Programs for the published models cannot do anything with a LoRA of another architecture.
  if (data.model.pipelineClass) {
    // It reads neither LoKr in PEFT's keys nor DoRA's lora_magnitude_vector.
    const comfy = data.method.adapter === "lora" ? (diffusers ?? kohya) : (kohya ?? diffusers);
    if (comfy) list.push(comfyUi(comfy));
    if (kohya && data.method.adapter === "lora" && data.model.pipelineClass === "FluxPipeline")
      list.push(sdScripts(data, kohya));
  }
  return list;
}

function pipeline(data: TrainReportData, file: string): TrainUsage {
  const { model, samples } = data;
  const first = samples?.prompts[0];
  const size = first?.width && first.height ? `, width=${first.width}, height=${first.height}` : "";
  return {
    title: "diffusers",
    language: "python",
    code: [
      "import torch",
      `from diffusers import ${model.pipelineClass}`,
      "",
      `pipe = ${model.pipelineClass}.from_pretrained(${python(model.base ?? model.hubName ?? "<base model>")}, torch_dtype=torch.bfloat16).to("cuda")`,
      `pipe.load_lora_weights(".", weight_name=${python(file)})`,
      `generator = torch.Generator("cpu").manual_seed(${first?.seed ?? 42})`,
      `picture = pipe(${python(examplePrompt(data))}${size}, generator=generator).images[0]`,
      'picture.save("picture.png")',
    ],
  };
}

function transformerLines(data: TrainReportData): string[] {
  const base = data.model.base ?? data.model.hubName ?? "<base model>";
  return [
    `from diffusers import ${data.model.architecture}`,
    "from safetensors.torch import load_file",
    "",
    `transformer = ${data.model.architecture}.from_pretrained(${python(base)}, subfolder="transformer")`,
  ];
}

function bareTransformer(data: TrainReportData, file: string): TrainUsage {
  return {
    title: "diffusers",
    language: "python",
    note: "Onto the transformer alone: no published pipeline has this model's parts.",
    code: [
      ...transformerLines(data),
      `transformer.load_lora_adapter(load_file(${python(file)}), prefix="transformer")`,
    ],
  };
}

function wholeTransformer(data: TrainReportData, file: string): TrainUsage {
  return {
    title: "diffusers, the whole transformer",
    language: "python",
    code: [...transformerLines(data), `transformer.load_state_dict(load_file(${python(file)}))`],
  };
}

function comfyUi(file: string): TrainUsage {
  return {
    title: "ComfyUI",
    language: "sh",
    note: "Then add the node `LoraLoaderModelOnly` between the model loader and the sampler, with strength 1.",
    code: [`cp ${shell(file)} ComfyUI/models/loras/`],
  };
}

function sdScripts(data: TrainReportData, file: string): TrainUsage {
  const first = data.samples?.prompts[0];
  return {
    title: "kohya's sd-scripts",
    language: "sh",
    note: "With the paths of your copies of the base model's parts.",
    code: [
      "python flux_minimal_inference.py --ckpt_path flux1-dev.safetensors --ae ae.safetensors \\",
      "  --clip_l clip_l.safetensors --t5xxl t5xxl_fp16.safetensors --dtype bfloat16 \\",
      `  --lora_weights ${shell(`${file};1.0`).replace(/^([^'].*)$/, "'$1'")} --prompt ${shell(oneLine(examplePrompt(data)))} --seed ${first?.seed ?? 42}`,
    ],
  };
}

const oneLine = (text: string) => text.replace(/\s+/g, " ").trim();
