import { expect, test } from "vitest";
import { toPlanes } from "../../src/formats/png.ts";
import { type ResizeFilter, resizeBytes, resizePlanes, type Window } from "../../src/formats/resize.ts";
import { Comparison, largestDifference } from "../helpers/compare.ts";
import { suite } from "../helpers/dumps.ts";

const UINT8_BOUND = 1;
const FLOAT_BOUND = 2e-5;
const RESIZE_FILTERS: readonly ResizeFilter[] = ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"];
const NOT_COMPARED = /^\w+\.source$/;

suite("image", (dump) => {
  test("Pillow's bytes, torchvision's tensors and diffusers' squares come out of every filter and size", async () => {
    const file = await dump.open("io");
    const compared = new Comparison("image");
    const seen = new Set<string>();
    for (const name of file.names().filter((name) => !NOT_COMPARED.test(name))) {
      const [picture, kind, ...rest] = name.split(".") as [string, string, ...string[]];
      const [height, width] = file.shape(`${picture}.source`) as [number, number];
      const source = Uint8Array.from(await file.load(`${picture}.source`));
      const planes = toPlanes({ width, height, channels: 3, depth: 8, data: source, text: {} });
      const expected = await file.load(name);
      seen.add(`${kind}.${rest[0]}`);
      if (kind === "short_side") {
        const fit = shortSideSquare(width, height, Number(rest[0]));
        const bytes = resizeBytes(source, width, height, 3, fit.width, fit.height, {
          filter: "bilinear",
          window: fit.window,
        });
        const { width: side } = fit.window;
        const found = toPlanes({ width: side, height: side, channels: 3, depth: 8, data: bytes, text: {} });
        compared.note(
          kind,
          name,
          largestDifference(
            found,
            expected.map((v) => (v + 1) / 2),
          ) * 255,
          UINT8_BOUND + 1e-3,
        );
        continue;
      }
      const filter = rest[0] as ResizeFilter;
      const [toHeight, toWidth] = rest[1]!.split("x").map(Number) as [number, number];
      if (kind === "pil" || kind === "tv_u8") {
        const arithmetic = kind === "pil" ? "pillow" : "torch";
        const found = resizeBytes(source, width, height, 3, toWidth, toHeight, { filter, arithmetic });
        const wanted = kind === "pil" ? expected : interleave(expected);
        compared.note(kind, name, largestDifference(found, wanted), UINT8_BOUND + 1e-9);
      } else {
        const found = resizePlanes(planes, width, height, toWidth, toHeight, { filter, antialias: kind === "tv" });
        compared.note(kind, name, largestDifference(found, expected), FLOAT_BOUND);
      }
    }
    compared.finish();
    expect([...seen].sort()).toEqual(
      [
        ...RESIZE_FILTERS.map((filter) => `pil.${filter}`),
        ...["tv", "tv_u8", "tv_plain"].flatMap((kind) => [`${kind}.bilinear`, `${kind}.bicubic`]),
        "short_side.32",
        "short_side.50",
      ].sort(),
    );
  });
});

/** [3, height, width] to [height, width, 3]. */
function interleave(planes: Float32Array): Float32Array {
  const pixels = planes.length / 3;
  return Float32Array.from(planes, (_, i) => planes[(i % 3) * pixels + Math.floor(i / 3)]!);
}

/** Python's round: halves go to the even neighbour. */
function roundHalfToEven(value: number): number {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest !== 0.5) return rest < 0.5 ? low : low + 1;
  return low % 2 === 0 ? low : low + 1;
}

/**
 * Geometry of torchvision's Resize(size) and CenterCrop(size), as diffusers' trainers prepare pictures: the short side
 * becomes `size`, the long side floor(size * long / short), and the middle square is kept.
 */
function shortSideSquare(width: number, height: number, size: number) {
  const long = Math.floor((size * Math.max(width, height)) / Math.min(width, height));
  const [toWidth, toHeight] = width <= height ? [size, long] : [long, size];
  const window: Window = {
    left: roundHalfToEven((toWidth - size) / 2),
    top: roundHalfToEven((toHeight - size) / 2),
    width: size,
    height: size,
  };
  return { width: toWidth, height: toHeight, window };
}
