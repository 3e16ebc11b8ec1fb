import { describe, expect, test } from "vitest";
import { assignBuckets, bucketKey, bucketSizes, bucketTable } from "../../src/data/pictures/buckets.ts";
import { captionOf, captionText } from "../../src/data/pictures/captions.ts";
import { type OrderOptions, PictureOrder } from "../../src/data/pictures/order.ts";
import { Prefetcher } from "../../src/data/pictures/prefetch.ts";
import { coverGeometry, fitPicture } from "../../src/data/pictures/prepare.ts";
import type { PictureRecord } from "../../src/data/pictures/sets.ts";
import type { Picture } from "../../src/formats/png.ts";
import { gradient } from "../helpers/pictures.ts";

const record = (name: string, width: number, height: number, more: Partial<PictureRecord> = {}): PictureRecord => ({
  id: `set/${name}`,
  set: 0,
  name,
  captions: ["x"],
  width,
  height,
  hash: name,
  repeats: 1,
  weight: 1,
  split: "train",
  prior: false,
  load: async () => gradient(width, height),
  ...more,
});

describe("aspect buckets", () => {
  test("sizes are multiples of the step within area and sides, in both directions", () => {
    for (const options of [
      { resolution: 512 },
      { resolution: 1024, step: 64 },
      { resolution: 64, step: 16 },
      { resolution: 500, step: 32, maxSide: 700 },
    ]) {
      const sizes = bucketSizes(options);
      const step = options.step ?? 64;
      for (const { width, height } of sizes) {
        expect([width % step, height % step]).toEqual([0, 0]);
        expect(width * height).toBeLessThanOrEqual(options.resolution ** 2);
        expect(sizes).toContainEqual({ width: height, height: width });
      }
    }
    expect(bucketSizes({ resolution: 512 }).map(bucketKey)).toContain("512x512");
    expect(bucketSizes({ resolution: 64, step: 16 }).map(bucketKey)).toEqual([
      "32x128",
      "32x112",
      "32x96",
      "48x80",
      "64x64",
      "80x48",
      "96x32",
      "112x32",
      "128x32",
    ]);
    expect(bucketSizes({ resolution: 512, square: true }).map(bucketKey)).toEqual(["512x512"]);
    expect(() => bucketSizes({ resolution: 512, minSide: 600 })).toThrow(RangeError);
  });

  test("a picture goes to the nearest shape, is never enlarged, and is dropped where nothing fits", () => {
    const records = [
      record("square", 2000, 2000),
      record("wide", 1600, 800),
      record("tall", 600, 1300),
      record("small", 400, 330),
      record("tiny", 200, 1000),
    ];
    const { of, dropped, table } = assignBuckets(records, { resolution: 512 });
    const key = (name: string) => bucketKey(of.get(`set/${name}`)!);
    expect([key("square"), key("wide"), key("tall"), key("small")]).toEqual([
      "512x512",
      "704x320",
      "320x704",
      "384x320",
    ]);
    expect(dropped).toMatchObject([{ name: "tiny", code: "E-DATA-045", why: expect.stringContaining("below 256") }]);
    expect(bucketTable({ table }).at(-1)).toEqual(["all", "4", "4", "0"]);
    for (const picture of records) {
      const bucket = of.get(picture.id);
      if (bucket) expect(bucket.width <= picture.width && bucket.height <= picture.height).toBe(true);
    }
    const enlarged = assignBuckets(records, { resolution: 512, upscale: true });
    expect(enlarged.dropped).toEqual([]);
    expect(bucketKey(enlarged.of.get("set/small")!)).toBe("576x448");
  });

  test("rare buckets are merged when there may be only a few", () => {
    const shapes = [
      [1000, 1000],
      [1000, 990],
      [1000, 1000],
      [1400, 700],
      [1500, 700],
      [700, 1500],
    ] as const;
    const records = shapes.map(([width, height], i) => record(`${i}`, width, height));
    const { buckets, of, dropped } = assignBuckets(records, { resolution: 512, maxBuckets: 2 });
    expect(buckets.length).toBe(2);
    expect(of.size).toBe(6);
    expect(dropped).toEqual([]);
    expect(assignBuckets(records, { resolution: 512, maxBuckets: 1 }).buckets.map(bucketKey)).toEqual(["512x512"]);
  });
});

const shapes = [
  [64, 64],
  [64, 64],
  [64, 64],
  [64, 64],
  [64, 64],
  [128, 32],
  [128, 32],
  [32, 128],
] as const;
const records = shapes.map(([width, height], i) =>
  record(`${i}`, width, height, { repeats: i === 0 ? 3 : 1, captions: ["a", "b"] }),
);
const buckets = assignBuckets(records, { resolution: 64, step: 16 });
const orderOf = (options: Partial<OrderOptions> = {}, list = records) => {
  const { of } = assignBuckets(list, { resolution: 64, step: 16 });
  return new PictureOrder(list, of, { seed: 7, batch: 3, ...options });
};
const names = (order: PictureOrder, step: number) => order.batchAt(step).draws.map((draw) => draw.record.name);

describe("the order of pictures", () => {
  test("a step's batch depends on seed and step alone, whatever was asked before and however the records lie", () => {
    const one = orderOf({ flip: 0.5 });
    const steps = Array.from({ length: 40 }, (_, step) => one.batchAt(step));
    const other = new PictureOrder([...records].reverse(), buckets.of, {
      seed: 7,
      batch: 3,
      flip: 0.5,
    });
    for (const step of [39, 3, 17, 0]) expect(other.batchAt(step)).toEqual(steps[step]);
    expect(
      Array.from({ length: 40 }, (_, step) =>
        orderOf({ seed: 8 })
          .batchAt(step)
          .draws.map((d) => d.record.name),
      ),
    ).not.toEqual(steps.map((batch) => batch.draws.map((draw) => draw.record.name)));
  });

  test("every batch is full and of one bucket", () => {
    for (const batch of [1, 2, 3, 8]) {
      const order = orderOf({ batch });
      for (let step = 0; step < 60; step++) {
        const { bucket, draws } = order.batchAt(step);
        expect(draws).toHaveLength(batch);
        for (const { record } of draws) expect(buckets.of.get(record.id)).toEqual(bucket);
      }
    }
  });

  test("over many passes each picture comes as often as its repeats say, whatever the batch size", () => {
    for (const batch of [1, 3, 4]) {
      const order = orderOf({ batch });
      const passes = 12;
      const seen = new Map<string, number>();
      for (let step = 0; step < (order.draws * passes) / batch; step++)
        for (const name of names(order, step)) seen.set(name, (seen.get(name) ?? 0) + 1);
      for (const { name, repeats } of records)
        expect(Math.abs(seen.get(name)! - passes * repeats), name).toBeLessThanOrEqual(repeats + 1);
    }
  });

  test("a pass of single pictures shows each exactly once, in another order than the next pass", () => {
    const plain = shapes.map(([width, height], i) => record(`${i}`, width, height));
    const order = orderOf({ batch: 1 }, plain);
    expect(order.stepsPerEpoch).toBe(8);
    const pass = (n: number) => Array.from({ length: 8 }, (_, i) => names(order, 8 * n + i)[0]!);
    expect(pass(0).toSorted()).toEqual(plain.map(({ name }) => name));
    expect(pass(1).toSorted()).toEqual(plain.map(({ name }) => name));
    expect(pass(1)).not.toEqual(pass(0));
    expect(order.batchAt(17).epoch).toBe(2);
  });

  test("a batch larger than the set repeats pictures rather than failing", () => {
    const order = orderOf({ batch: 16 }, [record("a", 64, 64), record("b", 64, 64)]);
    expect(new Set(names(order, 0))).toEqual(new Set(["a", "b"]));
    expect(order.batchAt(3).draws).toHaveLength(16);
  });

  test("prior pictures come once for each training draw, validation pictures never", () => {
    const list = [
      ...Array.from({ length: 6 }, (_, i) => record(`t${i}`, 64, 64)),
      ...Array.from({ length: 50 }, (_, i) => record(`p${i}`, 64, 64, { prior: true })),
      record("v", 64, 64, { split: "validation" }),
    ];
    for (const [ratio, share] of [
      [1, 0.5],
      [0.5, 1 / 3],
    ] as const) {
      const order = orderOf({ batch: 2, priorRatio: ratio }, list);
      const seen = Array.from({ length: 300 }, (_, step) => names(order, step)).flat();
      expect(seen).not.toContain("v");
      expect(seen.filter((name) => name.startsWith("p")).length / seen.length).toBeCloseTo(share, 1);
      expect(new Set(seen).size).toBe(56);
    }
  });

  test("flips and captions are drawn evenly", () => {
    const order = orderOf({ batch: 4, flip: 0.25 });
    const draws = Array.from({ length: 500 }, (_, step) => order.batchAt(step).draws).flat();
    const mean = (of: (draw: (typeof draws)[number]) => number) =>
      draws.reduce((sum, draw) => sum + of(draw), 0) / draws.length;
    expect(mean((draw) => Number(draw.flip))).toBeCloseTo(0.25, 1);
    expect(mean((draw) => draw.caption)).toBeCloseTo(0.5, 1);
    expect(orderOf().batchAt(5).draws[0]).toMatchObject({ flip: false });
    expect(new Set(draws.map((draw) => draw.number)).size).toBe(draws.length);
  });
});

describe("captions of a draw", () => {
  const draw = (number: number, dropCaption = 0.9) => ({ caption: 0, dropCaption, number, seed: 1 });
  test("the trigger word takes its place, or comes first", () => {
    expect(captionText("a photo of [trigger] in [trigger] style", { trigger: "ohwx" })).toBe(
      "a photo of ohwx in ohwx style",
    );
    expect(captionText("a cat", { trigger: "ohwx", prefix: "photo." })).toBe("ohwx, photo. a cat");
    expect(captionText("an ohwx cat", { trigger: "ohwx" })).toBe("an ohwx cat");
    expect(captionText("", { trigger: "ohwx" })).toBe("ohwx");
    expect(captionText("[trigger]")).toBe("[trigger]");
  });

  test("tags are shuffled behind those that are kept, differently in each draw and the same in each run", () => {
    const options = { shuffleTags: true, keepTags: 2 };
    const texts = Array.from({ length: 20 }, (_, i) => captionOf(["a, b,c, d ,e,, f"], draw(i), options));
    for (const text of texts) {
      expect(text.startsWith("a, b, ")).toBe(true);
      expect(text.split(", ").toSorted()).toEqual(["a", "b", "c", "d", "e", "f"]);
    }
    expect(new Set(texts).size).toBeGreaterThan(5);
    expect(captionOf(["a, b,c, d ,e,, f"], draw(3), options)).toBe(texts[3]);
  });

  test("a share of captions is dropped to the empty text", () => {
    expect(captionOf(["a"], draw(0, 0.04), { dropout: 0.05, trigger: "t" })).toBe("");
    expect(captionOf(["a"], draw(0, 0.05), { dropout: 0.05 })).toBe("a");
    expect(captionOf(["a", "b"], { ...draw(0), caption: 1 })).toBe("b");
  });
});

describe("fitting a picture into its bucket", () => {
  test("the picture covers the bucket and the longer side is cut where asked", () => {
    expect(coverGeometry(200, 100, { width: 64, height: 64 })).toEqual({
      width: 128,
      height: 64,
      window: { left: 32, top: 0, width: 64, height: 64 },
    });
    expect(coverGeometry(100, 200, { width: 64, height: 64 }, { cropY: 1 }).window.top).toBe(64);
    const left = fitPicture(gradient(200, 100), { width: 64, height: 64 }, { cropX: 0 });
    const right = fitPicture(gradient(200, 100), { width: 64, height: 64 }, { cropX: 1 });
    expect(left.length).toBe(3 * 64 * 64);
    expect(left[0]).toBeLessThan(0.02);
    expect(right[63]).toBeGreaterThan(0.98);
    expect(Math.abs(left[63]! - right[0]!)).toBeLessThan(0.02);
  });

  test("a flip mirrors the picture, and one of its bucket's size is left as it is", () => {
    const picture = gradient(16, 16);
    const plain = fitPicture(picture, { width: 16, height: 16 });
    expect(Math.round(plain[5]! * 255)).toBe(picture.data[15]);
    const mirrored = fitPicture(picture, { width: 16, height: 16 }, { flip: true });
    for (let x = 0; x < 16; x++) expect(mirrored[x]).toBe(plain[15 - x]);
  });

  test("16-bit pictures keep their depth and agree with 8 bits to a step", () => {
    const picture = gradient(50, 40);
    const deep: Picture = { ...picture, depth: 16, data: Uint16Array.from(picture.data, (value) => value * 257) };
    const [eight, sixteen] = [picture, deep].map((p) => fitPicture(p, { width: 32, height: 16 }));
    for (let i = 0; i < eight!.length; i++) expect(Math.abs(eight![i]! - sixteen![i]!)).toBeLessThan(1.5 / 255);
  });
});

describe("preparing ahead", () => {
  const later = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

  test("batches come in order, prepared before they are asked for, never more than allowed", async () => {
    let running = 0;
    const prepared: number[] = [];
    const prefetcher = new Prefetcher(
      async (step) => {
        expect(++running).toBe(1);
        await later(2);
        running--;
        prepared.push(step);
        return step * 10;
      },
      { ahead: 3, first: 5, end: 12 },
    );
    for (let step = 5; step < 12; step++) {
      const ready = Math.min(7, step - 5 + 3);
      while (prepared.length < ready) await later(1);
      await later(8);
      expect(prepared.length).toBe(ready);
      expect((await prefetcher.take(step)).batch).toBe(step * 10);
    }
    expect(prepared).toEqual([5, 6, 7, 8, 9, 10, 11]);
    await prefetcher.close();
    await expect(prefetcher.take(12)).rejects.toThrow(/closed/);
  });

  test("an error surfaces at the step that needs it, and the next steps go on", async () => {
    const prefetcher = new Prefetcher(async (step) => {
      if (step === 1) throw new Error("step 1 is bad");
      return step;
    });
    expect((await prefetcher.take(0)).batch).toBe(0);
    await later(5);
    await expect(prefetcher.take(1)).rejects.toThrow("step 1 is bad");
    expect((await prefetcher.take(2)).batch).toBe(2);
    await prefetcher.close();
  });

  test("waiting is measured, the first step apart, and a jump goes on from there", async () => {
    const prefetcher = new Prefetcher((step) => later(20).then(() => step), { ahead: 0 });
    await prefetcher.take(0);
    expect(prefetcher.stalled).toBe(0);
    const { stalled, preparation } = await prefetcher.take(1);
    expect(stalled).toBeGreaterThan(10);
    expect(preparation).toBeGreaterThan(10);
    expect(prefetcher.stalled).toBe(stalled);
    expect((await prefetcher.take(40)).batch).toBe(40);
    expect((await prefetcher.take(41)).batch).toBe(41);
    await prefetcher.close();
  });
});
