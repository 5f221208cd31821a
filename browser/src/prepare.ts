// From nothing to a model that is ready, as the switches of Open say. With all of them off it is the usual way: fetch all files, start the
// runtime, create the sessions, one after the other, and the first inference compiles the shaders.
import { CpuFrontEnd } from "./audio/cpu";
import { featureType, GpuFrontEnd, onDevice, type FeatureType } from "./audio/gpu";
import type { Variant } from "./audio/kernels";
import { featureShape, recordingsOf, resampledRows, type Recordings } from "./audio/recordings";
import { arriving, fetchAll, type Graphs, type Tell } from "./arriving";
import { adapterKey, tunedVariant } from "./autotune";
import { nowNs } from "./clock";
import { OnnxRuntime } from "./engines/onnxruntime";
import { openGpu, type Device } from "./devices";
import { ClassifiedError } from "./failure";
import type { HostTensor, HostTensors } from "./frames";
import { Generator } from "./generation";
import type { LoadingReport } from "./loading";
import { after, SinglePass, type Iteration, type Model } from "./model";
import { OwnReadback } from "./own_readback";
import { PipelineWatch } from "./pipelines";
import type { AudioSpec, GraphSpec, Open } from "./protocol";
import { chooseReadback } from "./wake";

export interface Prepared {
  runtime: OnnxRuntime;
  model: Model;
  watch: PipelineWatch | null;
  /** JSON: marks (ms since navigation), loading, pipelines, readback, components. */
  report: Record<string, unknown>;
}

/** `onDevice` is told the device before anything is done with it, `tell` where each component is. */
export async function prepare(options: Open, inputs: HostTensors, onDevice: (device: Device | null) => void, tell: Tell): Promise<Prepared> {
  const run = new Preparation(options, inputs, onDevice, tell);
  return run.go();
}

class Preparation {
  private readonly marks: Record<string, number> = {};
  private readonly components: Record<string, { bytes: number; ready_ms: number }> = {};
  private loading: LoadingReport | null = null;

  constructor(
    private readonly options: Open,
    private readonly inputs: HostTensors,
    private readonly onDevice: (device: Device | null) => void,
    private readonly tell: Tell,
  ) {}

  async go(): Promise<Prepared> {
    const { options } = this;
    const { parallel_loading: parallel, precompilation, audio } = options.optimizations;
    OnnxRuntime.query = options.optimizations.runtime_query;
    this.mark("begin");
    const coming = parallel ? this.arriving(mainOnly(options.graphs)) : null;
    let graphs: Graphs = coming?.graphs ?? (await this.fetched(mainOnly(options.graphs)));
    const skeletons = precompilation && parallel && options.optimizations.pipelines.length === 0 ? this.fetched(skeletonsOf(options.graphs)) : null;
    skeletons?.catch(() => {}); // awaited below
    const device = options.provider === "webgpu" ? await openGpu(options) : null;
    this.onDevice(device);
    const watch = device?.gpu ? new PipelineWatch(device.gpu) : null;
    const ahead = watch && precompilation ? watch.compileAhead(options.optimizations.pipelines) : null;
    const runtime = await OnnxRuntime.start(options, device ?? undefined);
    this.onDevice(runtime.device);
    this.mark("runtime");
    const gpu = runtime.device?.gpu ?? null;
    const key = device ? adapterKey(device.facts) : null;
    const trial = gpu ? await chooseReadback(gpu, key!, options.optimizations) : null;
    if (trial?.plain_ns.length) this.mark("readback_tried");
    runtime.readback = trial?.readback ?? "plain";

    const front = audio ? await this.frontEnd(audio, gpu, key) : null;
    const inputs = front ? { ...this.inputs, [audio!.input]: front.input } : this.inputs;
    const started: { model: Model | null } = { model: null };
    try {
      if (skeletons) await this.rehearse(runtime, await skeletons, inputs);
      const before = watch?.made.length ?? 0;
      started.model = await this.model(runtime, graphs, inputs);
      if (coming) await coming.all;
      this.mark("compiled");
      graphs = {};
      if (front) started.model = front.wrap(started.model);
      if (ahead) {
        await ahead;
        this.mark("compiled_ahead");
      }
      if (precompilation && !skeletons && options.optimizations.pipelines.length === 0) {
        await started.model.iterate();
        this.mark("warmed_up");
      }
      this.mark("ready");
      return {
        runtime,
        model: started.model,
        watch,
        report: {
          marks_ms: this.marks,
          components: this.components,
          loading: this.loading,
          adapter_key: key,
          readback: trial,
          front_end: front?.where ?? null,
          pipelines: watch ? { before_the_weights: before, made: watch.made, ahead_ms: watch.ahead_ms } : null,
          switches: { ...options.optimizations, audio: undefined, chunks: undefined, pipelines: options.optimizations.pipelines.length },
        },
      };
    } catch (error) {
      await coming?.all.catch(() => {}); // it stops by itself; its failure is the one that is told below where it is the cause
      throw error;
    }
  }

  private mark(name: string): void {
    this.marks[name] = sinceNavigationMs();
  }

  private async fetched(specs: Record<string, GraphSpec>): Promise<Graphs> {
    const graphs = await fetchAll(specs, null);
    for (const [name, graph] of Object.entries(graphs)) this.ready(name, graph.files.reduce((sum, file) => sum + file.length, 0));
    this.mark("fetched");
    return graphs;
  }

  private arriving(specs: Record<string, GraphSpec>): { graphs: Graphs; all: Promise<void> } {
    const { graphs, all, report } = arriving(specs, this.options.optimizations, this.tell, (component, bytes) => this.ready(component, bytes));
    this.loading = report;
    const marked = all.then(() => this.mark("fetched"));
    marked.catch(() => {}); // whoever waits for a file gets its failure
    return { graphs, all: marked };
  }

  private ready(component: string, bytes: number): void {
    this.components[component] = { bytes, ready_ms: sinceNavigationMs() };
  }

  private async model(runtime: OnnxRuntime, graphs: Graphs, inputs: HostTensors): Promise<Model> {
    const { generation, dimensions } = this.options;
    const { model, decoder, ...before } = graphs;
    if (generation && decoder) return Generator.compile(runtime, { decoder, ...before }, this.options, generation, inputs);
    if (runtime.readback === "woken") return OwnReadback.compile(runtime, model!, dimensions, inputs);
    return SinglePass.compile(runtime, model!, dimensions, inputs);
  }

  /** Runs the graphs once with zeros for weights while the real ones arrive: ONNX Runtime keeps a device's pipelines, which depend on
   * shapes alone, from one session to the next. */
  private async rehearse(runtime: OnnxRuntime, skeletons: Graphs, inputs: HostTensors): Promise<void> {
    const planned = runtime.plans.length;
    const zeros = new Uint8Array(Math.max(...Object.values(this.options.optimizations.zero_bytes), 0));
    const named = Object.fromEntries(
      Object.entries(skeletons).map(([name, { spec, files }]) => [
        name.slice(SKELETON.length),
        { spec: { ...spec, files: [...spec.files, "zeros"] }, files: [...files, zeros] },
      ]),
    );
    const rehearsal = await this.model(runtime, named, inputs);
    this.mark("rehearsal_compiled");
    await rehearsal.iterate(2);
    await rehearsal.release();
    runtime.plans.length = planned;
    this.mark("rehearsed");
  }

  /** The model's audio input, and a model that makes it anew from the recordings in each iteration. */
  private async frontEnd(spec: AudioSpec, gpu: GPUDevice | null, key: string | null): Promise<FrontEnd> {
    const { sample_rate, gpu_audio, tuned } = this.options.optimizations;
    const recordings = recordingsOf(this.inputs, sample_rate);
    const rows = resampledRows(recordings, spec).length;
    const batch = this.options.dimensions["batch"];
    if (batch !== undefined && batch !== rows)
      throw new ClassifiedError("inference_failed", `The recordings make ${rows} rows, and the model was prepared for a batch of ${batch}.`);
    const dtype = featureType(Object.values(this.options.graphs), spec);
    if (!gpu_audio && dtype !== "float32")
      throw new ClassifiedError("unsupported", `The audio front end in JavaScript makes float32, and the graph takes ${dtype} as ${spec.input}.`);
    if (gpu_audio && !gpu) throw new ClassifiedError("unsupported", "The audio front end on the GPU needs the webgpu provider.");
    const made = gpu_audio ? await onGpu(gpu!, spec, recordings, rows, tunedVariant(tuned, key), dtype) : onCpu(spec, recordings);
    this.mark("front_end");
    return made;
  }
}

interface FrontEnd {
  where: "gpu" | "cpu";
  input: HostTensor;
  wrap(model: Model): Model;
}

async function onGpu(gpu: GPUDevice, spec: AudioSpec, recordings: Recordings, rows: number, variant: Variant, dtype: FeatureType): Promise<FrontEnd> {
  const frontEnd = await GpuFrontEnd.create(gpu, spec, variant, dtype);
  const input = onDevice(frontEnd.run(recordings));
  if (input.shape[0] !== rows) throw new Error("The front end made another number of rows than were counted.");
  // The same buffer each time, so the tensor that was made of it stays right; the queue keeps the order.
  return { where: "gpu", input, wrap: (model) => timed(model, () => void frontEnd.run(recordings)) };
}

function onCpu(spec: AudioSpec, recordings: Recordings): FrontEnd {
  const frontEnd = new CpuFrontEnd(spec);
  const rows = resampledRows(recordings, spec).length;
  const shape = featureShape(rows, spec);
  const data = new Float32Array(shape.reduce((product, size) => product * size));
  const input: HostTensor = { dtype: "float32", shape, data };
  const fill = () => data.set(frontEnd.run(recordings).data as unknown as Float32Array);
  fill();
  return { where: "cpu", input, wrap: (model) => timed(model, fill) };
}

/** The model with its front end in every iteration and in its time: from PCM to output. */
function timed(model: Model, frontEnd: () => void): Model {
  return {
    async iterate(limit?: number): Promise<Iteration> {
      const start = nowNs();
      frontEnd();
      const spent = nowNs() - start;
      return after(spent, await model.iterate(limit));
    },
    release: () => model.release(),
  };
}

export const SKELETON = "skeleton:";
const mainOnly = (graphs: Record<string, GraphSpec>) => Object.fromEntries(Object.entries(graphs).filter(([name]) => !name.startsWith(SKELETON)));
const skeletonsOf = (graphs: Record<string, GraphSpec>) => Object.fromEntries(Object.entries(graphs).filter(([name]) => name.startsWith(SKELETON)));

/** Milliseconds since the page's navigation began; the page gives its origin as the worker's name. */
export function sinceNavigationMs(): number {
  return performance.timeOrigin + performance.now() - Number(self.name);
}
