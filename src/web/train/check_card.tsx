// Step 0, by itself: what this machine can do, as a badge with one sentence; and where it cannot, the cause, one action, and
// diagnostics to copy.

import { counted } from "../../evaluation/format.ts";
import { checkMachine } from "../check_machine.ts";
import { Badge, Button, CopyButton } from "../components/basic.tsx";
import { ErrorNotice, Notice } from "../components/feedback.tsx";
import { estimate, estimateSource, estimateText } from "../estimates.ts";
import { effective } from "../settings.ts";
import { engineError, machine, settings, verdict } from "../store.ts";
import type { Verdict } from "../verdict.ts";
import { knownSpeed } from "./speeds.ts";

export function CheckCard() {
  const found = verdict.value;
  if (!found)
    return (
      <div class="check" role="status">
        <Badge kind="plain">Looking at this machine …</Badge>
      </div>
    );
  if (found.level === "none") return <Blocked found={found} />;
  return (
    <div>
      <div class="check" role="status">
        <Badge kind={found.level}>{found.title}</Badge>
        <WhatRuns found={found} />
        <details>
          <summary>Details of this machine</summary>
          <div class="stack">
            <Facts found={found} />
            <div>
              <CopyButton text={() => found.diagnostics}>Copy diagnostics</CopyButton>
            </div>
          </div>
        </details>
      </div>
      {engineError.value && <ErrorNotice error={engineError.value} />}
      {found.cause && (
        <Notice kind="warn" title={found.title}>
          <p class="small">
            {found.why} {found.action}
          </p>
        </Notice>
      )}
    </div>
  );
}

function WhatRuns({ found }: { found: Verdict }) {
  const speed = knownSpeed();
  const values = effective(settings.value, machine.value);
  const time = estimate(values, machine.value, speed);
  return (
    <span>
      {found.software ? "The smallest preset runs: " : "Runs here: "}
      {counted(values.updates, "update")} of {counted(values.batch, "picture")}, {estimateText(time)},{" "}
      {estimateSource(time)}.
    </span>
  );
}

const Facts = ({ found }: { found: Verdict }) => (
  <dl class="facts">
    {found.facts.map(([name, value]) => (
      <>
        <dt key={name}>{name}</dt>
        <dd>{value}</dd>
      </>
    ))}
  </dl>
);

function Blocked({ found }: { found: Verdict }) {
  return (
    <Notice kind="bad" title={found.title}>
      <p>{found.why}</p>
      <p>
        <strong>What to do: </strong>
        {found.action}
      </p>
      <details>
        <summary>Diagnostics</summary>
        <pre class="code-block">{found.diagnostics}</pre>
      </details>
      <div class="row">
        <Button small onClick={() => void checkMachine()}>
          Look again
        </Button>
        <CopyButton text={() => found.diagnostics}>Copy diagnostics</CopyButton>
      </div>
      <p class="small quiet">Below is a recorded run, so that you can see what this page does where it can compute.</p>
    </Notice>
  );
}
