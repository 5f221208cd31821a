// Greedy decoding with a static key-value cache that stays on the device: see models/prepared.py for the graphs.
import { nowNs } from "./clock";
import { forgetFiles, toHost, type GraphBytes, type InferenceSession, type OnnxRuntime, type Tensor } from "./engines/onnxruntime";
import type { HostTensor, HostTensors } from "./frames";
import { feedsOf, type Iteration, type Model } from "./model";
import type { DataType, GenerationSpec, Open } from "./protocol";

export type Tensors = Record<string, Tensor>;
type Graphs = Record<string, GraphBytes> & { decoder: GraphBytes };

/** What every token of a prompt shares: the inputs of the graphs that run once, those of the decoder, and zeros for its cache. */
export interface DecodeFeeds {
  before: readonly Tensors[];
  decoder: Tensors;
  emptyCache: Tensors;
}

/** Whoever wants each token as it is known, and may end the decoding after it by returning true. */
export type OnToken = (ids: BigInt64Array, index: number, ns: number) => Promise<boolean>;

/** The sessions of a generating model. */
export class Decoder {
  private constructor(
    private readonly runtime: OnnxRuntime,
    private readonly graph: GraphBytes,
    private readonly prefill: InferenceSession,
    private readonly step: InferenceSession,
    private readonly before: readonly { graph: GraphBytes; session: InferenceSession }[],
  ) {}

  /** Named dimensions in `dimensions` are fixed. `promptLength` is given where a session takes static shapes only. */
  static async compile(runtime: OnnxRuntime, { decoder, ...others }: Graphs, dimensions: Record<string, number>, promptLength: number | null): Promise<Decoder> {
    const { cache: _, ...withoutCache } = dimensions;
    const kept = decoder.spec.outputs.map(({ name }) => name).filter((name) => name.startsWith("present."));
    const create = (more: Record<string, number>) => runtime.createSession(decoder, { ...dimensions, ...more }, kept);
    // WebNN takes static shapes only, so the prompt and the single token need a session each.
    const prefill = await create(promptLength === null ? {} : { sequence: promptLength });
    const step = promptLength !== null && promptLength > 1 ? await create({ sequence: 1 }) : prefill;
    const before = [];
    for (const graph of Object.values(others)) {
      const states = graph.spec.outputs.map(({ name }) => name);
      before.push({ graph, session: await runtime.createSession(graph, withoutCache, states) });
    }
    return new Decoder(runtime, decoder, prefill, step, before);
  }

  /** The sessions keep weights of their own: once no more are made, the files' bytes are only in the way. */
  forgetFiles(): void {
    for (const graph of [this.graph, ...this.before.map(({ graph }) => graph)]) forgetFiles(graph);
  }

  async emptyCache(dtype: DataType, dimensions: Record<string, number>): Promise<Tensors> {
    const cache: Tensors = {};
    for (const { name, shape } of this.graph.spec.inputs.filter(({ name }) => name.startsWith("past."))) {
      const sizes = shape.map((size) => (typeof size === "number" ? size : dimensions[size]!));
      cache[name] = await this.runtime.zeroTensor(dtype, sizes);
    }
    return cache;
  }

  feeds(inputs: HostTensors, emptyCache: Tensors): DecodeFeeds {
    const { input_ids: _, ...fixed } = inputs;
    const before = this.before.map(({ graph }) => feedsOf(this.runtime, graph, inputs));
    return { before, decoder: feedsOf(this.runtime, this.graph, fixed), emptyCache };
  }

  /** At most `newTokens` tokens after `prompt`; their ids and the first token's scores are the outputs. */
  async decode(prompt: HostTensor, feeds: DecodeFeeds, newTokens: number, onToken?: OnToken): Promise<Iteration> {
    const [batch] = prompt.shape as [number];
    const rows: BigInt64Array[] = [];
    const token_ns: number[] = [];
    const outputs: HostTensors = {};
    let bytesReadBack = 0;
    let cache = feeds.emptyCache;
    let input = prompt;
    let position = 0;

    const start = nowNs();
    const states: Tensors = {};
    try {
      for (const [index, { session }] of this.before.entries()) Object.assign(states, await session.run(feeds.before[index]!));
      for (let token = 0; token < newTokens; token++) {
        const positions = Int32Array.from({ length: input.shape[1]! }, (_, index) => position + index);
        const all = {
          ...feeds.decoder,
          ...states,
          ...cache,
          input_ids: this.runtime.hostTensor(input),
          positions: this.runtime.hostTensor({ dtype: "int32", shape: [positions.length], data: positions }),
        };
        const { logits, ...present } = (await (token === 0 ? this.prefill : this.step).run(all)) as Tensors;
        if (cache !== feeds.emptyCache) dispose(cache); // the empty one is used again
        cache = Object.fromEntries(Object.entries(present).map(([name, tensor]) => [name.replace("present.", "past."), tensor]));
        const scores = toHost(logits!);
        const next = greatest(scores);
        const ns = nowNs() - start;
        token_ns.push(ns);
        rows.push(next);
        bytesReadBack += scores.data.byteLength;
        if (token === 0) outputs["logits"] = scores;
        position += positions.length;
        input = { dtype: "int64", shape: [batch, 1], data: next };
        if (onToken && (await onToken(next, token, ns))) break;
      }
    } finally {
      if (cache !== feeds.emptyCache) dispose(cache);
      dispose(states);
    }
    const ids = new BigInt64Array(batch * rows.length);
    rows.forEach((next, token) => next.forEach((id, row) => (ids[row * rows.length + token] = id)));
    outputs["token_ids"] = { dtype: "int64", shape: [batch, rows.length], data: ids };
    return { times: { total_ns: token_ns.at(-1)!, token_ns }, outputs, bytesReadBack };
  }

  async release(): Promise<void> {
    for (const session of new Set([this.prefill, this.step, ...this.before.map(({ session }) => session)])) await session.release();
  }
}

/** A launch's model: the same prompt in every iteration. */
export class Generator implements Model {
  private constructor(
    private readonly decoder: Decoder,
    private readonly newTokens: number,
    private readonly prompt: HostTensor,
    private readonly feeds: DecodeFeeds,
  ) {}

  static async compile(runtime: OnnxRuntime, graphs: Graphs, { provider, dimensions: known }: Open, { new_tokens, cache_dtype, prompt: start }: GenerationSpec, inputs: HostTensors): Promise<Generator> {
    const prompt = start ? repeated(start, known["batch"] ?? 1) : inputs["input_ids"]!;
    const length = prompt.shape[1]!;
    const dimensions: Record<string, number> = { ...known, cache: length + new_tokens };
    const decoder = await Decoder.compile(runtime, graphs, dimensions, provider === "webnn" ? length : null);
    const emptyCache = await decoder.emptyCache(cache_dtype as DataType, dimensions);
    return new Generator(decoder, new_tokens, prompt, decoder.feeds(inputs, emptyCache));
  }

  iterate(limit = this.newTokens): Promise<Iteration> {
    return this.decoder.decode(this.prompt, this.feeds, Math.min(limit, this.newTokens));
  }

  async release(): Promise<void> {
    dispose(this.feeds.emptyCache);
    await this.decoder.release();
  }
}

export function dispose(tensors: Tensors): void {
  for (const tensor of Object.values(tensors)) tensor.dispose();
}

export function repeated(ids: readonly number[], rows: number): HostTensor {
  const row = ids.map(BigInt);
  return { dtype: "int64", shape: [rows, row.length], data: BigInt64Array.from(Array(rows).fill(row).flat() as bigint[]) };
}

/** Index of the greatest score of each row of [rows, vocabulary]; the first one where several are equal. */
export function greatest({ dtype, shape, data }: HostTensor): BigInt64Array<ArrayBuffer> {
  const [rows, width] = shape as [number, number];
  // Without Float16Array float16 arrives as bits, whose order is that of the numbers once negative ones are turned round.
  const bits = dtype === "float16" && data instanceof Uint16Array;
  const rank = (value: number) => (bits && value & 0x8000 ? -(value & 0x7fff) : value);
  const next = new BigInt64Array(rows);
  for (let row = 0; row < rows; row++) {
    let best = 0;
    for (let column = 1; column < width; column++)
      if (rank(data[row * width + column] as number) > rank(data[row * width + best] as number)) best = column;
    next[row] = BigInt(best);
  }
  return next;
}
