// One prompt through the run: its samples from step 0 to the newest, twice as large.

import { Dialog } from "../components/feedback.tsx";
import { RunPicture } from "../components/pictures.tsx";
import type { RunSource } from "../run_source.ts";
import type { RunView } from "../run_view.ts";

interface SampleZoomProps {
  view: RunView;
  source: RunSource;
  /** Place of the prompt in its row; null shows nothing. */
  index: number | null;
  onClose: () => void;
}

export function SampleZoom({ view, source, index, onClose }: SampleZoomProps) {
  const rows = [...view.samples].sort(([a], [b]) => a - b);
  const chosen = index === null ? [] : rows.flatMap(([step, row]) => (row[index] ? [{ step, ...row[index] }] : []));
  return (
    <Dialog title={chosen[0]?.item || "Samples"} open={index !== null} onClose={onClose}>
      <div class="zoom">
        {chosen.map(({ step, path }) => (
          <figure key={path}>
            <RunPicture source={source} path={path} alt={`at update ${step}`} />
            <figcaption>update {step}</figcaption>
          </figure>
        ))}
      </div>
      {chosen[0] && <p class="small quiet">Seed {chosen[0].seed}, the same noise every time.</p>}
    </Dialog>
  );
}
