// Weights on their way, in bytes, wherever something waits for them.

import { bytes } from "../../evaluation/format.ts";
import { Progress } from "../components/feedback.tsx";
import { downloads } from "../store.ts";

/** What is fetched now, all files together; null where nothing is. Reading it subscribes to the downloads. */
export function fetching(): { received: number; total: number } | null {
  const coming = [...downloads.value.values()].filter(({ received, total, cached }) => !cached && received < total);
  if (coming.length === 0) return null;
  const sum = (key: "received" | "total") => coming.reduce((all, one) => all + one[key], 0);
  return { received: sum("received"), total: sum("total") };
}

export const Fetching = ({ received, total }: { received: number; total: number }) => (
  <Progress label="Fetching weights" done={received} total={total} text={`${bytes(received)} of ${bytes(total)}`} />
);
