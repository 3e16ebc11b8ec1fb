// The parent's side of a comparison: one child process for each library, because some bring a WebGPU of their own, and
// because none shall profit or suffer from another's memory. Batches go round: one of each library in turn, so that a busy
// moment of the machine hits all of them.

import { MARK } from "./child.ts";

/** How long the rounds of one task may last in all, unless a benchmark says otherwise. */
const MOST_SECONDS = 60;

interface Answer {
  adapter?: string;
  checked?: unknown;
  seconds?: number;
  /** Processor seconds of all its threads. */
  work?: number;
  failed?: string;
}

/** A library in a child process. */
export class Child {
  readonly name: string;
  adapter = "";
  /** Why it takes no part (any more), or null. */
  absent: string | null = null;
  private readonly process: Deno.ChildProcess;
  private readonly writer: WritableStreamDefaultWriter<Uint8Array>;
  private readonly answers: AsyncGenerator<Answer>;
  private noise = "";

  private constructor(name: string, process: Deno.ChildProcess) {
    this.name = name;
    this.process = process;
    this.writer = process.stdin.getWriter();
    this.answers = this.read();
    void this.collectNoise();
  }

  /** Starts `file` (relative to bench/); a child that cannot open its library is returned with `absent` set. */
  static async start(name: string, file: string): Promise<Child> {
    const path = new URL(`../${file}`, import.meta.url);
    const config = new URL("../../deno.json", import.meta.url);
    const process = new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "-A",
        "--no-check",
        "--config",
        decodeURIComponent(config.pathname),
        decodeURIComponent(path.pathname),
      ],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const child = new Child(name, process);
    const answer = await child.next();
    child.adapter = answer.adapter ?? "";
    return child;
  }

  /** Builds and warms a task; returns the result of its check, or null where the library cannot do it. */
  async prepare(task: unknown): Promise<unknown> {
    if (this.absent) return null;
    const answer = await this.ask({ prepare: task });
    return answer.checked ?? null;
  }

  /** Seconds of `repeats` runs, by the clock or of the processor. */
  async run(repeats: number, byProcessor = false): Promise<number> {
    const answer = await this.ask({ run: repeats });
    return (byProcessor ? answer.work : answer.seconds) ?? Number.NaN;
  }

  private async ask(request: unknown): Promise<Answer> {
    try {
      await this.writer.write(new TextEncoder().encode(`${JSON.stringify(request)}\n`));
    } catch {
      this.absent ??= this.lastNoise();
      return {};
    }
    return this.next();
  }

  private async next(): Promise<Answer> {
    const { value, done } = await this.answers.next();
    const answer: Answer = done ? { failed: `the process ended: ${this.lastNoise()}` } : value;
    if (answer.failed) this.absent = answer.failed.split("\n")[0]!.slice(0, 600);
    return answer;
  }

  private lastNoise(): string {
    return this.noise.trim().split("\n").slice(-2).join(" ").slice(0, 200) || "without a word";
  }

  private async *read(): AsyncGenerator<Answer> {
    let rest = "";
    for await (const chunk of this.process.stdout.pipeThrough(new TextDecoderStream())) {
      rest += chunk;
      for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
        const line = rest.slice(0, end);
        rest = rest.slice(end + 1);
        if (line.startsWith(MARK)) yield JSON.parse(line.slice(MARK.length)) as Answer;
        else this.noise = `${this.noise}\n${line}`.slice(-2000);
      }
    }
  }

  private async collectNoise(): Promise<void> {
    for await (const chunk of this.process.stderr.pipeThrough(new TextDecoderStream())) {
      this.noise = `${this.noise}${chunk}`.slice(-2000);
    }
  }

  async close(): Promise<void> {
    try {
      await this.writer.close();
    } catch {
      // It has ended already.
    }
    await this.process.status;
  }
}

/**
 * Seconds of one run in every round, for each child: `rounds` rounds, in each of which every child runs one batch. A batch
 * repeats the task until it lasts about `batchSeconds`, so that waiting for the device is a small part of it. Where a child
 * is so slow that all rounds would last over `mostSeconds`, there are fewer, but at least three.
 * @param byProcessor counts processor seconds of all threads, shared out to all cores: what a software adapter needs on a
 *   machine that is busy with other things
 */
export async function contest(
  children: readonly Child[],
  rounds: number,
  batchSeconds: number,
  mostSeconds = MOST_SECONDS,
  byProcessor = false,
): Promise<Map<Child, number[]>> {
  const repeats = new Map<Child, number>();
  let roundSeconds = 0;
  const cores = navigator.hardwareConcurrency;
  for (const child of children) {
    const once = Math.max(await child.run(1), 1e-6);
    const count = Math.max(1, Math.min(1000, Math.round(batchSeconds / once)));
    repeats.set(child, count);
    roundSeconds += count * once;
  }
  const enough = Math.max(3, Math.min(rounds, Math.floor(mostSeconds / roundSeconds)));
  const times = new Map<Child, number[]>(children.map((child) => [child, []]));
  for (let round = 0; round < enough; round++) {
    for (const child of children) {
      const count = repeats.get(child)!;
      times.get(child)!.push((await child.run(count, byProcessor)) / count / (byProcessor ? cores : 1));
    }
  }
  return times;
}
