// Facts about the machine and the program that a run keeps in its env.json and shows in its report. The platform collects
// them: the command line asks the system, a page the browser.

export interface EnvironmentFacts {
  /** Version of this package. */
  longtail: string;
  /** Commit of the checkout, with `+changes` where files differ from it; null outside a checkout. */
  commit: string | null;
  /** What the program runs in; `v8` and `node` are empty in a browser. */
  runtime: { name: "deno" | "node" | "browser"; version: string; v8: string; node: string };
  /** Version of the npm package that carries Dawn. */
  dawn: string | null;
  system: { platform: string; release: string; name: string; arch: string; container: boolean };
  processor: { model: string; cores: number };
  /** Bytes; `available` counts what other programs would give back, and a container's limit. */
  memory: { total: number; available: number };
  /** Variables that change which GPU is used. */
  variables: Record<string, string>;
  /** What the start-up script could not set up, where it could not. */
  setupError: string | null;
}
