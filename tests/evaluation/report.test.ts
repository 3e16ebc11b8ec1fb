// The report page and the model card, from a full made-up run and from runs with little or odd data: sound markup,
// nothing loaded from anywhere, no leaked program words, and every text from outside escaped.

import { describe, expect, it } from "vitest";
import { adapterLabel, compact, duration, score, signed } from "../../src/evaluation/format.ts";
import { renderModelCard } from "../../src/evaluation/model_card.ts";
import { renderReport } from "../../src/evaluation/report.ts";
import { lineChart, meanWindow, niceTicks, runningMean } from "../../src/evaluation/report_charts.ts";
import type { ReportData } from "../../src/evaluation/report_data.ts";
import { fakeReport, sparseReports } from "./fake_report.ts";
import { markupProblems, textOf } from "./markup.ts";

const pages: [string, ReportData][] = [["a full run", fakeReport()], ...Object.entries(sparseReports())];

describe.each(pages)("report of %s", (_name, data) => {
  const html = renderReport(data);

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
    // The only addresses are plain links of credits.
    const withoutLinks = html.replace(/<a href="https?:[^"]*"/g, "").replace(/src="data:[^"]*"/g, "");
    expect(withoutLinks).not.toMatch(/https?:/);
  });

  it("names every picture, table and chart", () => {
    for (const [image] of html.matchAll(/<img[^>]*>/g)) expect(image).toMatch(/ alt="[^"]+"/);
    for (const [table] of html.matchAll(/<table[\s\S]*?<\/table>/g)) expect(table).toMatch(/<caption>[^<]+<\/caption>/);
    for (const [svg] of html.matchAll(/<svg[^>]*>/g))
      expect(svg).toMatch(/aria-hidden="true"|role="img" aria-label="[^"]+"/);
  });

  it("has a model card without program words", () => {
    const card = renderModelCard(data);
    expect(card).toMatch(/^---\n[\s\S]+?\n---\n\n# /);
    expect(card).not.toMatch(/undefined|NaN|Infinity|\[object/);
    expect(card.split("```").length % 2).toBe(1);
  });
});

describe("report", () => {
  const full = fakeReport();
  const html = renderReport(full);

  it("opens with the verdict and the primary number with its interval", () => {
    const { change, low, high } = full.evaluation!.summary.groups[0]!.changes.judge;
    expect(html).toMatch(/<h1>Aligned tail items got better/);
    expect(html).toContain(`<span class="number">${signed(change)}</span>`);
    expect(html).toContain(`[${score(low)}, ${score(high)}]`);
  });

  it("shows gains, typical items and losses, and folds the rest", () => {
    for (const title of ["Biggest gains", "Typical", "Biggest losses"]) expect(html).toContain(title);
    expect(html).toMatch(/<details class="more"><summary>The other 20 aligned tail items/);
    const shown = new Set([...html.matchAll(/<div class="title"><b>([^<]*)<\/b>/g)].map(([, name]) => name));
    expect(shown.size).toBe(full.pictures!.length);
  });

  it("does not call a gain a loss where few items lost", () => {
    const data = fakeReport();
    for (const [i, row] of data.evaluation!.rows.filter((r) => r.group === "aligned").entries())
      row.after.judge = row.before.judge + (i === 0 ? -0.1 : 0.01 * (i + 1));
    expect(renderReport(data)).toContain("Losses and smallest gains");
  });

  it("counts a given total of device memory once", () => {
    const data = fakeReport();
    data.memory = [
      { category: "weights", plannedBytes: 3 * 2 ** 20 },
      { category: "total", plannedBytes: 4 * 2 ** 20, allocatedBytes: 5 * 2 ** 20 },
    ];
    const page = renderReport(data);
    expect(page).toContain("<b>4.00 MiB</b>");
    expect(page).toContain("5.00 MiB <small>(+25.0 %)</small>");
  });

  it("ends a running mean where its window ends", () => {
    const points = Array.from({ length: 40 }, (_, i) => [i + 1, i === 39 ? 100 : 1] as const);
    const mean = runningMean(points);
    expect(meanWindow(40)).toBe(7);
    expect(mean[0]).toEqual([4, 1]);
    expect(mean.at(-1)![0]).toBe(37);
    expect(mean.at(-1)![1]).toBeCloseTo(106 / 7);
  });

  it("names an adapter for people", () => {
    const driver = "llvmpipe: Mesa 26.1.6-1 (LLVM 21.1.8)";
    expect(adapterLabel({ name: "llvmpipe-llvm-21-1-8-256-bits-", driver })).toBe(driver);
    expect(adapterLabel({ name: "NVIDIA H100 80GB HBM3", driver: "NVIDIA: 580.1" })).toBe("NVIDIA H100 80GB HBM3");
    expect(adapterLabel({ name: "0x2330" })).toBe("0x2330");
  });

  it("credits the real pictures on their cards and in the table", () => {
    expect(html).toContain("Real: Noto Emoji (Apache-2.0), Twemoji (CC-BY 4.0)");
    expect(html).toContain("Twitter, Inc and other contributors");
  });

  it("says what the run does not show and what to expect of few updates", () => {
    expect(html).toContain("What this does not show");
    expect(html).toContain("shapes barely change");
    expect(renderReport(fakeReport({ updates: 160 }))).not.toContain("shapes barely change");
  });

  it("warns of pairs whose captions the reward cannot tell apart", () => {
    expect(html).toMatch(/\d+ of 32 pairs lie above \.98/);
  });

  it("puts an alarm at the top and marks it in the charts", () => {
    const alarm = renderReport(sparseReports().alarm!);
    expect(alarm.slice(0, alarm.indexOf("<nav"))).toMatch(/Alarm at update 50:/);
    expect(alarm).toContain('class="mark"');
    expect(alarm).toContain("The files hold the weights of update 10.");
  });

  it("escapes text from outside", () => {
    const evil = `<img src=x onerror="alert('1')">&`;
    const data = {
      ...sparseReports().bare!,
      name: evil,
      config: evil,
      command: evil,
      limits: [evil],
      versions: { [evil]: evil },
    };
    data.pictures = [
      {
        item: evil,
        category: evil,
        region: evil,
        group: "aligned",
        real: [{ source: "https://example.org/x.png", width: 1, height: 1 }],
        before: [],
        after: [],
      },
    ];
    data.attributions = [{ key: "x", what: evil, licence: evil, credit: evil, url: "javascript:alert(1)" }];
    const page = renderReport(data);
    expect(page).not.toContain("<img");
    expect(page).not.toContain("javascript:");
    expect(page).not.toContain("example.org");
    expect(markupProblems(page)).toEqual([]);
  });

  it("is the same text for the same data", () => {
    expect(renderReport(fakeReport())).toBe(html);
  });
});

describe("model card", () => {
  it("says how to load the weights and how much the LoRA keeps", () => {
    const card = renderModelCard(fakeReport());
    expect(card).toContain("library_name: diffusers");
    expect(card).toContain('load_file("embedded-srpo-mia.transformer.safetensors")');
    expect(card).toContain('load_lora_adapter(load_file("embedded-srpo-mia.lora.safetensors"), prefix="transformer")');
    expect(card).toContain("it keeps 92.3 % of ‖Δ‖²");
    expect(card).toMatch(
      /\| aligned tail items \| 32 \| Judge \| \.\d{3} \| \.\d{3} \| \+\.\d{3} \[\.\d{3}, \.\d{3}\] \|/,
    );
  });

  it("does not promise results where nothing was evaluated", () => {
    expect(renderModelCard(sparseReports().bare!)).toContain("No evaluation was made");
  });
});

describe("numbers as text", () => {
  it("drop the zero before the point and keep the sign of what is left after rounding", () => {
    expect([score(0.4871), score(-0.021), score(1), score(-0.0001), score(Number.NaN)]).toEqual([
      ".487",
      "−.021",
      "1.000",
      ".000",
      "–",
    ]);
    expect([signed(0.054), signed(-0.2), signed(0.0001)]).toEqual(["+.054", "−.200", ".000"]);
  });

  it("write any size and duration", () => {
    expect([compact(3e-5), compact(1250), compact(0.1), compact(0)]).toEqual(["3e−5", "1,250", "0.1", "0"]);
    expect([duration(0.44), duration(59.7), duration(244), duration(4320)]).toEqual([
      "0.4 s",
      "1 min 0 s",
      "4 min 4 s",
      "1 h 12 min",
    ]);
  });
});

describe("charts", () => {
  it("draw one point as a dot, leave out values that are not finite, and vanish without any", () => {
    expect(lineChart({ title: "t", series: [{ name: "s", points: [[1, 2]] }] })).toContain("<circle");
    expect(lineChart({ title: "t", series: [{ name: "s", points: [[1, Number.NaN]] }] })).toBe("");
    expect(lineChart({ title: "t", logarithmic: true, series: [{ name: "s", points: [[1, 0]] }] })).toBe("");
  });

  it("put round ticks inside the range", () => {
    expect(niceTicks(0.13, 0.47, 5)).toEqual([0.2, 0.3, 0.4]);
    expect(niceTicks(-1, 1, 4)).toEqual([-1, -0.5, 0, 0.5, 1]);
  });
});
