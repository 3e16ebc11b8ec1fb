// "Keep", step 4 of the Train mode: everything that a run leaves, each with its size and the program that it is for, and the
// command that repeats the run without a page.

import { useEffect, useState } from "preact/hooks";
import { bytes } from "../../evaluation/format.ts";
import { type ChosenRun, chosenRun } from "../compare/chosen_run.ts";
import { RunChoice } from "../compare/run_choice.tsx";
import { Button, CopyButton } from "../components/basic.tsx";
import { toast, toastError } from "../components/feedback.tsx";
import { pictureGrid } from "../keep/picture_grid.ts";
import { type KeptFile, keptFiles, ownSetOf, repeatCommand, wholeRun } from "../keep/run_files.ts";
import { save, zipOf } from "../keep/zip.ts";
import { storage, wireError } from "../store.ts";
import "../styles/compare.css";

export function KeepCard() {
  const run = chosenRun.value;
  return (
    <div class="step-body">
      {run === null ? (
        <p class="quiet">
          The LoRA as .safetensors, the samples as one picture, the log, the report and the command that repeats the
          run.
        </p>
      ) : (
        <>
          <RunChoice />
          <Files run={run} />
          <Repeat run={run} />
        </>
      )}
    </div>
  );
}

/** Sizes of the files that are there; asked again when the run ends or saves. */
function useSizes(run: ChosenRun): ReadonlyMap<string, number> {
  const [sizes, setSizes] = useState<ReadonlyMap<string, number>>(new Map());
  const saved = run.view.notes.filter(({ kind }) => kind === "checkpoint").length;
  useEffect(() => {
    let gone = false;
    const look = async () => {
      const found = new Map<string, number>();
      for (const { path } of keptFiles(run.name)) {
        const blob = await run.source.blob(path);
        if (blob) found.set(path, blob.size);
      }
      if (!gone) setSizes(found);
    };
    void look();
    return () => {
      gone = true;
    };
  }, [run.name, run.finished, run.training, saved]);
  return sizes;
}

function Files({ run }: { run: ChosenRun }) {
  const sizes = useSizes(run);
  const [busy, setBusy] = useState<"grid" | "zip" | null>(null);
  const made = async (what: "grid" | "zip", make: () => Promise<Blob | null>, name: string) => {
    setBusy(what);
    try {
      const blob = await make();
      if (blob) save(blob, name);
      else toast({ kind: "warn", title: "There are no samples yet." });
    } catch (error) {
      toastError(wireError(error));
    }
    setBusy(null);
  };
  const stored = storage.value?.runs.find(({ name }) => name === run.name)?.bytes;
  const samples = [...run.view.samples.values()].reduce((sum, row) => sum + row.length, 0);
  return (
    <>
      <ul class="files">
        {keptFiles(run.name).map((file) => (
          <FileRow key={file.path} run={run} file={file} size={sizes.get(file.path)} />
        ))}
        <li class="file">
          <div>
            <h3>Grid of samples</h3>
            <p class="field-hint">A PNG with labels, {samples} pictures, for a web page or a talk.</p>
          </div>
          <Button
            small
            disabledReason={samples === 0 ? "there are no samples yet" : null}
            onClick={() => void made("grid", () => pictureGrid(run.source, run.view), `${run.name}-samples.png`)}
          >
            {busy === "grid" ? "Drawing …" : "PNG"}
          </Button>
        </li>
        <li class="file">
          <div>
            <h3>The whole run</h3>
            <p class="field-hint">
              Its folder with checkpoints and samples, as longtail train writes it: continue it there with --resume.
            </p>
          </div>
          <Button
            small
            onClick={() => void made("zip", () => zipOf(wholeRun(run.source, run.view)), `${run.name}.zip`)}
          >
            {busy === "zip" ? "Packing …" : "ZIP"}
            {stored !== undefined && busy !== "zip" && <span class="file-size">{bytes(stored)}</span>}
          </Button>
        </li>
      </ul>
      <p class="field-hint">
        The LoRA fits the small model that comes along, not FLUX.1 dev: for that, give the same pictures to the command
        line.
      </p>
    </>
  );
}

function FileRow({ run, file, size }: { run: ChosenRun; file: KeptFile; size: number | undefined }) {
  const ending = file.path.split(".").at(-1)!;
  const shown = ending === "safetensors" ? "LoRA" : ending.toUpperCase();
  const name = /\.(safetensors)$/.test(file.path) ? file.path : `${run.name}-${file.path}`;
  const take = async () => {
    const blob = await run.source.blob(file.path);
    if (blob) save(blob, file.path === "config.toml" ? "config.toml" : name);
    else toast({ kind: "warn", title: `${file.path} is not there any more.` });
  };
  return (
    <li class="file">
      <div>
        <h3>{file.title}</h3>
        <p class="field-hint">{file.about}</p>
      </div>
      <Button
        small
        label={`${shown}${size === undefined ? "" : ` ${bytes(size)}`}, download ${file.path}`}
        disabledReason={size === undefined ? "it is written when the run has ended" : null}
        onClick={() => void take()}
      >
        {shown}
        {size !== undefined && <span class="file-size">{bytes(size)}</span>}
      </Button>
    </li>
  );
}

function Repeat({ run }: { run: ChosenRun }) {
  const [own, setOwn] = useState<string | null>(null);
  useEffect(() => {
    let gone = false;
    void run.source.text("config.toml").then((text) => !gone && setOwn(ownSetOf(text ?? "")));
    return () => {
      gone = true;
    };
  }, [run.name]);
  const command = repeatCommand(run.name);
  return (
    <section class="section" aria-labelledby="repeat-title">
      <div class="row spread">
        <h3 id="repeat-title">Repeat it without a browser</h3>
        <CopyButton text={() => command}>Copy</CopyButton>
      </div>
      <pre class="code-block">{command}</pre>
      <p class="field-hint">
        In a copy of the project, with config.toml beside it
        {own ? ` and your pictures, which “Download this set” packs, unpacked to ${own}/` : ""}.
      </p>
    </section>
  );
}
