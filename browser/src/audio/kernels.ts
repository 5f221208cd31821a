// The audio kernels as shader text, and their pipelines.
import clamp from "../../kernels/audio/clamp.wgsl";
import fuse from "../../kernels/audio/fuse.wgsl";
import logMel from "../../kernels/audio/log_mel.wgsl";
import moments from "../../kernels/audio/moments.wgsl";
import resample from "../../kernels/audio/resample.wgsl";
import standardise from "../../kernels/audio/standardise.wgsl";
import { passes } from "./fft";

/** Threads of a workgroup where nothing was tuned: what every adapter offers. */
export const DEFAULT_THREADS = 64;
/** Samples that one workgroup of `moments` reads. */
export const STRETCH = 4096;

const filled = (source: string, values: Record<string, string | number>) =>
  Object.entries(values).reduce((text, [name, value]) => text.replaceAll(`$${name}`, String(value)), source);

/** Text of a kernel for `threads` threads a workgroup; `window` is that of the spectrogram. */
export function source(kernel: KernelName, threads: number, window: number): string {
  const common = { THREADS: threads };
  switch (kernel) {
    case "log_mel": {
      const { source, result } = passes(window / 2);
      return filled(logMel, { PASSES: source, RESULT: result, POINTS: window, HALF: window / 2, ...common });
    }
    case "scatter":
    case "gather":
      return filled(moments, { EACH: STRETCH / threads, ...common });
    case "resample":
      return filled(resample, common);
    case "clamp":
      return filled(clamp, common);
    case "standardise":
      return filled(standardise, common);
    case "fuse":
      return filled(fuse, common);
  }
}

export const KERNELS = ["resample", "log_mel", "clamp", "scatter", "gather", "standardise", "fuse"] as const;
export type KernelName = (typeof KERNELS)[number];

export async function pipeline(device: GPUDevice, kernel: KernelName, threads: number, window: number): Promise<GPUComputePipeline> {
  const module = device.createShaderModule({ label: `audio ${kernel}`, code: source(kernel, threads, window) });
  const entryPoint = kernel === "scatter" || kernel === "gather" ? kernel : "main";
  return device.createComputePipelineAsync({ label: `audio ${kernel}`, layout: "auto", compute: { module, entryPoint } });
}

/** Compiles every kernel for windows of 400 and 1024 and all workgroup sizes; by name, the compiler's errors or "". */
export async function compileAll(device: GPUDevice): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const kernel of KERNELS)
    for (const window of kernel === "log_mel" ? [400, 1024, 480] : [0])
      for (const threads of [32, 64, 128, 256]) {
        const name = [kernel, window || null, threads].filter(Boolean).join(" ");
        try {
          await pipeline(device, kernel, threads, window);
          found[name] = "";
        } catch (error) {
          found[name] = String(error);
        }
      }
  return found;
}
