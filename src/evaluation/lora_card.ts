// README.md of a training run: the model card as model hubs read it (YAML front matter with base model, trigger and example
// pictures, then prose), from the same data as the report. Prompts and captions are other people's text: they stand in
// quoted scalars and code spans alone, so that none of them can end the front matter or become markup.

import { counted, grouped, score } from "./format.ts";
import type { SamplePicture, TrainReportData } from "./train_report_data.ts";
import { methodFacts, TRAIN_LIMITS } from "./train_report_sections.ts";
import { examplePrompt, usagesOf } from "./train_report_usage.ts";
import { adapterText, trainFindings } from "./train_report_verdict.ts";

/** Examples in the front matter; the hub shows them as a gallery. */
const MOST_EXAMPLES = 8;
/** Files that were left out and are named; the report has them all. */
const MOST_DROPPED = 5;

/** Renders the model card as Markdown with front matter. */
export function renderLoraCard(data: TrainReportData): string {
  const gallery = widgets(data).length > 0 && data.model.hubName ? "<Gallery />" : "";
  const sections = [
    frontMatter(data),
    `# ${plain(data.name)}`,
    gallery,
    introduction(data),
    trigger(data),
    usage(data),
    results(data),
    dataSet(data),
    training(data),
    limits(data),
    licences(data),
    `---\nMade by Longtail${data.versions?.longtail ? ` ${plain(data.versions.longtail)}` : ""}, ${plain(data.createdAt)}. Pictures, curves and tables: [report.html](report.html).`,
  ];
  return `${sections.filter((text) => text !== "").join("\n\n")}\n`;
}

/** Last samples with their file in the run folder. */
function widgets(data: TrainReportData): { prompt: string; path: string }[] {
  const columns = [...(data.samples?.columns ?? [])].sort((a, b) => a.step - b.step);
  const last = columns.at(-1);
  if (!last || last.step === 0) return [];
  return (data.samples?.prompts ?? [])
    .flatMap(({ prompt }, i) => {
      const path = (last.pictures[i] as SamplePicture | null | undefined)?.path;
      return path ? [{ prompt, path }] : [];
    })
    .slice(0, MOST_EXAMPLES);
}

function frontMatter(data: TrainReportData): string {
  const { model, method } = data;
  const kind = method.adapter === "full" ? [] : ["lora", ...(method.adapter === "lora" ? [] : [method.adapter])];
  const family = /flux/i.test(`${model.architecture} ${model.label}`) ? ["flux"] : [];
  const tags = ["text-to-image", "diffusers", ...family, ...kind, "longtail"];
  if (kind.length > 0) tags.push("template:sd-lora");
  const lines = ["---"];
  if (model.hubName)
    lines.push(
      `base_model: ${quoted(model.hubName)}`,
      `base_model_relation: ${method.adapter === "full" ? "finetune" : "adapter"}`,
    );
  if (model.licence) lines.push(`license: ${quoted(model.licence.toLowerCase())}`);
  if (model.licenceName) lines.push(`license_name: ${quoted(model.licenceName)}`);
  if (model.licenceUrl) lines.push(`license_link: ${quoted(model.licenceUrl)}`);
  lines.push("library_name: diffusers", "pipeline_tag: text-to-image");
  if (data.trigger) lines.push(`instance_prompt: ${quoted(data.trigger)}`);
  lines.push("tags:", ...tags.map((tag) => `- ${tag}`));
  const examples = widgets(data);
  if (examples.length > 0) {
    lines.push("widget:");
    for (const { prompt, path } of examples)
      lines.push(`- text: ${quoted(prompt)}`, "  output:", `    url: ${quoted(path)}`);
  }
  return [...lines, "---"].join("\n");
}

function introduction(data: TrainReportData): string {
  const { model, status, method } = data;
  const what =
    method.adapter === "full"
      ? `${plain(model.label)} (${model.architecture}) with all transformer weights fine-tuned`
      : `A ${adapterText(data)} for ${plain(model.label)} (${model.architecture})`;
  const pictures = data.data ? ` on ${counted(data.data.pictures, "picture")}` : "";
  const early =
    status.state === "complete"
      ? ""
      : ` The run ended early (${status.state}${status.reason ? `: ${plain(status.reason)}` : ""}).`;
  const from =
    status.weightsFrom !== undefined && status.weightsFrom !== status.stepsDone
      ? ` The files hold the weights of step ${grouped(status.weightsFrom)}.`
      : "";
  return `${what}, trained over ${counted(status.stepsDone, "step")}${pictures}.${early}${from}`;
}

function trigger(data: TrainReportData): string {
  if (!data.trigger) return "";
  return `## Trigger word\n\nUse ${code(data.trigger)} in the prompt, as in ${code(examplePrompt(data))}.`;
}

function usage(data: TrainReportData): string {
  const parts = usagesOf(data).map(({ title, note, code: lines, language }) =>
    [`### ${plain(title)}`, lines?.length ? fence(lines, language ?? "") : "", note ?? ""].filter(Boolean).join("\n\n"),
  );
  if (parts.length === 0) return "";
  return ["## How to load it", ...parts, data.model.usageNote ?? ""].filter(Boolean).join("\n\n");
}

function results(data: TrainReportData): string {
  const findings = trainFindings(data).map((f) => `- ${plain(f.text)}`);
  const validation = data.curves?.validation ?? [];
  const rows = thinnedRows(validation).map((p) => `| ${grouped(p.step)} | ${score(p.loss, 4)} |`);
  const table = rows.length > 1 ? ["| step | validation loss |", "|---:|---:|", ...rows].join("\n") : "";
  return ["## What the run shows", findings.join("\n"), table].filter(Boolean).join("\n\n");
}

/** At most ten rows, first and last among them. */
function thinnedRows<T>(points: readonly T[]): T[] {
  const most = 10;
  if (points.length <= most) return [...points];
  return Array.from({ length: most }, (_, i) => points[Math.round((i * (points.length - 1)) / (most - 1))]!);
}

function dataSet({ data }: TrainReportData): string {
  if (!data) return "";
  const list = [`- Pictures: ${grouped(data.pictures)}`];
  if (data.prior) list.push(`- Of them for regularisation: ${grouped(data.prior)}`);
  if (data.validation) list.push(`- Held out: ${grouped(data.validation)}`);
  for (const set of data.sets ?? [])
    list.push(`- Set ${code(set.name)}: ${counted(set.pictures, "picture")}, × ${grouped(set.repeats ?? 1)}`);
  if (data.buckets?.length) {
    const sizes = data.buckets.map((b) => `${b.width} × ${b.height} (${grouped(b.pictures)})`);
    list.push(`- Sizes in pixels: ${sizes.join(", ")}`);
  }
  const dropped = data.dropped ?? [];
  if (dropped.length > 0) {
    const named = dropped.slice(0, MOST_DROPPED).map((d) => `${code(d.name)} (${d.code})`);
    const rest = dropped.length > named.length ? ` and ${grouped(dropped.length - named.length)} more` : "";
    list.push(`- Left out: ${named.join(", ")}${rest}`);
  }
  return `## Data\n\n${list.join("\n")}`;
}

function training(data: TrainReportData): string {
  const list = methodFacts(data).map(([name, value]) => `- ${name}: ${plain(value)}`);
  const command = data.command ? `\n\nTo repeat it:\n\n${fence([data.command], "sh")}` : "";
  return `## Training\n\n${list.join("\n")}${command}`;
}

function limits(data: TrainReportData): string {
  return `## Limits\n\n${[...(data.limits ?? []), ...TRAIN_LIMITS].map((text) => `- ${plain(text)}`).join("\n")}`;
}

function licences(data: TrainReportData): string {
  const own = data.model.licence
    ? [`- Weights of this run: ${plain(data.model.licenceName ?? data.model.licence)}`]
    : [];
  const others = (data.attributions ?? []).map((a) => {
    const linked = a.url !== undefined && /^https?:\/\/[^\s()<>]+$/.test(a.url);
    return `- ${linked ? `[${plain(a.what)}](${a.url})` : plain(a.what)}: ${plain(a.licence)}, ${plain(a.credit)}`;
  });
  return own.length + others.length === 0 ? "" : `## Licences and credits\n\n${[...own, ...others].join("\n")}`;
}

/** A YAML scalar in double quotes, which JSON's form is once the line separators that YAML 1.1 breaks at are escaped. */
function quoted(text: string): string {
  return JSON.stringify(text).replace(
    /[\u007f-\u009f\u2028\u2029\ufeff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** One line without markup: what Markdown gives a meaning is escaped. */
function plain(text: string): string {
  return text
    .replace(/\s+/g, " ")
    .trim()
    .replace(/[\\`*_[\]<>|]/g, "\\$&");
}

/** A code span; longer fences where the text has backticks itself. */
function code(text: string): string {
  const line = text.replace(/\s+/g, " ").trim();
  const longest = Math.max(0, ...[...line.matchAll(/`+/g)].map(([run]) => run.length));
  const ticks = "`".repeat(longest + 1);
  const space = line.startsWith("`") || line.endsWith("`") || line === "" ? " " : "";
  return `${ticks}${space}${line}${space}${ticks}`;
}

function fence(lines: readonly string[], language: string): string {
  const text = lines.join("\n");
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const ticks = "`".repeat(longest + 1);
  return `${ticks}${language}\n${text}\n${ticks}`;
}
