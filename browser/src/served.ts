// A model that answers any request, until it is closed: other inputs and other lengths each time.
import { nowNs } from "./clock";
import { toHost, type GraphBytes, type InferenceSession, type OnnxRuntime, type Tensor } from "./engines/onnxruntime";
import type { HostTensor, HostTensors } from "./frames";
import { Decoder, dispose, repeated, type OnToken, type Tensors } from "./generation";
import { bytesOf, feedsOf, type Iteration } from "./model";
import type { DataType, GraphSpec, ServedGeneration } from "./protocol";

// Sessions of static shapes that are kept: each holds the weights once more.
const STATIC_SESSIONS = 2;

export class ServedModel {
  private readonly kept = new Map<string, Decoder | InferenceSession>();
  private cache: { key: string; tensors: Tensors } | null = null;

  private constructor(
    readonly runtime: OnnxRuntime,
    private readonly graphs: Record<string, GraphBytes>,
    private readonly generation: ServedGeneration | null,
    private readonly staticShapes: boolean,
  ) {}

  /** Where shapes may vary the one session is made now; static ones are made for each new shape. */
  static async compile(runtime: OnnxRuntime, graphs: Record<string, GraphBytes>, generation: ServedGeneration | null, staticShapes: boolean): Promise<ServedModel> {
    const model = new ServedModel(runtime, graphs, generation, staticShapes);
    if (!staticShapes) {
      if (generation) (await model.decoder({}, null)).forgetFiles();
      else await model.session({}).then(() => (graphs["model"]!.files = []));
    }
    return model;
  }

  async infer(inputs: HostTensors): Promise<Iteration> {
    const graph = this.graphs["model"];
    if (!graph) throw new Error("This model generates: ask it to decode.");
    const session = await this.session(dimensionsOf(graph.spec, inputs));
    const feeds = feedsOf(this.runtime, graph, inputs);
    const start = nowNs();
    const results = (await session.run(feeds)) as Record<string, Tensor>;
    const total_ns = nowNs() - start;
    const outputs = Object.fromEntries(Object.entries(results).map(([name, tensor]) => [name, toHost(tensor)]));
    return { times: { total_ns, token_ns: [] }, outputs, bytesReadBack: bytesOf(outputs) };
  }

  /** `cacheTokens` are the positions of the key-value cache: at least those of the prompt and the new tokens. */
  async decode(inputs: HostTensors, newTokens: number, cacheTokens: number, onToken: OnToken): Promise<Iteration> {
    if (!this.generation) throw new Error("This model does not generate: ask it to infer.");
    const known: Record<string, number> = { cache: cacheTokens };
    for (const [name, { spec }] of Object.entries(this.graphs)) Object.assign(known, dimensionsOf(spec, inputs, name === "decoder" ? ["input_ids"] : []));
    const { prompt: start, cache_dtype } = this.generation;
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
  }

  private session(dimensions: Record<string, number>): Promise<InferenceSession> {
    const wanted = this.staticShapes ? dimensions : {};
    return this.keep(wanted, () => this.runtime.createSession(this.graphs["model"]!, wanted));
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
