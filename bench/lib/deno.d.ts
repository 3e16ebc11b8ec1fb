// What the benchmarks use of Deno beyond src/platform/deno.d.ts: their contenders run in child processes.

declare namespace Deno {
  interface ChildProcess {
    readonly stdin: WritableStream<Uint8Array>;
    readonly stdout: ReadableStream<Uint8Array<ArrayBuffer>>;
    readonly stderr: ReadableStream<Uint8Array<ArrayBuffer>>;
    readonly status: Promise<{ code: number }>;
  }
  class Command {
    constructor(path: string, options: { args: string[]; stdin: "piped"; stdout: "piped"; stderr: "piped" });
    spawn(): ChildProcess;
  }
  const stdin: { readonly readable: ReadableStream<Uint8Array<ArrayBuffer>> };
  const stdout: { writeSync(data: Uint8Array): number };
}
