// Aspect buckets: pictures of one batch must have one size, and pictures have many shapes. Each picture goes to the size
// whose shape is nearest to its own (NovelAI's idea, as kohya's trainers apply it): sides are multiples of a step, the area
// is at most the square of the resolution.

import type { DroppedFile, PictureRecord } from "./sets.ts";

export interface Bucket {
  width: number;
  height: number;
}

export interface BucketOptions {
  /** Side of the square whose area is the largest. */
  resolution: number;
  /** Sides are multiples of it: 64 by default; a model's packed tokens need 16. */
  step?: number;
  /** Shortest and longest side; 256 (half the resolution where that is less) and twice the resolution by default. */
  minSide?: number;
  maxSide?: number;
  /** Enlarges pictures that are smaller than their bucket; off by default. */
  upscale?: boolean;
  /** One square for all pictures. */
  square?: boolean;
  /** Most sizes; each costs a plan on the device. The rarest are merged into others. */
  maxBuckets?: number;
}

export interface BucketRow {
  bucket: Bucket;
  pictures: number;
  /** Training pictures times their repeats. */
  draws: number;
  validation: number;
}

export interface BucketAssignment {
  /** In order of their shapes, widest last. */
  buckets: Bucket[];
  of: Map<string, Bucket>;
  dropped: DroppedFile[];
  table: BucketRow[];
}

export const bucketKey = ({ width, height }: Bucket) => `${width}x${height}`;

interface Limits {
  step: number;
  area: number;
  min: number;
  max: number;
  upscale: boolean;
}

function limitsOf(options: BucketOptions): Limits {
  const { resolution, step = 64, upscale = false } = options;
  const down = (value: number) => Math.max(step, Math.floor(value / step) * step);
  if (!(Number.isInteger(step) && step > 0) || !(resolution >= step))
    throw new RangeError(`resolution ${resolution} with steps of ${step}`);
  const side = down(resolution);
  if (options.square) return { step, area: side * side, min: side, max: side, upscale };
  const min = Math.ceil((options.minSide ?? Math.min(256, resolution / 2)) / step) * step || step;
  const max = down(options.maxSide ?? Math.min(2048, 2 * resolution));
  if (min > max || min * min > resolution * resolution)
    throw new RangeError(`no bucket has sides from ${min} to ${max} and at most ${resolution} x ${resolution} pixels`);
  return { step, area: resolution * resolution, min, max, upscale };
}

/** All sizes: each allowed side with the longest other side that the area allows, lying and standing. */
export function bucketSizes(options: BucketOptions): Bucket[] {
  const { step, area, min, max } = limitsOf(options);
  const sizes = new Map<string, Bucket>();
  for (let side = min; side <= max; side += step) {
    const other = Math.min(max, Math.floor(area / side / step) * step);
    if (other < min) continue;
    for (const bucket of [
      { width: side, height: other },
      { width: other, height: side },
    ])
      sizes.set(bucketKey(bucket), bucket);
  }
  return [...sizes.values()].sort(byShape);
}

const byShape = (a: Bucket, b: Bucket) => a.width / a.height - b.width / b.height || a.width - b.width;

/** Part of a picture that is seen when it covers a bucket: 1 where the shapes agree. */
function share(width: number, height: number, bucket: Bucket): number {
  const [picture, size] = [width / height, bucket.width / bucket.height];
  return Math.min(picture / size, size / picture);
}

function nearest(
  width: number,
  height: number,
  sizes: readonly Bucket[],
  fits: (bucket: Bucket) => boolean,
): Bucket | null {
  let best: Bucket | null = null;
  for (const size of sizes) {
    if (!fits(size)) continue;
    const gain = best === null ? 1 : share(width, height, size) - share(width, height, best);
    if (gain > 1e-9 || (gain > -1e-9 && size.width * size.height > best!.width * best!.height)) best = size;
  }
  return best;
}

/** The largest size inside a picture that is smaller than the full buckets. */
function inside(width: number, height: number, { step, area, min, max }: Limits): Bucket | null {
  const scale = Math.min(1, Math.sqrt(area / (width * height)));
  const down = (value: number) => Math.min(max, Math.floor(value / step) * step);
  const [wide, high] = [down(width * scale + 1e-6), down(height * scale + 1e-6)];
  return wide >= min && high >= min ? { width: wide, height: high } : null;
}

/**
 * Assigns pictures to buckets. Without upscaling a picture never goes to a bucket that is larger than itself in either
 * direction: small ones get smaller buckets, and those below the shortest side are dropped (E-DATA-045).
 */
export function assignBuckets(records: readonly PictureRecord[], options: BucketOptions): BucketAssignment {
  const limits = limitsOf(options);
  const full = bucketSizes(options);
  const dropped: DroppedFile[] = [];
  const of = new Map<string, Bucket>();
  const sizes = new Map<string, Bucket>();
  const one = (bucket: Bucket) => {
    const known = sizes.get(bucketKey(bucket));
    if (known) return known;
    sizes.set(bucketKey(bucket), bucket);
    return bucket;
  };
  for (const record of records) {
    const { width, height } = record;
    const fits = (bucket: Bucket) => limits.upscale || (bucket.width <= width && bucket.height <= height);
    const wanted = nearest(width, height, full, () => true);
    const bucket =
      wanted && fits(wanted) ? wanted : (inside(width, height, limits) ?? nearest(width, height, full, fits));
    if (bucket) of.set(record.id, one(bucket));
    else dropped.push(tooSmall(record, limits));
  }
  if (options.maxBuckets !== undefined) mergeRare(records, of, limits, Math.max(1, options.maxBuckets), dropped);
  const table = tableOf(records, of);
  return { buckets: table.map((row) => row.bucket), of, dropped, table };
}

function tooSmall(record: PictureRecord, { min, upscale }: Limits): DroppedFile {
  const why = `its ${record.width} x ${record.height} pixels are below ${min} on a side${upscale ? "" : " and upscaling is off"}`;
  return { name: record.name, set: record.set, code: "E-DATA-045", why };
}

/** Takes the bucket with the fewest pictures away, again and again; its pictures go to the nearest of the others. */
function mergeRare(
  records: readonly PictureRecord[],
  of: Map<string, Bucket>,
  limits: Limits,
  most: number,
  dropped: DroppedFile[],
): void {
  for (;;) {
    const rows = tableOf(records, of);
    if (rows.length <= most) return;
    const rarest = rows.reduce((a, b) => (b.pictures < a.pictures ? b : a)).bucket;
    const others = rows.map((row) => row.bucket).filter((bucket) => bucket !== rarest);
    for (const record of records) {
      if (of.get(record.id) !== rarest) continue;
      const fits = (b: Bucket) => limits.upscale || (b.width <= record.width && b.height <= record.height);
      const bucket = nearest(record.width, record.height, others, fits);
      if (bucket) of.set(record.id, bucket);
      else {
        of.delete(record.id);
        const why = `no bucket that is kept fits into its ${record.width} x ${record.height} pixels`;
        dropped.push({ name: record.name, set: record.set, code: "E-DATA-045", why });
      }
    }
  }
}

function tableOf(records: readonly PictureRecord[], of: ReadonlyMap<string, Bucket>): BucketRow[] {
  const rows = new Map<Bucket, BucketRow>();
  for (const record of records) {
    const bucket = of.get(record.id);
    if (bucket === undefined) continue;
    const row = rows.get(bucket) ?? { bucket, pictures: 0, draws: 0, validation: 0 };
    rows.set(bucket, row);
    row.pictures++;
    if (record.split === "train") row.draws += record.repeats;
    else row.validation++;
  }
  return [...rows.values()].sort((a, b) => byShape(a.bucket, b.bucket));
}

/** The assignment as a table for people: a heading, a row for each bucket, and the sum. */
export function bucketTable({ table }: Pick<BucketAssignment, "table">): string[][] {
  const numbers = (row: Omit<BucketRow, "bucket">) => [row.pictures, row.draws, row.validation].map(String);
  const sum = { pictures: 0, draws: 0, validation: 0 };
  for (const row of table) for (const key of ["pictures", "draws", "validation"] as const) sum[key] += row[key];
  return [
    ["bucket", "pictures", "draws a pass", "held out"],
    ...table.map((row) => [`${row.bucket.width} × ${row.bucket.height}`, ...numbers(row)]),
    ["all", ...numbers(sum)],
  ];
}
