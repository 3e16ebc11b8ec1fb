// Compute pipelines by their full text. A pipeline is compiled once per text and number of bindings, all of a plan's in
// parallel; compile errors come back with the line of the expanded text that they point at.

import { LongtailError } from "../base/errors.ts";
import { awake, type Gpu } from "./device.ts";
import { expandTemplate } from "./template.ts";

export interface PipelineRequest {
  label: string;
  source: string;
  constants: Record<string, string | number | boolean>;
  storageBindings: number;
  /** True where binding 100 holds the words of an epilogue. */
  epilogue: boolean;
}

export class PipelineCache {
  private readonly gpu: Gpu;
  private readonly pipelines = new Map<string, Promise<GPUComputePipeline>>();
  private readonly layouts = new Map<string, { bindGroup: GPUBindGroupLayout; pipeline: GPUPipelineLayout }>();

  constructor(gpu: Gpu) {
    this.gpu = gpu;
  }

  /** Number of distinct pipelines compiled so far. */
  get size(): number {
    return this.pipelines.size;
  }

  get(request: PipelineRequest): Promise<GPUComputePipeline> {
    const text = expandTemplate(request.source, request.constants);
    const key = `${request.storageBindings}|${request.epilogue}|${text}`;
    let pipeline = this.pipelines.get(key);
    if (!pipeline) {
      pipeline = this.compile(request, text);
      this.pipelines.set(key, pipeline);
    }
    return pipeline;
  }

  bindGroupLayout(storageBindings: number, epilogue: boolean): GPUBindGroupLayout {
    return this.layout(storageBindings, epilogue).bindGroup;
  }

  private layout(storageBindings: number, epilogue: boolean) {
    const key = `${storageBindings}|${epilogue}`;
    let layout = this.layouts.get(key);
    if (!layout) {
      const entries: GPUBindGroupLayoutEntry[] = [
        { binding: 0, visibility: GPUShaderStage.COMPUTE, buffer: { type: "uniform" } },
      ];
      for (let i = 1; i <= storageBindings; i++) {
        entries.push({ binding: i, visibility: GPUShaderStage.COMPUTE, buffer: { type: "storage" } });
      }
      if (epilogue) entries.push({ binding: 100, visibility: GPUShaderStage.COMPUTE, buffer: { type: "uniform" } });
      const bindGroup = this.gpu.device.createBindGroupLayout({ entries });
      layout = { bindGroup, pipeline: this.gpu.device.createPipelineLayout({ bindGroupLayouts: [bindGroup] }) };
      this.layouts.set(key, layout);
    }
    return layout;
  }

  private async compile(request: PipelineRequest, text: string): Promise<GPUComputePipeline> {
    const { device } = this.gpu;
    const bare = text.replace(/\/\/[^\n]*/g, "");
    const code = /\bf16\b/.test(bare) && !/enable f16/.test(bare) ? `enable f16;\n${text}` : text;
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ code, label: request.label });
    const scope = device.popErrorScope();
    try {
      const pipeline = await awake(
        device.createComputePipelineAsync({
          label: request.label,
          layout: this.layout(request.storageBindings, request.epilogue).pipeline,
          compute: { module, entryPoint: "main" },
        }),
      );
      await awake(scope);
      return pipeline;
    } catch (error) {
      const scoped = await awake(scope.catch(() => null));
      const info = module.getCompilationInfo ? await awake(module.getCompilationInfo().catch(() => null)) : null;
      const lines = code.split("\n");
      const messages = (info?.messages ?? [])
        .filter((m) => m.type === "error")
        .map((m) => `line ${m.lineNum}: ${m.message}\n    ${lines[m.lineNum - 1]?.trim() ?? ""}`);
      throw new LongtailError("E-ENV-010", {
        what: "a kernel did not compile",
        where: request.label,
        why: messages.join("; ") || scoped?.message || String((error as Error).message ?? error),
        fix: "if you changed the kernel, mend that line; otherwise report it with `longtail doctor --json`",
        cause: error,
      });
    }
  }
}
