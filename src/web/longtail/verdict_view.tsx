// What came out, in the sentences of the report: the same rules, the same words, no praise that the intervals do not carry.
// Below it what the run leaves: the report page, the weights, the log.

import { useEffect, useState } from "preact/hooks";
import { bytes } from "../../evaluation/format.ts";
import type { ReportData } from "../../evaluation/report_data.ts";
import { type Tone, verdictOf } from "../../evaluation/verdict.ts";
import { Button } from "../components/basic.tsx";
import { toast } from "../components/feedback.tsx";
import { save } from "../keep/zip.ts";
import type { RunSource } from "../run_source.ts";

const TONES: Readonly<Record<Tone, string>> = {
  better: "notice-good",
  worse: "notice-bad",
  unchanged: "",
  noted: "",
  unknown: "notice-warn",
};
const MARKS: Readonly<Record<Tone, string>> = { better: "▲", worse: "▼", unchanged: "●", noted: "●", unknown: "?" };

export function VerdictView({ report }: { report: ReportData }) {
  if (!report.evaluation) return null;
  const verdict = verdictOf(report.evaluation.summary);
  return (
    <section class={`notice lt-verdict ${TONES[verdict.tone]}`} aria-label="Verdict">
      <h3>{verdict.headline}</h3>
      <ul>
        {verdict.sentences.map(({ tone, text }) => (
          <li key={text} class={`lt-tone-${tone}`}>
            <span class="lt-mark" aria-hidden="true">
              {MARKS[tone]}
            </span>{" "}
            {text}
          </li>
        ))}
      </ul>
      <p class="small quiet">
        Numbers in brackets are 95 % bootstrap intervals over items; only where one excludes 0 is a change called better
        or worse.
      </p>
    </section>
  );
}

interface Kept {
  path: string;
  what: string;
  size: number;
}

/** Files that a finished alignment leaves, by name; the first of each kind that is there. */
const wanted = (name: string): [path: string, what: string][] => [
  ["report.html", "the report: tables, pictures and settings in one page"],
  [`${name}.safetensors`, "LoRA, for diffusers"],
  [`${name}.lora.safetensors`, "LoRA of the difference, for diffusers"],
  [`${name}.kohya.safetensors`, "the same LoRA in kohya’s keys, for ComfyUI"],
  [`${name}.transformer.safetensors`, "the aligned transformer, float32"],
  ["log.jsonl", "every event of the run"],
];

async function keep(source: RunSource, path: string): Promise<void> {
  const blob = await source.blob(path);
  if (blob) save(blob, path);
  else toast({ kind: "warn", title: `${path} is not there any more` });
}

/** Links to what the run left; `stamp` changes when there may be more. */
export function KeepView({ source, report, stamp }: { source: RunSource; report: ReportData | null; stamp: number }) {
  const [files, setFiles] = useState<Kept[]>([]);
  useEffect(() => {
    let gone = false;
    const known = new Map(wanted(source.name));
    for (const { path, what } of report?.files ?? []) if (!path.endsWith("/")) known.set(path, what);
    // Their sizes alone: a file is opened anew when it is taken, as it is then.
    const look = async ([path, what]: [string, string]) => ({
      path,
      what,
      size: (await source.blob(path))?.size ?? -1,
    });
    void Promise.all([...known].map(look)).then((found) => {
      if (!gone) setFiles(found.filter(({ size }) => size >= 0));
    });
    return () => {
      gone = true;
    };
  }, [source, report, stamp]);
  if (files.length === 0) return null;
  return (
    <section class="section" aria-label="Files">
      <h3>Keep it</h3>
      <ul class="lt-files">
        {files.map(({ path, what, size }) => (
          <li key={path}>
            <Button small label={`Save ${path}`} onClick={() => void keep(source, path)}>
              {path}
            </Button>
            <span class="small quiet">
              {what} · {bytes(size)}
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}
