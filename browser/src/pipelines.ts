// Counts and times the compute pipelines that are made on a device, whoever makes them; records them as text; and compiles recorded ones
// ahead, all at once, so that whoever asks for the same one later gets the one that is there.
import { nowNs } from "./clock";
import type { RecordedPipeline } from "./protocol";

export interface PipelineTime {
  label: string;
  /** From the call until the pipeline was there; null for a synchronous call, which returns before the browser has compiled. */
  ms: number | null;
  /** Whether it had been asked for ahead of its use. */
  ahead: boolean;
}

type Descriptor = GPUComputePipelineDescriptor;

export class PipelineWatch {
  /** In the order in which they were asked for by those who use them. */
  readonly made: PipelineTime[] = [];
  /** Milliseconds that each pipeline took that was compiled ahead; the others wait for nothing. */
  readonly ahead_ms: number[] = [];
  readonly recorded: RecordedPipeline[] = [];
  private readonly seen = new Set<string>();
  private readonly codes = new WeakMap<GPUShaderModule, string>();
  private readonly groups = new WeakMap<GPUBindGroupLayout, GPUBindGroupLayoutEntry[]>();
  private readonly layouts = new WeakMap<GPUPipelineLayout, GPUBindGroupLayoutEntry[][]>();
  private readonly ready = new Map<string, GPUComputePipeline>();
  private readonly coming = new Map<string, Promise<GPUComputePipeline>>();
  private readonly original: Pick<GPUDevice, "createComputePipelineAsync" | "createComputePipeline">;

  constructor(private readonly device: GPUDevice) {
    const module = device.createShaderModule.bind(device);
    const group = device.createBindGroupLayout.bind(device);
    const layout = device.createPipelineLayout.bind(device);
    this.original = {
      createComputePipelineAsync: device.createComputePipelineAsync.bind(device),
      createComputePipeline: device.createComputePipeline.bind(device),
    };
    device.createShaderModule = (descriptor) => remember(this.codes, module(descriptor), descriptor.code);
    device.createBindGroupLayout = (descriptor) => remember(this.groups, group(descriptor), plainEntries(descriptor.entries));
    device.createPipelineLayout = (descriptor) =>
      remember(this.layouts, layout(descriptor), [...descriptor.bindGroupLayouts].map((each) => (each && this.groups.get(each)) ?? []));
    device.createComputePipelineAsync = (descriptor) => this.later(descriptor);
    device.createComputePipeline = (descriptor) => this.now(descriptor);
  }

  /** Compiles what an earlier start recorded, without waiting. A recorded pipeline that no longer compiles is left to who asks for it. */
  compileAhead(recorded: readonly RecordedPipeline[]): Promise<void> {
    const all = recorded.map(async (source) => {
      const key = keyOf(source);
      const start = nowNs();
      // An error of what no longer fits this browser stays here: otherwise it would count as one of the device.
      this.device.pushErrorScope("validation");
      const compute = {
        module: this.device.createShaderModule({ label: source.label, code: source.code }),
        ...(source.entry_point ? { entryPoint: source.entry_point } : {}),
        ...(Object.keys(source.constants).length ? { constants: source.constants } : {}),
      };
      const promise = this.original.createComputePipelineAsync({ label: source.label, layout: this.layoutOf(source.layout), compute });
      void this.device.popErrorScope();
      this.coming.set(key, promise);
      try {
        this.ready.set(key, await promise);
        this.ahead_ms.push((nowNs() - start) / 1e6);
      } catch {
        this.coming.delete(key); // the engine's own call will fail in the same way, and its error is the one to tell
      }
    });
    return Promise.all(all).then(() => {});
  }

  private async later(descriptor: Descriptor): Promise<GPUComputePipeline> {
    const key = this.record(descriptor);
    const coming = key === null ? undefined : this.coming.get(key);
    const entry: PipelineTime = { label: labelOf(descriptor), ms: null, ahead: coming !== undefined };
    this.made.push(entry);
    const start = nowNs();
    const pipeline = await (coming?.catch(() => this.original.createComputePipelineAsync(descriptor)) ?? this.original.createComputePipelineAsync(descriptor));
    entry.ms = (nowNs() - start) / 1e6;
    return pipeline;
  }

  private now(descriptor: Descriptor): GPUComputePipeline {
    const key = this.record(descriptor);
    const ready = key === null ? undefined : this.ready.get(key);
    this.made.push({ label: labelOf(descriptor), ms: null, ahead: ready !== undefined });
    return ready ?? this.original.createComputePipeline(descriptor);
  }

  /** The pipeline as text, kept once; null where something of it was made before the watch began. */
  private record(descriptor: Descriptor): string | null {
    const { module, entryPoint, constants } = descriptor.compute;
    const code = this.codes.get(module);
    const layout = descriptor.layout === "auto" ? "auto" : this.layouts.get(descriptor.layout);
    if (code === undefined || layout === undefined) return null;
    const recorded: RecordedPipeline = {
      label: labelOf(descriptor),
      code,
      entry_point: entryPoint ?? "",
      constants: { ...constants },
      layout: JSON.stringify(layout),
    };
    const key = keyOf(recorded);
    if (!this.seen.has(key)) {
      this.seen.add(key);
      this.recorded.push(recorded);
    }
    return key;
  }

  private layoutOf(text: string): GPUPipelineLayout | "auto" {
    const layout = JSON.parse(text) as "auto" | GPUBindGroupLayoutEntry[][];
    if (layout === "auto") return layout;
    return this.device.createPipelineLayout({ bindGroupLayouts: layout.map((entries) => this.device.createBindGroupLayout({ entries })) });
  }
}

function remember<K extends object, V>(map: WeakMap<K, V>, key: K, value: V): K {
  map.set(key, value);
  return key;
}

/** Entries of a bind group layout, in an order of their own, for what a compute shader can bind. */
function plainEntries(entries: Iterable<GPUBindGroupLayoutEntry>): GPUBindGroupLayoutEntry[] {
  return [...entries]
    .map(({ binding, visibility, buffer }) => ({ binding, visibility, ...(buffer ? { buffer: { type: "uniform" as GPUBufferBindingType, ...buffer } } : {}) }))
    .sort((a, b) => a.binding - b.binding);
}

const keyOf = ({ code, entry_point, constants, layout }: RecordedPipeline) => JSON.stringify([code, entry_point, Object.entries(constants).sort(), layout]);
const labelOf = ({ label, compute }: Descriptor) => label || compute.module.label || "(no label)";
