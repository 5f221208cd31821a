// One model in this worker, from fetch to samples. Phases come as separate requests so that Python can put a limit on each.
import type { Tell } from "./arriving";
import { nowNs, resolutionNs } from "./clock";
import { countNodes } from "./coverage";
import type { Device } from "./devices";
import { OnnxRuntime, type GraphBytes } from "./engines/onnxruntime";
import { fetchGraph, verify } from "./fetch";
import { Generator } from "./generation";
import { Guard } from "./guard";
import type { HostTensors } from "./frames";
import { SinglePass, type Iteration, type Model } from "./model";
import { timeNodes, type NodeTimes } from "./node_times";
import { prepare } from "./prepare";
import type { PipelineWatch } from "./pipelines";
import type { Open, RecordedPipeline, SampleTimes } from "./protocol";

export class Launch {
  private graphs: Record<string, GraphBytes> = {};
  private runtime: OnnxRuntime | null = null;
  private model: Model | null = null;
  private pipelines: PipelineWatch | null = null;
  private device: Device | null = null;
  private readonly guard = new Guard();

  constructor(
    private readonly options: Open,
    private readonly inputs: HostTensors,
  ) {}

  readonly clockResolutionNs = resolutionNs();

  /** `work`, or what broke the device if that comes first. */
  guarded<T>(work: () => Promise<T>): Promise<T> {
    return this.guard.run(work);
  }

  async fetch(): Promise<number> {
    const start = nowNs();
    this.graphs = await this.fetched();
    const ns = nowNs() - start;
    for (const graph of Object.values(this.graphs)) await verify(graph); // our own check, outside the time
    return ns;
  }

  async load(): Promise<number> {
    const start = nowNs();
    this.runtime = await OnnxRuntime.start(this.options);
    const ns = nowNs() - start;
    this.watch(this.runtime.device);
    return ns;
  }

  async compile(): Promise<number> {
    const start = nowNs();
    this.model = await this.compiled(this.graphs);
    const ns = nowNs() - start;
    this.graphs = {}; // the sessions have their own copy
    return ns;
  }

  /** All phases at once, as the switches say; what happened when. */
  async prepare(tell: Tell): Promise<Record<string, unknown>> {
    const { runtime, model, report, watch } = await prepare(this.options, this.inputs, (device) => this.watch(device), tell);
    [this.runtime, this.model, this.pipelines] = [runtime, model, watch];
    return report;
  }

  /** The pipelines that were made since `prepare`, as text. */
  recorded(): readonly RecordedPipeline[] {
    return this.pipelines?.recorded ?? [];
  }

  iterate(): Promise<Iteration> {
    if (!this.model) throw new Error("The model is not compiled yet.");
    return this.model.iterate();
  }

  async sample(count: number): Promise<{ samples: SampleTimes[]; bytes_read_back: number }> {
    const samples: SampleTimes[] = [];
    let bytes_read_back = 0;
    for (let index = 0; index < count; index++) {
      const { times, bytesReadBack } = await this.iterate();
      samples.push(times);
      bytes_read_back = bytesReadBack;
    }
    return { samples, bytes_read_back };
  }

  async count(): Promise<Record<string, number>> {
    const sum: Record<string, number> = {};
    for (const plan of this.started.plans)
      for (const [provider, nodes] of Object.entries(await countNodes(this.started, plan))) sum[provider] = (sum[provider] ?? 0) + nodes;
    return sum;
  }

  /** Time on each provider. The model that was measured is given up for it: its weights need not lie there twice. */
  async timeNodes(): Promise<NodeTimes> {
    await this.model?.release();
    this.model = null;
    return timeNodes(this.started, async () => this.compiled(await this.fetched()));
  }

  facts(): Record<string, unknown> {
    const { device, threads, version } = this.started;
    return {
      engine_version: version,
      threads,
      user_agent: navigator.userAgent,
      cross_origin_isolated: self.crossOriginIsolated,
      hardware_concurrency: navigator.hardwareConcurrency,
      device: device?.facts ?? null,
      device_peak_bytes: device?.bytes?.().peak ?? null,
    };
  }

  /** Destroys the device and waits until it says so. */
  async loseDevice(): Promise<void> {
    if (!this.device) throw new Error("There is no device to lose.");
    this.device.lose();
    await this.guard.untilBroken();
  }

  private async fetched(): Promise<Record<string, GraphBytes>> {
    const entries = Object.entries(this.options.graphs);
    return Object.fromEntries(await Promise.all(entries.map(async ([name, spec]) => [name, await fetchGraph(spec)] as const)));
  }

  private compiled({ model, decoder, ...before }: Record<string, GraphBytes>): Promise<Model> {
    const { generation, dimensions } = this.options;
    return generation && decoder
      ? Generator.compile(this.started, { decoder, ...before }, this.options, generation, this.inputs)
      : SinglePass.compile(this.started, model!, dimensions, this.inputs);
  }

  private watch(device: Device | null): void {
    this.device = device;
    this.guard.watch(device);
  }

  private get started(): OnnxRuntime {
    if (!this.runtime) throw new Error("The runtime is not loaded yet.");
    return this.runtime;
  }
}
