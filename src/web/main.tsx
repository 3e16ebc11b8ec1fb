// The page's entry: shows the app, asks the browser what it can do, and says where the engine comes from.

import { render } from "preact";
import { App } from "./app.tsx";
import { checkMachine } from "./check_machine.ts";
import { registerOffline } from "./files/offline.ts";
import { provideEngine } from "./store.ts";
import { startTheme } from "./theme.ts";

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
void checkMachine();
void registerOffline();
