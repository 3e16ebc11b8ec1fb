// The child's side of a comparison: it opens its library once, prepares a task, and then answers "run it so many times" with
// the seconds that took, one request a line. Lines that libraries print by themselves lack the mark and are passed over.

import process from "node:process";
import { dawnFlags, openGpu } from "../../src/platform/adapters.ts";
import { waitPatiently } from "./patience.ts";

waitPatiently();

export const MARK = "@bench ";

/** A task that is compiled, warm and resident on the device. */
export interface Prepared {
  /** Does the task `repeats` times and waits until the device is done. */
  run(repeats: number): Promise<void>;
  /** Relative error of the result against the float64 rule, or whatever the task calls its check. */
  check(): Promise<unknown>;
  /** Frees the device memory of the task. */
  close(): void | Promise<void>;
}

export interface Contender<Task> {
  name: string;
  /** Opens the library; returns the adapter's name, or why it cannot say. */
  open(): Promise<string>;
  prepare(task: Task): Promise<Prepared>;
}

/**
 * Gives libraries for the browser the same Dawn, with the same flags, that our own kernels run on. They look for
 * `navigator.gpu`.
 */
export async function provideDawn(): Promise<string> {
  const gpu = await openGpu({ backend: "dawn" });
  Object.defineProperty(navigator, "gpu", { value: gpu, configurable: true });
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new Error(`no adapter with ${dawnFlags().join(" ")}`);
  return adapter.info.device || adapter.info.description;
}

/** Answers requests on stdin until it is closed. */
export async function serve<Task>(contender: Contender<Task>): Promise<void> {
  const output = new TextEncoder();
  const say = (message: unknown) => Deno.stdout.writeSync(output.encode(`${MARK}${JSON.stringify(message)}\n`));
  try {
    say({ adapter: await contender.open() });
  } catch (error) {
    say({ failed: reason(error) });
    Deno.exit(1);
  }
  let prepared: Prepared | null = null;
  let rest = "";
  for await (const chunk of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    rest += chunk;
    for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
      const request = JSON.parse(rest.slice(0, end)) as { prepare?: Task; run?: number };
      rest = rest.slice(end + 1);
      try {
        if (request.prepare !== undefined) {
          await prepared?.close();
          prepared = null;
          prepared = await contender.prepare(request.prepare);
          await prepared.run(1);
          say({ checked: await prepared.check() });
        } else {
          const [start, used] = [performance.now(), cpuSeconds()];
          await prepared!.run(request.run!);
          say({ seconds: (performance.now() - start) / 1000, work: cpuSeconds() - used });
        }
      } catch (error) {
        say({ failed: reason(error) });
      }
    }
  }
  // Some libraries keep timers or threads that would hold the process.
  Deno.exit(0);
}

/** Of all threads of this process, the software adapter's among them. */
function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function reason(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}
