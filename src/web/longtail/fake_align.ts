// An alignment that computes nothing, for building and testing the long-tail mode: around the page's fake engine it plays
// evaluation, updates, guard rails and a report on timers, in the very events that a real run emits.

import { type ItemRow, summariseEvaluation } from "../../evaluation/summary.ts";
import type { EngineEvent, LogLine, PlanFacts, RunStatus, Sequenced, StartRequest } from "../protocol.ts";
import type { RunSource } from "../run_source.ts";
import type { FakeEngine } from "../testing/fake_engine.ts";
import { FakeClock, fakePictureBytes, hashOf } from "../testing/fake_parts.ts";
import { alignedNames } from "./request.ts";

interface Item {
  name: string;
  group: "aligned" | "head";
}

interface AlignRun {
  request: StartRequest;
  step: number;
  steps: number;
  every: number;
  items: Item[];
  pictures: number;
  lines: LogLine[];
  files: Map<string, Uint8Array>;
}

export interface FakeAlignOptions {
  /** Updates a second. */
  speed?: number;
  /** Lets pictures overshoot, so that the guard rails raise their alarm. */
  wrecked?: boolean;
}

const HEAD = ["cat", "dog", "red apple", "guitar", "umbrella", "rocket", "bicycle", "sunflower"];
const STYLES = ["noto", "twitter"];
const PAIR_WARNING = "E-CFG-033";
const ALARM = "E-NUM-010";

/** The fake engine with alignments; everything else is passed on. */
export function withAlign(inner: FakeEngine, options: FakeAlignOptions = {}): FakeEngine {
  const runs = new Map<string, AlignRun>();
  const followers = new Map<string, Set<(lines: LogLine[]) => void>>();
  const pace = 1000 / (options.speed ?? 6);
  let port: MessagePort | null = null;
  let sequence = 0;
  let clock: FakeClock | null = null;
  let current: AlignRun | null = null;
  let stopping = false;

  const send = (event: EngineEvent) => port?.postMessage({ ...event, seq: ++sequence });
  const log = (run: AlignRun, ...events: object[]) => {
    const lines = events.map((event) => ({ step: run.step, ...event, t: Date.now() / 1000 })) as LogLine[];
    run.lines.push(...lines);
    send({ kind: "log", run: run.request.name, lines });
    for (const take of followers.get(run.request.name) ?? []) take(lines);
  };
  const status = (run: AlignRun, value: RunStatus) =>
    send({ kind: "status", run: run.request.name, status: value, step: run.step });
  const phase = async (run: AlignRun, name: string, total: number, unit: string, seconds: number) => {
    for (let done = 0; done <= total; done++) {
      log(run, { kind: "phase", name, done, total, unit });
      if (done < total) await clock!.wait((1000 * seconds) / total);
    }
  };

  /** What the judge thinks of an item's picture at a step: aligned ones rise, each in its own way. */
  const judgeOf = (run: AlignRun, item: Item, picture: number) => {
    const own = (hashOf(item.name) % 1000) / 1000;
    const progress = 1 - Math.exp((-2 * run.step) / run.steps);
    const rise = item.group === "aligned" ? (options.wrecked ? -0.09 : 0.24 * (own - 0.2)) : 0.008 * (own - 0.5);
    return (item.group === "aligned" ? 0.36 + 0.22 * own : 0.6 + 0.1 * own) + 0.03 * picture + rise * progress;
  };
  const mean = (values: number[]) => values.reduce((sum, v) => sum + v, 0) / Math.max(1, values.length);
  const group = (run: AlignRun, name: Item["group"]) => run.items.filter((item) => item.group === name);
  const judge = (run: AlignRun, items: Item[]) =>
    mean(items.flatMap((item) => Array.from({ length: run.pictures }, (_, p) => judgeOf(run, item, p))));

  function measure(run: AlignRun, whole: boolean): void {
    const progress = 1 - Math.exp((-2 * run.step) / run.steps);
    const over = options.wrecked ? 4.5 : 1;
    const aligned = group(run, "aligned");
    const values: Record<string, number> = {
      eval_reward: 0.41 + 0.09 * progress,
      guard_judge: judge(run, aligned),
      guard_diversity: 0.383 - 0.11 * progress * (over > 1 ? 2.6 : 1),
      guard_saturation: 0.15 + 0.034 * progress * over,
      guard_contrast: 0.21 + 0.02 * progress * over,
      guard_sharpness: 0.13 + 0.03 * progress * over,
      guard_grid8: 0.003 + 0.001 * progress,
      guard_grid16: 0.004 + 0.001 * progress,
    };
    if (whole) {
      values["eval_judge_aligned"] = judge(run, aligned);
      values["eval_judge_head"] = judge(run, group(run, "head"));
    }
    log(run, { kind: "metric", step: run.step, values });
  }

  function draw(run: AlignRun, items: Item[]): void {
    const learnt = 0.35 + 0.6 * (run.step / run.steps);
    const folder = `samples/step-${String(run.step).padStart(6, "0")}`;
    for (const item of items) {
      const at = run.items.indexOf(item);
      for (let p = 0; p < run.pictures; p++) {
        const index = at * run.pictures + p;
        const path = `${folder}/${String(index).padStart(2, "0")}-seed1000.png`;
        const share = item.group === "head" ? 0.95 : learnt;
        run.files.set(path, fakePictureBytes(`${item.name} ${STYLES[p % 2]}`, 7 + index, share));
        const judged = judgeOf(run, item, p);
        log(run, { kind: "sample", step: run.step, path, item: item.name, seed: 1000, judge: judged });
      }
    }
  }

  async function play(run: AlignRun): Promise<void> {
    status(run, "running");
    await phase(run, "encode texts", 12, "texts", 0.5);
    await phase(run, "trace and tune", 1, "session", 0.2);
    await phase(run, "compile and load", 30, "plans", 0.8);
    await phase(run, "evaluate before", run.items.length * run.pictures, "pictures", 1);
    draw(run, run.items);
    measure(run, true);
    const text = "cosine of the positive and negative texts: 0.9966 on average over 32 items";
    log(
      run,
      { kind: "message", text },
      { kind: "warning", code: PAIR_WARNING, text: `the reward hardly tells the two texts of a pair apart (${text})` },
    );
    const align = () => log(run, { kind: "phase", name: "align", done: run.step, total: run.steps, unit: "updates" });
    align();
    while (run.step < run.steps) {
      await clock!.turn(
        () => status(run, "paused"),
        () => status(run, "running"),
      );
      if (stopping) {
        current = null;
        return status(run, "stopped");
      }
      await clock!.wait(pace);
      run.step++;
      log(run, { kind: "metric", step: run.step, values: updateMetrics(run) });
      align();
      if (run.step % run.every === 0 && run.step < run.steps) {
        draw(run, group(run, "aligned"));
        measure(run, false);
        if (options.wrecked && run.step >= 0.6 * run.steps && !run.lines.some((l) => "code" in l && l.code === ALARM))
          log(run, {
            kind: "warning",
            code: ALARM,
            text: "guard rails: the reward rose while judge, saturation left their bands",
          });
      }
    }
    await phase(run, "save", 1, "checkpoint", 0.1);
    await phase(run, "evaluate after", run.items.length * run.pictures, "pictures", 1);
    measure(run, true);
    draw(run, run.items);
    finish(run);
  }

  function updateMetrics(run: AlignRun): Record<string, number> {
    const noise = (hashOf(`${run.step}`) % 1000) / 1000 - 0.5;
    const progress = 1 - Math.exp((-2 * run.step) / run.steps);
    const positive = 0.42 + 0.09 * progress + 0.05 * noise;
    const negative = positive - 0.004 - 0.004 * progress - 0.004 * noise;
    const reward = 3 * positive - 2 * negative;
    const rest = { grad_norm: 0.3 + 0.1 * noise, update_ratio: 2e-4, lr: Math.min(1, run.step / 10) * 3e-5, m0: 500 };
    return { reward, positive, negative, loss: 0.7 - reward / 3, seconds: pace / 1000, ...rest };
  }

  function finish(run: AlignRun): void {
    const now = run.step;
    const rows = run.items.map((item): ItemRow => {
      const at = (step: number) => {
        run.step = step;
        const value = judge(run, [item]);
        return {
          judge: value,
          top1: value > 0.5 ? 1 : 0,
          reward: value - 0.05,
          saturation: 0.15 + 0.03 * (step / now),
        };
      };
      return {
        item: item.name,
        category: "",
        region: "",
        group: item.group,
        pictures: run.pictures,
        before: at(0),
        after: at(now),
      };
    });
    const encode = (text: string) => new TextEncoder().encode(text);
    const summary = summariseEvaluation(rows);
    const status_ = { state: "complete", updatesDone: now, updatesPlanned: run.steps };
    const method = { label: "SRPO with MIA pairs", training: "full" };
    const report = {
      name: run.request.name,
      createdAt: new Date().toISOString(),
      status: status_,
      method,
      evaluation: { rows, summary },
    };
    run.files.set("report.json", encode(JSON.stringify(report)));
    run.files.set("report.html", encode("<!doctype html><title>Report</title><p>A made-up report."));
    for (const end of ["transformer.safetensors", "lora.safetensors"])
      run.files.set(`${run.request.name}.${end}`, new Uint8Array(2_000_000));
    current = null;
    status(run, "finished");
  }

  /** A panel may ask for a run's folder before the run has begun. */
  function source(name: string): RunSource {
    const bytes = (path: string) => {
      const run = runs.get(name);
      return path === "config.toml" && run ? new TextEncoder().encode(run.request.toml) : run?.files.get(path);
    };
    const other = inner.source(name);
    return {
      name,
      origin: "browser",
      text: async (path) => {
        const found = bytes(path);
        return found ? new TextDecoder().decode(found) : other.text(path);
      },
      blob: async (path) => {
        const found = bytes(path);
        const type = path.endsWith(".png") ? "image/png" : "";
        return found ? new Blob([found as BlobPart], { type }) : other.blob(path);
      },
      follow(take, ended) {
        const run = runs.get(name);
        if (!run) return other.follow(take, ended);
        take([...run.lines]);
        const all = followers.get(name) ?? new Set();
        followers.set(name, all.add(take));
        return () => void all.delete(take);
      },
    };
  }

  return {
    ...inner,
    source,
    async connect(given) {
      port = given;
      const relay = new MessageChannel();
      relay.port1.onmessage = ({ data }: MessageEvent<Sequenced<EngineEvent>>) => send(data);
      await inner.connect(relay.port2);
    },
    async plan(request): Promise<PlanFacts> {
      const plan = await inner.plan(request);
      if (request.command !== "align") return plan;
      const steps = Number(/\nsteps = (\d+)\nbatch/.exec(request.toml)?.[1] ?? 40);
      return {
        ...plan,
        steps,
        flopsPerUpdate: 59e9,
        parameters: 8_153_344,
        trainedParameters: 8_153_344,
        pictures: "",
      };
    },
    async start(request) {
      if (request.command !== "align") return inner.start(request);
      const number = (pattern: RegExp, otherwise: number) => Number(pattern.exec(request.toml)?.[1] ?? otherwise);
      const heads = HEAD.slice(0, number(/head_items = (\d+)/, 4));
      const run: AlignRun = {
        request,
        step: 0,
        steps: number(/\nsteps = (\d+)\nbatch/, 40),
        every: number(/every = (\d+)/, 10),
        items: [
          ...alignedNames(request.toml).map((name): Item => ({ name, group: "aligned" })),
          ...heads.map((name): Item => ({ name, group: "head" })),
        ],
        pictures: number(/\npictures = (\d+)/, 2),
        lines: [],
        files: new Map(),
      };
      runs.set(request.name, run);
      current = run;
      clock = new FakeClock();
      stopping = false;
      status(run, "starting");
      void play(run);
    },
    pause: async () => (current ? clock!.pause() : inner.pause()),
    resume: async () => (current ? clock!.resume() : inner.resume()),
    step: async (updates) => (current ? clock!.step(updates) : inner.step(updates)),
    async stop() {
      if (!current) return inner.stop();
      stopping = true;
      status(current, "stopping");
      clock!.resume();
    },
  };
}

/** Options from the page's address: `?engine=fake&speed=20&wrecked`. */
export function fakeAlignOptions(query: URLSearchParams): FakeAlignOptions {
  const speed = Number(query.get("speed"));
  return { wrecked: query.has("wrecked"), ...(speed > 0 ? { speed } : {}) };
}
