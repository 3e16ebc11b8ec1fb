// The sections of a run's configuration that every command shares: model, evaluation, log, checkpoints, run folder and
// device. Data is in data.ts, what trains in training.ts, the alignment's own section in align.ts.

import { z } from "zod";
import { field, real, section, text, whole, words } from "./fields.ts";

export const modelSection = section(
  {
    pipeline: field(
      text().min(1),
      "embedded",
      'Folder or hub id (owner/name[@revision]) of a FLUX.1 or FLUX.2 klein pipeline in diffusers\' layout (model_index.json or pipeline.json, transformer, text encoders, vae); "embedded" is the small FLUX.1 model that comes along.',
    ),
    transformer: field(
      text().min(1),
      "auto",
      "File, folder or hub id of a transformer in the place of the pipeline's own (SRPO's published weights, a single file); \"auto\" keeps that.",
    ),
    vae: field(
      text().min(1),
      "auto",
      'File or folder of the autoencoder\'s weights; "auto" takes the one that the pipeline names.',
    ),
    tokenizers: field(
      text().min(1),
      "embedded",
      'Folder with the CLIP and T5 tokenizer files; "embedded" are the public ones that come along. FLUX.2 reads the one in its own folder.',
    ),
    image_size: field(whole(0), 0, "Side of the square pictures; 0 takes the pipeline's own size.", "pixels"),
    offline: field(
      z.boolean(),
      false,
      "Send no request: models come from this machine alone, as with HF_HUB_OFFLINE=1.",
    ),
    storage: field(
      z.enum(["auto", "f32", "f16", "bf16", "int8", "nf4"]),
      "auto",
      'How frozen matrices of the transformer lie in device memory while an adapter is trained beside them; "auto" follows device.precision.',
    ),
  },
  "The text-to-image pipeline to be trained or aligned.",
);

export const evalSection = section(
  {
    judge: field(
      text().min(1),
      "embedded",
      'Folder, file or hub id of the held-out judge, a CLIP model; "embedded" comes along, "none" evaluates nothing.',
    ),
    items: field(whole(0), 0, "Most items judged in each group; 0 judges all of the protocol.", "items"),
    head_items: field(whole(0), 24, "Head items of the protocol, spread evenly over the list.", "items"),
    other_tail_items: field(whole(0), 0, "Tail items that were not aligned and measure what spills over.", "items"),
    pictures: field(whole(1), 2, "Pictures an item, each with the next of eval.styles.", "pictures"),
    styles: field(words(), ["noto", "twitter"], "Style words of the judged pictures, in turn."),
    caption: field(text().min(1), "icon of {item}", "Template of the caption that the judge compares pictures with."),
    batch: field(whole(1), 8, "Pictures drawn and judged at once.", "pictures"),
    steps: field(whole(1), 6, "Euler steps of the sampler.", "steps"),
    shift: field(z.number().gt(0), 1.5, "Time shift of the sampler's schedule."),
    guidance: field(real(0), 3.5, "Guidance given to the network; ignored by a model without a guidance embedding."),
    seed: field(whole(0), 1000, "Seed of the judged pictures' noise, the same before and after."),
    resamples: field(whole(100), 2000, "Bootstrap resamples over items for the intervals.", "resamples"),
    confidence: field(z.number().gt(0).lt(1), 0.95, "Share of the resamples that lies inside the intervals."),
  },
  "Evaluation by the held-out judge, before and after.",
);

export const logSection = section(
  {
    every: field(whole(1), 1, "Write metrics every so many updates.", "updates"),
    heartbeat: field(z.number().gt(0), 10, "Longest silence where no progress line can be redrawn.", "seconds"),
    tensorboard: field(z.boolean(), true, "Write TensorBoard files into the run's tb/ folder (longtail train)."),
  },
  "What is written while a run goes on.",
);

export const saveSection = section(
  {
    every: field(
      whole(0),
      20,
      "Save a checkpoint every so many updates; 0 saves only at the end and on Ctrl-C.",
      "updates",
    ),
    keep: field(whole(1), 2, "Checkpoints kept besides the best one before an alarm.", "checkpoints"),
    dtype: field(
      z.enum(["f32", "f16", "bf16"]),
      "f32",
      "Element type of the LoRA files that a training run leaves; checkpoints are always exact.",
    ),
  },
  "Checkpoints.",
);

export const runSection = section(
  {
    name: field(text().min(1), "auto", 'Name of the run and of its folder; "auto" is the command and the time.'),
    folder: field(text().min(1), "runs", "Folder in which run folders are made."),
    resume: field(
      text().min(1),
      "auto",
      '"auto" continues the unfinished run of this name, "no" refuses a folder that exists, a path continues that run or checkpoint.',
    ),
  },
  "The run folder.",
);

export const deviceSection = section(
  {
    backend: field(z.enum(["dawn", "deno"]), "dawn", "WebGPU implementation: Dawn, or Deno's built-in one."),
    precision: field(
      z.enum(["f32", "f16"]),
      "f32",
      "Storage of frozen weights and of matrix inputs; sums are always f32, and f16 needs the adapter's shader-f16.",
    ),
    matrices: field(
      z.enum(["auto", "off", "all"]),
      "auto",
      'Products and attention on the subgroup matrices (tensor cores) of a GPU, which round factors to f16 and add in f32: "auto" takes them with precision = "f16", "all" for f32 too, "off" never.',
    ),
    memory_cap: field(whole(0), 0, "Largest device memory that a run may plan for; 0 sets no limit of its own.", "MiB"),
    offload: field(
      z.enum(["auto", "none", "blocks"]),
      "auto",
      'Where the transformer\'s frozen weights lie: "blocks" keeps them in host memory and streams block after block through a few places on the device (block swapping, group offloading), "none" keeps all on the device, "auto" streams where the run would exceed device.memory_cap. With a LoRA or LoKr, and in sampling.',
    ),
    host_cache: field(
      z.union([z.literal("auto"), real(0)]),
      "auto",
      'Host memory for streamed weights in the form in which the device takes them; what does not fit is read from the file in every pass. "auto" is half of what is free.',
      "GiB",
    ),
    tuner: field(
      z.enum(["on", "off"]),
      "on",
      'Kernel choice: measured on this adapter and remembered, or with "off" the defaults for its kind, which are the same in every run.',
    ),
    robust: field(
      z.boolean(),
      false,
      "Keep the implementation's bounds checks in kernels; slower, for finding faults.",
    ),
  },
  "The WebGPU device.",
);
