// Commands with blocks streamed from host memory, as a user starts them: `train lora`, `align`, `sample` and `plan`.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decodePng } from "../../src/formats/png.ts";
import { type PictureFolder, writePictureFolder } from "../helpers/picture_folder.ts";
import { SMALL_RUN } from "../helpers/processes.ts";
import { here, json, type Line, shortRun, tensorsOf } from "../helpers/short_run.ts";

const BLOCKS = "--device.offload=blocks";

let folder: string;
let pictures: PictureFolder;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "longtail-streamed-"));
  pictures = writePictureFolder(join(folder, "pictures"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const messages = ({ events }: Line) => events.flatMap((event) => (event.kind === "message" ? [event.text] : []));
const streaming = (line: Line) => messages(line).filter((text) => text.includes("streamed from host memory"));

describe("a training run on streamed blocks", () => {
  const place = (name: string) => join(folder, "runs", name);
  const train = async (name: string, ...words: string[]) => {
    const own = ["--steps=2", "--save.every=1", "--adapter.targets=attention", "--sample.steps=1", "--sample.every=0"];
    const line = await here("train", "lora", `--name=${name}`, ...shortRun(folder, pictures), ...own, ...words);
    expect([line.errors, line.code]).toEqual(["", 0]);
    return line;
  };
  const weights = (name: string) => tensorsOf(join(place(name), `${name}.safetensors`));

  it("says so, goes on from a checkpoint to the bit, and leaves an adapter that `sample` streams too", async () => {
    const line = await train("streamed", BLOCKS);
    expect(streaming(line)).toEqual([
      expect.stringMatching(
        /as device\.offload = "blocks" says: 2 \+ 2 of 2 \+ 3 on the device at a time; host memory keeps all .* that are brought again and again$/,
      ),
    ]);
    const report = json(join(place("streamed"), "report.json"));
    expect(report.curves.steps.every((step: { finite: boolean; loss: number }) => step.finite && step.loss > 0)).toBe(
      true,
    );
    const inOneGo = weights("streamed");
    await train("streamed", BLOCKS, `--resume=${join(place("streamed"), "ckpt/step-000001")}`);
    expect(weights("streamed").equals(inOneGo)).toBe(true);

    const adapter = join(place("streamed"), "streamed.safetensors");
    const drawn = [];
    for (const offload of ["none", "blocks"]) {
      const output = join(folder, `drawn-${offload}`);
      const words = [
        `--output=${output}`,
        "--count=1",
        "--sample.steps=1",
        "--sample.cfg=2",
        `--weights=${adapter}`,
        ...SMALL_RUN,
      ];
      const sample = await here("sample", "wide stripes", ...words, `--device.offload=${offload}`);
      expect([sample.errors, sample.code]).toEqual(["", 0]);
      expect(streaming(sample)).toHaveLength(offload === "blocks" ? 1 : 0);
      drawn.push(decodePng(readFileSync(join(output, "wide_stripes_0.png")), output).data);
    }
    expect(drawn[1]).toEqual(drawn[0]);
  }, 300_000);

  it("is refused for full fine-tuning", async () => {
    const full = await here("train", "lora", "--adapter=full", BLOCKS, `--data=${folder}/pictures`);
    expect([full.code, full.errors]).toEqual([2, expect.stringMatching(/^E-CFG-047 .*full fine-tuning cannot stream/)]);
  });
});

describe("an alignment on streamed blocks", () => {
  it("runs from evaluation to report", async () => {
    const small = [
      "--align.steps=2",
      "--align.batch=1",
      "--align.rollout_steps=2",
      "--align.focus=2",
      "--eval.pictures=1",
    ];
    const own = [
      "--eval.head_items=0",
      "--eval.steps=1",
      "--eval.judge=none",
      "--adapter=lora",
      "--align.guard.every=0",
    ];
    const words = [...SMALL_RUN, ...small, ...own, `--run.folder=${join(folder, "aligned")}`, "--name=a", BLOCKS];
    const line = await here("align", "embedded", ...words);
    expect([line.errors, line.code]).toEqual(["", 0]);
    expect(streaming(line)).toHaveLength(1);
    expect(line.value.status.updatesDone).toBe(2);
  }, 300_000);
});
