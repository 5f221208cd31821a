// A model that answers any request, until it is closed: other inputs and other lengths each time.
import { featureType, GpuFrontEnd, onDevice } from "./audio/gpu";
import type { Variant } from "./audio/kernels";
import { recordingsOf } from "./audio/recordings";
import { nowNs } from "./clock";
import { forgetFiles, toHost, type GraphBytes, type InferenceSession, type OnnxRuntime, type Tensor } from "./engines/onnxruntime";
import type { HostTensor, HostTensors } from "./frames";
import { Decoder, dispose, repeated, type OnToken, type Tensors } from "./generation";
import { after, bytesOf, feedsOf, type Iteration } from "./model";
import { runAndRead } from "./own_readback";
import type { AudioSpec, DataType, GraphSpec, ServedGeneration } from "./protocol";
import { Reader } from "./wake";

// Sessions of static shapes that are kept: each holds the weights once more.
const STATIC_SESSIONS = 2;

export class ServedModel {
  private readonly kept = new Map<string, Decoder | InferenceSession>();
  private cache: { key: string; tensors: Tensors } | null = null;
  /** Of a single pass whose outputs stay on the GPU until one read of our own. */
  private readonly reader: Reader | null;

  private constructor(
    readonly runtime: OnnxRuntime,
    private readonly graphs: Record<string, GraphBytes>,
    private readonly generation: ServedGeneration | null,
    private readonly staticShapes: boolean,
    private readonly front: { end: GpuFrontEnd; spec: AudioSpec } | null,
  ) {
    this.reader = !generation && runtime.readback === "woken" ? new Reader(runtime.device!.gpu!, "woken") : null;
  }

  /** Where shapes may vary the one session is made now; static ones are made for each new shape. With `audio` the requests bring
   * recordings, and the features are made on the runtime's GPU by kernels of this `variant`. */
  static async compile(runtime: OnnxRuntime, graphs: Record<string, GraphBytes>, generation: ServedGeneration | null, staticShapes: boolean, audio: AudioSpec | null, variant: Variant): Promise<ServedModel> {
    const taken = audio && featureType(Object.values(graphs).map(({ spec }) => spec), audio);
    const front = audio ? { end: await GpuFrontEnd.create(runtime.device!.gpu!, audio, variant, taken!), spec: audio } : null;
    const model = new ServedModel(runtime, graphs, generation, staticShapes, front);
    if (!staticShapes) {
      if (generation) (await model.decoder({}, null)).forgetFiles();
      else await model.session({}).then(() => forgetFiles(graphs["model"]!));
    }
    return model;
  }

  async infer(given: HostTensors): Promise<Iteration> {
    const graph = this.graphs["model"];
    if (!graph) throw new Error("This model generates: ask it to decode.");
    return this.withFeatures(given, (inputs) => this.pass(graph, inputs));
  }

  private async pass(graph: GraphBytes, inputs: HostTensors): Promise<Iteration> {
    const session = await this.session(dimensionsOf(graph.spec, inputs));
    const feeds = feedsOf(this.runtime, graph, inputs);
    if (this.reader) return runAndRead(session, feeds, this.reader);
    const start = nowNs();
    const results = (await session.run(feeds)) as Record<string, Tensor>;
    const total_ns = nowNs() - start;
    const outputs = Object.fromEntries(Object.entries(results).map(([name, tensor]) => [name, toHost(tensor)]));
    return { times: { total_ns, token_ns: [] }, outputs, bytesReadBack: bytesOf(outputs) };
  }

  /** `cacheTokens` are the positions of the key-value cache: at least those of the prompt and the new tokens. */
  async decode(given: HostTensors, newTokens: number, cacheTokens: number, onToken: OnToken): Promise<Iteration> {
    const { generation } = this;
    if (!generation) throw new Error("This model does not generate: ask it to infer.");
    return this.withFeatures(given, (inputs) => this.generate(generation, inputs, newTokens, cacheTokens, onToken));
  }

  private async generate(generation: ServedGeneration, inputs: HostTensors, newTokens: number, cacheTokens: number, onToken: OnToken): Promise<Iteration> {
    const known: Record<string, number> = { cache: cacheTokens };
    for (const [name, { spec }] of Object.entries(this.graphs)) Object.assign(known, dimensionsOf(spec, inputs, name === "decoder" ? ["input_ids"] : []));
    const { prompt: start, cache_dtype } = generation;
    const first = Object.values(inputs)[0]!;
    const batch = (known["batch"] ??= first.shape[0]!);
    const prompt: HostTensor = start ? repeated(start, batch) : inputs["input_ids"]!;
    const decoder = await this.decoder(known, this.staticShapes ? prompt.shape[1]! : null);
    const feeds = decoder.feeds(inputs, await this.emptyCache(decoder, cache_dtype as DataType, known));
    return decoder.decode(prompt, feeds, newTokens, onToken);
  }

  async close(): Promise<void> {
    if (this.cache) dispose(this.cache.tensors);
    for (const made of this.kept.values()) await made.release();
    this.kept.clear();
    this.reader?.destroy();
    this.front?.end.destroy();
  }

  /** `work` on the inputs with the features of the recordings among them, whose making counts into its time. They stay on the GPU, in a
   * buffer that the next recordings are written into. */
  private async withFeatures({ samples, lengths, ...inputs }: HostTensors, work: (inputs: HostTensors) => Promise<Iteration>): Promise<Iteration> {
    if (!this.front || !samples || !lengths) return work(inputs);
    const { end, spec } = this.front;
    const start = nowNs();
    const features = end.run(recordingsOf({ samples, lengths }, spec.rate));
    const spent = nowNs() - start;
    return after(spent, await work({ ...inputs, [spec.input]: onDevice(features) }));
  }

  private session(dimensions: Record<string, number>): Promise<InferenceSession> {
    const wanted = this.staticShapes ? dimensions : {};
    return this.keep(wanted, () => {
      const graph = this.graphs["model"]!;
      return this.runtime.createSession(graph, wanted, this.reader ? graph.spec.outputs.map(({ name }) => name) : []);
    });
  }

  private decoder(dimensions: Record<string, number>, promptLength: number | null): Promise<Decoder> {
    const wanted = this.staticShapes ? dimensions : {};
    const graphs = this.graphs as Record<string, GraphBytes> & { decoder: GraphBytes };
    return this.keep({ ...wanted, prompt: promptLength }, () => Decoder.compile(this.runtime, graphs, wanted, promptLength));
  }

  /** What was made for these dimensions, the least recently used one released where there are too many. */
  private async keep<Made extends Decoder | InferenceSession>(dimensions: object, make: () => Promise<Made>): Promise<Made> {
    const key = JSON.stringify(Object.entries(dimensions).sort());
    const made = (this.kept.get(key) as Made | undefined) ?? (await make());
    this.kept.delete(key);
    this.kept.set(key, made);
    if (this.kept.size > STATIC_SESSIONS) {
      const [oldest, old] = this.kept.entries().next().value!;
      this.kept.delete(oldest);
      await old.release();
    }
    return made;
  }

  /** Zeros of one size are kept: decoding reads them and never writes. */
  private async emptyCache(decoder: Decoder, dtype: DataType, { batch, cache }: Record<string, number>): Promise<Tensors> {
    const key = `${batch} ${cache}`;
    if (this.cache?.key !== key) {
      if (this.cache) dispose(this.cache.tensors);
      this.cache = null;
      this.cache = { key, tensors: await decoder.emptyCache(dtype, { batch: batch!, cache: cache! }) };
    }
    return this.cache.tensors;
  }
}

/** The values that these inputs give to the named dimensions of a graph. */
function dimensionsOf(spec: GraphSpec, inputs: HostTensors, except: readonly string[] = []): Record<string, number> {
  const found: Record<string, number> = {};
  for (const { name, shape } of spec.inputs) {
    const input = except.includes(name) ? undefined : inputs[name];
    if (!input) continue;
    shape.forEach((size, axis) => {
      if (typeof size === "string") found[size] = input.shape[axis]!;
    });
  }
  return found;
}
