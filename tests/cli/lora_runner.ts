// `longtail lora` through the whole command line, and the two models whose adapters its tests make.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { command as lora } from "../../src/cli/commands/lora.ts";
import { runCommandLine } from "../../src/cli/main.ts";
import { fluxConfig } from "../../src/models/flux/config.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { MODELS, OWN_FIXTURES } from "../helpers/files.ts";
import { RecordingTerminal } from "./recorder.ts";

export const files = new DiskFiles();
export const config = fluxConfig(
  JSON.parse(readFileSync(join(MODELS, "embedded/transformer/config.json"), "utf8")),
  "embedded",
);
export const SMALL = join(OWN_FIXTURES, "flux1_small", "weights.safetensors");
export const small = fluxConfig(
  JSON.parse(readFileSync(join(OWN_FIXTURES, "flux1_small/config.json"), "utf8")),
  "small",
);

export async function run(...argv: string[]) {
  const terminal = new RecordingTerminal(false, 120);
  const code = await runCommandLine(["lora", ...argv], { commands: [lora], terminal, onInterrupt: () => () => {} });
  return { code, output: terminal.output, errors: terminal.errors };
}

export async function json(...argv: string[]) {
  const { code, output, errors } = await run(...argv, "--json");
  expect(errors).toBe("");
  return { code, value: JSON.parse(output) };
}
