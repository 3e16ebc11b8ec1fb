// A pipeline whose transformer and autoencoder come from files in the original layout, as SRPO's published weights and the
// single files of Black Forest Labs do: the same values reach the device as from a folder in diffusers' layout.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { fluxOriginalMap } from "../../src/models/flux/bfl_keys.ts";
import { mappedSource, safetensorsSource, shapesOf, tensorsToWrite } from "../../src/models/mapped_source.ts";
import { openPart, readLayout } from "../../src/models/pipeline_layout.ts";
import { vaeOriginalMap } from "../../src/models/vae/bfl_keys.ts";
import { NodeFiles } from "../helpers/files.ts";
import { writePipelineFolder } from "../helpers/pipeline_folder.ts";

const folder = mkdtempSync(join(tmpdir(), "longtail-swap-"));
afterAll(() => rmSync(folder, { recursive: true }));
const files = new NodeFiles();

describe("a pipeline with parts from elsewhere", () => {
  it("has the values of the files that take the place of its own", async () => {
    await writePipelineFolder(folder, "dev");
    const own = await readLayout(files, folder, "auto");
    const stored = safetensorsSource(await Safetensors.open(files, own.transformer.weights));
    const original = mappedSource(stored, fluxOriginalMap(shapesOf(stored), folder));
    await writeSafetensors(files, join(folder, "srpo/flux.safetensors"), tensorsToWrite(original));
    const plain = tensorsToWrite(stored);
    await writeSafetensors(files, join(folder, "one/diffusion_pytorch_model.safetensors"), plain);
    const vae = safetensorsSource(await Safetensors.open(files, own.autoencoder.weights));
    await files.writeAtomic(join(folder, "ae/config.json"), JSON.stringify(own.autoencoder.settings.config));
    const vaeOriginal = tensorsToWrite(mappedSource(vae, vaeOriginalMap(shapesOf(vae))));
    await writeSafetensors(files, join(folder, "ae/ae.safetensors"), vaeOriginal);

    // "one" is how SRPO's transformer is published: diffusers' names, and no configuration beside the file.
    for (const place of ["srpo/flux.safetensors", "srpo", "one", "one/diffusion_pytorch_model.safetensors"]) {
      const layout = await readLayout(files, folder, join(folder, "ae/ae.safetensors"), join(folder, place));
      expect(layout.transformer.config).toEqual(own.transformer.config);
      expect(layout.autoencoder.settings).toEqual(own.autoencoder.settings);
      for (const [part, expected] of [
        ["transformer", stored],
        ["autoencoder", vae],
      ] as const) {
        const source = await openPart(files, part, part === "transformer" ? layout.transformer : layout.autoencoder);
        expect([...source.names()].sort()).toEqual([...expected.names()].sort());
        for (const name of expected.names()) {
          const [a, b] = [await source.load(name), await expected.load(name)];
          expect(
            Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength)),
            name,
          ).toBe(true);
        }
        await source.close();
      }
    }
  });
});
