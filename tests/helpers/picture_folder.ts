// A folder as people have them: pictures of two aspect ratios in PNG and JPEG, one turned by its Exif data, captions in
// three forms, a picture without one, one that is torn, pictures of the class and pictures held back.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { encodePng, type Picture } from "../../src/formats/png.ts";
import { gradient, jpegOf, pngOf, withOrientation } from "./pictures.ts";

/** Broad stripes that fall from the left to the right: nothing like the gradients. */
function stripes(width: number, height: number): Picture {
  const picture = gradient(width, height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      picture.data.fill((x + y) % 24 < 12 ? 230 : 20, 3 * (y * width + x), 3 * (y * width + x + 1));
  return picture;
}

export interface PictureFolder {
  /** For `[[data.sets]]`, as one line of TOML. */
  sets: string;
  /** Names of the files that a run leaves out. */
  left: { uncaptioned: string; torn: string };
}

/** Writes the folder `at`. Square pictures and pictures of 3 : 2 are to learn from. */
export function writePictureFolder(at: string): PictureFolder {
  const own = join(at, "own");
  const write = (name: string, content: Uint8Array | string) => writeFileSync(join(own, name), content);
  mkdirSync(join(own, "listed"), { recursive: true });
  mkdirSync(join(at, "class"));
  mkdirSync(join(at, "held"));
  write("red.png", pngOf(64, 64, 20));
  write("red.txt", "a red gradient\n");
  write("blue.jpg", jpegOf(gradient(80, 80, 250)));
  write("blue.caption", "a blue gradient, soft");
  write("wide.png", encodePng(stripes(96, 64)));
  write("wide.txt", "wide stripes");
  // Lies on its side: 64 × 96 stored, 96 × 64 to be seen.
  write("listed/turned.jpg", withOrientation(jpegOf(stripes(64, 96)), 6));
  write("listed/metadata.jsonl", '{"file_name": "turned.jpg", "text": "stripes from a camera held on its side"}\n');
  write("alone.png", pngOf(64, 64, 99));
  const whole = jpegOf(stripes(128, 128), 98);
  write("torn.jpg", whole.subarray(0, Math.floor(whole.length / 2)));
  write("torn.txt", "a torn picture");
  for (const [i, blue] of [80, 160].entries()) writeFileSync(join(at, "class", `${i}.png`), pngOf(64, 64, blue));
  writeFileSync(join(at, "held", "one.png"), pngOf(64, 64, 40));
  writeFileSync(join(at, "held", "one.txt"), "a red gradient");
  writeFileSync(join(at, "held", "two.png"), encodePng(stripes(96, 64)));
  writeFileSync(join(at, "held", "two.txt"), "wide stripes");
  const path = (name: string) => JSON.stringify(join(at, name));
  return {
    sets:
      `[{path = ${path("own")}, repeats = 2}, {path = ${path("class")}, caption = "a gradient", prior = true}, ` +
      `{path = ${path("held")}, split = "validation"}]`,
    left: { uncaptioned: "alone.png", torn: "torn.jpg" },
  };
}
