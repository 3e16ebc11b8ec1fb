// The entry of the page's worker: everything that computes lives here, so that the page itself stays free to answer. The page
// gives the worker its own address as a name: models and presets lie beside it.

import { expose } from "comlink";
import { PageEngine } from "./engine.ts";

expose(new PageEngine(new URL(".", self.name).href));
