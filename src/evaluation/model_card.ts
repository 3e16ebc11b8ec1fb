// README.md of a run folder: the model card in the form that model hubs read (YAML front matter, then prose), made
// from the same data as the report, so that no number in it differs from the page. It says what the weights are, how
// they came to be, what was measured, how to load them with diffusers, and what they are not good for.

import { adapterLabel, capitalised, changeText, compact, counted, grouped, score, signed } from "./format.ts";
import { GENERAL_LIMITS } from "./notes.ts";
import { PAIR_COSINE_WARNING, type ReportData } from "./report_data.ts";
import { MEASURES, type Measure } from "./summary.ts";
import { GROUP_LABELS, verdictOf } from "./verdict.ts";

/** Renders the model card as Markdown with front matter. */
export function renderModelCard(data: ReportData): string {
  const sections = [
    frontMatter(data),
    `# ${data.name}`,
    introduction(data),
    results(data),
    usage(data),
    training(data),
    limits(data),
    licences(data),
    `---\nMade by Longtail${data.versions?.longtail ? ` ${data.versions.longtail}` : ""}, ${data.createdAt}. Pictures, curves and tables: [report.html](report.html).`,
  ];
  return `${sections.filter((text) => text !== "").join("\n\n")}\n`;
}

function frontMatter(data: ReportData): string {
  const tags = ["text-to-image", "diffusers", "flux", "longtail", "srpo", "alignment"];
  if (data.method.training === "lora" || data.files?.some((f) => f.path.endsWith(".lora.safetensors")))
    tags.push("lora");
  const lines = ["---"];
  if (data.model.hubName) lines.push(`base_model: ${yaml(data.model.hubName)}`);
  if (data.model.licence) lines.push(`license: ${yaml(data.model.licence.toLowerCase())}`);
  lines.push(
    "library_name: diffusers",
    "pipeline_tag: text-to-image",
    "tags:",
    ...tags.map((tag) => `- ${tag}`),
    "---",
  );
  return lines.join("\n");
}

function introduction(data: ReportData): string {
  const { model, method, status } = data;
  const what =
    method.training === "full"
      ? `all weights of the transformer of ${model.label} (${model.architecture}), fine-tuned`
      : `a LoRA${method.rank ? ` of rank ${method.rank}` : ""} for the transformer of ${model.label} (${model.architecture}), trained`;
  const count = counted(status.updatesDone, "update");
  const early =
    status.state === "complete"
      ? ""
      : ` The run ended early (${status.state}${status.reason ? `: ${status.reason}` : ""}).`;
  const weights =
    status.weightsFrom !== undefined && status.weightsFrom !== status.updatesDone
      ? ` The files hold the weights of update ${status.weightsFrom}.`
      : "";
  return `This folder holds ${what} with ${method.label} over ${count}.${early}${weights}`;
}

function results(data: ReportData): string {
  if (!data.evaluation) return "## Results\n\nNo evaluation was made in this run.";
  const { summary, protocol, picturesPerItem } = data.evaluation;
  const verdict = verdictOf(summary);
  const rows: string[] = [];
  for (const { group, items, changes } of summary.groups) {
    for (const measure of Object.keys(MEASURES) as Measure[]) {
      const change = changes[measure];
      if (!change) continue;
      const cells = [
        GROUP_LABELS[group],
        items,
        MEASURES[measure].label,
        score(change.before),
        score(change.after),
        changeText(change),
      ];
      rows.push(`| ${cells.join(" | ")} |`);
    }
  }
  const table = [
    "| group | items | measure | before | after | change [95 % interval] |",
    "|---|---|---|---|---|---|",
    ...rows,
  ].join("\n");
  const how = [protocol, picturesPerItem ? `${counted(picturesPerItem, "picture")} an item` : ""]
    .filter(Boolean)
    .join("; ");
  return [
    "## Results",
    `${verdict.headline}.`,
    verdict.sentences.map((s) => `- ${s.text}`).join("\n"),
    rows.length > 0 ? table : "",
    `${how ? `${capitalised(how)}. ` : ""}Intervals are bootstrap percentiles over items (${grouped(summary.resamples)} resamples); better and worse are said only where the interval excludes 0.`,
    ...(data.remarks ?? []),
  ]
    .filter((text) => text !== "")
    .join("\n\n");
}

function usage(data: ReportData): string {
  const weights = data.files?.find((f) => f.path.endsWith(".transformer.safetensors"))?.path;
  const lora = data.files?.find((f) => f.path.endsWith(".lora.safetensors"))?.path;
  if (!weights && !lora) return "";
  const base = data.model.base ?? "<base model>";
  const lines = [
    `from diffusers import ${data.model.architecture}`,
    "from safetensors.torch import load_file",
    "",
    `transformer = ${data.model.architecture}.from_pretrained("${base}", subfolder="transformer")`,
  ];
  const parts = ["## How to load it"];
  if (weights) {
    parts.push(
      "The aligned transformer, with diffusers' key names:",
      fence([...lines, `transformer.load_state_dict(load_file("${weights}"))`]),
    );
  }
  if (lora) {
    const energy = data.method.energyKept;
    const note =
      energy === undefined
        ? "The LoRA (keys as diffusers and PEFT write them), onto the unchanged base transformer:"
        : `The LoRA of the difference (rank ${data.method.rank ?? "?"}, it keeps ${(100 * energy).toFixed(1)} % of ‖Δ‖²; changes of biases and norms are not in it), onto the unchanged base transformer:`;
    parts.push(note, fence([...lines, `transformer.load_lora_adapter(load_file("${lora}"), prefix="transformer")`]));
  }
  if (data.model.usageNote) parts.push(data.model.usageNote);
  return parts.join("\n\n");
}

function training(data: ReportData): string {
  const { method, model, device, curves, pairs } = data;
  const facts: [string, string | undefined][] = [
    ["Method", method.label],
    [
      "Trained",
      method.training === "full" ? "every transformer tensor" : `LoRA${method.rank ? `, rank ${method.rank}` : ""}`,
    ],
    ["Updates", `${grouped(data.status.updatesDone)}${method.batch ? ` of ${counted(method.batch, "prompt")}` : ""}`],
    [
      "Learning rate",
      method.learningRate === undefined
        ? undefined
        : `${compact(method.learningRate)}${method.warmup ? `, warm-up ${method.warmup}` : ""}`,
    ],
    ["Gradient norm limit", method.clip === undefined ? undefined : compact(method.clip)],
    ["σ range", method.sigma ? `${compact(method.sigma[0], 4)} → ${compact(method.sigma[1], 4)}` : undefined],
    [
      "Discounts",
      method.discountPositive && method.discountInversion
        ? `positive ${method.discountPositive.join(" → ")}, inversion ${method.discountInversion.join(" → ")}`
        : undefined,
    ],
    ["Reward", model.reward],
    ["Held-out judge", model.judge],
    ["Autoencoder", model.autoencoder],
    ["Seed", method.seed === undefined ? undefined : String(method.seed)],
    ["Device", device ? `${adapterLabel(device)}${device.software ? ", a software adapter" : ""}` : undefined],
  ];
  const list = facts.filter((f) => f[1] !== undefined).map(([name, value]) => `- ${name}: ${value}`);
  const first = curves?.evaluations?.[0]?.reward;
  const last = curves?.evaluations?.at(-1)?.reward;
  if (first !== undefined && last !== undefined && curves!.evaluations!.length > 1) {
    list.push(`- Optimised reward at evaluations: ${score(first)} → ${score(last)} (${signed(last - first)})`);
  }
  if (pairs?.length) {
    const above = pairs.filter((p) => p.cosine > PAIR_COSINE_WARNING).length;
    list.push(`- Prompt pairs with cos(t+, t−) above ${score(PAIR_COSINE_WARNING, 2)}: ${above} of ${pairs.length}`);
  }
  if (data.guards?.alarm)
    list.push(
      `- **Guard-rail alarm at update ${data.guards.alarm.step}**: ${data.guards.alarm.outside.join(", ")} left the baseline band`,
    );
  const command = data.command ? `\n\nTo repeat it:\n\n${fence([data.command], "sh")}` : "";
  return `## Training\n\n${list.join("\n")}${command}`;
}

function limits(data: ReportData): string {
  return `## Limits\n\n${[...(data.limits ?? []), ...GENERAL_LIMITS].map((text) => `- ${text}`).join("\n")}`;
}

function licences(data: ReportData): string {
  const own = data.model.licence ? [`- Weights of this run: ${data.model.licence}`] : [];
  const others = (data.attributions ?? []).map(
    (a) => `- ${a.url ? `[${a.what}](${a.url})` : a.what}: ${a.licence}, ${a.credit}`,
  );
  return own.length + others.length === 0 ? "" : `## Licences and credits\n\n${[...own, ...others].join("\n")}`;
}

function fence(lines: readonly string[], language = "python"): string {
  return `\`\`\`${language}\n${lines.join("\n")}\n\`\`\``;
}

/** A YAML scalar; quoted where plain text would mean something else. */
function yaml(text: string): string {
  return /^[A-Za-z0-9][A-Za-z0-9 ./_-]*$/.test(text) ? text : JSON.stringify(text);
}
