// Who made the pictures and weights that come along, for reports and model cards.

import type { Attribution } from "../evaluation/report_data.ts";

/** Where the pictures of each style are from, and their licences. */
export const PICTURE_CREDITS: readonly Attribution[] = [
  {
    key: "noto",
    what: "Noto Emoji",
    licence: "Apache-2.0",
    credit: "Google",
    url: "https://github.com/googlefonts/noto-emoji",
  },
  {
    key: "twitter",
    what: "Twemoji, rasterised",
    licence: "CC-BY 4.0",
    credit: "Twitter, Inc and other contributors",
    url: "https://github.com/jdecked/twemoji",
  },
  {
    key: "fluent",
    what: "Fluent UI Emoji",
    licence: "MIT",
    credit: "© Microsoft Corporation",
    url: "https://github.com/microsoft/fluentui-emoji",
  },
];

export const EMBEDDED_CREDITS: readonly Attribution[] = [
  {
    key: "taef2",
    what: "TAEF2 autoencoder",
    licence: "MIT",
    credit: "madebyollin",
    url: "https://github.com/madebyollin/taesd",
  },
  { key: "weights", what: "embedded micro-FLUX, reward and judge", licence: "MIT", credit: "Longtail" },
];
