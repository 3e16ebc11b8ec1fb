// Where the art of the embedded experiment comes from: npm packages of Iconify in pinned versions, with licences and the
// attributions that belong beside the pictures, and the rasteriser. Other versions hold other drawings under the same names.

import type { ArtStyle } from "./artwork.ts";

const NOTO = "Google Inc, https://github.com/googlefonts/noto-emoji";
const FLUENT = "Fluent UI Emoji, (c) Microsoft Corporation, https://github.com/microsoft/fluentui-emoji";

/** In the order of the experiment: the first three are the generator's and the reward's. */
export const ART: readonly ArtStyle[] = [
  {
    style: "noto",
    package: "@iconify-json/noto",
    version: "1.2.9",
    sha256: "9eac6ef4e7ec122b6f0e7ac281d61008afdbc720d0ce861e398b939daaa347c6",
    licence: "Apache-2.0",
    attribution: `Noto Emoji, ${NOTO}`,
  },
  {
    style: "twitter",
    package: "@iconify-json/twemoji",
    version: "1.2.5",
    sha256: "5d5d820790565b764f2728675d487c9ee4c1fc83916d8567d5aca8ba7527c242",
    licence: "CC-BY-4.0",
    attribution:
      "Twemoji, Twitter, Inc and other contributors, https://github.com/jdecked/twemoji, CC-BY 4.0; rasterised at SIZE on white",
  },
  {
    style: "fluent",
    package: "@iconify-json/fluent-emoji-flat",
    version: "1.2.6",
    sha256: "f5f4cf457c0db2ad5a2e42e033e02e0c87d10e43d0164cfffb3bb84914970a63",
    licence: "MIT",
    attribution: FLUENT,
  },
  {
    style: "gloss",
    package: "@iconify-json/fluent-emoji",
    version: "1.2.7",
    sha256: "87f3336be6f46747d40d046a15ffa8b23809ff7a1a280b5d3521d3782fb85de7",
    licence: "MIT",
    attribution: FLUENT,
  },
  {
    style: "older",
    package: "@iconify-json/noto-v1",
    version: "1.2.5",
    sha256: "ce70d8aa90345cf389875c3571ecd245bd943401822a0c5a0f62336bf8487333",
    licence: "Apache-2.0",
    attribution: `Noto Emoji (first design), ${NOTO}`,
  },
];

/** The styles with their attributions for pictures of `side` pixels. */
export function artFor(side: number): ArtStyle[] {
  return ART.map((style) => ({ ...style, attribution: style.attribution.replace("SIZE", `${side}x${side}`) }));
}

/** The rasteriser as WebAssembly: the same pixels on every machine, and a drawing that it fails on cannot end the program. */
export const RASTERISER = {
  package: "@resvg/resvg-wasm",
  version: "2.6.2",
  file: "index_bg.wasm",
  sha256: "22bf6e9f9a100d972da0411a69c5ba504367fc1fa87b3b64e3f35e53926d2d70",
  licence: "MPL-2.0",
} as const;
