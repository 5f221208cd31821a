// The GPU device and the WebNN context. They are ours and not the engine's, so that a lost device is seen and the adapter is known.
import { adapterFacts } from "./capabilities";
import { ClassifiedError } from "./failure";
import { countPipelines, type Pipelines } from "./pipeline_count";
import type { Open } from "./protocol";

export type GpuChoice = Pick<Open, "power_preference" | "software_adapter" | "precision">;

export interface Device {
  facts: Record<string, unknown>;
  /** Rejects when the device is lost or reports an error of its own. */
  broken: Promise<never>;
  lose(): void;
  gpu?: GPUDevice;
  /** What GPU buffers hold, and the most that they held at once. */
  bytes?: () => { now: number; peak: number };
  pipelines?: Pipelines;
  context?: MLContext;
}

/** How long a failed call waits for the device to say that it is the cause. */
export const CAUSE_WAIT_MS = 250;

// Only what kernels use: experimental features (Chromium's subgroup matrices) make ONNX Runtime build shaders that fail.
const wanted: readonly string[] = ["shader-f16", "subgroups", "timestamp-query"];

export async function openGpu({ power_preference, software_adapter, precision }: GpuChoice): Promise<Device> {
  if (!("gpu" in navigator)) throw new ClassifiedError("unsupported", "This browser has no WebGPU (navigator.gpu does not exist).");
  const adapter = await navigator.gpu.requestAdapter({
    ...(power_preference ? { powerPreference: power_preference } : {}),
    ...(software_adapter ? { forceFallbackAdapter: true } : {}),
  });
  if (!adapter) throw new ClassifiedError("unsupported", "WebGPU gives no adapter here (requestAdapter() returned null).");
  const features = wanted.filter((name) => adapter.features.has(name)) as GPUFeatureName[];
  if (precision === "float16" && !features.includes("shader-f16"))
    throw new ClassifiedError("unsupported", "The WebGPU adapter lacks shader-f16, which a float16 model needs.");
  const facts = adapterFacts(adapter);
  // The defaults of limits are those of a phone: ask for all that the adapter has.
  const gpu = await adapter.requestDevice({ requiredFeatures: features, requiredLimits: facts["limits"] as Record<string, number> });
  const broken = new Promise<never>((_, reject) => {
    void gpu.lost.then(({ reason, message }) => reject(new ClassifiedError("device_lost", `The GPU device was lost (${reason}): ${message}`)));
    gpu.addEventListener("uncapturederror", ({ error }) => {
      const errorClass = error instanceof GPUOutOfMemoryError ? "out_of_memory" : "inference_failed";
      // A lost device makes errors too, and may say only after them that it is lost.
      setTimeout(() => reject(new ClassifiedError(errorClass, `${error.constructor.name}: ${error.message}`)), CAUSE_WAIT_MS);
    });
  });
  return { facts: { ...facts, features_used: features }, broken, lose: () => gpu.destroy(), gpu, bytes: countBytes(gpu), pipelines: countPipelines(gpu) };
}

/** Counts the bytes of the device's buffers, as WebGPU has no counter of its own. */
function countBytes(gpu: GPUDevice): () => { now: number; peak: number } {
  let bytes = 0;
  let peak = 0;
  const create = gpu.createBuffer.bind(gpu);
  gpu.createBuffer = (descriptor) => {
    const buffer = create(descriptor);
    bytes += descriptor.size;
    peak = Math.max(peak, bytes);
    const destroy = buffer.destroy.bind(buffer);
    let alive = true;
    buffer.destroy = () => {
      if (alive) bytes -= descriptor.size;
      alive = false;
      return destroy();
    };
    return buffer;
  };
  return () => ({ now: bytes, peak });
}

export async function openContext({ device_type, power_preference }: Pick<Open, "device_type" | "power_preference">): Promise<Device> {
  if (!navigator.ml) throw new ClassifiedError("unsupported", "This browser has no WebNN (navigator.ml does not exist).");
  const context = await navigator.ml.createContext({
    deviceType: device_type,
    ...(power_preference ? { powerPreference: power_preference } : {}),
  });
  const broken = new Promise<never>((_, reject) => {
    void context.lost.then(({ message }) => reject(new ClassifiedError("device_lost", `The WebNN context was lost: ${message}`)));
  });
  return { facts: { device_type }, broken, lose: () => context.destroy(), context };
}
