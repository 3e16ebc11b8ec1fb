// The [align] section: one SRPO update by Direct-Align, in full. Names follow the paper and its public script; where the
// script's flag hides what it does (train_timestep, discount_pos), the key says it: an explicit sigma range, two branches.

import { z } from "zod";
import { BAND_RULES, GUARD_DEFAULTS, type GuardSignal } from "../../evaluation/guards.ts";
import { field, range, real, section, text, whole, words } from "./fields.ts";

export const rewardSchema = z.strictObject({
  kind: z.enum(["hps", "clip", "pickscore"]).meta({
    description:
      "How a score is read off the image and text features: HPS (raw cosine), CLIP or PickScore (times the logit scale, over 20).",
  }),
  path: field(
    text().min(1),
    "embedded",
    'Folder, file or hub id (xswu/HPSv2:HPS_v2.1_compressed.pt) of the reward\'s weights; "embedded" is the small one that comes along.',
  ),
  weight: field(z.number(), 1, "Weight in the sum of rewards."),
});

const drop = (name: GuardSignal) => BAND_RULES[name].drop ?? BAND_RULES[name].relativeDrop ?? 0;
const rise = (name: GuardSignal) => BAND_RULES[name].rise ?? BAND_RULES[name].relativeRise ?? 0;

const guardSection = section(
  {
    every: field(
      whole(0),
      20,
      "Measure the signals every so many updates; 0 only before the first and after the last.",
      "updates",
    ),
    pictures: field(
      z.boolean(),
      false,
      "Keep the pictures of every measurement in samples/, to see items change on the way.",
    ),
    items: field(whole(2), 8, "Aligned items whose pictures, drawn from fixed noise, are measured.", "items"),
    needed: field(
      whole(1),
      GUARD_DEFAULTS.needed,
      "Signals that must be outside their bands at once to be suspicious.",
      "signals",
    ),
    patience: field(
      whole(1),
      GUARD_DEFAULTS.patience,
      "Suspicious measurements in a row that raise the alarm.",
      "measurements",
    ),
    reward_rise: field(
      real(0),
      GUARD_DEFAULTS.rewardRise,
      "Rise of the optimised reward from which signals are watched.",
    ),
    judge_drop: field(real(0), drop("judge"), "Band of the held-out judge: largest fall of its mean cosine."),
    diversity_drop: field(
      real(0, 1),
      drop("diversity"),
      "Band of the diversity within an item: largest relative fall.",
    ),
    saturation_rise: field(real(0), rise("saturation"), "Band of the mean saturation: largest relative rise."),
    contrast_rise: field(real(0), rise("contrast"), "Band of the contrast: largest relative rise."),
    sharpness_rise: field(real(0), rise("sharpness"), "Band of the Laplacian sharpness: largest relative rise."),
    grid_rise: field(real(0), rise("grid8"), "Band of the energy at periods of 8 and 16 pixels: largest rise."),
  },
  "Guard rails against reward hacking: the alarm is raised when the reward rises and other signals leave their bands.",
);

export const alignSection = section(
  {
    steps: field(
      z.union([z.literal("ladder"), whole(1)]),
      "ladder",
      'Number of updates; "ladder" chooses one of align.ladder from the adapter\'s measured speed.',
      "updates",
    ),
    ladder: field(
      z.array(whole(1)),
      [40, 80, 160],
      'The numbers of updates that "ladder" chooses from, rising.',
      "updates",
    ),
    batch: field(whole(1), 4, "Prompts an update (times train.accumulation).", "prompts"),
    rollout_steps: field(
      whole(1),
      6,
      "Euler steps of the rollout that draws the clean picture, without gradient.",
      "steps",
    ),
    shift: field(z.number().gt(0), 1.5, "Time shift of the rollout's schedule."),
    sigma_high: field(z.number(), 0.9643, "Noisiest end of the training range."),
    sigma_low: field(z.number(), 0.5, "Least noisy end of the training range."),
    timestep_length: field(
      z.number().int(),
      1000,
      "N: number of equally spaced training sigmas from sigma_high down to sigma_low.",
    ),
    timestep_margin: field(whole(1), 5, "m0 is drawn evenly from the whole numbers between this and N minus this."),
    groundtruth_ratio: field(
      z.number(),
      0.9,
      "Share of the clean picture that Direct-Align keeps: a move is k = floor((1 - ratio) · N) + 1 training sigmas long.",
    ),
    discount_pos: field(
      range(),
      [1, 1],
      "Weight of the plain positive reward in the denoise branch, from the least noisy to the noisiest sigma.",
    ),
    discount_inv: field(
      range(),
      [0, 0],
      "Weight of the plain negative reward in the inversion branch, from the least noisy to the noisiest sigma.",
    ),
    pair: field(
      z.enum(["mia", "control-words", "prompt-only", "none"]),
      "mia",
      "Texts that the reward compares: MIA's item with and without attributes, control words before the caption, attributes in the prompt alone, or the caption alone.",
    ),
    pos_prompt: field(
      text(),
      "",
      "Positive text of every MIA pair, a template like data.prompt; empty takes the item's own, else item and attributes.",
    ),
    neg_prompt: field(
      text(),
      "",
      "Negative text of every MIA pair, a template like data.prompt; empty takes the item's own, else the prompt itself.",
    ),
    positive_words: field(
      words(),
      ["Natural-lighting", "Detail", "Detailed", "Real"],
      "Control words of the positive text, taken in turn, one an update.",
    ),
    negative_words: field(
      words(),
      ["Concept art", "Painting", "Anime", "Flat", "Oil"],
      "Control words of the negative text, taken in turn, one an update.",
    ),
    pair_cosine_warning: field(
      real(-1, 1),
      0.98,
      "Warn before the run when the mean cosine of the pairs' text features is above this: their difference is then nearly empty.",
    ),
    branches: field(
      z.enum(["both", "denoise", "inversion"]),
      "both",
      "Branches of Direct-Align whose gradients add up.",
    ),
    stacked: field(
      z.enum(["auto", "yes", "no"]),
      "auto",
      'Both branches in one double batch (faster on GPUs) or one after the other (less memory); "auto" measures.',
    ),
    threshold: field(z.number(), 0.7, "The loss is the mean of relu(threshold - reward)."),
    offline: field(z.boolean(), false, "Use the items' real pictures in place of rollouts."),
    items: field(
      words(),
      [],
      "Names of the tail items to align, in place of align.focus; an empty list leaves the choice to that.",
    ),
    focus: field(
      whole(0),
      32,
      "Tail items to align, those marked align in the item list first; 0 aligns all of the tail.",
      "items",
    ),
    head_share: field(real(0, 1), 0.25, "Share of the prompts that are head items."),
    same_noise: field(z.boolean(), true, "One noise and one timestep for all prompts of an update, as the paper does."),
    rollout_guidance: field(real(0), 1, "Guidance of the rollout; ignored by a model without a guidance embedding."),
    train_guidance: field(
      real(0),
      3.5,
      "Guidance of the trained call; ignored by a model without a guidance embedding.",
    ),
    stop_after_alarm: field(
      z.union([z.literal("never"), whole(0)]),
      20,
      'Stop so many updates after a guard rail\'s alarm; "never" only marks it. The best checkpoint before it is kept.',
      "updates",
    ),
    guard: guardSection,
    rewards: field(
      z.array(rewardSchema),
      [{ kind: "hps", path: "embedded", weight: 1 }],
      "The rewards, one [[align.rewards]] table each, summed with their weights.",
    ),
  },
  "Semantic Relative Preference Optimization by Direct-Align.",
);
