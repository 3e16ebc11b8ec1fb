// doctor's findings for people, at 80 columns: what is there, what it means, what to do.

import { bytes, compact, grouped } from "../../evaluation/format.ts";
import { wrapText } from "../../runs/config/toml.ts";
import { renderTable } from "../table.ts";
import type { BackendReport, DoctorReport } from "./examine.ts";

export function doctorText(report: DoctorReport, width = 80): string {
  const columns = Math.min(100, Math.max(40, width));
  const { environment, disk } = report;
  const rows: [string, string][] = [
    ["longtail", `${environment.longtail}${environment.commit ? ` (${environment.commit})` : ""}`],
    [
      "runtime",
      `${environment.runtime.name} ${environment.runtime.version}${environment.dawn ? `, Dawn from webgpu ${environment.dawn}` : ""}`,
    ],
    [
      "system",
      `${environment.system.name}, ${environment.system.arch}${environment.system.container ? ", in a container" : ""}`,
    ],
    ["processor", `${environment.processor.model}, ${environment.processor.cores} cores`],
    ["memory", `${bytes(environment.memory.available)} of ${bytes(environment.memory.total)} available`],
    [
      "disk",
      `${disk.freeBytes === null ? "free space unknown" : `${bytes(disk.freeBytes)} free`}${disk.writeBytesPerSecond === null ? "" : `, writes ${bytes(disk.writeBytesPerSecond)}/s`} (${disk.path})`,
    ],
  ];
  const lines = [...pairs(rows, columns), ""];
  for (const backend of report.backends)
    lines.push(...backendText(backend, backend.backend === report.backend, columns), "");
  if (report.selfTests.length) {
    lines.push(
      ...renderTable(
        [
          { title: "self-test" },
          { title: "result" },
          { title: "error", align: "right" },
          { title: "GFLOP/s", align: "right" },
        ],
        report.selfTests.map(({ name, ok, error, gflops }) => [
          name,
          ok ? "ok" : "WRONG",
          typeof error === "number" ? error.toExponential(1) : (error ?? ""),
          gflops === undefined ? "" : compact(gflops),
        ]),
        columns,
      )
        .trimEnd()
        .split("\n"),
      "",
    );
  }
  if (!report.problems.length) lines.push("No problems found.");
  for (const { level, code, what, fix } of report.problems) {
    lines.push(
      ...wrapText(`${level === "error" ? "PROBLEM" : "note"} ${code}: ${what}.`, columns),
      ...wrapText(`Fix: ${fix}.`, columns - 4).map((line) => `    ${line}`),
    );
  }
  return `${lines.join("\n")}\n`;
}

function pairs(rows: readonly (readonly [string, string])[], columns: number): string[] {
  const widest = Math.max(...rows.map(([name]) => name.length));
  return rows.flatMap(([name, value]) =>
    wrapText(value, columns - widest - 2).map((line, i) => `${(i ? "" : name).padEnd(widest)}  ${line}`),
  );
}

function backendText({ backend, facts, limits, error }: BackendReport, tested: boolean, columns: number): string[] {
  const hint = tested ? "" : ` (--gpu=${backend})`;
  const title = `${backend === "dawn" ? "Dawn" : "Deno's own WebGPU"}${hint}`;
  if (!facts) return [title, ...wrapText(error?.text ?? "no adapter", columns - 2).map((line) => `  ${line}`)];
  const matrices = facts.subgroupMatrices.map(
    ({ component, result, m, n, k }) => `${component}→${result} ${m}×${n}×${k}`,
  );
  const rows: [string, string][] = [
    ["adapter", `${facts.name}${facts.software ? " (software: computes on the CPU)" : ""}`],
    ["driver", facts.description || "not told"],
    ["f16", facts.f16 ? "yes" : "no"],
    [
      "subgroups",
      facts.subgroups
        ? `yes${facts.subgroupSizes ? `, sizes ${facts.subgroupSizes[0]} to ${facts.subgroupSizes[1]}` : ""}`
        : "no",
    ],
    [
      "subgroup matrices",
      matrices.length
        ? matrices.slice(0, 6).join(", ") + (matrices.length > 6 ? ` and ${matrices.length - 6} more` : "")
        : "none",
    ],
    ["timestamps", facts.timestamps ? "yes" : "no"],
    ["largest buffer", `${bytes(limits.maxBufferSize)}, bound ${bytes(limits.maxStorageBufferBindingSize)}`],
    [
      "workgroup",
      `${grouped(limits.maxComputeInvocationsPerWorkgroup ?? 0)} invocations, ${bytes(limits.maxComputeWorkgroupStorageSize)} shared`,
    ],
    ["storage buffers", `${limits.maxStorageBuffersPerShaderStage} a stage`],
  ];
  return [
    title,
    ...pairs(rows, columns - 2).map((line) => `  ${line}`),
    ...(error ? wrapText(error.text, columns - 2).map((line) => `  ${line}`) : []),
  ];
}
