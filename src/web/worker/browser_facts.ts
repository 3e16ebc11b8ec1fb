// Facts about the browser for a run's env.json and report: no more than what makes a result repeatable, nothing that names its
// user.

import type { EnvironmentFacts } from "../../runs/environment.ts";

interface Brand {
  brand: string;
  version: string;
}

interface AgentData {
  brands?: Brand[];
  platform?: string;
}

declare const __LONGTAIL_VERSION__: string | undefined;

/** The brand that says most: "Chromium" is in many, "Not A Brand" in all. */
function browserVersion(agent: AgentData | undefined, text: string): string {
  const brands = (agent?.brands ?? []).filter(({ brand }) => !/not.?a.?brand/i.test(brand));
  const best = brands.find(({ brand }) => brand !== "Chromium") ?? brands[0];
  if (best) return `${best.brand} ${best.version}`;
  const found = /(Firefox|Edg|OPR|Chrome|Version)\/([\d.]+)/.exec(text);
  return found ? `${found[1] === "Version" ? "Safari" : found[1]} ${found[2]}` : "unknown";
}

export function browserFacts(): EnvironmentFacts {
  const agent = (navigator as { userAgentData?: AgentData }).userAgentData;
  const memory = ((navigator as { deviceMemory?: number }).deviceMemory ?? 0) * 2 ** 30;
  const platform = agent?.platform ?? navigator.platform ?? "unknown";
  return {
    longtail: typeof __LONGTAIL_VERSION__ === "string" ? __LONGTAIL_VERSION__ : "unknown",
    commit: null,
    runtime: { name: "browser", version: browserVersion(agent, navigator.userAgent), v8: "", node: "" },
    dawn: null,
    system: { platform, release: "", name: platform, arch: "", container: false },
    processor: { model: "", cores: navigator.hardwareConcurrency ?? 1 },
    memory: { total: memory, available: memory },
    variables: {},
    setupError: null,
  };
}
