// `longtail data build`: the pictures of the embedded experiment, made anew from the art that they were rendered from.

import { join } from "node:path";
import { LongtailError } from "../../base/errors.ts";
import { EmbeddedData, type Style } from "../../data/embedded.ts";
import type { IconSet } from "../../data/emoji/artwork.ts";
import {
  buildEmojiSet,
  comparePictures,
  type EmojiSet,
  encodeSheet,
  itemsDocument,
  picturesDocument,
  type SetComparison,
  sheetName,
} from "../../data/emoji/picture_set.ts";
import { readEmojiLists } from "../../data/emoji/selection.ts";
import { artFor, RASTERISER } from "../../data/emoji/sources.ts";
import type { Command, CommandContext } from "../command.ts";
import { fetchPackages, packageCache, packagePath } from "../data/packages.ts";
import { Rasteriser } from "../data/rasteriser.ts";

/** Sides that the embedded models' architecture can read: whole patches of 8 and whole packed latents of 16. */
const SIDES = [64, 96, 128];
const DEFAULT_OUTPUT = "data/emoji";
/** Differing pictures named in the result. */
const NAMED = 10;

export const command: Command = {
  name: "data",
  summary: "make the embedded experiment's pictures from vector art",
  usage: "build [--output=DIR] [--size=64|96|128] [--check] [--cache=DIR]",
  options: [
    { name: "output", value: "DIR", summary: `folder for items, indexes and sheets; default ${DEFAULT_OUTPUT}` },
    { name: "size", value: "PIXELS", summary: "side of a picture: 64 (default), 96 or 128" },
    { name: "check", summary: "compare the pictures with those that come along (64 pixels)" },
    { name: "cache", value: "DIR", summary: "folder for the npm packages; default in the user's cache folder" },
  ],
  description:
    "Fetches five Iconify packages and a rasteriser with npm in pinned versions (150 MB, kept in a cache folder), selects " +
    "431 common and 94 rare items, draws each in up to five styles, and writes items.json, pictures.json and five sheets. " +
    "The same versions give the same bytes.",
  positionals: [1, 1],
  json: "result",
  examples: [
    ["longtail data build", "into data/emoji"],
    ["longtail data build --check", "and compare with the pictures that come along"],
  ],
  async run(context) {
    const { positionals, flags } = context.arguments;
    if (positionals[0] !== "build") {
      throw new LongtailError("E-ARG-060", {
        what: `there is no data command ${JSON.stringify(positionals[0])}`,
        fix: "use longtail data build",
      });
    }
    const side = flags.size === undefined ? SIDES[0]! : Number(flags.size);
    if (!SIDES.includes(side)) {
      throw new LongtailError("E-ARG-061", {
        what: `pictures of ${String(flags.size)} pixels cannot be made`,
        where: "--size",
        fix: `choose one of ${SIDES.join(", ")}`,
      });
    }
    const output = typeof flags.output === "string" ? flags.output : DEFAULT_OUTPUT;
    const cache = typeof flags.cache === "string" ? flags.cache : packageCache();
    const set = await build(context, cache, side);
    const bytes = await write(context, set, cache, output);
    const check = flags.check === true ? await compare(context, set) : null;
    const styles = Object.fromEntries(
      artFor(side).map(({ style }) => [style, set.pictures.filter((p) => p.style === style).length]),
    );
    const { items, pictures, leftOut } = set;
    const tail = items.filter((item) => item.tail).length;
    context.result(
      { output, items: items.length, tail, pictures: pictures.length, styles, leftOut, bytes, check },
      [
        `${items.length} items (${items.length - tail} common, ${tail} rare), ${pictures.length} pictures of ${side} pixels in ${output}, ${(bytes / 1e6).toFixed(1)} MB`,
        Object.entries(styles)
          .map(([style, count]) => `${style} ${count}`)
          .join(", "),
        ...(leftOut.length > 0 ? [`left out: ${leftOut.join("; ")}`] : []),
        ...(check ? [checkText(check)] : []),
      ].join("\n"),
    );
    return 0;
  },
};

async function build(context: CommandContext, cache: string, side: number): Promise<EmojiSet> {
  const { files, projectRoot, signal, emit } = context;
  const art = artFor(side);
  const pinned = [...art.map((style) => ({ ...style, file: "icons.json" })), RASTERISER];
  await fetchPackages(files, cache, pinned, (text) => emit({ kind: "message", text }));
  const sets = new Map<string, IconSet>();
  for (const { style, package: name } of art) {
    sets.set(style, JSON.parse(await files.readText(packagePath(cache, name, "icons.json"))) as IconSet);
  }
  const lists = await readEmojiLists(files, join(projectRoot, "models/emoji"));
  const rasteriser = await Rasteriser.open(files, cache);
  return await buildEmojiSet(lists, {
    side,
    sets,
    draw(svg, width) {
      signal.throwIfAborted();
      return rasteriser.draw(svg, width);
    },
    onDrawn: (done, total) => emit({ kind: "phase", name: "draw", done, total, unit: "items" }),
  });
}

/** Writes everything and returns the bytes of the sheets. */
async function write(context: CommandContext, set: EmojiSet, cache: string, output: string): Promise<number> {
  const { files } = context;
  const art = artFor(set.side);
  const json = (value: unknown) => `${JSON.stringify(value, null, 1)}\n`;
  await files.makeFolder(output);
  let bytes = 0;
  for (const { style } of art) {
    const sheet = encodeSheet(set, style);
    bytes += sheet.length;
    await files.writeAtomic(join(output, sheetName(style)), sheet);
  }
  await files.writeAtomic(join(output, "items.json"), json(itemsDocument(set.items)));
  await files.writeAtomic(join(output, "pictures.json"), json(picturesDocument(set, art)));
  const licences = join(output, "licences");
  await files.makeFolder(licences);
  // What the packages say of themselves: author, source and licence of the art.
  for (const { package: name } of [...art, RASTERISER]) {
    const base = name.split("/").at(-1)!;
    for (const file of ["info.json", "package.json", "LICENSE", "README.md"]) {
      const path = packagePath(cache, name, file);
      if (await files.exists(path))
        await files.writeAtomic(join(licences, `${base}.${file}`), await files.readBytes(path));
    }
  }
  const texts = join(context.projectRoot, "models/licences");
  for (const name of await files.list(texts)) {
    await files.writeAtomic(join(licences, name), await files.readBytes(join(texts, name)));
  }
  const lines = art.map((a) => `${a.style}: ${a.package} ${a.version}, ${a.licence}\n  ${a.attribution}\n`);
  const tool = `rendered with ${RASTERISER.package} ${RASTERISER.version} (${RASTERISER.licence}; a tool, not contained here)`;
  await files.writeAtomic(join(licences, "ATTRIBUTION.txt"), `${lines.join("")}${tool}\n`);
  return bytes;
}

async function compare(context: CommandContext, set: EmojiSet): Promise<SetComparison> {
  const folder = join(context.projectRoot, "models/embedded");
  const known = await EmbeddedData.load(context.files, folder);
  const byName = new Map(known.items.map((item) => [item.item, item]));
  const count = known.items.reduce((n, item) => n + known.stylesOf(item).length, 0);
  return await comparePictures(set, count, async (style, name) => {
    const item = byName.get(name);
    return item ? ((await known.pictureBytes(item, style as Style))?.data ?? null) : null;
  });
}

function checkText(check: SetComparison): string {
  const { common, equal, largest, different, onlyHere, onlyThere } = check;
  const text = `compared with the pictures that come along: ${equal} of ${common} are equal, the largest difference of a channel is ${largest} of 255`;
  const named = different.slice(0, NAMED).map((d) => `${d.style} ${d.item} (${d.largest})`);
  const others = onlyHere + onlyThere > 0 ? [`${onlyHere} only here, ${onlyThere} only there`] : [];
  const why =
    different.length > 0
      ? [
          `other: ${named.join(", ")}; those were drawn by the rasteriser's native build, whose arithmetic differs a little`,
        ]
      : [];
  return [text, ...others, ...why].join("\n");
}
