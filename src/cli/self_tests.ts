// The self-tests that `longtail doctor` runs on the device: key kernels against the CPU, with their speed. The kernels'
// rooms add them here, so doctor itself knows no kernel.

import type { Gpu } from "../gpu/device.ts";

export interface SelfTestResult {
  ok: boolean;
  /** Largest relative error against the CPU, or what went wrong; null where there is nothing to say. */
  error: number | string | null;
  /** Speed in 10⁹ operations a second, two a multiply-add. */
  gflops?: number;
}

export interface SelfTest {
  name: string;
  run(): Promise<SelfTestResult>;
}

/** Makes the self-tests for an opened device. */
export type SelfTestProvider = (gpu: Gpu) => SelfTest[] | Promise<SelfTest[]>;

const providers: SelfTestProvider[] = [];

/** Adds self-tests to all later calls of `selfTests`. */
export function addSelfTests(provider: SelfTestProvider): void {
  providers.push(provider);
}

/** All self-tests for a device, in the order in which they were added. */
export async function selfTests(gpu: Gpu): Promise<SelfTest[]> {
  return (await Promise.all(providers.map((provider) => provider(gpu)))).flat();
}
