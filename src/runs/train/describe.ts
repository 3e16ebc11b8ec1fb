// A training run's pictures for its report and for the metadata of its files.

import { fitPicture } from "../../data/pictures/prepare.ts";
import type { TrainDataSet } from "../../evaluation/train_report_data.ts";
import { dataUri, encodePng, fromPlanes } from "../../formats/png.ts";
import type { TrainingData } from "./data.ts";

/** Pictures that the report shows as the network saw them. */
const EXAMPLES = 8;

/** @param draws how many pictures the run has drawn in all */
export async function describeData(data: TrainingData, draws: number): Promise<TrainDataSet> {
  const { config } = data;
  const name = (set: number) => nameOf(config.data.sets[set]!.path);
  const examples = [];
  for (const record of [...data.train].slice(0, EXAMPLES)) {
    const bucket = data.bucketOf(record);
    const planes = fitPicture(await record.load(), bucket);
    const { width, height } = bucket;
    examples.push({
      picture: { source: dataUri(encodePng(fromPlanes(planes, width, height))), width, height },
      caption: data.plainCaption(record),
      name: record.name,
    });
  }
  return {
    pictures: data.train.length,
    ...(data.counts.validation > 0 ? { validation: data.counts.validation } : {}),
    ...(data.counts.prior > 0 ? { prior: data.counts.prior } : {}),
    draws,
    sets: config.data.sets.map((set, i) => ({
      name: name(i),
      pictures: [...data.train, ...data.validation].filter((record) => record.set === i).length,
      repeats: set.repeats,
      weight: set.weight,
      prior: set.prior,
      split: set.split,
    })),
    buckets: data.buckets.table.map(({ bucket, pictures, draws: repeated }) => ({ ...bucket, pictures, repeated })),
    dropped: data.dropped.map(({ set, ...file }) => ({ ...file, set: name(set) })),
    examples,
  };
}

/** The last part of a set's path, with or without a slash at its end. */
const nameOf = (path: string): string =>
  path
    .replace(/[/\\]+$/, "")
    .split(/[/\\]/)
    .at(-1)!;

/** How often each comma-separated tag occurs, by set, as sd-scripts counts them. */
export function tagFrequency(data: TrainingData): Record<string, Record<string, number>> {
  const all: Record<string, Record<string, number>> = {};
  for (const record of data.train) {
    const set = nameOf(data.config.data.sets[record.set]!.path);
    const counts = all[set] ?? {};
    all[set] = counts;
    for (const tag of data
      .plainCaption(record)
      .split(",")
      .map((part) => part.trim())) {
      if (tag !== "") counts[tag] = (counts[tag] ?? 0) + record.repeats;
    }
  }
  return all;
}

/** One object a set, without paths: they name people's disks. */
export function datasetFacts(data: TrainingData): object[] {
  return data.config.data.sets.map((set, i) => ({
    name: nameOf(set.path),
    num_images: data.train.filter((record) => record.set === i).length,
    num_repeats: set.repeats,
    is_reg: set.prior,
  }));
}

export function bucketFacts(data: TrainingData): object {
  const buckets = data.buckets.table.map(({ bucket, pictures }, i) => [
    i,
    { resolution: [bucket.width, bucket.height], count: pictures },
  ]);
  return { buckets: Object.fromEntries(buckets) };
}
