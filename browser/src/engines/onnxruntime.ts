// ONNX Runtime Web: its runtime, its sessions, and tensors that stay on the device between runs.
import type { InferenceSession, Tensor, TensorFromGpuBufferOptions } from "onnxruntime-common";

import { openContext, openGpu, type Device } from "../devices";
import { elementBytes, elements, zeros, type Data, type HostTensor } from "../frames";
import type { DataType, GraphSpec, Open } from "../protocol";
import { wakeUntil, type Readback } from "../wake";

type Ort = typeof import("onnxruntime-web/wasm");
export type { InferenceSession, Tensor };

/** A fetched graph: the bytes of its files in the order of `spec.files`. */
export interface GraphBytes {
  spec: GraphSpec;
  files: Uint8Array[];
  /** The files where they are still on their way. */
  arriving?: Promise<Uint8Array[]>;
}

/** Lets the bytes go once no more sessions are made of them: each session has a copy. */
export function forgetFiles(graph: GraphBytes): void {
  graph.files = [];
  delete graph.arriving;
}

/** What a runtime must know before it has a model. */
export type RuntimeOptions = Pick<Open, "provider" | "precision" | "threads" | "device_type" | "power_preference" | "software_adapter">;

/** A session: its named dimensions in `dimensions` are fixed, its outputs in `onDevice` stay there, the others come to the CPU. */
export interface SessionPlan {
  spec: GraphSpec;
  dimensions: Record<string, number>;
  onDevice: readonly string[];
}

// One Identity node, ONNX opset 17. ONNX Runtime starts with its first session; this one lets the start be timed apart.
const identityModel = Uint8Array.from(atob("CAg6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEBE="), (c) => c.charCodeAt(0));

export class OnnxRuntime {
  readonly plans: SessionPlan[] = [];
  /** What follows the runtime's own files in their addresses. */
  static query = "";
  /** How results are waited for; "woken" only on WebGPU. */
  readback: Readback = "plain";
  /** The sessions that were made with the profiler on; null while it is off. */
  profiled: InferenceSession[] | null = null;

  private constructor(
    private readonly ort: Ort,
    private readonly options: RuntimeOptions,
    readonly threads: number,
    readonly device: Device | null,
  ) {}

  /** Starts the wasm runtime and gets the device, unless one is `opened` already. */
  static async start(options: RuntimeOptions, opened?: Device): Promise<OnnxRuntime> {
    const plain = options.provider === "wasm";
    const ort: Ort = plain ? await import("onnxruntime-web/wasm") : await import("onnxruntime-web/webgpu");
    const name = plain ? "ort-wasm-simd-threaded" : "ort-wasm-simd-threaded.asyncify";
    const threads = self.crossOriginIsolated ? (options.threads ?? Math.min(navigator.hardwareConcurrency, 4)) : 1;
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = { mjs: new URL(`${name}.mjs${OnnxRuntime.query}`, location.href).href, wasm: new URL(`${name}.wasm${OnnxRuntime.query}`, location.href).href };
    const device = plain ? null : opened ? opened : options.provider === "webgpu" ? await openGpu(options) : await openContext(options);
    await ort.InferenceSession.create(identityModel, { executionProviders: ["wasm"] });
    return new OnnxRuntime(ort, options, threads, device);
  }

  get version(): string {
    return this.ort.env.versions.web ?? "";
  }

  /** Makes a session and remembers its plan, so that its nodes can be counted later. */
  createSession(graph: GraphBytes, dimensions: Record<string, number>, onDevice: readonly string[] = []): Promise<InferenceSession> {
    const plan = { spec: graph.spec, dimensions, onDevice };
    if (!this.profiled) this.plans.push(plan);
    return this.create(graph, plan);
  }

  async create({ spec, files, arriving }: GraphBytes, { dimensions, onDevice }: SessionPlan, extra: InferenceSession.SessionOptions = {}): Promise<InferenceSession> {
    const location = { wasm: "cpu", webgpu: "gpu-buffer", webnn: "ml-tensor" } as const;
    const [model, ...external] = arriving ? await arriving : files;
    const session = await this.ort.InferenceSession.create(model!, {
      executionProviders: [this.provider()],
      freeDimensionOverrides: dimensions,
      externalData: external.map((data, index) => ({ path: spec.files[index + 1]!, data })),
      preferredOutputLocation: Object.fromEntries(onDevice.map((name) => [name, location[this.options.provider]])),
      enableCpuMemArena: true,
      // On a device tensors are known by their addresses, which one block planned for all would mix up.
      enableMemPattern: this.options.provider === "wasm",
      enableProfiling: this.profiled !== null,
      ...extra,
    });
    this.profiled?.push(session);
    const gpu = this.device?.gpu;
    if (this.readback === "woken" && gpu) {
      const run = session.run.bind(session) as (...values: unknown[]) => Promise<InferenceSession.OnnxValueMapType>;
      session.run = async (...values: unknown[]) => {
        const running = run(...values);
        await wakeUntil(gpu, running); // ONNX Runtime maps buffers of its own inside
        return running;
      };
    }
    return session;
  }

  private provider(): InferenceSession.ExecutionProviderConfig {
    if (this.device?.gpu) return { name: "webgpu", device: this.device.gpu };
    if (this.device?.context)
      return { name: "webnn", context: this.device.context, deviceType: this.options.device_type } as InferenceSession.WebNNOptionsWithMLContext;
    return "wasm";
  }

  hostTensor({ dtype, data, shape, gpu }: HostTensor): Tensor {
    if (gpu) return this.ort.Tensor.fromGpuBuffer(gpu, { dataType: dtype as "float32", dims: shape }) as Tensor;
    return new this.ort.Tensor(dtype, data as never, shape) as Tensor;
  }

  /** Zeros where the device reads them fastest. */
  async zeroTensor(dtype: DataType, shape: readonly number[]): Promise<Tensor> {
    if (this.device?.gpu) {
      const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
      const size = Math.ceil((elements(shape) * elementBytes(dtype)) / 16) * 16; // ONNX Runtime binds whole vec4s
      const buffer = this.device.gpu.createBuffer({ size, usage: STORAGE | COPY_SRC | COPY_DST });
      return this.ort.Tensor.fromGpuBuffer(buffer, { dataType: dtype as NonNullable<TensorFromGpuBufferOptions<"float32">["dataType"]>, dims: shape, dispose: () => buffer.destroy() }) as Tensor;
    }
    if (this.device?.context) {
      const tensor = await this.device.context.createTensor({ dataType: dtype, shape: [...shape], writable: true });
      return this.ort.Tensor.fromMLTensor(tensor as never, { dataType: dtype as "float32", dims: shape, dispose: () => tensor.destroy() }) as Tensor;
    }
    return this.hostTensor(zeros(dtype, shape));
  }
}

/** The tensor's values in the page's memory, as they were read back by the run. */
export function toHost(tensor: Tensor): HostTensor {
  return { dtype: tensor.type as DataType, shape: tensor.dims, data: tensor.data as unknown as Data };
}
