// The audio kernels as shader text, and their pipelines.
import clamp from "../../kernels/audio/clamp.wgsl";
import fuse from "../../kernels/audio/fuse.wgsl";
import logMel from "../../kernels/audio/log_mel.wgsl";
import moments from "../../kernels/audio/moments.wgsl";
import resample from "../../kernels/audio/resample.wgsl";
import standardise from "../../kernels/audio/standardise.wgsl";
import { passes } from "./fft";

/** How kernels are built: what is fastest on an adapter is a matter of measurement, and the results are the same. */
export interface Variant {
  threads: number; // of a workgroup
  subgroups: boolean; // the loudest value of a frame by subgroups; otherwise by an atomic of each thread
}
/** Where nothing was tuned: what every adapter offers. */
export const DEFAULT: Variant = { threads: 64, subgroups: false };
/** Samples that one workgroup of `moments` reads. */
export const STRETCH = 4096;

const filled = (source: string, values: Record<string, string | number>) =>
  Object.entries(values).reduce((text, [name, value]) => text.replaceAll(`$${name}`, String(value)), source);

const PEAK = {
  threads: "atomicMax(&peak, loudest);",
  subgroups: "let loudest_here = subgroupMax(loudest);\n  if (subgroupElect()) {\n    atomicMax(&peak, loudest_here);\n  }",
};
export const WITH_SUBGROUPS: readonly KernelName[] = ["log_mel"];
/** Those that write what a model takes, in float16 where it does. */
export const WRITE_FEATURES: readonly KernelName[] = ["log_mel", "clamp", "standardise", "fuse"];

/** Text of a kernel; `window` is that of the spectrogram. With `half` its features are float16, its arithmetic stays float32. */
export function source(kernel: KernelName, variant: Variant, window: number, half: boolean): string {
  const enabled = [...(half ? ["enable f16;"] : []), ...(variant.subgroups && WITH_SUBGROUPS.includes(kernel) ? ["enable subgroups;"] : [])];
  return [...enabled, body(kernel, variant, window, half)].join("\n");
}

function body(kernel: KernelName, { threads, subgroups }: Variant, window: number, half: boolean): string {
  const common = { THREADS: threads, OUT: half ? "f16" : "f32" };
  switch (kernel) {
    case "log_mel": {
      const { source, result } = passes(window / 2);
      return filled(logMel, { PASSES: source, RESULT: result, POINTS: window, HALF: window / 2, PEAK: subgroups ? PEAK.subgroups : PEAK.threads, ...common });
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

export async function pipeline(device: GPUDevice, kernel: KernelName, variant: Variant, window: number, half: boolean): Promise<GPUComputePipeline> {
  const module = device.createShaderModule({ label: `audio ${kernel}`, code: source(kernel, variant, window, half) });
  const entryPoint = kernel === "scatter" || kernel === "gather" ? kernel : "main";
  return device.createComputePipelineAsync({ label: `audio ${kernel}`, layout: "auto", compute: { module, entryPoint } });
}

/** Compiles every kernel for windows of 400, 1024 and 480, all workgroup sizes, and with what the device has of subgroups and float16; by
 * name, the compiler's errors or "". */
export async function compileAll(device: GPUDevice): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  const has = (feature: string) => (device.features.has(feature) ? [false, true] : [false]);
  for (const kernel of KERNELS)
    for (const window of kernel === "log_mel" ? [400, 1024, 480] : [0])
      for (const threads of [32, 64, 128, 256])
        for (const subgroups of WITH_SUBGROUPS.includes(kernel) ? has("subgroups") : [false])
          for (const half of WRITE_FEATURES.includes(kernel) ? has("shader-f16") : [false]) {
            const name = [kernel, window || null, threads, subgroups && "subgroups", half && "float16"].filter(Boolean).join(" ");
            try {
              await pipeline(device, kernel, { threads, subgroups }, window, half);
              found[name] = "";
            } catch (error) {
              found[name] = String(error);
            }
          }
  return found;
}
