// Greedy decoding with a static key-value cache that stays on the device: see models/prepared.py for the graphs.
import { nowNs } from "./clock";
import { toHost, type GraphBytes, type InferenceSession, type OnnxRuntime, type Tensor } from "./engines/onnxruntime";
import type { HostTensor, HostTensors } from "./frames";
import { feedsOf, type Iteration, type Model } from "./model";
import type { DataType, GenerationSpec, Open } from "./protocol";

type Tensors = Record<string, Tensor>;

export class Generator implements Model {
  private constructor(
    private readonly runtime: OnnxRuntime,
    private readonly newTokens: number,
    private readonly prompt: HostTensor,
    private readonly emptyCache: Tensors,
    private readonly decoderFeeds: Tensors,
    private readonly prefill: InferenceSession,
    private readonly step: InferenceSession,
    private readonly before: readonly { session: InferenceSession; feeds: Tensors }[],
  ) {}

  static async compile(
    runtime: OnnxRuntime,
    { decoder, ...others }: Record<string, GraphBytes> & { decoder: GraphBytes },
    { provider, dimensions: known }: Open,
    { new_tokens, cache_dtype, prompt: start }: GenerationSpec,
    inputs: HostTensors,
  ): Promise<Generator> {
    const prompt = start ? repeated(start, known["batch"] ?? 1) : inputs["input_ids"]!;
    const length = prompt.shape[1]!;
    const dimensions: Record<string, number> = { ...known, cache: length + new_tokens };
    const kept = decoder.spec.outputs.map(({ name }) => name).filter((name) => name.startsWith("present."));
    const create = (more: Record<string, number>) => runtime.createSession(decoder, { ...dimensions, ...more }, kept);
    // WebNN takes static shapes only, so the prompt and the single token need a session each.
    const prefill = await create(provider === "webnn" ? { sequence: length } : {});
    const step = provider === "webnn" && length > 1 ? await create({ sequence: 1 }) : prefill;

    const emptyCache: Tensors = {};
    for (const { name, shape } of decoder.spec.inputs.filter(({ name }) => name.startsWith("past."))) {
      const sizes = shape.map((size) => (typeof size === "number" ? size : dimensions[size]!));
      emptyCache[name] = await runtime.zeroTensor(cache_dtype as DataType, sizes);
    }
    const { input_ids: _, ...fixed } = inputs;
    const decoderFeeds = feedsOf(runtime, decoder, fixed);
    const before = [];
    for (const graph of Object.values(others)) {
      const states = graph.spec.outputs.map(({ name }) => name);
      const session = await runtime.createSession(graph, known, states);
      before.push({ session, feeds: feedsOf(runtime, graph, inputs) });
    }
    return new Generator(runtime, new_tokens, prompt, emptyCache, decoderFeeds, prefill, step, before);
  }

  async iterate(limit = this.newTokens): Promise<Iteration> {
    const [batch] = this.prompt.shape as [number];
    const newTokens = Math.min(limit, this.newTokens);
    const ids = new BigInt64Array(batch * newTokens);
    const token_ns: number[] = [];
    const outputs: HostTensors = { token_ids: { dtype: "int64", shape: [batch, newTokens], data: ids } };
    let bytesReadBack = 0;
    let cache = this.emptyCache;
    let input = this.prompt;
    let position = 0;

    const start = nowNs();
    const states: Tensors = {};
    try {
      for (const { session, feeds } of this.before) Object.assign(states, await session.run(feeds));
      for (let token = 0; token < newTokens; token++) {
        const positions = Int32Array.from({ length: input.shape[1]! }, (_, index) => position + index);
        const feeds = {
          ...this.decoderFeeds,
          ...states,
          ...cache,
          input_ids: this.runtime.hostTensor(input),
          positions: this.runtime.hostTensor({ dtype: "int32", shape: [positions.length], data: positions }),
        };
        const { logits, ...present } = (await (token === 0 ? this.prefill : this.step).run(feeds)) as Tensors;
        this.forget(cache);
        cache = Object.fromEntries(Object.entries(present).map(([name, tensor]) => [name.replace("present.", "past."), tensor]));
        const scores = toHost(logits!);
        const next = greatest(scores);
        token_ns.push(nowNs() - start);
        next.forEach((id, row) => (ids[row * newTokens + token] = id));
        bytesReadBack += scores.data.byteLength;
        if (token === 0) outputs["logits"] = scores;
        position += positions.length;
        input = { dtype: "int64", shape: [batch, 1], data: next };
      }
    } finally {
      this.forget(cache);
      Object.values(states).forEach((tensor) => tensor.dispose());
    }
    return { times: { total_ns: token_ns.at(-1)!, token_ns }, outputs, bytesReadBack };
  }

  async release(): Promise<void> {
    Object.values(this.emptyCache).forEach((tensor) => tensor.dispose());
    for (const session of new Set([this.prefill, this.step, ...this.before.map(({ session }) => session)])) await session.release();
  }

  /** Frees a cache that a run gave; the empty one is used again. */
  private forget(cache: Tensors): void {
    if (cache !== this.emptyCache) Object.values(cache).forEach((tensor) => tensor.dispose());
  }
}

function repeated(ids: readonly number[], rows: number): HostTensor {
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
