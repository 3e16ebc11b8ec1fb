// A page without a face: it starts the page's own worker and leaves engine and events where a test can reach them.

import { startWorker } from "../../../src/web/engine_client.ts";
import type { Engine, EngineEvent } from "../../../src/web/protocol.ts";

declare global {
  interface Window {
    engine: Engine;
    events: EngineEvent[];
  }
}

const { engine } = await startWorker();
const { port1, port2 } = new MessageChannel();
window.events = [];
port1.onmessage = ({ data }) => void window.events.push(data);
await engine.connect(port2);
window.engine = engine;
document.title = "ready";
