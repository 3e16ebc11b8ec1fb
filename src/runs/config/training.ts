// What is trained and how: adapter, optimizer, learning rate, the flow-matching objective, the loop and its samples. Names
// are those of diffusers' and kohya's options where the field has agreed on one; `longtail align` shares most of them.

import { z } from "zod";
import { field, real, section, text, whole, words } from "./fields.ts";

const layerSchema = z.strictObject({
  match: z.string().min(1).meta({ description: "Name or ending of module names, as in adapter.targets." }),
  rank: field(whole(0), 0, "Rank of these modules; 0 takes adapter.rank."),
  alpha: field(real(0), 0, "Alpha of these modules; 0 takes adapter.alpha."),
});

export const adapterSection = section(
  {
    kind: field(
      z.enum(["full", "lora", "dora", "lokr"]),
      "full",
      "What is trained: every tensor of the transformer, or a LoRA, DoRA or LoKr beside its frozen weights.",
    ),
    rank: field(whole(1), 16, "Rank of the adapter's factors."),
    alpha: field(z.number().gt(0), 16, "The adapter's output is scaled by alpha / rank."),
    targets: field(
      z.union([z.enum(["diffusers", "attention", "kohya", "all-linear"]), words()]),
      "diffusers",
      "Which Linear layers get an adapter: the set of diffusers' scripts for the model's family, attention alone, kohya's set (every layer of the blocks), every Linear, or a list of endings of module names.",
    ),
    exclude: field(words(), [], "Names or endings of modules that get none although the targets mean them."),
    layers: field(z.array(layerSchema), [], "Other ranks and alphas for some modules; the first match counts."),
    dropout: field(real(0, 0.95), 0, "Share of an adapter's inputs that are dropped while training."),
    rank_stabilised: field(z.boolean(), false, "Scale by alpha / √rank (rsLoRA)."),
    factor: field(whole(0), 0, "Size of LoKr's first factor; 0 chooses the most even split."),
    start: field(
      text().min(1),
      "none",
      'An adapter file to start from, whose layers, ranks and alphas count then; "none" starts as the model without one.',
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
    kind: field(z.enum(["adamw", "adamw8bit", "lion", "adafactor", "prodigy", "sgd"]), "adamw", "The optimizer."),
    lr: field(
      z.union([z.literal("auto"), z.number().gt(0)]),
      "auto",
      'Peak learning rate; "auto" is the measured recipe\'s: 3e-5 for full fine-tuning, 6e-4 for an adapter, a tenth of it for Lion, 1 for Prodigy.',
    ),
    betas: field(
      z.tuple([real(0), real(0)]),
      [0.9, 0.999],
      "Decay of the running mean of gradients and of their squares; for Lion the second is usually 0.99.",
    ),
    eps: field(z.number().gt(0), 1e-8, "Added to the root of the squared-gradient mean."),
    weight_decay: field(real(0), 1e-4, "Decoupled weight decay, on every trained tensor."),
    grad_clip: field(real(0), 0.1, "Largest global L2 norm of an update's gradient; 0 does not clip."),
    momentum: field(real(0), 0.9, "Momentum of SGD."),
    ema: field(
      real(0),
      0,
      "Decay of a running mean of the trained weights, from which samples and the final files are made; 0 keeps none.",
    ),
    d0: field(z.number().gt(0), 1e-6, "Prodigy's first estimate of the distance."),
    d_coef: field(z.number().gt(0), 1, "Factor on Prodigy's estimate; the knob to turn instead of lr."),
    growth_rate: field(real(0), 0, "Largest growth of Prodigy's estimate in one update; 0 sets no limit."),
    slice: field(whole(1), 1, "Prodigy reads every so many-th weight for its estimate."),
    bias_correction: field(z.boolean(), true, "Prodigy corrects the bias of Adam's running means."),
    safeguard_warmup: field(z.boolean(), true, "Prodigy leaves the warm-up's small rates out of its estimate."),
    scale_parameter: field(z.boolean(), false, "Adafactor scales the rate by each tensor's size."),
    relative_step: field(z.boolean(), false, "Adafactor works out its own rate from the step, in place of optim.lr."),
  },
  "The optimizer.",
);

export const scheduleSection = section(
  {
    kind: field(
      z.enum(["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"]),
      "constant",
      "Course of the learning rate after its warm-up.",
    ),
    warmup: field(whole(0), 10, "Linear warm-up: update t has lr · min(1, t / (warmup + 1)), t from 1.", "updates"),
    cycles: field(z.number().gt(0), 1, "Cycles of cosine_with_restarts."),
    power: field(z.number().gt(0), 1, "Power of polynomial."),
    end: field(real(0), 1e-7, "Learning rate at the end of polynomial."),
  },
  "The learning rate over time.",
);

export const trainSection = section(
  {
    steps: field(whole(1), 500, "Updates of a training run (longtail train).", "updates"),
    batch: field(whole(1), 4, "Pictures of a micro-batch (longtail train).", "pictures"),
    accumulation: field(
      whole(1),
      1,
      "Micro-batches whose gradients are summed into one update; equals a batch that many times larger.",
    ),
    seed: field(
      whole(0),
      1,
      "Seed of noise, timesteps, order of pictures and prompts, and the adapter's first values.",
    ),
    checkpointing: field(
      z.boolean(),
      false,
      "Gradient checkpointing: recompute each block's activations in the backward pass to save memory.",
    ),
    validate_every: field(
      whole(0),
      50,
      "Measure the validation loss every so many updates, always from the same noise; 0 only before the first and after the last.",
      "updates",
    ),
    validation_pictures: field(whole(1), 16, "Most pictures that the validation loss is measured on.", "pictures"),
    loss_scale: field(
      z.enum(["auto", "on", "off"]),
      "auto",
      'Dynamic loss scale against underflow of small gradients; "auto" uses it with device.precision = "f16".',
    ),
  },
  "The training loop.",
);

export const flowSection = section(
  {
    sampling: field(
      z.enum(["uniform", "logit_normal", "mode", "sigmoid", "shift", "flux_shift", "mixture"]),
      "logit_normal",
      "How the noise level sigma of a training sample is drawn: evenly, logit-normal or mode (diffusers), sigmoid, shifted or resolution-dependent (kohya), or half evenly and half sigmoid.",
    ),
    weighting: field(
      z.enum(["none", "sigma_sqrt", "cosmap", "bell"]),
      "none",
      "Weight of a sample's loss by its sigma (diffusers' weighting_scheme; bell as in ai-toolkit).",
    ),
    logit_mean: field(
      z.number(),
      0,
      "Mean of the normal number of logit_normal and mixture (0.3 in the embedded model's pretraining).",
    ),
    logit_std: field(z.number().gt(0), 1, "Standard deviation of the normal number of logit_normal and mixture."),
    mode_scale: field(z.number(), 1.29, "Scale of the mode draw."),
    sigmoid_scale: field(z.number().gt(0), 1, "Factor on the normal number inside the sigmoid."),
    shift: field(z.number().gt(0), 3, "Time shift of the shift draw: above 1 trains more at high noise."),
    guidance: field(
      real(0),
      1,
      "Guidance given to the network while training; ignored by a model without a guidance embedding.",
    ),
    loss: field(z.enum(["mse", "huber", "smooth_l1"]), "mse", "Distance between predicted and true velocity."),
    huber_delta: field(z.number().gt(0), 0.1, "Where Huber's distance turns from square to straight."),
    huber_schedule: field(
      z.enum(["constant", "sigma"]),
      "constant",
      "Huber's delta for all noise levels, or smaller at high noise.",
    ),
    prior_weight: field(real(0), 1, "Factor on the loss of prior (regularisation) pictures."),
  },
  "The flow-matching objective of a training run (longtail train).",
);

export const sampleSection = section(
  {
    prompts: field(
      words(),
      [],
      "Prompts of the samples of a training run; empty takes captions of the first pictures.",
    ),
    items: field(
      whole(1),
      8,
      "Items of the tail and as many of the head whose pictures are kept before and after.",
      "items",
    ),
    pictures: field(whole(1), 2, "Pictures an item or prompt, each from its own noise.", "pictures"),
    steps: field(whole(1), 6, "Euler steps of the sampler.", "steps"),
    shift: field(
      z.union([z.literal("auto"), z.number().gt(0)]),
      1.5,
      "Time shift of the sampler's schedule; \"auto\" takes the pipeline's own schedule, whose shift grows with the pictures' size in FLUX.1 dev and FLUX.2.",
    ),
    guidance: field(real(0), 3.5, "Guidance given to the network; ignored by a model without a guidance embedding."),
    cfg: field(
      z.union([z.literal("auto"), real(0)]),
      "auto",
      'Scale of classifier-free guidance, which asks the network twice a step; 1 is none. "auto" takes what the pipeline is meant for: 4 for FLUX.2 klein\'s base models, 1 for all others.',
    ),
    negative_prompt: field(
      text(),
      "",
      "What classifier-free guidance leads away from; read where sample.cfg is not 1.",
    ),
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
