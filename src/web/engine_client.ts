// Starts the worker that computes, and wraps it as an `Engine` whose methods are promises (comlink). The worker is named after the
// address of the page: models and presets lie beside it.

import { transfer, wrap } from "comlink";
import type { Engine } from "./protocol.ts";
import type { EngineParts } from "./store.ts";

/** One worker, running. What it throws arrives as the plain `WireError` that it threw. */
export async function startWorker(): Promise<EngineParts> {
  const worker = new Worker(new URL("./worker/main.ts", import.meta.url), { type: "module", name: document.baseURI });
  const broken = new Promise<never>((_, reject) => {
    worker.onerror = (event) =>
      reject({
        code: "E-RUN-098",
        what: "the worker that computes could not start",
        why: event.message || "its script did not load",
        fix: "reload the page",
      });
  });
  const remote = wrap<Engine>(worker);
  // A script that does not load never answers: the first call waits for either.
  const connect = (port: MessagePort) => Promise.race([remote.connect(transfer(port, [port])), broken]);
  broken.catch(() => {});
  const engine = new Proxy(remote as unknown as Engine, {
    get: (target, key) => (key === "connect" ? connect : Reflect.get(target, key)),
  });
  return { engine };
}
