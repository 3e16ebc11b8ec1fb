// The Train mode: what this machine can do, then the four steps (pictures, training, comparing, keeping), all in sight.

import { Card } from "../components/basic.tsx";
import { lazy } from "../components/lazy.tsx";
import { verdict } from "../store.ts";
import { CheckCard } from "./check_card.tsx";
import { TrainCard } from "./train_card.tsx";

const Pictures = lazy(() => import("./pictures_card.tsx").then((module) => module.PicturesCard), "the pictures");
const Compare = lazy(() => import("./compare_card.tsx").then((module) => module.CompareCard), "the comparison");
const Keep = lazy(() => import("./keep_card.tsx").then((module) => module.KeepCard), "the files to keep");
const Recorded = lazy(() => import("../watch/recorded.tsx").then((module) => module.RecordedRun), "the recorded run");

export function TrainMode() {
  const blocked = verdict.value?.level === "none";
  return (
    <>
      <div class="lead">
        <h1>Teach a small diffusion model your pictures</h1>
        <p>
          Pick a few pictures, train a LoRA on them in this tab, compare before and after, and keep the file. There is
          nothing to install and nothing leaves this machine.
        </p>
      </div>
      <div class="cards">
        <CheckCard />
        {blocked ? (
          <Recorded />
        ) : (
          <>
            <Card number={1} title="Pick pictures">
              <Pictures />
            </Card>
            <TrainCard />
            <div class="cards cards-pair">
              <Card number={3} title="Compare">
                <Compare />
              </Card>
              <Card number={4} title="Keep">
                <Keep />
              </Card>
            </div>
          </>
        )}
      </div>
    </>
  );
}
