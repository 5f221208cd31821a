// A chunk of a prompt at a time: the same layers with matrix-matrix products.
import type { DecoderSpec, EngineSpec } from "../../protocol";
import type { KeyValueCache } from "./kv_cache";
import type { Memory } from "./memory";
import { oneShape } from "./matrix";
import { bind } from "./pipelines";
import { chunkSteps, encode, encodeOne, int8Blocks, normStep, type Dispatch, type Making } from "./steps";
import type { Shared } from "./decoder";
import { WORKGROUP } from "./variants";
import type { LayerWeights, Weights } from "./weights";

/** Bytes that the logits of a chunk may take where all of them are asked for. */
const LOGITS_BYTES = 64 << 20;

export class Prefill {
  readonly tokens: number;
  readonly logitsTokens: number;
  readonly hidden: GPUBuffer;
  private readonly ids: GPUBuffer;
  private allLogits: { steps: Dispatch[]; norm: Dispatch; buffer: GPUBuffer } | null = null;
  private embed: Dispatch[] = [];
  private layers: Dispatch[][][] = [];
  private folds: Dispatch[] = [];
  private readonly x: GPUBuffer;
  /** Of the chunk's vectors as int8, where prompts are computed so. */
  private readonly words: GPUBuffer | null;
  private readonly blocks: GPUBuffer | null;
  private readonly normed: GPUBuffer;

  constructor(
    private readonly making: Making,
    private readonly memory: Memory,
    private readonly spec: DecoderSpec,
    engine: EngineSpec,
    private readonly weights: Weights,
    private readonly cache: KeyValueCache,
    private readonly shared: Shared,
  ) {
    this.tokens = Math.min(engine.prefill_tokens, cache.contextLength);
    this.logitsTokens = Math.max(1, Math.min(this.tokens, Math.floor(Math.min(LOGITS_BYTES, memory.largest) / (4 * spec.vocabulary))));
    this.ids = memory.storage("activations", 4 * this.tokens);
    this.hidden = memory.storage("activations", 4 * this.tokens * spec.hidden_size);
    this.normed = memory.storage("activations", 4 * this.tokens * spec.hidden_size);
    const blocks = this.tokens * int8Blocks(Math.max(spec.hidden_size, spec.intermediate_size, spec.heads * spec.head_size));
    this.words = making.variant.chunkInt8 ? memory.storage("activations", 32 * blocks) : null;
    this.blocks = making.variant.chunkInt8 ? memory.storage("activations", 8 * blocks) : null;
    this.x = memory.storage("activations", 4 * this.tokens * (spec.heads + 2 * spec.key_value_heads) * spec.head_size);
  }

  async compile(): Promise<void> {
    const { making, memory, spec, weights, cache, shared, hidden, normed, x: qkv } = this;
    const { device, pipelines } = making;
    const { chunk: state, rotary } = shared;
    const attended = memory.storage("activations", 4 * this.tokens * spec.heads * spec.head_size);
    const gated = memory.storage("activations", 8 * this.tokens * spec.intermediate_size);
    const act = memory.storage("activations", 4 * this.tokens * spec.intermediate_size);

    const embed = weights.embedding.parts.map(async (part) => {
      const pipeline = await pipelines.get("embed", { ...oneShape(part), DECODE: 0, VOCABULARY: spec.vocabulary, WORKGROUP }, "embed a chunk");
      const group = bind(device, pipeline, 0, { 0: part.values, 1: part.scales, 2: null, 3: this.ids, 4: hidden });
      return { pipeline, groups: [group], workgroups: [1] as const };
    });
    const append = pipelines.get("append", { ...cache.constants, WORKGROUP: 64, CACHE_ACCESS: "read_write", FOLDED_ACCESS: "read" });
    const attention = pipelines.get("attention_prefill", { ...cache.constants, WORKGROUP: 128, CACHE_ACCESS: "read", FOLDED_ACCESS: "read" });
    const fold = cache.folding ? pipelines.get("fold", { ...cache.constants, WORKGROUP, CACHE_ACCESS: "read", FOLDED_ACCESS: "read_write" }) : null;
    const swiglu = pipelines.get("swiglu", { COLUMNS: spec.intermediate_size, WORKGROUP });
    const chunk = (linear: LayerWeights["qkv"], residual: boolean, from: GPUBuffer, to: GPUBuffer) => chunkSteps(making, linear, residual, { state, x: from, y: to, words: this.words, blocks: this.blocks });
    const layer = async (one: LayerWeights, index: number): Promise<Dispatch[][]> => {
      const matrices = [chunk(one.qkv, false, normed, qkv), chunk(one.output, true, attended, hidden), chunk(one.gateUp, false, normed, gated), chunk(one.down, true, act, hidden)];
      const [before, after] = [await this.norm(one.attentionNorm), await this.norm(one.feedForwardNorm)];
      const folder = await fold;
      if (folder) this.folds[index] = { pipeline: folder, groups: [bind(device, folder, 0, { 0: state }), bind(device, folder, 1, cache.foldBindings(index))], workgroups: [spec.key_value_heads] };
      const [appender, attend, gate] = [await append, await attention, await swiglu];
      const [toQkv, toOutput, toGateUp, toDown] = (await Promise.all(matrices)) as [Dispatch[], Dispatch[], Dispatch[], Dispatch[]];
      const group = (pipeline: GPUComputePipeline, own: Record<number, GPUBuffer | null>, folded: boolean) => [bind(device, pipeline, 0, own), bind(device, pipeline, 1, cache.bindings(index, folded))];
      return [
        [before],
        toQkv,
        [{ pipeline: appender, groups: group(appender, { 0: state, 1: qkv, 2: rotary }, false), workgroups: [1, spec.heads + spec.key_value_heads] }],
        [{ pipeline: attend, groups: group(attend, { 0: state, 1: qkv, 2: attended }, true), workgroups: [1, spec.key_value_heads] }],
        toOutput,
        [after],
        toGateUp,
        [{ pipeline: gate, groups: [bind(device, gate, 0, { 0: gated, 1: act })], workgroups: [Math.ceil(spec.intermediate_size / WORKGROUP)] }],
        toDown,
      ];
    };
    const layers = Promise.all(weights.layers.map(layer));
    this.embed = await Promise.all(embed);
    this.layers = await layers;
  }

  private norm(weights: GPUBuffer): Promise<Dispatch> {
    return normStep(this.making, this.spec.hidden_size, this.hidden, weights, this.normed);
  }

  /** Submits a chunk at the end of a sequence's cache. Where the cache folds afterwards, that is part of it. */
  submit(ids: readonly number[], more: (encoder: GPUCommandEncoder) => void = () => {}, slot = 0): void {
    const { device } = this.making;
    const { cache, spec } = this;
    const rows = ids.length;
    const { length, folded } = cache.slots[slot]!;
    device.queue.writeBuffer(this.ids, 0, Uint32Array.from(ids));
    device.queue.writeBuffer(this.shared.chunk, 0, Uint32Array.of(length, 0, folded, rows, 0, slot));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const { pipeline, groups } of this.embed) encodeOne(pass, pipeline, groups, [rows]);
    const tiles = Math.ceil(rows / (16 * this.making.variant.tokens));
    const queries = Math.ceil((rows * (spec.heads / spec.key_value_heads)) / 16);
    for (const [before, qkv, append, attention, output, after, gateUp, gate, down] of this.layers as Dispatch[][][]) {
      this.spread(pass, before!, () => [rows]);
      this.spread(pass, qkv!, ({ workgroups: [x] }) => [x, tiles]);
      this.spread(pass, append!, ({ workgroups: [, heads = 1] }) => [rows, heads]);
      this.spread(pass, attention!, ({ workgroups: [, heads = 1] }) => [queries, heads]);
      this.spread(pass, output!, ({ workgroups: [x] }) => [x, tiles]);
      this.spread(pass, after!, () => [rows]);
      this.spread(pass, gateUp!, ({ workgroups: [x] }) => [x, tiles]);
      this.spread(pass, gate!, ({ workgroups: [x] }) => [x, rows]);
      this.spread(pass, down!, ({ workgroups: [x] }) => [x, tiles]);
    }
    const groups = cache.fold(length + rows, slot);
    if (groups > 0) this.spread(pass, this.folds, ({ workgroups: [heads] }) => [heads, groups]);
    pass.end();
    more(encoder);
    device.queue.submit([encoder.finish()]);
  }

  private spread(pass: GPUComputePassEncoder, dispatches: readonly Dispatch[], workgroups: (dispatch: Dispatch) => readonly [number, number?]): void {
    for (const dispatch of dispatches) encodeOne(pass, dispatch.pipeline, dispatch.groups, workgroups(dispatch));
  }

  get logitsBuffer(): GPUBuffer {
    return this.allLogits!.buffer;
  }

  /** Encodes the logits of every row of the chunk that was just run; they come to lie in the buffer that it returns. */
  async logits(rows: number): Promise<(encoder: GPUCommandEncoder) => GPUBuffer> {
    if (!this.allLogits) {
      const buffer = this.memory.storage("logits of a chunk", 4 * this.logitsTokens * this.spec.vocabulary);
      const norm = await this.norm(this.weights.finalNorm);
      const steps = await chunkSteps(this.making, this.weights.output, false, { state: this.shared.chunk, x: this.normed, y: buffer, words: this.words, blocks: this.blocks });
      this.allLogits = { steps, norm, buffer };
    }
    const { steps, norm, buffer } = this.allLogits;
    const tiles = Math.ceil(rows / (16 * this.making.variant.tokens));
    return (encoder) => {
      const pass = encoder.beginComputePass();
      encode(pass, [{ ...norm, workgroups: [rows] }]);
      this.spread(pass, steps, ({ workgroups: [x] }) => [x, tiles]);
      pass.end();
      return buffer;
    };
  }
}
