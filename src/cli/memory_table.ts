// The memory of a session as tables for a terminal.

import { bytes, grouped } from "../evaluation/format.ts";
import type { MemoryTable } from "../tensor/session.ts";
import { renderTable } from "./table.ts";

/** What is allocated by category, and each plan's work; lines for the screen. */
export function memoryTables(memory: MemoryTable, columns: number): string[] {
  const rows: [string, number][] = [
    ...(Object.entries(memory.variables).filter(([, n]) => n > 0) as [string, number][]),
    [`activations and workspace (largest: ${memory.largestPlan})`, memory.arena],
    ["uniforms", memory.uniforms],
    ["tables of bindings", memory.bindings],
    ["staging", memory.staging],
    ["total", memory.total],
  ];
  return [
    renderTable(
      [{ title: "device memory" }, { title: "bytes", align: "right" }, { title: "", align: "right" }],
      rows.map(([name, n]) => [name, grouped(n), bytes(n)]),
      columns,
    ).trimEnd(),
    "",
    renderTable(
      [
        { title: "plan" },
        { title: "dispatches", align: "right" },
        { title: "GFLOP", align: "right" },
        { title: "activations", align: "right" },
      ],
      memory.plans.map((p) => [p.name, grouped(p.calls), (p.flops / 1e9).toFixed(2), bytes(p.arena)]),
      columns,
    ).trimEnd(),
    "",
  ];
}
