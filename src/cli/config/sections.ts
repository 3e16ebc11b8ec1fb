// The sections of a run's configuration that every command shares: model, data, adapter, optimizer, schedule, training
// loop, samples, evaluation, log, checkpoints, run folder and device. The alignment's own section is in align.ts.

import { z } from "zod";
import { field, real, section, text, whole, words } from "./fields.ts";

export const modelSection = section(
  {
    pipeline: field(
      text().min(1),
      "embedded",
      'Folder of the pipeline in diffusers\' layout (transformer, text_encoder, text_encoder_2, pipeline.json); "embedded" is the small FLUX.1 model that comes along.',
    ),
    vae: field(
      text().min(1),
      "auto",
      'File or folder of the autoencoder\'s weights; "auto" takes the one that the pipeline names.',
    ),
    tokenizers: field(
      text().min(1),
      "embedded",
      'Folder with the CLIP and T5 tokenizer files; "embedded" are the public ones that come along.',
    ),
    image_size: field(whole(0), 0, "Side of the square pictures; 0 takes the pipeline's own size.", "pixels"),
  },
  "The text-to-image pipeline to be aligned.",
);

export const dataSection = section(
  {
    items: field(
      text().min(1),
      "embedded",
      'File of items in CuRe\'s schema (item, category, region, optional pos and neg); "embedded" is the long tail in miniature.',
    ),
    pictures: field(
      text().min(1),
      "embedded",
      'Index of real pictures for the report and for offline mode; "none" works without them.',
    ),
    prompt: field(
      text().min(1),
      "{style} icon of {item}",
      "Template of the generation prompt; {item}, {category}, {region} and {style} are filled in from the item, and underscores become spaces.",
    ),
    attributes: field(
      z.array(z.enum(["category", "region"])),
      ["category", "region"],
      "Attributes that an automatic MIA pair appends to the positive prompt, in this order.",
    ),
    styles: field(
      words(),
      ["noto", "twitter", "fluent"],
      "Style words for {style}; each training prompt draws one of them.",
    ),
    exclude_categories: field(
      words(),
      [],
      "Categories whose items are left out, for example people in CuRe, who are real named persons.",
    ),
  },
  "Items, prompts and real pictures.",
);

export const adapterSection = section(
  {
    kind: field(
      z.enum(["full", "lora"]),
      "full",
      "What is trained: every tensor of the transformer, or a LoRA beside its frozen weights.",
    ),
    rank: field(whole(1), 16, "Rank of the LoRA's two factors."),
    alpha: field(z.number().gt(0), 16, "The LoRA's output is scaled by alpha / rank."),
    targets: field(
      z.union([z.enum(["diffusers", "all-linear"]), words()]),
      "diffusers",
      "Which Linear layers get a LoRA: diffusers' FLUX set, every Linear, or a list of endings of module names.",
    ),
    difference_rank: field(
      whole(0),
      16,
      "Rank of the LoRA that is made from the difference after full fine-tuning, on every Linear; 0 makes none.",
    ),
  },
  "What is trained, and in which form it is saved.",
);

export const optimSection = section(
  {
    kind: field(z.enum(["adamw"]), "adamw", "The optimizer."),
    lr: field(
      z.union([z.literal("auto"), z.number().gt(0)]),
      "auto",
      'Peak learning rate; "auto" is the measured recipe\'s: 3e-5 for full fine-tuning, 6e-4 for a LoRA.',
    ),
    betas: field(
      z.tuple([real(0), real(0)]),
      [0.9, 0.999],
      "Decay of the running mean of gradients and of their squares.",
    ),
    eps: field(z.number().gt(0), 1e-8, "Added to the root of the squared-gradient mean."),
    weight_decay: field(real(0), 1e-4, "Decoupled weight decay, on every trained tensor."),
    grad_clip: field(real(0), 0.1, "Largest global L2 norm of an update's gradient; 0 does not clip."),
  },
  "The optimizer.",
);

export const scheduleSection = section(
  {
    kind: field(z.enum(["constant"]), "constant", "Course of the learning rate after its warm-up."),
    warmup: field(whole(0), 10, "Linear warm-up: update t has lr · min(1, t / (warmup + 1)), t from 1.", "updates"),
  },
  "The learning rate over time.",
);

export const trainSection = section(
  {
    accumulation: field(
      whole(1),
      1,
      "Micro-batches of prompts whose gradients are summed into one update; equals a batch that many times larger.",
    ),
    seed: field(whole(0), 1, "Seed of noise, timesteps, prompt order and LoRA initialisation."),
    checkpointing: field(
      z.boolean(),
      false,
      "Gradient checkpointing: recompute each block's activations in the backward pass to save memory.",
    ),
  },
  "The training loop.",
);

export const sampleSection = section(
  {
    items: field(
      whole(1),
      8,
      "Items of the tail and as many of the head whose pictures are kept before and after.",
      "items",
    ),
    pictures: field(whole(1), 2, "Pictures an item, each from its own noise.", "pictures"),
    steps: field(whole(1), 6, "Euler steps of the sampler.", "steps"),
    shift: field(z.number().gt(0), 1.5, "Time shift of the sampler's schedule."),
    guidance: field(real(0), 3.5, "Guidance given to the network; ignored by a model without a guidance embedding."),
    every: field(
      whole(0),
      0,
      "Draw samples every so many updates; 0 draws only before the first and after the last.",
      "updates",
    ),
    seed: field(whole(0), 42, "Seed of the samples' noise, the same before and after."),
  },
  "Sample pictures.",
);

export const evalSection = section(
  {
    judge: field(
      text().min(1),
      "embedded",
      'Folder of the held-out judge (open_clip layout); "embedded" comes along, "none" evaluates nothing.',
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
    memory_cap: field(whole(0), 0, "Largest device memory that a run may plan for; 0 sets no limit of its own.", "MiB"),
    tuner: field(
      z.enum(["on", "off", "fixed"]),
      "on",
      "Kernel choice: measured on this adapter and remembered, the plain kernels, or a fixed table that gives the same bits everywhere.",
    ),
    robust: field(
      z.boolean(),
      false,
      "Keep the implementation's bounds checks in kernels; slower, for finding faults.",
    ),
  },
  "The WebGPU device.",
);
