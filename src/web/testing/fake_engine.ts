// An engine that computes nothing: it plays a plausible run (phases with counts, falling loss, samples that take shape,
// checkpoints, a warning) on timers, answers like the worker and fails on demand. The page is built and tested against it
// where no device is; `?engine=fake` chooses it in development, and a production build does not contain it.

import type { RunEvent } from "../../base/events.ts";
import type {
  DeviceFacts,
  DrawnPicture,
  DrawRequest,
  Engine,
  EngineEvent,
  IncomingFile,
  LogLine,
  PictureSetFacts,
  PlanFacts,
  RunStatus,
  StartRequest,
  StorageFacts,
  StoredRun,
  WireError,
} from "../protocol.ts";
import type { RunSource } from "../run_source.ts";
import { FAILURES, FAKE_MEMORY, type FakeOptions, PROMPTS } from "./fake_options.ts";
import { FakeClock, fakePictureBytes, fakePixels, hashOf } from "./fake_parts.ts";

export { type FakeOptions, fakeOptions } from "./fake_options.ts";

interface FakeRun {
  name: string;
  command: "train" | "align";
  toml: string;
  started: string;
  state: string;
  step: number;
  steps: number;
  prompts: string[];
  lines: LogLine[];
  files: Map<string, Uint8Array>;
}

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** The fake engine, and the run folders that it "writes". */
export interface FakeEngine extends Engine {
  /** A run's folder as the page reads it. */
  source(name: string): RunSource;
}

export function createFakeEngine(options: FakeOptions = {}): FakeEngine {
  const speed = options.speed ?? 12;
  const runs = new Map<string, FakeRun>();
  const sets = new Map<string, PictureSetFacts>();
  const listeners = new Map<string, Set<(lines: LogLine[]) => void>>();
  let port: MessagePort | null = null;
  let sequence = 0;
  let weights = 0;
  let current: { run: FakeRun; clock: FakeClock; status: RunStatus; stopping: boolean } | null = null;
  const wanted = { sample: false, save: false, lose: false };

  const send = (event: EngineEvent) => port?.postMessage({ ...event, seq: ++sequence });
  const log = (run: FakeRun, ...events: RunEvent[]) => {
    const lines = events.map((event) => ({ step: run.step, ...event, t: Date.now() / 1000 })) as LogLine[];
    run.lines.push(...lines);
    send({ kind: "log", run: run.name, lines });
    for (const take of listeners.get(run.name) ?? []) take(lines);
  };
  const status = (run: FakeRun, value: RunStatus, error?: WireError) => {
    if (current?.run === run) current.status = value;
    run.state = value;
    send({ kind: "status", run: run.name, status: value, step: run.step, ...(error ? { error } : {}) });
  };
  const reject = (error: WireError): never => {
    throw error;
  };
  const known = (name: string): FakeRun =>
    runs.get(name) ?? reject({ code: "E-CFG-023", what: `there is no run ${name}`, fix: "choose one of the list" });

  async function phase(run: FakeRun, clock: FakeClock, name: string, total: number, unit: string, seconds: number) {
    for (let done = 0; done <= total; done++) {
      log(run, { kind: "phase", name, done, total, unit });
      if (done < total) await clock.wait((1000 * seconds) / total);
    }
  }

  async function sample(run: FakeRun, clock: FakeClock) {
    const step = String(run.step).padStart(6, "0");
    for (const [i, prompt] of run.prompts.entries()) {
      const path = `samples/step-${step}/${String(i).padStart(2, "0")}-seed42.png`;
      run.files.set(path, fakePictureBytes(prompt, 42 + i, Math.min(1, run.step / (run.steps * 0.8))));
      log(run, {
        kind: "phase",
        name: `draw samples, step ${run.step}`,
        done: i + 1,
        total: 4,
        unit: "pictures",
      });
      log(run, { kind: "sample", step: run.step, path, item: prompt, seed: 42 });
      await clock.wait(60);
    }
  }

  function save(run: FakeRun) {
    const path = `ckpt/step-${String(run.step).padStart(6, "0")}`;
    log(run, { kind: "checkpoint", step: run.step, path, bytes: 4_423_680 });
  }

  function metrics(run: FakeRun): Record<string, number> {
    const noise = (hashOf(`${run.name}${run.step}`) % 1000) / 1000 - 0.5;
    const decay = Math.exp((-3 * run.step) / run.steps);
    const loss = 0.32 + 0.5 * decay + 0.22 * noise;
    const common = { loss, grad_norm: 0.4 + 0.5 * decay + 0.1 * noise, lr: Math.min(1, run.step / 10) * 1e-3 };
    const times = { update_ratio: 2e-3 * decay + 2e-4, seconds: 1 / speed, stall_seconds: 0, host_seconds: 0.002 };
    if (run.command === "align")
      return {
        ...common,
        ...times,
        reward: 0.24 + 0.05 * (1 - decay) + 0.01 * noise,
        judge: 0.26 + 0.02 * (1 - decay),
      };
    return { ...common, loss_mean: 0.32 + 0.52 * decay, ...times };
  }

  async function play(run: FakeRun, clock: FakeClock) {
    const fresh = run.step === 0;
    status(run, "running");
    await phase(run, clock, "encode captions", 10, "captions", 0.4);
    await phase(run, clock, "trace and tune", 1, "session", 0.3);
    send({ kind: "memory", run: run.name, categories: { ...FAKE_MEMORY } });
    await phase(run, clock, "compile and load", 42, "plans", 1.2);
    if (fresh) {
      await sample(run, clock);
      log(run, { kind: "metric", step: 0, values: { val_loss: 0.86 } });
    }
    const unit = "updates";
    log(run, { kind: "phase", name: run.command, done: run.step, total: run.steps, unit });
    while (run.step < run.steps) {
      await clock.turn(
        () => status(run, "paused"),
        () => status(run, "running"),
      );
      if (current?.stopping) return end(run, "stopped");
      await clock.wait(1000 / speed);
      run.step++;
      log(run, { kind: "metric", step: run.step, values: metrics(run) });
      log(run, { kind: "phase", name: run.command, done: run.step, total: run.steps, unit });
      const failAt = options.failAt ?? Math.floor(run.steps / 2);
      if (options.fail && run.step === failAt) {
        const text = FAILURES[options.fail] ?? { what: "the run failed", fix: "start it again" };
        return end(run, "failed", { code: options.fail, ...text });
      }
      if (run.step === options.loseAt || wanted.lose) await lose(run, clock);
      if (run.step === 20)
        log(run, {
          kind: "warning",
          code: "E-NUM-010",
          text: "1 update was refused because its loss was not finite",
        });
      const quarter = Math.max(10, Math.round(run.steps / 4));
      if (run.step % quarter === 0)
        log(run, { kind: "metric", step: run.step, values: { val_loss: metrics(run).loss! } });
      if (wanted.sample || run.step % quarter === 0) await sample(run, clock);
      if (wanted.save || run.step % 25 === 0) save(run);
      wanted.sample = wanted.save = false;
    }
    end(run, "finished");
  }

  async function lose(run: FakeRun, clock: FakeClock) {
    wanted.lose = false;
    send({ kind: "device-lost", run: run.name, why: "the driver was reset", recovering: true, step: run.step });
    await phase(run, clock, "compile and load", 42, "plans", 0.8);
  }

  function end(run: FakeRun, state: "finished" | "stopped" | "failed", error?: WireError) {
    if (state !== "failed") save(run);
    if (error) log(run, { kind: "error", code: error.code, text: `${error.code} ${error.what}` });
    if (state === "finished") {
      run.files.set(`${run.name}.safetensors`, new Uint8Array(1_476_000));
      run.files.set(`${run.name}.kohya.safetensors`, new Uint8Array(1_476_400));
      run.files.set(
        "report.html",
        new TextEncoder().encode("<!doctype html><title>Report</title><p>A made-up report."),
      );
      run.files.set("report.json", new TextEncoder().encode("{}"));
    }
    status(run, state, error);
    current = null;
  }

  function source(name: string): RunSource {
    const run = () => runs.get(name);
    const bytesOf = (path: string): Uint8Array | null => {
      if (path === "log.jsonl")
        return encode(
          run()
            ?.lines.map((line) => JSON.stringify(line))
            .join("\n") ?? "",
        );
      if (path === "config.toml") return encode(run()?.toml ?? "");
      return run()?.files.get(path) ?? null;
    };
    return {
      name,
      origin: "browser",
      text: async (path) => {
        const found = bytesOf(path);
        return found ? new TextDecoder().decode(found) : null;
      },
      blob: async (path) => {
        const found = bytesOf(path);
        const type = path.endsWith(".png") ? "image/png" : "application/octet-stream";
        return found ? new Blob([found as BlobPart], { type }) : null;
      },
      follow(take) {
        take([...(run()?.lines ?? [])]);
        const all = listeners.get(name) ?? new Set();
        listeners.set(name, all.add(take));
        return () => void all.delete(take);
      },
    };
  }

  const encode = (text: string) => new TextEncoder().encode(text);
  const facts: DeviceFacts = {
    name: options.software ? "SwiftShader (made up)" : "Radeon 780M (made up)",
    software: options.software ?? false,
    f16: !options.software,
    subgroups: true,
    maxBindingBytes: 2 ** 31 - 4,
  };

  if (options.stoppedRun) {
    const toml = 'preset = "lora"\n[train]\nsteps = 120\n';
    const run = newRun({ command: "train", toml, name: "yesterday", resume: false });
    for (run.step = 1; run.step < 70; run.step++)
      run.lines.push({
        kind: "metric",
        step: run.step,
        values: metrics(run),
        t: Date.now() / 1000 - 900 + run.step,
      });
    run.state = "stopped";
    run.lines.push({
      kind: "phase",
      name: "train",
      done: 69,
      total: 120,
      unit: "updates",
      step: 69,
      t: Date.now() / 1000 - 800,
    });
  }

  function newRun(request: StartRequest): FakeRun {
    const steps = Number(
      /steps\s*=\s*(\d+)/.exec(/\[(?:train|align)\][^[]*/.exec(request.toml)?.[0] ?? "")?.[1] ?? 200,
    );
    const { name, command, toml } = request;
    const run: FakeRun = {
      ...{ name, command, toml, steps, started: new Date().toISOString(), state: "running", step: 0 },
      ...{ prompts: PROMPTS, lines: [], files: new Map() },
    };
    runs.set(name, run);
    return run;
  }

  return {
    source,
    connect: (given) => {
      port = given;
    },
    open: async () => {
      await wait(120);
      return facts;
    },
    async warm() {
      const total = 24_600_000;
      for (let received = 0; received < total; received += 2_460_000) {
        send({ kind: "download", name: "models/embedded/transformer", received, total, cached: false });
        await wait(40);
      }
      weights = total;
      send({ kind: "download", name: "models/embedded/transformer", received: total, total, cached: false });
    },
    async plan(request): Promise<PlanFacts> {
      await wait(80);
      const memory = { ...FAKE_MEMORY };
      const total = Object.values(memory).reduce((sum, n) => sum + n, 0);
      const steps = Number(/steps\s*=\s*(\d+)/.exec(request.toml)?.[1] ?? 200);
      const parameters = { parameters: 8_521_984, trainedParameters: 368_640 };
      const pictures = "10 pictures to learn from; one size (64×64: 10)";
      return { steps, memory, total, flopsPerUpdate: 5.15e9, ...parameters, pictures, warnings: [] };
    },
    async start(request) {
      if (current) reject({ code: "E-RUN-040", what: "a run is under way", fix: "stop it first" });
      const before = runs.get(request.name);
      if (before && !request.resume)
        reject({
          code: "E-CFG-021",
          what: "a finished run has this name",
          where: request.name,
          fix: "choose another name",
        });
      const run = request.resume ? known(request.name) : newRun(request);
      if (request.resume) run.step = Math.floor(run.step / 25) * 25;
      const clock = new FakeClock();
      current = { run, clock, status: "starting", stopping: false };
      status(run, "starting");
      void play(run, clock);
    },
    pause: async () => current?.clock.pause(),
    resume: async () => current?.clock.resume(),
    step: async (updates) => current?.clock.step(updates),
    async stop() {
      if (!current) return;
      current.stopping = true;
      status(current.run, "stopping");
      current.clock.resume();
    },
    async sampleNow() {
      wanted.sample = true;
    },
    async saveNow() {
      wanted.save = true;
    },
    async draw(request: DrawRequest): Promise<DrawnPicture[]> {
      await wait(60 + 25 * request.steps);
      const run = request.run === null ? null : known(request.run);
      const learnt = run ? Math.min(1, run.step / (run.steps * 0.8)) * Math.abs(request.strength) : 0;
      return request.prompts.map((prompt, i) => ({
        ...{ width: 64, height: 64 },
        rgba: fakePixels(prompt, request.seed + request.first + i, learnt),
        step: run && run.state !== "finished" ? run.step : null,
      }));
    },
    previews: async () => {},
    async addPictures(set: string, files: IncomingFile[]) {
      const facts = sets.get(set) ?? { name: set, path: `pictures/${set}`, pictures: [], dropped: [] };
      for (const { name, blob } of files) {
        if (blob.size === 0) facts.dropped.push({ name, code: "E-DATA-001", why: "the file is empty" });
        else if (!/\.(png|jpe?g|webp)$/i.test(name))
          facts.dropped.push({ name, code: "E-DATA-002", why: "not a picture" });
        else {
          const caption = name
            .replace(/^.*\//, "")
            .replace(/\.\w+$/, "")
            .replace(/[-_]/g, " ");
          facts.pictures.push({ path: `pictures/${set}/${name}`, width: 512, height: 384, caption });
        }
      }
      sets.set(set, facts);
      return structuredClone(facts);
    },
    pictureSet: async (set) =>
      structuredClone(sets.get(set) ?? { name: set, path: `pictures/${set}`, pictures: [], dropped: [] }),
    async setCaption(path, caption) {
      for (const { pictures } of sets.values()) for (const p of pictures) if (p.path === path) p.caption = caption;
    },
    async removePicture(path) {
      for (const set of sets.values()) set.pictures = set.pictures.filter((p) => p.path !== path);
    },
    async storage(): Promise<StorageFacts> {
      const stored: StoredRun[] = [...runs.values()].map((run) => ({
        ...{ name: run.name, command: run.command, state: run.state, step: run.step, started: run.started },
        bytes: 4_500_000 + [...run.files.values()].reduce((sum, file) => sum + file.length, 0),
      }));
      const own = [...sets.values()].map(({ name, pictures }) => ({
        name,
        pictures: pictures.length,
        bytes: pictures.length * 90_000,
      }));
      const quota = {
        quota: 12_000_000_000,
        usage: weights + stored.reduce((sum, run) => sum + run.bytes, 0),
        persisted: false,
      };
      return { runs: stored, sets: own, weightsBytes: weights, otherBytes: 120_000, ...quota };
    },
    async removeRun(name) {
      if (current?.run.name === name) reject({ code: "E-RUN-041", what: "the run is under way", fix: "stop it first" });
      runs.delete(name);
    },
    removeSet: async (name) => void sets.delete(name),
    async removeWeights() {
      weights = 0;
    },
    async loseDevice() {
      wanted.lose = true;
    },
  };
}
