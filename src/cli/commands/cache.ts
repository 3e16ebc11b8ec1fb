// `longtail cache`: the first phase of a training run alone. Pictures become latents and captions text embeddings, kept on
// disk for every later run of the same pictures; what is there already is verified and left alone.

import { counted } from "../../evaluation/format.ts";
import { deviceLine } from "../../runs/device.ts";
import { Phases } from "../../runs/phases.ts";
import { checkTraining, withDataFlag } from "../../runs/train/checks.ts";
import { openTrainingData } from "../../runs/train/data.ts";
import type { Command } from "../command.ts";
import { withLocalModels } from "../hub_models.ts";
import { withRunDevice } from "../run_device.ts";
import { TRAIN_ALIASES } from "./train.ts";

export const command: Command = {
  name: "cache",
  summary: "encode a training run's pictures and captions, and nothing else",
  usage: "[preset | file.toml] [--data=PATH] [--rebuild] [--section.key=value ...]",
  options: [
    { name: "data", value: "PATH", summary: "pictures in place of data.sets" },
    { name: "rebuild", summary: "encode everything again" },
  ],
  description:
    "It can be stopped and started again at any time. Entries are named by the hash of what decides them (picture, size, " +
    "crop, weights of the encoders), so a changed picture or model never meets an old entry.",
  positionals: [0, 1],
  configuration: true,
  aliases: TRAIN_ALIASES,
  examples: [
    ["longtail cache my.toml", "everything that longtail train my.toml will need"],
    ["longtail cache my.toml --rebuild", "encode it again"],
  ],
  async run(context) {
    const { files, emit, signal } = context;
    const source = context.arguments.positionals[0];
    const loaded = await context.loadConfig({ ...(source === undefined ? {} : { source }), preset: "lora" });
    const resolved = withDataFlag(loaded, context.arguments.flags["data"]);
    checkTraining(resolved.config);
    const config = await withLocalModels(files, resolved.config, emit);
    return await withRunDevice(config, emit, async (gpu) => {
      emit({ kind: "message", text: `device: ${deviceLine(gpu)}` });
      const data = await openTrainingData(files, config, emit);
      try {
        emit({ kind: "message", text: data.summary });
        const rebuild = context.arguments.flags["rebuild"] === true;
        const { made, total, folder } = await data.encode({ gpu, emit, phases: new Phases(emit), signal, rebuild });
        const kept = total.pictures + total.texts - made.pictures - made.texts;
        context.result(
          { folder, made, total },
          `${counted(made.pictures, "picture")} and ${counted(made.texts, "caption")} encoded, ` +
            `${kept} ${kept === 1 ? "was" : "were"} there already${folder ? `: ${folder}` : ""}`,
        );
        return 0;
      } finally {
        await data.close();
      }
    });
  },
};
