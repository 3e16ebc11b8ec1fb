// Finds out what this machine can do and keeps it as the page's verdict. A GPU that is not there yet is looked for again: right
// after a start, or on a busy machine, Chromium answers that there is none until its GPU process is up.

import { verdict } from "./store.ts";
import { judge, look } from "./verdict.ts";

/** Seconds after which a missing GPU is looked for again. */
const AGAIN = [2, 4, 8, 16];

let round = 0;

/** Looks now; where no GPU was found, a few times more. A newer call ends the looking of an older one. */
export async function checkMachine(): Promise<void> {
  const own = ++round;
  const found = judge(await look());
  if (own !== round) return;
  verdict.value = found;
  performance.mark("verdict");
  for (const seconds of AGAIN) {
    if (verdict.value.cause !== "no-adapter") return;
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    const next = judge(await look());
    if (own !== round) return;
    // The same answer is not shown anew: somebody may be reading it.
    if (next.cause !== "no-adapter") verdict.value = next;
  }
}
