// Fetches a model from a hub in a process of its own, so that a test can kill it.

import process from "node:process";
import { chooseModelFiles, parseHubId } from "../../src/models/hub_id.ts";
import { HubClient, hubSettings } from "../../src/platform/hub.ts";

const [id, endpoint, cache] = process.argv.slice(2) as [string, string, string];
const settings = await hubSettings({ cache, offline: false }, { HF_ENDPOINT: endpoint, HF_HOME: cache });
await new HubClient(settings).fetch(parseHubId(id)!, chooseModelFiles());
