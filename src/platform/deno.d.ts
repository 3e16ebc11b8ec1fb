// The part of Deno's global that the project uses, for the type checker: its full declarations clash with the browser's
// and Node's. Outside src/platform, src/cli and tests nothing may use it.

declare namespace Deno {
  const args: string[];
  const version: { deno: string; v8: string; typescript: string };
  const build: { os: string; arch: string; target: string };
  const env: {
    get(name: string): string | undefined;
    set(name: string, value: string): void;
    delete(name: string): void;
  };
  function execPath(): string;
  function exit(code?: number): never;
  function memoryUsage(): { rss: number; heapTotal: number; heapUsed: number; external: number };
  function addSignalListener(signal: string, listener: () => void): void;
  function removeSignalListener(signal: string, listener: () => void): void;
}
