// Compiles kernels, each variant once, all at a time, and keeps how long each took.
import { nowNs } from "../../clock";
import { ClassifiedError } from "../../failure";
import { compose, type Constants } from "./shader";

export interface Compiled {
  kernel: string;
  /** Of which use: qkv, down, ... */
  label: string;
  ms: number;
}

export class Pipelines {
  readonly compiled: Compiled[] = [];
  private readonly known = new Map<string, Promise<GPUComputePipeline>>();

  constructor(private readonly device: GPUDevice) {}

  /** The pipeline of a kernel's variant. Rejects with the compiler's own message. */
  get(kernel: string, constants: Constants, label = kernel): Promise<GPUComputePipeline> {
    const code = compose(kernel, constants);
    let found = this.known.get(code);
    if (!found) {
      found = this.compile(kernel, code, label);
      found.catch(() => {}); // whoever awaits it is told; until then it is no unhandled rejection
      this.known.set(code, found);
    }
    return found;
  }

  private async compile(kernel: string, code: string, label: string): Promise<GPUComputePipeline> {
    const start = nowNs();
    const module = this.device.createShaderModule({ code, label });
    try {
      const pipeline = await this.device.createComputePipelineAsync({ label, layout: "auto", compute: { module, entryPoint: "main" } });
      this.compiled.push({ kernel, label, ms: (nowNs() - start) / 1e6 });
      return pipeline;
    } catch (error) {
      const { messages } = await module.getCompilationInfo();
      const lines = code.split("\n");
      const told = messages.filter(({ type }) => type === "error").map(({ lineNum, message }) => `${message} in "${(lines[lineNum - 1] ?? "").trim()}"`);
      throw new ClassifiedError("load_failed", `The kernel ${kernel} (${label}) does not compile: ${told.join("; ") || String(error)}`);
    }
  }
}

/** A bind group of the pipeline's own layout; bindings that the variant does not use are left out. */
export function bind(device: GPUDevice, pipeline: GPUComputePipeline, group: number, buffers: Record<number, GPUBuffer | null>): GPUBindGroup {
  const entries = Object.entries(buffers).flatMap(([binding, buffer]) => (buffer ? [{ binding: Number(binding), resource: { buffer } }] : []));
  return device.createBindGroup({ layout: pipeline.getBindGroupLayout(group), entries });
}
