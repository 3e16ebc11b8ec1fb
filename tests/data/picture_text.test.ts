import { describe, expect, test } from "vitest";
import { readPicture, readPictureFolder } from "../../src/data/picture_text.ts";
import { encodePng } from "../../src/formats/png.ts";
import { MemoryFiles } from "../helpers/files.ts";

const png = encodePng({ width: 2, height: 2, channels: 3, depth: 8, data: new Uint8Array(12).fill(9) });
const list = (content: Record<string, Uint8Array | string>, text?: string) =>
  readPictureFolder(new MemoryFiles(content), "set", text);

describe("a folder of pictures with texts", () => {
  test("metadata wins over .txt, .txt over .caption, the default comes last", async () => {
    const found = await list(
      {
        "set/metadata.jsonl":
          '{"file_name":"a.png","text":"from metadata"}\n{"file_name":"b.png"}\n{"file_name":"deep/e.png","text":"below"}\n',
        "set/a.png": png,
        "set/a.txt": "from txt",
        "set/b.png": png,
        "set/b.txt": " from txt \n",
        "set/b.caption": "from caption",
        "set/c.PNG": png,
        "set/c.caption": "from caption",
        "set/c.txt": "  ",
        "set/d.png": png,
        "set/deep/e.png": png,
        "set/notes.md": "not a picture",
      },
      "the default",
    );
    expect(found).toEqual([
      { path: "set/a.png", text: "from metadata", source: "metadata.jsonl" },
      { path: "set/b.png", text: "from txt", source: ".txt" },
      { path: "set/c.PNG", text: "from caption", source: ".caption" },
      { path: "set/d.png", text: "the default", source: "default" },
      { path: "set/deep/e.png", text: "below", source: "metadata.jsonl" },
    ]);
  });

  test("a picture without any text is an error, never an empty prompt", async () => {
    await expect(list({ "set/a.png": png })).rejects.toMatchObject({
      code: "E-DATA-040",
      parts: { where: "set/a.png" },
    });
    await expect(list({ "set/a.png": png, "set/a.txt": "" }, " ")).rejects.toMatchObject({ code: "E-DATA-040" });
  });

  test("metadata that names a missing picture, a path outside or no name is refused with its line", async () => {
    for (const name of ['"gone.png"', '"../a.png"', '"/a.png"', '"x/../../a.png"', '"c:/a.png"', "3", '""']) {
      const metadata = `\n{"file_name":${name},"text":"x"}`;
      await expect(list({ "set/metadata.jsonl": metadata, "set/a.png": png, "a.png": png })).rejects.toMatchObject({
        code: "E-DATA-041",
        parts: { where: "set/metadata.jsonl:2" },
      });
    }
  });

  test("an empty folder and pictures of other formats are refused with what to do", async () => {
    await expect(list({ "set/readme.txt": "x" })).rejects.toMatchObject({ code: "E-DATA-042" });
    await expect(list({ "set/a.png": png, "set/b.jpg": "x" }, "t")).rejects.toThrow(
      /E-DATA-021 set\/b\.jpg.*1 of 2.*Fix: convert/,
    );
  });

  test("a picture is read, or refused by its name", async () => {
    const files = new MemoryFiles({ "a.png": png, "b.png": "x", "c.jpg": "x" });
    expect(await readPicture(files, "a.png")).toMatchObject({ width: 2, height: 2 });
    await expect(readPicture(files, "b.png")).rejects.toMatchObject({ code: "E-DATA-020", parts: { where: "b.png" } });
    await expect(readPicture(files, "c.jpg")).rejects.toMatchObject({ code: "E-DATA-021" });
  });
});
