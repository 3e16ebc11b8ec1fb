// Writes the adapter files that load_lora_files.py loads into diffusers and PEFT.
// deno run -A --no-check tests/oracle/write_lora_files.ts <folder>

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fluxConfig } from "../../src/models/flux/config.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { OWN_FIXTURES } from "../helpers/files.ts";
import { writeCases } from "../helpers/lora_files.ts";

const folder = process.argv[2];
if (folder === undefined) throw new Error("give the folder to write to");
const model = join(OWN_FIXTURES, "flux1_small", "config.json");
const config = fluxConfig(JSON.parse(readFileSync(model, "utf8")), model);
const cases = await writeCases(new DiskFiles(), folder, config);
writeFileSync(join(folder, "cases.json"), JSON.stringify(cases, null, 1));
console.log(`${cases.length} cases in ${folder}`);
