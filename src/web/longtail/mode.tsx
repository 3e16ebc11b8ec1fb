// The second mode of the page: the long tail. A map of 525 concepts, of which 94 are rare in what the small model was
// pretrained on; pick some, align the model with them, and watch reward, judge and guard rails while it happens.

import "./longtail.css";
import { useEffect } from "preact/hooks";
import { Button } from "../components/basic.tsx";
import { Notice } from "../components/feedback.tsx";
import { ResumeOffer } from "../train/resume.tsx";
import { ConceptCard } from "./card_view.tsx";
import type { Catalogue } from "./catalogue.ts";
import { ConceptList } from "./list_view.tsx";
import { LiveAlignment } from "./live_view.tsx";
import { ensureCatalogue, ensureSheet } from "./load.ts";
import { ConceptMap } from "./map_view.tsx";
import { Picks } from "./picks_view.tsx";
import { StartCard } from "./start_view.tsx";
import { catalogue, catalogueError } from "./state.ts";

export default function LongTailMode() {
  useEffect(ensureCatalogue, []);
  const found = catalogue.value;
  return (
    <div class="lt">
      <header class="lead">
        <h1>Lift the long tail</h1>
        <p>
          A model draws well what it saw often. This one saw the average common concept ten times as often as the
          average rare one. Pick rare concepts, align the model with them by a reward alone, without a single picture of
          them, and let a judge that never trains say whether it helped.
        </p>
      </header>
      <ResumeOffer command="align" />
      {found ? <Ready catalogue={found} /> : <Waiting />}
    </div>
  );
}

function Waiting() {
  const error = catalogueError.value;
  if (error === null)
    return (
      <p class="quiet small" aria-busy="true">
        Loading the concepts …
      </p>
    );
  return (
    <Notice
      kind="bad"
      title="The concepts did not arrive"
      actions={
        <Button small onClick={ensureCatalogue}>
          Try again
        </Button>
      }
    >
      <p class="small">{error}</p>
    </Notice>
  );
}

function Ready({ catalogue: found }: { catalogue: Catalogue }) {
  useEffect(() => {
    // Without its pictures the map is dots; the list and everything else work.
    ensureSheet().catch((error: unknown) => {
      catalogueError.value = String((error as Error).message ?? error);
    });
  }, []);
  return (
    <div class="lt-grid">
      <ConceptMap concepts={found.concepts} />
      <ConceptCard catalogue={found} />
      <ConceptList catalogue={found} />
      <div class="lt-column">
        <Picks catalogue={found} />
        <StartCard />
      </div>
      <LiveAlignment />
    </div>
  );
}
