// What an evaluation of this kind cannot show, and what earlier runs of the embedded experiment looked like to the
// eye. Kept apart from the pages, because honesty about limits is content that is reviewed and not layout.

/** True of every report. */
export const GENERAL_LIMITS: readonly string[] = [
  "The intervals say how far the result may carry over to other items of the same kind. They do not cover another training seed, another noise or another base model: this is one run.",
  "The judge is a model too. It measures whether a picture matches its caption; it does not know whether a person from the culture would recognise or accept it.",
  "With many regions and categories, about one interval in twenty excludes 0 by chance. Read those tables as a place to look, and the groups as the result.",
];

/** True of the embedded experiment. */
export const EMBEDDED_LIMITS: readonly string[] = [
  "The model draws 64 × 64 emoji. “Tail” means rare in the pretraining mix of this model: the rarity was imposed, not found, and nothing here says how large models treat these items.",
  "The judge shares pictures with the reward (not weights, size, seed or captions), so it catches fitting the reward's weights better than fitting its data.",
  "The gain is not evidence for the prompt pairs: in reference runs the plain reward without pairs did as well within the intervals.",
  "Where pictures of the tail exist, ordinary fine-tuning on them did better at the same cost in reference runs. Alignment by a reward is for where they do not.",
];

/** What else is needed to use the weights of the embedded experiment. */
export const EMBEDDED_USAGE =
  "The transformer is diffusers' FluxTransformer2DModel. The text encoders of the embedded model store only the rows of " +
  "their embedding tables that are in use (the tensor `<table>.ids` lists the token ids), and its autoencoder is TAEF2: " +
  "`longtail sample` knows both; another program has to remap the token ids.";

/** What to expect to see in the pictures of the embedded experiment after `updates` updates, from reference runs. */
export function embeddedRemarks(updates: number): string[] {
  if (updates < 80) {
    return [
      "What to look for: at around 40 updates colours and contrast move and shapes barely change. Most rare items are still not recognisable to a person, even where the judge scores them higher. Common items look the same but for contrast.",
    ];
  }
  if (updates < 160) {
    return [
      "What to look for: between 80 and 160 updates colours settle and some shapes begin to move; many rare items are still not recognisable to a person.",
    ];
  }
  return [
    "What to look for: from 160 updates on some shapes do move and come nearer to the real picture, while several rare items are still not recognisable and the pictures of one item grow more alike.",
  ];
}
