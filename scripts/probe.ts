// Asks Dawn, inside Deno, which adapter this machine offers, and prints the answer as one line of JSON. It runs as its own
// process because a broken driver can take the process down with it.

import process from "node:process";
import { create } from "webgpu";
import { dawnFlags } from "../src/platform/adapters.ts";

const adapter = await create(dawnFlags()).requestAdapter({ powerPreference: "high-performance" });
const info = adapter?.info as (GPUAdapterInfo & { subgroupMatrixConfigs?: unknown[] }) | undefined;
const answer =
  adapter && info
    ? {
        name: info.device || info.description,
        vendor: info.vendor,
        driver: info.description,
        software: info.isFallbackAdapter || info.architecture === "software",
        f16: adapter.features.has("shader-f16"),
        subgroups: adapter.features.has("subgroups"),
        subgroupMatrices: info.subgroupMatrixConfigs?.length ?? 0,
      }
    : null;
console.log(`LONGTAIL-PROBE ${JSON.stringify(answer)}`);
// Dawn keeps threads alive; leaving explicitly ends them.
process.exit(0);
