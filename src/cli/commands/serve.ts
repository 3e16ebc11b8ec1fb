// `longtail serve`: the page on this machine, with the runs of a folder to be watched in it. Read-only unless --control.

import { spawn } from "node:child_process";
import type { Server } from "node:http";
import { join } from "node:path";
import process from "node:process";
import { LongtailError } from "../../base/errors.ts";
import type { Command, CommandContext } from "../command.ts";
import { newToken } from "../serve/control.ts";
import { hasPage, pageServer } from "../serve/server.ts";

const DEFAULT_PORT = 8765;
const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|::1)$/i;

export const command: Command = {
  name: "serve",
  summary: "serve the page on this machine and watch runs in it",
  usage: "[--port=8765] [--host=127.0.0.1] [--folder=runs] [--open] [--control]",
  options: [
    { name: "port", value: "N", summary: `port to listen on; default ${DEFAULT_PORT}, 0 takes a free one` },
    { name: "host", value: "ADDRESS", summary: "address to listen on; default 127.0.0.1, this machine alone" },
    { name: "folder", value: "PATH", summary: "folder of runs to be watched; default runs" },
    {
      name: "page",
      value: "PATH",
      summary: "folder of the built page; default dist, which is built where it is missing",
    },
    { name: "open", summary: "open the page in a browser" },
    {
      name: "control",
      summary: "let who knows the printed token pause, resume, save, sample and stop runs from the page",
    },
  ],
  description:
    "The page shows every run of the folder live, as its log grows, and nothing is written. Over ssh, forward the port: " +
    "ssh -L 8765:127.0.0.1:8765 server. Ctrl-C ends it.",
  positionals: [0, 0],
  endsOnInterrupt: true,
  examples: [
    ["longtail serve --open", "the page, with the runs in runs/"],
    ["longtail serve --folder=/data/runs --port=9000", "the runs of another folder"],
    ["longtail serve --control", "runs can be paused and stopped from the page"],
  ],
  async run(context) {
    const { flags } = context.arguments;
    const text = (name: string, otherwise: string) => (typeof flags[name] === "string" ? flags[name] : otherwise);
    const port = portOf(text("port", String(DEFAULT_PORT)));
    const host = text("host", "127.0.0.1");
    const runs = text("folder", "runs");
    const page = text("page", join(context.projectRoot, "dist"));
    if (!(await hasPage(page))) await buildPage(context, page, flags.page === undefined);
    const token = flags.control ? newToken() : null;
    const server = pageServer({ page, runs, host, token, signal: context.signal });
    const url = urlOf(host, await listen(server, port, host));
    if (!LOOPBACK.test(host)) {
      context.emit({
        kind: "warning",
        code: "E-ENV-092",
        text: `whoever reaches ${host} can read every run in ${runs}: there is no password and no encryption; ssh -L with the default address is safer`,
      });
    }
    const address = `${url}#mode=watch${token ? `&token=${token}` : ""}`;
    context.result({ url, runs, token }, `Longtail is at ${address}\nruns of ${runs}; Ctrl-C ends it`);
    if (flags.open) openBrowser(address);
    await aborted(context.signal);
    await close(server);
    return 0;
  },
};

/** Throws E-ARG-090 where the text is no port. */
function portOf(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (port <= 65_535) return port;
  throw new LongtailError("E-ARG-090", {
    where: "--port",
    what: `${JSON.stringify(text)} is not a port`,
    fix: "give a number from 0 to 65535; 0 takes a free one",
  });
}

/** Resolves with the port. Throws E-ENV-090 where it cannot be listened on. */
function listen(server: Server, port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const taken = cause.code === "EADDRINUSE";
      reject(
        new LongtailError("E-ENV-090", {
          what: "the server cannot listen there",
          where: `${host}:${port}`,
          why: taken ? "another program, perhaps another longtail serve, uses the port" : cause.message,
          fix: taken
            ? "open the page that is served already, or choose another --port"
            : "choose another --host or --port",
          cause,
        }),
      );
    });
    server.listen(port, host, () => {
      const address = server.address();
      resolve(typeof address === "object" && address ? address.port : port);
    });
  });
}

function urlOf(host: string, port: number): string {
  const name = host === "0.0.0.0" || host === "::" ? "localhost" : host.includes(":") ? `[${host}]` : host;
  return `http://${name}:${port}/`;
}

/** Builds dist/ with the project's own script. Throws E-ENV-091 where there is no page afterwards. */
async function buildPage(context: CommandContext, page: string, mayBuild: boolean): Promise<void> {
  let why = "there is no index.html in it";
  if (mayBuild) {
    context.print("the page is not built yet; building it takes a few seconds");
    why = await build(context);
    if (await hasPage(page)) return;
  }
  throw new LongtailError("E-ENV-091", {
    what: "the page is not built",
    where: page,
    why,
    fix: mayBuild
      ? "run npm run build in the project's folder and look at its messages"
      : "name a built page with --page",
  });
}

/** Returns why there may be no page. */
function build(context: CommandContext): Promise<string> {
  return new Promise((resolve) => {
    const script = join(context.projectRoot, "scripts", "page.mjs");
    const child = spawn("node", [script, "build"], { cwd: context.projectRoot, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += String(chunk)));
    context.signal.addEventListener("abort", () => child.kill());
    child.on("error", (error) => resolve(`node cannot be started: ${error.message}`));
    child.on("close", (code) => resolve(`the build ended with ${code}: ${output.trim().split("\n").at(-1) ?? ""}`));
  });
}

/** Asks the system for its browser; where there is none, the printed address is enough. */
function openBrowser(url: string): void {
  const [program, ...words] =
    process.platform === "darwin"
      ? ["open", url]
      : process.platform === "win32"
        ? ["cmd", "/c", "start", "", url]
        : ["xdg-open", url];
  const child = spawn(program!, words, { stdio: "ignore", detached: true });
  child.on("error", () => {});
  child.unref();
}

const aborted = (signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });

/** Stops listening; connections that are kept open for reuse would hold the server up. */
function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections?.();
    // A connection that hangs must not keep the command from ending.
    setTimeout(resolve, 500);
  });
}
