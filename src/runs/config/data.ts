// The [data] section: items and prompts of an alignment, and the picture sets of a training run with everything that
// happens between a file and a batch. Names follow kohya's and diffusers' data options where those exist.

import { z } from "zod";
import { field, real, section, text, whole, words } from "./fields.ts";

export const pictureSetSchema = z.strictObject({
  path: z.string().min(1).meta({
    description:
      'A folder of pictures with captions, a .zip of one, a .parquet file, an items.json, or "embedded" for the pictures that come along.',
  }),
  caption: field(text(), "", "Caption of pictures that have none of their own; empty leaves such pictures out."),
  repeats: field(whole(1), 1, "How often each picture is drawn in an epoch."),
  weight: field(real(0), 1, "Factor on the loss of these pictures."),
  prior: field(
    z.boolean(),
    false,
    "Regularisation pictures of the whole class: their loss has the factor flow.prior_weight, and trigger words stay out.",
  ),
  split: field(
    z.enum(["train", "validation"]),
    "train",
    "Pictures to learn from, or pictures on which the loss is only measured.",
  ),
  items: field(words(), [], 'Items of "embedded" or of an items.json to take; empty takes all.'),
  styles: field(words(), [], 'Styles of "embedded" to take; empty takes all three that the generator knows.'),
  image_column: field(text(), "", "Column of the pictures in a parquet file; empty looks for image, img or picture."),
  caption_column: field(
    text(),
    "",
    "Column of the captions in a parquet file; empty looks for text, caption or prompt.",
  ),
});

export const dataSection = section(
  {
    items: field(
      text().min(1),
      "embedded",
      "File of items in CuRe's schema (item, category, region, optional pos and neg), or a folder of prompts that longtail preprocess or SRPO's script has encoded, with which no text encoder is opened; \"embedded\" is the long tail in miniature.",
    ),
    pictures: field(
      text().min(1),
      "embedded",
      'Index of real pictures for the report and for offline mode; "none" works without them.',
    ),
    prompt: field(
      text().min(1),
      "{style} icon of {item}",
      "Template of the generation prompt; {item}, {category}, {region} and {style} are filled in from the item, and underscores become spaces. Prompts that are encoded already are their captions as they stand.",
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
    sets: field(z.array(pictureSetSchema), [], "Picture sets of a training run."),
    resolution: field(
      whole(0),
      0,
      "Side of the square whose area no bucket exceeds; 0 takes the pipeline's picture size.",
      "pixels",
    ),
    buckets: field(z.boolean(), true, "Keep aspect ratios in buckets; false crops every picture to the square."),
    bucket_step: field(
      whole(0),
      0,
      "Bucket sides are multiples of this; 0 takes 16 below 256 pixels and 64 above.",
      "pixels",
    ),
    min_side: field(whole(0), 0, "Smallest side of a bucket; 0 takes half of the resolution.", "pixels"),
    max_side: field(whole(0), 0, "Largest side of a bucket; 0 takes twice the resolution.", "pixels"),
    upscale: field(z.boolean(), false, "Enlarge pictures that are smaller than their bucket; false leaves them out."),
    crop: field(
      z.enum(["center", "random"]),
      "center",
      "Where a picture is cut that does not fill its bucket exactly; random is drawn once for each picture.",
    ),
    flip: field(z.boolean(), false, "Draw half of the pictures mirrored left to right."),
    background: field(
      text().regex(/^#[0-9a-fA-F]{6}$/, "a colour such as #ffffff"),
      "#ffffff",
      "Colour behind transparent pictures.",
    ),
    max_megapixels: field(z.number().gt(0), 50, "Larger pictures are left out and reported.", "megapixels"),
    validation_share: field(
      real(0, 0.5),
      0,
      "Share of the training pictures held back for the validation loss, drawn by the seed.",
    ),
    trigger: field(
      text(),
      "",
      "Word that takes the place of [trigger] in captions, and is put in front of those without it.",
    ),
    caption_prefix: field(text(), "", "Text in front of every caption."),
    caption_dropout: field(real(0, 1), 0, "Share of draws whose caption is empty; .05 to .1 is usual for guidance."),
    caption_lines: field(
      z.enum(["first", "each", "whole"]),
      "first",
      "Of a caption file with several lines: the first alone, each as a caption of its own that is drawn, or all as one.",
    ),
    shuffle_tags: field(z.boolean(), false, "Draw the order of a caption's comma-separated tags anew each time."),
    keep_tags: field(whole(0), 0, "Tags at the beginning that keep their places when the others are shuffled.", "tags"),
    cache: field(
      text().min(1),
      "auto",
      'Folder of encoded pictures and captions, shared by runs; "auto" is "cache" beside the runs, "none" keeps them in memory alone.',
    ),
  },
  "Items, prompts, pictures and captions.",
);
