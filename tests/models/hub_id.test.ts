// Names of models on a hub, and which files of a repository are taken.

import { describe, expect, it } from "vitest";
import { chooseModelFiles, hubIdText, parseHubId } from "../../src/models/hub_id.ts";

describe("a hub id", () => {
  it("has an owner, a name, and optionally a revision and a path", () => {
    expect(parseHubId("black-forest-labs/FLUX.1-dev")).toEqual({
      repository: "black-forest-labs/FLUX.1-dev",
      revision: "main",
      path: "",
    });
    expect(parseHubId("a/b@refs/pr/3:sub/file.safetensors")).toEqual({
      repository: "a/b",
      revision: "refs/pr/3",
      path: "sub/file.safetensors",
    });
    for (const text of ["a/b", "a/b@v1", "a/b:vae", "a/b@v1:vae/x"]) expect(hubIdText(parseHubId(text)!)).toBe(text);
    expect(parseHubId("a/b:vae/")!.path).toBe("vae");
  });

  it("is not a path, and leads nowhere else", () => {
    for (const text of [
      "embedded",
      "./a/b",
      "/a/b",
      "../a",
      "a/b/c",
      "~/models",
      "a\\b",
      "C:/models",
      "a/..",
      "a/b@../x",
      "a/b@x/../../y",
      "a/b:../x",
      "a/b:x/../../y",
      "a/b:/etc",
      "a/b@",
      "a/b:",
      "a--b/c",
      "",
    ]) {
      expect(parseHubId(text), text).toBe(null);
    }
  });
});

describe("the files of a model", () => {
  const id = parseHubId("a/b")!;

  it("are one set of weights, sharded or not, with the small files beside them", () => {
    const choose = chooseModelFiles();
    const shards = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors", "m.safetensors.index.json"];
    expect(choose(["config.json", ...shards, "m.bin", "picture.png"], id)).toEqual(["config.json", ...shards].sort());
    expect(choose(["diffusion_pytorch_model.safetensors", "other.safetensors"], id)).toEqual([
      "diffusion_pytorch_model.safetensors",
    ]);
    expect(choose(["sub/config.json", "sub/model.bin"], { ...id, path: "sub" })).toEqual([
      "sub/config.json",
      "sub/model.bin",
    ]);
    expect(choose(["x.fp16.safetensors"], id)).toEqual(["x.fp16.safetensors"]);
    expect(choose([...shards, "config.json"], { ...id, path: shards[0]! })).toEqual([...shards, "config.json"].sort());
  });

  it("are the folders of a pipeline with its tokenizer, and not a single file of the same weights at the root", () => {
    const parts = [
      "model_index.json",
      "scheduler/scheduler_config.json",
      "text_encoder/config.json",
      "text_encoder/model-00001-of-00002.safetensors",
      "text_encoder/model-00002-of-00002.safetensors",
      "text_encoder/model.safetensors.index.json",
      "tokenizer/chat_template.jinja",
      "tokenizer/tokenizer.json",
      "transformer/config.json",
      "transformer/diffusion_pytorch_model.safetensors",
      "vae/config.json",
      "vae/diffusion_pytorch_model.safetensors",
    ];
    expect(chooseModelFiles()([...parts, "flux-2-klein-4b.safetensors", "README.md"], id)).toEqual(parts);
  });

  it("leave out the weights of a part that come from elsewhere", () => {
    const paths = ["model_index.json", "transformer/config.json", "transformer/a.safetensors", "vae/b.safetensors"];
    expect(chooseModelFiles(null, ["transformer"])(paths, id)).toEqual([paths[0], paths[1], paths[3]]);
  });

  it("come with what describes them: open_clip's configuration and a CLIP's statistics beside a single file", () => {
    const paths = ["HPS_v2.1.pt", "other.pt", "open_clip_config.json", "preprocessor_config.json", "vocab.json"];
    const single = chooseModelFiles()(paths, { ...id, path: "HPS_v2.1.pt" });
    expect(single).toEqual(["HPS_v2.1.pt", "open_clip_config.json", "preprocessor_config.json"]);
    // open_clip's and transformers' weights of one model: those of transformers, with both configurations.
    const both = [
      "config.json",
      "model.safetensors",
      "open_clip_config.json",
      "open_clip_model.safetensors",
      "pytorch_model.bin",
    ];
    expect(chooseModelFiles()(both, id)).toEqual(both.slice(0, 3));
  });

  it("must be clear and there", () => {
    const choose = chooseModelFiles();
    expect(() => choose(["a.safetensors", "b.safetensors"], id)).toThrow(/E-FILE-123.*a\/b:a\.safetensors/);
    expect(() => choose(["README.md"], id)).toThrow(/E-FILE-132/);
    expect(() => choose(["x/config.json"], { ...id, path: "y" })).toThrow(/E-FILE-132/);
    expect(() => chooseModelFiles(["vae"])(["model_index.json", "unet/model.safetensors"], id)).toThrow(/in vae/);
  });
});
