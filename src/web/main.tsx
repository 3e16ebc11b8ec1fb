// The page's entry: shows the app, asks the browser what it can do, and says where the engine comes from.

import { render } from "preact";
import { App } from "./app.tsx";
import { registerOffline } from "./files/offline.ts";
import { provideEngine, verdict } from "./store.ts";
import { startTheme } from "./theme.ts";
import { judge, look } from "./verdict.ts";

provideEngine(async () => {
  const query = new URLSearchParams(location.search);
  // A production build drops this branch and what it imports.
  if (import.meta.env.DEV && query.get("engine") === "fake") {
    const { createFakeEngine, fakeOptions } = await import("./testing/fake_engine.ts");
    const { withAlign, fakeAlignOptions } = await import("./longtail/fake_align.ts");
    const engine = withAlign(createFakeEngine(fakeOptions(query)), fakeAlignOptions(query));
    return { engine, source: engine.source };
  }
  const { startWorker } = await import("./engine_client.ts");
  return startWorker();
});

startTheme();
const place = document.getElementById("app")!;
place.replaceChildren();
render(<App />, place);
void check();
void registerOffline();

/** A GPU that was not there yet is looked for once more: a busy machine may need seconds for the browser's GPU process. */
const SECOND_LOOK_MS = 2500;

async function check(): Promise<void> {
  verdict.value = judge(await look());
  performance.mark("verdict");
  if (verdict.value.cause !== "no-adapter") return;
  await new Promise((resolve) => setTimeout(resolve, SECOND_LOOK_MS));
  const second = judge(await look());
  if (second.level !== "none") verdict.value = second;
}
