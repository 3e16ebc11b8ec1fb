// The page and the model card of a training run, from a full made-up run and from runs with little or odd data: sound
// markup, nothing loaded from anywhere, no leaked program words, and every text from outside escaped.

import { describe, expect, it } from "vitest";
import { renderLoraCard } from "../../src/evaluation/lora_card.ts";
import { lineChart, thinned } from "../../src/evaluation/report_charts.ts";
import { renderTrainReport } from "../../src/evaluation/train_report.ts";
import { isTrainReport, type TrainReportData } from "../../src/evaluation/train_report_data.ts";
import { chooseColumns } from "../../src/evaluation/train_report_pictures.ts";
import { usagesOf } from "../../src/evaluation/train_report_usage.ts";
import {
  lossChange,
  rateText,
  trainFindings,
  trainHeadline,
  validationChange,
} from "../../src/evaluation/train_report_verdict.ts";
import { fakeTrainReport, sparseTrainReports } from "./fake_train_report.ts";
import { markupProblems, textOf } from "./markup.ts";

const full = fakeTrainReport();
const sparse = sparseTrainReports();
const pages: [string, TrainReportData][] = [["a full run", full], ...Object.entries(sparse)];

describe.each(pages)("training report of %s", (_name, data) => {
  const html = renderTrainReport(data);

  it("is sound markup", () => {
    expect(markupProblems(html)).toEqual([]);
  });

  it("shows no program words and draws no broken numbers", () => {
    expect(textOf(html)).not.toMatch(/undefined|NaN|\bnull\b|Infinity|\[object/);
    expect(html.replace(/src="data:[^"]*"/g, "")).not.toMatch(/="[^"]*(?:NaN|undefined|Infinity)[^"]*"/);
  });

  it("loads nothing and runs nothing", () => {
    for (const [, source] of html.matchAll(/\ssrc="([^"]*)"/g)) expect(source).toMatch(/^data:image\//);
    expect(html).not.toMatch(/<script|<link|<iframe|@import|url\(|\son\w+=/);
    const withoutLinks = html.replace(/<a href="https?:[^"]*"/g, "").replace(/src="data:[^"]*"/g, "");
    expect(withoutLinks).not.toMatch(/https?:/);
  });

  it("names every picture, table and chart, and lets the keyboard reach what scrolls", () => {
    for (const [image] of html.matchAll(/<img[^>]*>/g)) expect(image).toMatch(/ alt="[^"]+"/);
    for (const [table] of html.matchAll(/<table[\s\S]*?<\/table>/g)) expect(table).toMatch(/<caption>[^<]+<\/caption>/);
    for (const [svg] of html.matchAll(/<svg[^>]*>/g))
      expect(svg).toMatch(/aria-hidden="true"|role="img" aria-label="[^"]+"/);
    for (const [box] of html.matchAll(/<pre[^>]*>|<div class="scroll[^>]*>/g)) expect(box).toContain('tabindex="0"');
  });

  it("has a model card without program words, with a front matter of known keys", () => {
    const card = renderLoraCard(data);
    const [, matter] = card.match(/^---\n([\s\S]+?)\n---\n\n# /)!;
    for (const line of matter!.split("\n"))
      expect(line).toMatch(/^(?:[a-z_]+:( \S.*)?|- .+| {2}output:| {4}url: ".*")$/);
    expect(card).not.toMatch(/undefined|NaN|Infinity|\[object/);
    expect(card.split("```").length % 2).toBe(1);
  });

  it("survives being stored as JSON", () => {
    const stored = JSON.parse(JSON.stringify(data)) as TrainReportData;
    expect(isTrainReport(stored)).toBe(true);
    expect(() => renderTrainReport(stored)).not.toThrow();
  });
});

describe("training report", () => {
  const html = renderTrainReport(full);

  it("has every section in order, and links to each", () => {
    const ids = [...html.matchAll(/<section id="(\w+)"/g)].map(([, id]) => id);
    expect(ids).toEqual(["samples", "curves", "data", "files", "limits", "speed", "settings", "credits"]);
    for (const id of ids) expect(html).toContain(`href="#${id}"`);
  });

  it("says at the top what was trained, how long and on what", () => {
    const top = textOf(html.slice(0, html.indexOf("<nav")));
    expect(top).toContain("A LoRA of rank 16 for FLUX.1-dev, trained for 1,200 steps on «sks kettle»");
    for (const text of ["NVIDIA GeForce RTX 4080", "1 h 21 min", "3.48 s a step", "37.4 M", "0.3 % of the model&#39;s"])
      expect(top).toContain(text);
  });

  it("draws loss, validation, rate and norm, and marks where the run was continued", () => {
    for (const title of ["Training loss", "Validation loss", "Learning rate", "Gradient norm", "Loss at like noise"])
      expect(html).toContain(`<b>${title}`);
    const resumed = renderTrainReport(sparse["a resumed run"]!);
    expect(resumed).toContain("continued from step 20, 40");
    const loss = resumed.slice(resumed.indexOf("<b>Training loss"));
    expect(loss.slice(0, loss.indexOf("</figure>")).match(/<line class="mark"/g)).toHaveLength(2);
    expect(resumed).toContain("The files hold the weights of step 50.");
  });

  it("counts a step that was made twice once, with its later values", () => {
    const data = fakeTrainReport({ steps: 60 });
    const once = lossChange(data)!;
    const repeated = {
      ...data,
      curves: { steps: [...data.curves!.steps.map((p) => ({ ...p, loss: 99 })), ...data.curves!.steps] },
    };
    expect(lossChange(repeated)).toEqual(once);
  });

  it("shows samples as rows of prompts and columns of steps, the untouched model first", () => {
    const grid = html.slice(html.indexOf('<table class="grid">'));
    const columns = [...grid.slice(0, grid.indexOf("</thead>")).matchAll(/<th scope="col">([^<]*)/g)].map(([, t]) => t);
    expect(columns[0]).toBe("Before training");
    expect(columns.at(-1)).toBe("Step 1,200");
    expect(columns).toHaveLength(8);
    expect(html).toContain("5 other steps are in samples/");
    expect(grid).toContain("<small>seed 45</small>");
    const many = renderTrainReport(sparse["many columns and prompts"]!);
    expect(many).toContain("7 more prompts");
    expect(many).toContain("prompt 4, seed 4, before training: not drawn");
  });

  it("spreads the shown columns over the run", () => {
    expect(chooseColumns([...Array(100).keys()], 5)).toEqual([0, 25, 50, 74, 99]);
    expect(chooseColumns([1, 2], 5)).toEqual([1, 2]);
  });

  it("names files that were left out with their reasons, and folds long lists", () => {
    expect(html).toContain("it is smaller than its bucket, and upscaling is off");
    expect(html).toContain("1216 × 832");
    expect(renderTrainReport(sparse["many columns and prompts"]!)).toContain("<summary>30 files left out</summary>");
  });

  it("tells what a run without held-out pictures cannot, and a rise of the validation loss", () => {
    expect(trainFindings(sparse.bare!)[0]).toMatchObject({ tone: "unknown" });
    expect(trainFindings(full)[0]).toMatchObject({ tone: "better" });
    const [finding] = trainFindings(sparse.overfitting!);
    expect(finding).toMatchObject({ tone: "worse" });
    expect(finding!.text).toContain("lowest at step 24");
    expect(validationChange(sparse.overfitting!)!.best).toEqual({ step: 24, loss: 0.36 });
    const worse = { ...full, curves: { steps: [], validation: [0.4, 0.5].map((loss, step) => ({ step, loss })) } };
    expect(trainFindings(worse)[0]!.text).toContain("never below its start");
  });

  it("tells a loader that the device waited for, and memory that left its plan", () => {
    const data = fakeTrainReport({ steps: 20 });
    data.speed!.loaderStall = 0.31;
    data.memory!.at(-1)!.allocatedBytes = 20 * 2 ** 30;
    const texts = trainFindings(data).map((f) => f.text);
    expect(texts.some((t) => t.includes("waited for pictures 31 % of the time"))).toBe(true);
    expect(texts.some((t) => t.includes("75 % more than was planned"))).toBe(true);
  });

  it("takes skipped steps for a fault only where no loss scale was being found", () => {
    const skipping = (lossScale: object) => ({
      ...full,
      curves: { steps: [1, 2, 3, 4].map((step) => ({ step, loss: 0.3, finite: step === 4, ...lossScale })) },
    });
    const toneOf = (data: TrainReportData) => trainFindings(data).find(({ text }) => /not finite/.test(text))?.tone;
    expect(toneOf(skipping({}))).toBe("worse");
    expect(toneOf(skipping({ lossScale: 65536 }))).toBe("noted");
  });

  it("gives the rate that was set, or the curve of an optimizer that works out its own", () => {
    expect(rateText(full)).toBe("0.0001, cosine, warm-up 50 steps");
    const own = [0.01, 0.01, 0.007].map((learningRate, i) => ({ step: i + 1, learningRate }));
    expect(rateText({ ...full, curves: { steps: own } })).toBe("0.01 to 0.007, the optimizer's own");
    expect(rateText({ method: { adapter: "lora" } })).toBeUndefined();
  });

  it("has a headline for any state of a run", () => {
    expect(trainHeadline(sparse["no step"]!)).toBe("No step of training was made on embedded micro-FLUX");
    expect(trainHeadline(sparse["embedded LoKr"]!)).toMatch(/^A LoKr of rank 8 with factor 8 for embedded/);
    expect(trainHeadline(sparse["full fine-tuning"]!)).toBe("FLUX.1-dev, trained for 60 steps");
    expect(renderTrainReport(sparse.bare!)).toContain("The run was stopped after 3 of 500 steps.");
  });

  it("escapes text from outside", () => {
    const evil = `</pre></title><img src=x onerror="alert('1')">&`;
    const picture = { source: "https://example.org/x.png", width: 1, height: 1, label: evil, credit: evil };
    const data: TrainReportData = {
      ...full,
      name: evil,
      trigger: evil,
      config: evil,
      command: evil,
      limits: [evil],
      remarks: [evil],
      settings: [[evil, evil]],
      versions: { [evil]: evil },
      events: [{ code: evil, text: evil }],
      model: { ...full.model, label: evil, usageNote: evil, base: evil },
      files: [{ path: evil, what: evil, role: "diffusers" }],
      samples: {
        prompts: [{ prompt: evil, seed: 1, real: picture }],
        columns: [0, 5, 9].map((step) => ({ step, pictures: [picture] })),
        protocol: evil,
      },
      data: {
        pictures: 1,
        sets: [{ name: evil, pictures: 1 }],
        dropped: [{ name: evil, set: evil, code: evil, why: evil }],
        examples: [{ picture, caption: evil, name: evil }],
      },
      attributions: [{ key: evil, what: evil, licence: evil, credit: evil, url: "javascript:alert(1)" }],
    };
    const page = renderTrainReport(data);
    expect(page).not.toContain("<img");
    expect(page).not.toContain("javascript:");
    expect(page).not.toContain("example.org");
    expect(markupProblems(page)).toEqual([]);
  });

  it("stays small however long the run was", () => {
    const long = fakeTrainReport({ steps: 20 });
    long.samples = undefined;
    const steps = Array.from({ length: 200_000 }, (_, i) => ({ step: i + 1, loss: 0.3 + ((i * 7919) % 101) / 1000 }));
    const page = renderTrainReport({ ...long, curves: { steps } });
    expect(page.length).toBeLessThan(200_000);
  });

  it("is the same text for the same data", () => {
    expect(renderTrainReport(fakeTrainReport())).toBe(html);
  });
});

describe("ways to load the files", () => {
  it("are those of diffusers, ComfyUI and sd-scripts for a LoRA of a published model", () => {
    const usages = usagesOf(full);
    expect(usages.map((u) => u.title)).toEqual(["diffusers", "ComfyUI", "kohya's sd-scripts"]);
    expect(usages[0]!.code).toContain('pipe.load_lora_weights(".", weight_name="sks-kettle.lora.safetensors")');
    expect(usages[2]!.code!.join(" ")).toContain("--lora_weights 'sks-kettle.kohya.safetensors;1.0'");
  });

  it("promise nothing that another program cannot do", () => {
    expect(usagesOf(sparse["embedded LoKr"]!)).toEqual([]);
    expect(usagesOf(sparse.bare!)).toEqual([]);
    const local = { ...full, model: { ...full.model, pipelineClass: undefined } };
    expect(usagesOf(local).map((u) => u.title)).toEqual(["diffusers"]);
    expect(usagesOf(sparse["full fine-tuning"]!)[0]!.code!.join("\n")).toContain("load_state_dict");
  });

  it("quote what a shell or Python would read otherwise", () => {
    const prompt = 'it\'s "$HOME"\n; rm -rf /';
    const data = { ...full, samples: { ...full.samples!, prompts: [{ prompt, seed: 1 }] } };
    const [diffusers, , kohya] = usagesOf(data);
    expect(diffusers!.code!.join("\n")).toContain('pipe("it\'s \\"$HOME\\"\\n; rm -rf /"');
    expect(kohya!.code!.join("\n")).toContain(`'it'\\''s "$HOME" ; rm -rf /'`);
  });
});

describe("model card of a training run", () => {
  const card = renderLoraCard(full);

  it("has what a hub reads: base model, trigger, example pictures of the last step, licence", () => {
    for (const line of [
      'base_model: "black-forest-labs/FLUX.1-dev"',
      "base_model_relation: adapter",
      'license: "other"',
      'license_name: "flux-1-dev-non-commercial-license"',
      'instance_prompt: "sks kettle"',
      "- lora",
      '    url: "samples/step-001200/00-seed42.png"',
    ])
      expect(card).toContain(`\n${line}\n`);
    expect(card).toContain("<Gallery />");
    expect(card).toContain("## Limits");
  });

  it("does not let a caption end the front matter or become markup", () => {
    const evil = '---\n# x\n"<script>` ``` \u2028: [a](javascript:b)';
    const data: TrainReportData = {
      ...full,
      name: evil,
      trigger: evil,
      samples: { ...full.samples!, prompts: full.samples!.prompts.map((p) => ({ ...p, prompt: evil })) },
      attributions: [{ key: "x", what: evil, licence: evil, credit: evil, url: "javascript:b" }],
    };
    const text = renderLoraCard(data);
    const matter = text.slice(4, text.indexOf("\n---\n", 4));
    expect(matter).toContain("template:sd-lora");
    expect(matter.split("\n").filter((line) => line.startsWith("#"))).toEqual([]);
    expect(matter).not.toContain("\u2028");
    expect(text.split("\n").filter((line) => line.startsWith("# "))).toHaveLength(1);
    // Outside of code, markup of the caption has lost its meaning.
    const prose = text
      .slice(text.indexOf("\n---\n", 4))
      .replace(/^(`{3,})[\s\S]*?^\1$/gm, "")
      .replace(/(?<![\\`])(`+)(?!`)[\s\S]*?(?<!`)\1(?!`)/g, "");
    expect(prose).not.toMatch(/(?<!\\)<script/);
    expect(prose).not.toMatch(/(?<!\\)\]\(javascript/);
  });

  it("names the kind of adapter it is", () => {
    expect(renderLoraCard(sparse["embedded LoKr"]!)).toContain("\n- lokr\n");
    expect(renderLoraCard(sparse["full fine-tuning"]!)).toContain("base_model_relation: finetune");
    expect(renderLoraCard(sparse.bare!)).toContain("The run ended early (stopped: stopped by Ctrl-C).");
  });
});

describe("charts of long runs", () => {
  it("keep the highest and lowest point of every stretch", () => {
    const points = Array.from({ length: 10_000 }, (_, i) => [i, i === 6543 ? 100 : i === 2222 ? -50 : i % 3] as const);
    const kept = thinned(points, 400);
    expect(kept.length).toBeLessThanOrEqual(400);
    expect(kept).toContainEqual([6543, 100]);
    expect(kept).toContainEqual([2222, -50]);
    expect(kept.map(([x]) => x)).toEqual([...kept.map(([x]) => x)].sort((a, b) => a - b));
    expect(thinned(points.slice(0, 300), 400)).toHaveLength(300);
  });

  it("take several marks, and leave out those beyond the axis", () => {
    const points = [[1, 1] as const, [10, 2] as const];
    const svg = lineChart({ title: "t", series: [{ name: "s", points }], mark: { x: [3, 5, 99], name: "continued" } });
    expect(svg.match(/<line class="mark"/g)).toHaveLength(2);
  });
});
