// The JavaScript heap after a collection: what a loop leaves behind for good.

import process from "node:process";
import v8 from "node:v8";
import vm from "node:vm";

v8.setFlagsFromString("--expose-gc");
const collect = vm.runInNewContext("gc") as () => void;

/** Bytes in use after garbage was collected. */
export function heapUsed(): number {
  collect();
  return process.memoryUsage().heapUsed;
}
