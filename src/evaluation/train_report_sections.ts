// The training page's sections, one function each: every one takes the run's data and returns HTML, or an empty text
// where the run has nothing for it. Order and frame are in train_report.ts.

import { adapterLabel, capitalised, compact, counted, duration, escapeHtml, grouped, score } from "./format.ts";
import { lineChart, meanWindow, type Series } from "./report_charts.ts";
import { fileTable, memoryTable, shareBar, table, timingTable } from "./report_tables.ts";
import { type StepPoint, type TrainReportData, type TrainStatus, uniqueSteps } from "./train_report_data.ts";
import { exampleStrip } from "./train_report_pictures.ts";
import { usagesOf } from "./train_report_usage.ts";
import {
  adapterText,
  fixedLossName,
  percent,
  rateText,
  trainFindings,
  trainHeadline,
  validationChange,
} from "./train_report_verdict.ts";
import type { Tone } from "./verdict.ts";

const SIGNS: Readonly<Record<Tone, string>> = { better: "▼", worse: "!", unchanged: "=", noted: "●", unknown: "?" };

/** True of every training run. */
export const TRAIN_LIMITS: readonly string[] = [
  "The loss says how well noise is predicted on average. It does not say whether the pictures are good, whether they follow their prompts, or whether the model still draws everything else as before.",
  "Samples are few prompts with one seed each. Another seed, a longer prompt or another adapter beside this one can look different.",
  "This is one run: another training seed or another order of the pictures gives other weights.",
];

/** Eyebrow, headline, how the run ended, figures and findings. */
export function trainHeadlineSection(data: TrainReportData): string {
  const { status, device } = data;
  const total = data.timing?.reduce((sum, t) => sum + t.seconds, 0);
  const parts = [
    `<b>${escapeHtml(data.name)}</b>`,
    `<span>${escapeHtml(capitalised(adapterText(data)))}</span>`,
    `<span>${stepsText(status)}</span>`,
    device ? `<span>${escapeHtml(adapterLabel(device))}${device.software ? ", software" : ""}</span>` : "",
    total ? `<span>${duration(total)}</span>` : "",
  ];
  const findings = trainFindings(data).map(
    (f) =>
      `<li class="${f.tone}"><span class="sign" aria-hidden="true">${SIGNS[f.tone]}</span>${escapeHtml(f.text)}</li>`,
  );
  return (
    `<p class="eyebrow">${parts.join("")}</p><h1>${escapeHtml(trainHeadline(data))}</h1>${endNotice(status)}${figures(data)}` +
    `${findings.length ? `<ul class="findings">${findings.join("")}</ul>` : ""}`
  );
}

function stepsText({ stepsDone, stepsPlanned }: TrainStatus): string {
  return stepsDone === stepsPlanned
    ? counted(stepsDone, "step")
    : `${grouped(stepsDone)} of ${counted(stepsPlanned, "step")}`;
}

function endNotice(status: TrainStatus): string {
  const after = `after ${grouped(status.stepsDone)} of ${counted(status.stepsPlanned, "step")}`;
  const parts: string[] = [];
  if (status.state === "stopped") parts.push(`<b>The run was stopped ${after}.</b>`);
  if (status.state === "failed") parts.push(`<b>The run ended with an error ${after}.</b>`);
  if (status.reason) parts.push(escapeHtml(`${capitalised(status.reason.replace(/[.\s]+$/, ""))}.`));
  if (status.weightsFrom !== undefined && status.weightsFrom !== status.stepsDone)
    parts.push(`The files hold the weights of step ${grouped(status.weightsFrom)}.`);
  if (status.resumedAt?.length) {
    const steps = status.resumedAt.map(grouped).join(", ");
    parts.push(`The run was continued from step ${steps}; dotted lines mark it in the curves.`);
  }
  if (parts.length === 0) return "";
  return `<div class="box ${status.state === "failed" ? "worse" : ""}" role="note"><p>${parts.join(" ")}</p></div>`;
}

function figures(data: TrainReportData): string {
  const { model, speed } = data;
  const total = data.timing?.reduce((sum, t) => sum + t.seconds, 0);
  const validation = validationChange(data);
  const list: [string, string, string?][] = [["Steps", grouped(data.status.stepsDone)]];
  if (total) list.push(["Time", duration(total)]);
  if (validation) {
    list.push([capitalised(fixedLossName(data)), `${score(validation.before.loss)} → ${score(validation.last.loss)}`]);
  }
  if (data.data) {
    const held = data.data.validation ? `and ${grouped(data.data.validation)} held out` : undefined;
    list.push(["Pictures", grouped(data.data.pictures), held]);
  }
  if (model.trainedParameters) {
    const share = model.parameters
      ? `${percent(model.trainedParameters / model.parameters)} of the model's`
      : undefined;
    list.push(["Trained parameters", big(model.trainedParameters), share]);
  }
  if (speed && speed.stepsPerSecond > 0) {
    const slow = speed.stepsPerSecond < 1;
    const pictures = speed.picturesPerSecond ? `${compact(speed.picturesPerSecond, 2)} pictures/s` : undefined;
    list.push([
      "Speed",
      slow ? `${compact(1 / speed.stepsPerSecond, 3)} s a step` : `${compact(speed.stepsPerSecond, 3)} steps/s`,
      pictures,
    ]);
  }
  const items = list.map(
    ([name, value, note]) =>
      `<div><dt>${name}</dt><dd>${escapeHtml(value)}${note ? `<small>${escapeHtml(note)}</small>` : ""}</dd></div>`,
  );
  return `<dl class="figures">${items.join("")}</dl>`;
}

/** 18.7 M, 12.4 B: numbers of parameters as the field writes them. */
function big(value: number): string {
  if (value >= 1e9) return `${compact(value / 1e9)} B`;
  return value >= 1e6 ? `${compact(value / 1e6)} M` : grouped(value);
}

/** Curves of the optimisation. */
export function trainCurveSection(data: TrainReportData): string {
  const steps = uniqueSteps(data.curves?.steps ?? []);
  const validation = uniqueSteps(data.curves?.validation ?? []);
  const series = (key: keyof StepPoint): Series["points"] =>
    steps.flatMap((p) => (typeof p[key] === "number" ? [[p.step, p[key]] as const] : []));
  const common = {
    xName: "step",
    ...(data.status.resumedAt?.length ? { mark: { x: data.status.resumedAt, name: "continued" } } : {}),
  };
  const start = validation[0];
  const distance = series("d");
  const charts = [
    lineChart({ ...common, title: "Training loss", series: [{ name: "loss", points: series("loss"), smooth: true }] }),
    lineChart({
      ...common,
      title: capitalised(fixedLossName(data)),
      note:
        data.data && !data.data.validation
          ? "Training pictures with the same noise and noise levels each time; none were held out, so overfitting does not show."
          : "Held-out pictures with fixed noise and noise levels. A rise while the training loss falls is overfitting.",
      series: [
        { name: "loss", points: validation.map((p) => [p.step, p.loss] as const), dots: validation.length < 40 },
      ],
      ...(start && validation.length > 1
        ? { limit: { value: start.loss, name: start.step === 0 ? "before training" : "first" } }
        : {}),
    }),
    noiseChart(steps),
    lineChart({ ...common, title: "Learning rate", series: [{ name: "rate", points: series("learningRate") }] }),
    lineChart({
      ...common,
      title: "Gradient norm before clipping",
      logarithmic: true,
      series: [{ name: "norm", points: series("gradientNorm"), smooth: true }],
      ...(data.method.clip
        ? { limit: { value: data.method.clip, name: `clipped to ${compact(data.method.clip)}` } }
        : {}),
    }),
    lineChart({
      ...common,
      title: "Update / weight ratio",
      note: "‖change of the weights‖ / ‖weights‖ of one step.",
      logarithmic: true,
      series: [{ name: "ratio", points: series("updateRatio"), smooth: true }],
    }),
    lineChart({
      ...common,
      title: "Prodigy's distance d",
      note: "The rate that acts is d times the learning rate. d grows until it fits; one that never grows has found no direction.",
      logarithmic: true,
      series: [{ name: "d", points: distance }],
    }),
    lineChart({
      ...common,
      title: "Loss scale",
      note: "Halved where a gradient left the range of 16-bit floats, doubled after a quiet time.",
      logarithmic: true,
      series: [{ name: "scale", points: series("lossScale") }],
    }),
    lineChart({
      ...common,
      title: "Seconds a step",
      series: [{ name: "seconds", points: series("seconds"), smooth: true }],
    }),
  ].filter((chart) => chart !== "");
  if (charts.length === 0) return "";
  const lead =
    steps.length > 7
      ? `Thin: each step, with the pictures and noise levels that came up in it. Thick: mean of ${meanWindow(steps.length)} steps.`
      : "Too few steps for a trend.";
  return `<p class="lead">${lead}</p><div class="charts">${charts.join("")}</div>`;
}

/** Bins of the noise level, and the fewest steps in each that a mean is drawn from. */
const NOISE_BINS = 10;
const FEWEST_IN_BIN = 4;

/** Loss by noise level early and late: with the noise taken out of the comparison, learning shows. */
function noiseChart(steps: readonly StepPoint[]): string {
  const known = steps.filter((p) => Number.isFinite(p.loss) && Number.isFinite(p.sigma));
  const third = Math.floor(known.length / 3);
  if (third < NOISE_BINS * 2) return "";
  const binned = (part: readonly StepPoint[]) =>
    Array.from({ length: NOISE_BINS }, (_, bin) => {
      const inside = part.filter((p) => Math.min(NOISE_BINS - 1, Math.floor(p.sigma! * NOISE_BINS)) === bin);
      const mean = inside.reduce((sum, p) => sum + p.loss!, 0) / inside.length;
      return [((bin + 0.5) * 100) / NOISE_BINS, inside.length >= FEWEST_IN_BIN ? mean : Number.NaN] as const;
    });
  return lineChart({
    title: "Loss at like noise",
    note: "Mean loss of steps with a like noise level. The late line below the early one is learning; the shape is the noise's.",
    xName: "noise level σ, %",
    series: [
      { name: "first third", style: "second", dots: true, points: binned(known.slice(0, third)) },
      { name: "last third", style: "main", dots: true, points: binned(known.slice(-third)) },
    ],
  });
}

/** Pictures, sets, buckets and files that were left out. */
export function dataSection(data: TrainReportData): string {
  const set = data.data;
  if (!set) return "";
  const facts = [
    `${counted(set.pictures, "picture")} to learn from`,
    set.prior ? `${grouped(set.prior)} of them for regularisation` : "",
    set.validation ? `${counted(set.validation, "picture")} held out for the validation loss` : "",
    set.draws
      ? `${grouped(set.draws)} draws in all${set.pictures ? `, ${compact(set.draws / set.pictures, 3)} for each on average` : ""}`
      : "",
  ].filter(Boolean);
  const sets = set.sets?.length
    ? table(
        "Sets",
        ["Set", "Pictures", "Repeats", "Weight", "For"],
        set.sets.map((s) => [
          escapeHtml(s.name),
          grouped(s.pictures),
          `× ${grouped(s.repeats ?? 1)}`,
          compact(s.weight ?? 1),
          s.prior ? "regularisation" : s.split === "validation" ? "validation" : "training",
        ]),
        "sets",
      )
    : "";
  return `<p class="lead">${escapeHtml(facts.join("; "))}.</p>${exampleStrip(data)}<div class="pair-grid">${sets}${bucketTable(set)}</div>${droppedTable(set)}`;
}

function bucketTable(set: NonNullable<TrainReportData["data"]>): string {
  if (!set.buckets?.length) return "";
  const counts = set.buckets.map((b) => b.repeated ?? b.pictures);
  const most = counts.reduce((sum, n) => sum + n, 0);
  const repeats = set.buckets.some((b) => b.repeated !== undefined && b.repeated !== b.pictures);
  const rows = set.buckets.map((b, i) => [
    `${b.width} × ${b.height}`,
    grouped(b.pictures),
    ...(repeats ? [grouped(counts[i]!)] : []),
    shareBar(counts[i]!, most),
  ]);
  const head = ["Size, px", "Pictures", ...(repeats ? ["With repeats"] : []), "Share"];
  return table("Buckets of like size", head, rows, "numeric shares buckets");
}

function droppedTable(set: NonNullable<TrainReportData["data"]>): string {
  if (!set.dropped?.length) return "";
  const rows = set.dropped.map((d) => [
    escapeHtml(d.name),
    escapeHtml(d.why),
    `<code>${escapeHtml(d.code)}</code>`,
    escapeHtml(d.set ?? ""),
  ]);
  const content = table("Files that were left out", ["File", "Why", "Code", "Set"], rows, "dropped");
  if (rows.length <= 8) return content;
  return `<details class="more"><summary>${counted(rows.length, "file")} left out</summary>${content}</details>`;
}

/** Files and lines to copy that load them. */
export function filesSection(data: TrainReportData): string {
  const usages = usagesOf(data);
  if (usages.length === 0 && !data.files?.length) return "";
  const blocks = usages.map(({ title, note, code }) => {
    const lines = code?.length
      ? `<pre class="copy" tabindex="0"><code>${escapeHtml(code.join("\n"))}</code></pre>`
      : "";
    return `<h3>${escapeHtml(title)}</h3>${lines}${note ? `<p class="note">${codeSpans(note)}</p>` : ""}`;
  });
  const trigger = data.trigger
    ? `<p>Its word is <code>${escapeHtml(data.trigger)}</code>: put it into the prompt, as it stood in the captions.</p>`
    : "";
  const note = data.model.usageNote ? `<div class="box"><p>${codeSpans(data.model.usageNote)}</p></div>` : "";
  const lead = blocks.length ? `<p class="lead">One click selects a whole block.</p>` : "";
  return `${lead}${trigger}${note}${blocks.join("")}${data.files?.length ? fileTable(data.files) : ""}`;
}

/** Escaped text with its Markdown code spans as elements. */
function codeSpans(text: string): string {
  return escapeHtml(text).replace(/`([^`]+)`/g, "<code>$1</code>");
}

/** Speed, wall time and memory. */
export function speedSection(data: TrainReportData): string {
  const { speed } = data;
  const facts: [string, string | undefined][] = speed
    ? [
        ["Steps", `${compact(speed.stepsPerSecond, 3)} /s`],
        ["Pictures", speed.picturesPerSecond === undefined ? undefined : `${compact(speed.picturesPerSecond, 3)} /s`],
        ["Median step", speed.median === undefined ? undefined : seconds(speed.median)],
        ["One step in twenty takes more than", speed.slowest === undefined ? undefined : seconds(speed.slowest)],
        ["Host's share of a step", speed.hostShare === undefined ? undefined : percent(speed.hostShare)],
        ["Waiting for pictures", speed.loaderStall === undefined ? undefined : percent(speed.loaderStall)],
        ["Arithmetic", speed.gflops === undefined ? undefined : `${compact(speed.gflops)} GFLOP/s`],
        ["Of the adapter's measured rate", speed.utilisation === undefined ? undefined : percent(speed.utilisation)],
      ]
    : [];
  const tables = [
    data.timing?.length ? timingTable(data.timing) : "",
    data.memory?.length ? memoryTable(data.memory) : "",
  ].filter(Boolean);
  return `${factList(facts)}${tables.length ? `<div class="pair-grid">${tables.join("")}</div>` : ""}`;
}

/** Times of steps are often far below a second. */
function seconds(value: number): string {
  return value < 1 ? `${compact(value * 1000, 3)} ms` : `${compact(value, 3)} s`;
}

function factList(facts: readonly (readonly [string, string | undefined])[]): string {
  const items = facts
    .filter((f): f is [string, string] => f[1] !== undefined && f[1] !== "")
    .map(([name, value]) => `<div><dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd></div>`);
  return items.length ? `<dl class="facts">${items.join("")}</dl>` : "";
}

/** What the numbers do not show. */
export function trainLimitSection(data: TrainReportData): string {
  const items = [...(data.limits ?? []), ...TRAIN_LIMITS].map((text) => `<li>${escapeHtml(text)}</li>`);
  return `<div class="box"><ul class="wide">${items.join("")}</ul></div>`;
}

/** Recipe, device, warnings, command and configuration. */
export function settingsSection(data: TrainReportData): string {
  let html = factList([...methodFacts(data), ...(data.settings ?? [])]);
  if (data.events?.length) {
    const lines = data.events.map(
      (e) =>
        `<li><code>${escapeHtml(e.code)}</code>${e.step === undefined ? "" : ` at step ${grouped(e.step)}`}: ${escapeHtml(e.text)}</li>`,
    );
    html += `<h3>Warnings and errors</h3><div class="box"><ul>${lines.join("")}</ul></div>`;
  }
  if (data.command)
    html += `<h3>Repeat this run</h3><pre class="copy" tabindex="0"><code>${escapeHtml(data.command)}</code></pre>`;
  if (data.config)
    html += `<details class="more"><summary>Configuration as it was resolved</summary><pre tabindex="0"><code>${escapeHtml(data.config)}</code></pre></details>`;
  return html;
}

/** The recipe as names and values, also for the model card. */
export function methodFacts(data: TrainReportData): [string, string][] {
  const { model, method: m, device, versions } = data;
  const batch = m.batch
    ? `${counted(m.batch, "picture")}${(m.accumulation ?? 1) > 1 ? ` × ${m.accumulation} micro-batches` : ""}`
    : undefined;
  const facts: [string, string | undefined][] = [
    ["Model", `${model.label} (${model.architecture})`],
    ["Parameters", model.parameters ? grouped(model.parameters) : undefined],
    ["Trained", model.trainedParameters ? grouped(model.trainedParameters) : undefined],
    ["Autoencoder", model.autoencoder],
    ["Adapter", `${adapterText(data)}${m.alpha ? `, alpha ${compact(m.alpha)}` : ""}`],
    ["Layers", m.layers ? `${grouped(m.layers)}${m.targets ? ` (${m.targets})` : ""}` : m.targets],
    ["Optimizer", m.optimizer],
    ["Learning rate", rateText(data)],
    ["Pictures a step", batch],
    ["Gradient norm limit", m.clip ? compact(m.clip) : undefined],
    [
      "Noise levels",
      [m.sampling, m.weighting && m.weighting !== "none" ? `weight ${m.weighting}` : ""].filter(Boolean).join(", "),
    ],
    ["Loss", m.loss],
    ["Guidance while training", m.guidance === undefined ? undefined : compact(m.guidance)],
    ["Running mean of the weights", m.averageDecay ? `decay ${m.averageDecay}` : undefined],
    ["Captions left out", m.captionDropout ? percent(m.captionDropout) : undefined],
    ["Frozen weights", m.storage],
    ["Gradient checkpointing", m.checkpointing === undefined ? undefined : m.checkpointing ? "on" : "off"],
    ["Seed", m.seed === undefined ? undefined : String(m.seed)],
    ["Device", device ? `${adapterLabel(device)}${device.software ? ", a software adapter" : ""}` : undefined],
    ["WebGPU", device ? [device.implementation, device.backend].filter(Boolean).join(" on ") : undefined],
    ["System", device?.system],
    [
      "Versions",
      versions
        ? Object.entries(versions)
            .map(([k, v]) => `${k} ${v}`)
            .join(", ")
        : undefined,
    ],
  ];
  return facts.filter((f): f is [string, string] => f[1] !== undefined && f[1] !== "");
}
