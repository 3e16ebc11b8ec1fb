// The report's sections, one function each: every one takes the run's data and returns HTML, or an empty text where
// the run has nothing for it. Order and frame are in report.ts.

import {
  adapterLabel,
  capitalised,
  compact,
  counted,
  duration,
  escapeHtml,
  grouped,
  interval,
  score,
  signed,
} from "./format.ts";
import { BAND_RULES, GUARD_SIGNALS, type GuardSignal } from "./guards.ts";
import { GENERAL_LIMITS } from "./notes.ts";
import { lineChart, meanWindow, type Series } from "./report_charts.ts";
import { PAIR_COSINE_WARNING, type ReportData, type UpdatePoint } from "./report_data.ts";
import { strips } from "./report_strips.ts";
import {
  attributionTable,
  fileTable,
  groupForest,
  groupTable,
  memoryTable,
  pairTable,
  sliceTable,
  timingTable,
} from "./report_tables.ts";
import { GROUPS, type Group } from "./summary.ts";
import { GROUP_LABELS, type Tone, verdictOf } from "./verdict.ts";

const SIGNS: Readonly<Record<Tone, string>> = { better: "▲", worse: "▼", unchanged: "=", noted: "●", unknown: "?" };

/** Eyebrow, headline, primary number with the forest of groups, findings, and a notice about how the run ended. */
export function headlineSection(data: ReportData): string {
  const { status } = data;
  const verdict = data.evaluation ? verdictOf(data.evaluation.summary) : null;
  const updates =
    status.updatesDone === status.updatesPlanned
      ? counted(status.updatesDone, "update")
      : `${grouped(status.updatesDone)} of ${counted(status.updatesPlanned, "update")}`;
  const training =
    data.method.training === "full" ? "full fine-tuning" : `LoRA${data.method.rank ? ` rank ${data.method.rank}` : ""}`;
  const device = data.device
    ? `<span>${escapeHtml(adapterLabel(data.device))}${data.device.software ? ", software" : ""}</span>`
    : "";
  const total = data.timing?.reduce((sum, t) => sum + t.seconds, 0);
  let html =
    `<p class="eyebrow"><b>${escapeHtml(data.name)}</b><span>${escapeHtml(data.method.label)}, ${training}</span><span>${updates}</span>` +
    `${device}${total ? `<span>${duration(total)}</span>` : ""}</p>`;
  html += `<h1>${escapeHtml(verdict?.headline ?? headlineWithout(data))}</h1>`;
  html += endNotice(data);
  if (verdict?.primary && data.evaluation) {
    const { group, change } = verdict.primary;
    const range = interval(change.low, change.high) || "too few items for an interval";
    html +=
      `<div class="hero"><div class="primary ${verdict.tone}"><span class="number">${signed(change.change)}</span><span class="range">${range}</span>` +
      `<span class="what">change of the held-out judge on ${counted(change.n, GROUP_LABELS[group].replace(/s$/, ""))}, ` +
      `from ${score(change.before)} to ${score(change.after)}, same noise before and after; 95 % bootstrap interval over items</span></div>` +
      `${groupForest(data.evaluation.summary)}</div>`;
    const sentences = verdict.sentences.map(
      (s) =>
        `<li class="${s.tone}"><span class="sign" aria-hidden="true">${SIGNS[s.tone]}</span>${wholeIntervals(escapeHtml(s.text))}</li>`,
    );
    html += `<ul class="findings">${sentences.join("")}</ul>`;
  }
  return html;
}

/** Keeps a number and its interval on one line. */
function wholeIntervals(text: string): string {
  return text.replace(/(\S) \[([^\], ]+), ([^\]]+)\]/g, "$1\u00a0[$2,\u00a0$3]");
}

function headlineWithout(data: ReportData): string {
  if (data.status.updatesDone === 0) return "No update was made";
  return `${counted(data.status.updatesDone, "update")} made, nothing evaluated`;
}

function endNotice(data: ReportData): string {
  const { status, guards } = data;
  const parts: string[] = [];
  const words = {
    complete: "",
    stopped: `The run was stopped after ${grouped(status.updatesDone)} of ${counted(status.updatesPlanned, "update")}.`,
    alarm: `A guard rail stopped the run after ${grouped(status.updatesDone)} of ${counted(status.updatesPlanned, "update")}.`,
    failed: `The run ended with an error after ${grouped(status.updatesDone)} of ${counted(status.updatesPlanned, "update")}.`,
  }[status.state];
  if (words) parts.push(`<b>${words}</b>`);
  if (status.reason) parts.push(escapeHtml(status.reason));
  if (guards?.alarm) {
    const names = guards.alarm.outside.map((name) => SIGNAL_LABELS[name].toLowerCase()).join(" and ");
    parts.push(
      `<b>Alarm at update ${grouped(guards.alarm.step)}:</b> the optimised reward rose by ${signed(guards.alarm.rewardRise)} while ${escapeHtml(names)} ` +
        `left the baseline band (since update ${grouped(guards.alarm.since)}). The reward may have been gamed: look at the pictures before trusting a number.`,
    );
  }
  if (status.weightsFrom !== undefined && status.weightsFrom !== status.updatesDone) {
    parts.push(`The files hold the weights of update ${grouped(status.weightsFrom)}.`);
  }
  if (parts.length === 0) return "";
  const tone = status.state === "failed" || status.state === "alarm" || guards?.alarm ? "worse" : "";
  return `<div class="box ${tone}" role="note"><p>${parts.join(" ")}</p></div>`;
}

/** Before and after beside real pictures. */
export function pictureSection(data: ReportData): string {
  const content = strips(data.pictures ?? [], data.evaluation?.rows ?? [], data.attributions ?? []);
  if (!content) return "";
  const remarks = (data.remarks ?? []).map((text) => `<p>${escapeHtml(text)}</p>`).join("");
  return (
    `<p class="lead">Each row of a card is one noise: before and after start from the same random numbers. Items are chosen by the ` +
    `change of their judge score, from both ends and the middle.</p>${remarks ? `<div class="box">${remarks}</div>` : ""}${content}`
  );
}

/** Tables of groups, regions and categories. */
export function tableSection(data: ReportData): string {
  if (!data.evaluation) return "";
  const { summary, protocol, candidates, picturesPerItem } = data.evaluation;
  const facts = [
    protocol,
    picturesPerItem ? `${counted(picturesPerItem, "picture")} an item` : undefined,
    candidates ? `top-1 among ${counted(candidates, "caption")}` : undefined,
    `${grouped(summary.resamples)} bootstrap resamples over items`,
  ].filter((text) => text !== undefined);
  const part = (name: "tail" | "head") => summary.categories.filter((s) => s.part === name);
  const regions = sliceTable("Tail items by region: held-out judge", "Region", summary.regions);
  const categories =
    sliceTable("Tail items by category: held-out judge", "Category", part("tail")) +
    sliceTable("Head items by category: held-out judge", "Category", part("head"));
  const slices =
    regions +
    (regions && categories
      ? `<details class="more"><summary>By category</summary>${categories}</details>`
      : categories);
  const note =
    `<p class="lead">No interval is given below ${summary.minimumItems} items: with fewer, all changes point one way ` +
    `by chance too often. A hollow point is a mean without an interval.</p>`;
  return `<p class="lead">${escapeHtml(capitalised(facts.join("; ")))}.</p>${groupTable(summary)}${slices ? `<h3>By region and category</h3>${note}${slices}` : ""}`;
}

const SIGNAL_LABELS: Readonly<Record<GuardSignal, string>> = {
  judge: "Held-out judge",
  diversity: "Diversity",
  saturation: "Saturation",
  contrast: "Contrast",
  sharpness: "Sharpness",
  grid8: "Grid energy, 8 px",
  grid16: "Grid energy, 16 px",
};

/** Curves of the optimisation. */
export function curveSection(data: ReportData): string {
  const updates = data.curves?.updates ?? [];
  const evaluations = data.curves?.evaluations ?? [];
  const series = (key: keyof UpdatePoint): Series["points"] =>
    updates.flatMap((u) => (u[key] === undefined ? [] : [[u.step, u[key]!] as const]));
  const groups = GROUPS.filter((group) => evaluations.some((e) => e.judge?.[group]));
  const judges = groups.map((group) => judgeSeries(group, evaluations));
  const charts = [
    lineChart({
      title: "Reward, both parts",
      note: "s+ scores the pictures with the positive caption, s− the same pictures with the negative one. They move together: the two captions share the item.",
      series: [
        { name: "s+", points: series("positive"), smooth: true },
        { name: "s−", points: series("negative"), style: "second", smooth: true },
      ],
    }),
    lineChart({
      title: "Difference s+ − s−",
      note: "The part of the reward that only the prompt pair gives.",
      series: [{ name: "s+ − s−", points: difference(updates), smooth: true }],
    }),
    lineChart({
      title: "Relative reward",
      note: "What the loss sees: (1 + D) s+ − s− in the denoise branch and (1 + D′) s− − s+ in the inversion branch, averaged.",
      series: [{ name: "reward", points: series("reward"), smooth: true }],
    }),
    lineChart({
      title: "Held-out judge",
      note: `Mean over the evaluated items${judges.some((s) => s.whiskers?.length) ? "; whiskers are 95 % intervals of the mean" : ""}.`,
      series: judges,
    }),
    lineChart({ title: "Loss", series: [{ name: "loss", points: series("loss"), smooth: true }] }),
    lineChart({
      title: "Gradient norm before clipping",
      logarithmic: true,
      series: [{ name: "norm", points: series("gradientNorm"), smooth: true }],
      ...(data.method.clip
        ? { limit: { value: data.method.clip, name: `clipped to ${compact(data.method.clip)}` } }
        : {}),
    }),
    lineChart({
      title: "Update / weight ratio",
      note: "‖change of the weights‖ / ‖weights‖ of one update. Around 1e−3 is brisk; far more is a learning rate too high.",
      logarithmic: true,
      series: [{ name: "ratio", points: series("updateRatio") }],
    }),
    lineChart({ title: "Learning rate", series: [{ name: "rate", points: series("learningRate") }] }),
    lineChart({ title: "Seconds an update", series: [{ name: "seconds", points: series("seconds") }] }),
  ].filter((chart) => chart !== "");
  if (charts.length === 0) return "";
  const lead =
    updates.length > 7
      ? `Thin: each update, with the prompts that came up in it. Thick: mean of ${meanWindow(updates.length)} updates. Prompts differ between updates, so only the trend means something.`
      : "Too few updates for a trend.";
  return `<p class="lead">${lead}</p><div class="charts">${charts.join("")}</div>`;
}

function difference(updates: readonly UpdatePoint[]): Series["points"] {
  return updates.flatMap((u) =>
    u.positive === undefined || u.negative === undefined ? [] : [[u.step, u.positive - u.negative] as const],
  );
}

type Evaluations = NonNullable<NonNullable<ReportData["curves"]>["evaluations"]>;

function judgeSeries(group: Group, evaluations: Evaluations): Series {
  const known = evaluations.filter((e) => e.judge?.[group]);
  const style = ({ aligned: "main", "other tail": "third", head: "second" } as const)[group];
  return {
    name: GROUP_LABELS[group].replace(/ items$/, ""),
    style,
    dots: true,
    points: known.map((e) => [e.step, e.judge![group]!.mean] as const),
    whiskers: known.flatMap((e) => {
      const { low, high } = e.judge![group]!;
      return typeof low === "number" && typeof high === "number" ? [[e.step, low, high] as const] : [];
    }),
  };
}

/** Signals that nobody optimises, with the bands of the untouched model. */
export function guardSection(data: ReportData): string {
  const evaluations = data.curves?.evaluations ?? [];
  const bands = data.guards?.bands ?? {};
  const alarm = data.guards?.alarm;
  const charts = GUARD_SIGNALS.map((signal) =>
    lineChart({
      title: SIGNAL_LABELS[signal],
      note: bands[signal] ? `Why this band: ${BAND_RULES[signal].reason}.` : undefined,
      series: [
        {
          name: "measured",
          dots: true,
          points: evaluations.flatMap((e) =>
            e.signals?.[signal] === undefined ? [] : [[e.step, e.signals[signal]!] as const],
          ),
        },
      ],
      narrow: true,
      ...(bands[signal] ? { band: { ...bands[signal], name: "band" } } : {}),
      ...(alarm ? { mark: { x: alarm.step, name: "alarm" } } : {}),
    }),
  ).filter((chart) => chart !== "");
  if (charts.length === 0) return "";
  const state = data.guards;
  const best = state?.best
    ? ` Best evaluation that no alarm casts doubt on: update ${grouped(state.best.step)} (${state.best.measure} ${score(state.best.value)}).`
    : "";
  const verdict = !state
    ? ""
    : alarm
      ? `<b>Alarm raised at update ${grouped(alarm.step)}.</b>`
      : state.level === "watching"
        ? `<b>No alarm yet, but the last ${counted(state.streak, "evaluation")} looked suspicious.</b>`
        : "<b>No alarm.</b>";
  const lead =
    "These are measured on fixed prompts and noise and are not optimised. An alarm needs a risen reward and two of them outside their bands " +
    "for several evaluations in a row; one alone moves in good runs too.";
  return `<p class="lead">${lead}</p><p>${verdict}${best}</p><div class="charts small">${charts.join("")}</div>`;
}

/** Cosines of the prompt pairs. */
export function pairSection(data: ReportData): string {
  const pairs = data.pairs ?? [];
  if (pairs.length === 0) return "";
  const above = pairs.filter((p) => p.cosine > PAIR_COSINE_WARNING).length;
  const average = pairs.reduce((sum, p) => sum + p.cosine, 0) / pairs.length;
  const limit = score(PAIR_COSINE_WARNING, 2);
  const count = `${grouped(above)} of ${counted(pairs.length, "pair")} ${above === 1 ? "lies" : "lie"} above ${limit}; the mean is ${score(average, 4)}.`;
  const meaning =
    above > 0
      ? `The reward can hardly tell the two captions of such a pair apart, so s+ − s− is a nearly empty direction: what such prompts gain comes from the weight of s+ itself, not from the pair.`
      : "The reward tells the captions of every pair apart.";
  return (
    `<p class="lead">Each prompt has a positive caption (with category and region) and a negative one; the reward is steered by their difference.</p>` +
    `<div class="box ${above > 0 ? "worse" : ""}"><p><b>${count}</b> ${meaning}</p></div>` +
    `<details class="more"><summary>All ${counted(pairs.length, "pair")}</summary>${pairTable(pairs)}</details>`
  );
}

/** What the numbers do not show. */
export function limitSection(data: ReportData): string {
  const items = [...(data.limits ?? []), ...GENERAL_LIMITS].map((text) => `<li>${escapeHtml(text)}</li>`);
  return `<div class="box"><ul class="wide">${items.join("")}</ul></div>`;
}

/** Model, recipe, device, timing, memory, configuration, files. */
export function runSection(data: ReportData): string {
  const facts = factsOf(data)
    .map(([name, value]) => `<div><dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd></div>`)
    .join("");
  let html = `<dl class="facts">${facts}</dl>`;
  const tables = [
    data.timing?.length ? timingTable(data.timing) : "",
    data.memory?.length ? memoryTable(data.memory) : "",
  ];
  if (tables.some((t) => t)) html += `<div class="pair-grid">${tables.join("")}</div>`;
  if (data.events?.length) {
    const lines = data.events.map(
      (e) =>
        `<li><code>${escapeHtml(e.code)}</code>${e.step === undefined ? "" : ` at update ${grouped(e.step)}`}: ${escapeHtml(e.text)}</li>`,
    );
    html += `<h3>Warnings and errors</h3><div class="box"><ul>${lines.join("")}</ul></div>`;
  }
  if (data.command) html += `<h3>Repeat this run</h3><pre tabindex="0"><code>${escapeHtml(data.command)}</code></pre>`;
  if (data.config) {
    html += `<details class="more"><summary>Configuration as it was resolved</summary><pre tabindex="0"><code>${escapeHtml(data.config)}</code></pre></details>`;
  }
  if (data.files?.length) html += fileTable(data.files);
  return html;
}

function factsOf(data: ReportData): [string, string][] {
  const { model, method, device, versions } = data;
  const pair = (range: [number, number] | undefined) =>
    range ? `${compact(range[0], 4)} → ${compact(range[1], 4)}` : undefined;
  const facts: [string, string | undefined][] = [
    ["Model", `${model.label} (${model.architecture})`],
    ["Parameters", model.parameters === undefined ? undefined : grouped(model.parameters)],
    ["Trained", model.trainedParameters === undefined ? undefined : grouped(model.trainedParameters)],
    ["Size of pictures", model.width && model.height ? `${model.width} × ${model.height} px` : undefined],
    ["Autoencoder", model.autoencoder],
    ["Reward", model.reward],
    ["Held-out judge", model.judge],
    ["Method", method.label],
    ["Learning rate", method.learningRate === undefined ? undefined : compact(method.learningRate)],
    ["Warm-up", method.warmup === undefined ? undefined : counted(method.warmup, "update")],
    ["Prompts an update", method.batch === undefined ? undefined : grouped(method.batch)],
    ["σ range", pair(method.sigma)],
    [
      "Discounts",
      method.discountPositive
        ? `positive ${pair(method.discountPositive)}, inversion ${pair(method.discountInversion) ?? "–"}`
        : undefined,
    ],
    ["Rollout", method.rolloutSteps === undefined ? undefined : counted(method.rolloutSteps, "Euler step")],
    ["Seed", method.seed === undefined ? undefined : String(method.seed)],
    [
      "Energy kept by the LoRA file",
      method.energyKept === undefined ? undefined : `${(100 * method.energyKept).toFixed(1)} % of ‖Δ‖²`,
    ],
    ["Adapter", device ? `${adapterLabel(device)}${device.software ? ", a software adapter" : ""}` : undefined],
    ["Driver", device && device.driver !== adapterLabel(device) ? device.driver : undefined],
    ["WebGPU", device ? [device.implementation, device.backend].filter(Boolean).join(" on ") || undefined : undefined],
    ["Measured speed", device?.gflops === undefined ? undefined : `${compact(device.gflops)} GFLOP/s`],
    ["Features", device?.features?.join(", ") || undefined],
    ["System", device?.system],
    [
      "Versions",
      versions
        ? Object.entries(versions)
            .map(([k, v]) => `${k} ${v}`)
            .join(", ") || undefined
        : undefined,
    ],
  ];
  return facts.filter((fact): fact is [string, string] => fact[1] !== undefined);
}

export function creditSection(data: Pick<ReportData, "attributions">): string {
  return data.attributions?.length ? attributionTable(data.attributions) : "";
}
