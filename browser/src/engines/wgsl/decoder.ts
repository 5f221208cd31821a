// One step of decoding as dispatches: 5 a layer (6 where attention is split often), none of which waits for the CPU.
import type { DecoderSpec } from "../../protocol";
import { FOLD, type KeyValueCache } from "./kv_cache";
import type { Memory } from "./memory";
import { oneShape, type Linear } from "./matrix";
import { bind } from "./pipelines";
import { encode, encodeOne, vectorSteps, type Dispatch, type Making } from "./steps";
import { MOST_MERGED, reduction, WORKGROUP, type MatvecShape, type MatvecUse } from "./variants";
import type { LayerWeights, Weights } from "./weights";

/** Results of this many sampled tokens are kept on the device; at least twice the steps of a submit. */
export const RESULTS = 128;
export const STATE_BYTES = 32;

/** Buffers that prefill and decoding share. */
export interface Shared {
  state: GPUBuffer;
  sampling: GPUBuffer;
  seen: GPUBuffer;
  results: GPUBuffer;
  rotary: GPUBuffer;
  hidden: GPUBuffer;
  logits: GPUBuffer;
  greatest: GPUBuffer;
}

interface LayerSteps {
  before: Dispatch[];
  /** The output matrix where the attention was split a few times. */
  merged: Dispatch[];
  /** And where it was not, or its parts were brought together before. */
  output: Dispatch[];
  attention: { pipeline: GPUComputePipeline; groups: readonly GPUBindGroup[] };
  after: Dispatch[];
  fold: { pipeline: GPUComputePipeline; groups: readonly GPUBindGroup[] } | null;
}

/** A matrix-vector product of a step: the same matrix of every layer, or the one of the output. */
export interface Product {
  label: string;
  use: MatvecUse;
  linears: readonly Linear[];
  make: (index: number, shape?: MatvecShape) => Promise<Dispatch[]>;
}

/** Dispatches of a kind, of all layers, for timing. */
export interface Stage {
  label: string;
  dispatches: number;
  encode: (pass: GPUComputePassEncoder) => void;
}

export class Decoder {
  /** Every matrix-vector product that is one dispatch a part. */
  products: Product[] = [];
  private embed: Dispatch[] = [];
  private layers: LayerSteps[] = [];
  private output: Dispatch[] = [];
  private greedy!: Dispatch;
  private sample!: Dispatch;
  private mergePipeline!: GPUComputePipeline;
  private readonly merges = new Map<number, GPUBindGroup>();
  private readonly parts: GPUBuffer;
  private readonly attended: GPUBuffer;
  private readonly mostSplits: number;

  constructor(
    private readonly making: Making,
    private readonly memory: Memory,
    private readonly spec: DecoderSpec,
    private readonly weights: Weights,
    private readonly cache: KeyValueCache,
    private readonly shared: Shared,
  ) {
    const { heads, head_size, key_value_heads } = spec;
    this.mostSplits = Math.max(1, Math.min(cache.contextLength / FOLD, Math.floor(making.variant.attentionWorkgroups / key_value_heads)));
    this.parts = memory.storage("attention", heads * this.mostSplits * (head_size + 4) * 4);
    this.attended = memory.storage("activations", heads * head_size * 4);
  }

  async compile(): Promise<void> {
    const { making, memory, spec, weights, cache, shared } = this;
    const { device, pipelines, variant } = making;
    const width = (spec.heads + 2 * spec.key_value_heads) * spec.head_size;
    const qkv = memory.storage("activations", width * 4);
    const gated = memory.storage("activations", 2 * spec.intermediate_size * 4);
    const act = memory.storage("activations", spec.intermediate_size * 4);
    const { hidden, state } = shared;

    const embed = weights.embedding.parts.map(async (part) => {
      const pipeline = await pipelines.get("embed", { ...oneShape(part), DECODE: 1, VOCABULARY: spec.vocabulary, WORKGROUP });
      return { pipeline, groups: [bind(device, pipeline, 0, { 0: part.values, 1: part.scales, 2: state, 4: hidden })], workgroups: [1] as const };
    });
    const threads = variant.software ? WORKGROUP : 2 * WORKGROUP;
    // Loads are unrolled where an invocation always has the same quad of a head.
    const unrolled = threads % (spec.head_size / 4) === 0 ? Math.ceil((FOLD * spec.head_size) / 4 / threads) : 0;
    const attention = pipelines.get("attention_decode", { ...cache.constants, WORKGROUP: threads, TILE_LOADS: variant.software ? 0 : unrolled, CACHE_ACCESS: "read_write", FOLDED_ACCESS: "read" });
    const fold = cache.folding ? pipelines.get("fold", { ...cache.constants, WORKGROUP, CACHE_ACCESS: "read", FOLDED_ACCESS: "read_write" }) : null;
    const merging = pipelines.get("attention_merge", { HEAD_SIZE: spec.head_size, WORKGROUP: 64 });
    const { layers: all } = weights;
    const product = (label: string, use: MatvecUse, linears: readonly Linear[], buffers: (index: number) => Parameters<typeof vectorSteps>[3]): Product => {
      const made: Product = { label, use, linears, make: (index, shape) => vectorSteps(making, linears[index]!, use, buffers(index), shape) };
      this.products.push(made);
      return made;
    };
    const qkvProduct = product("qkv", { norm: true }, all.map((one) => one.qkv), (index) => ({ x: hidden, y: qkv, norm: all[index]!.attentionNorm }));
    const outputProduct = product("attention output", { residual: true }, all.map((one) => one.output), () => ({ x: this.attended, y: hidden }));
    const merge = { heads: spec.heads, headSize: spec.head_size };
    const mergedProduct = product("attention output, merging", { residual: true, merge }, all.map((one) => one.output), () => ({ x: this.parts, y: hidden }));
    const downProduct = product("down", { residual: true }, all.map((one) => one.down), () => ({ x: act, y: hidden }));
    const gateUp = all.every((one) => one.gateUp.parts.length === 1)
      ? product("gate and up", { norm: true, swiglu: true }, all.map((one) => one.gateUp), (index) => ({ x: hidden, y: act, norm: all[index]!.feedForwardNorm }))
      : null;
    const headProduct = product("output matrix", { norm: true, greatest: true }, [weights.output], () => ({ x: hidden, y: shared.logits, norm: weights.finalNorm, greatest: shared.greatest }));
    const layer = async (one: LayerWeights, index: number): Promise<LayerSteps> => {
      const before = qkvProduct.make(index);
      const output = [outputProduct.make(index), mergedProduct.make(index)] as const;
      const after = [gateUp ? gateUp.make(index) : this.feedForward(one, gated, act), downProduct.make(index)];
      const attend = await attention;
      const own = bind(device, attend, 0, { 0: state, 1: qkv, 2: shared.rotary, 3: this.attended, 4: this.parts });
      const folder = await fold;
      return {
        before: await before,
        output: await output[0],
        merged: await output[1],
        attention: { pipeline: attend, groups: [own, bind(device, attend, 1, cache.bindings(index, true))] },
        after: (await Promise.all(after)).flat(),
        fold: folder && { pipeline: folder, groups: [bind(device, folder, 0, { 0: state }), bind(device, folder, 1, cache.foldBindings(index))] },
      };
    };
    const layers = Promise.all(weights.layers.map(layer));
    const output = headProduct.make(0);
    const advance = { RESULTS, FOLDING: cache.constants["FOLDING"]!, RECENT: cache.constants["RECENT"]! };
    const candidates = output.then((parts) => parts.reduce((sum, { workgroups }) => sum + workgroups[0], 0));
    const greedy = candidates.then((CANDIDATES) => pipelines.get("sample_greedy", { ...advance, CANDIDATES, WORKGROUP: 256 }));
    const sample = pipelines.get("sample", { ...advance, ...reduction(variant, 1), SUBGROUPS: 0, WORKGROUP: 256, VOCABULARY: spec.vocabulary });

    // Everything was begun; now it is collected.
    this.embed = await Promise.all(embed);
    this.layers = await layers;
    this.output = await output;
    this.mergePipeline = await merging;
    const { seen, results } = shared;
    const greedyPipeline = await greedy;
    this.greedy = { pipeline: greedyPipeline, groups: [bind(device, greedyPipeline, 0, { 0: state, 1: seen, 2: results, 3: shared.greatest })], workgroups: [1] };
    const samplePipeline = await sample;
    const sampled = bind(device, samplePipeline, 0, { 0: state, 1: seen, 2: results, 3: shared.logits, 4: shared.sampling });
    this.sample = { pipeline: samplePipeline, groups: [sampled], workgroups: [1] };
  }

  /** Gate, up and their product: one dispatch where both are one part, otherwise two halves and the product of a chunk of one token. */
  private async feedForward({ gateUp, feedForwardNorm: norm }: LayerWeights, gated: GPUBuffer, act: GPUBuffer): Promise<Dispatch[]> {
    const { making, shared } = this;
    if (gateUp.parts.length === 1) return vectorSteps(making, gateUp, { norm: true, swiglu: true }, { x: shared.hidden, y: act, norm });
    const halves = await vectorSteps(making, gateUp, { norm: true }, { x: shared.hidden, y: gated, norm });
    const pipeline = await making.pipelines.get("swiglu", { COLUMNS: this.spec.intermediate_size, WORKGROUP });
    const product = { pipeline, groups: [bind(making.device, pipeline, 0, { 0: gated, 1: act })], workgroups: [Math.ceil(this.spec.intermediate_size / WORKGROUP)] as const };
    return [...halves, product];
  }

  /** Encodes the step of the token at the cache's end; afterwards the cache holds it. */
  encodeStep(pass: GPUComputePassEncoder): void {
    const length = this.cache.length + 1;
    this.encodeLayers(pass, length);
    this.encodeFold(pass, this.cache.fold(length));
  }

  /** A step at a context of `length` tokens, for timing: nothing is appended or advanced on this side. */
  encodeAt(pass: GPUComputePassEncoder, length: number): void {
    this.encodeLayers(pass, length);
    this.encodeOutput(pass);
  }

  private encodeLayers(pass: GPUComputePassEncoder, length: number): void {
    encode(pass, this.embed);
    const splits = this.splits(length);
    for (const { before, attention, output, merged, after } of this.layers) {
      encode(pass, before);
      encodeOne(pass, attention.pipeline, attention.groups, [this.spec.key_value_heads, splits]);
      if (splits > MOST_MERGED) encodeOne(pass, this.mergePipeline, [this.mergeGroup(splits)], [this.spec.heads]);
      encode(pass, splits > 1 && splits <= MOST_MERGED ? merged : output);
      encode(pass, after);
    }
  }

  /** What a step at a context of `length` tokens does beside its matrix-vector products and the sampler. */
  stages(length: number): Stage[] {
    const splits = this.splits(length);
    const { key_value_heads, heads } = this.spec;
    const each = (dispatch: (layer: LayerSteps) => void): void => this.layers.forEach(dispatch);
    return [
      { label: "embedding", dispatches: this.embed.length, encode: (pass) => encode(pass, this.embed) },
      {
        label: `attention, ${splits} splits`,
        dispatches: this.layers.length,
        encode: (pass) => each(({ attention }) => encodeOne(pass, attention.pipeline, attention.groups, [key_value_heads, splits])),
      },
      ...(splits > MOST_MERGED
        ? [{ label: "attention merge", dispatches: this.layers.length, encode: (pass: GPUComputePassEncoder) => each(() => encodeOne(pass, this.mergePipeline, [this.mergeGroup(splits)], [heads])) }]
        : []),
    ];
  }

  encodeFold(pass: GPUComputePassEncoder, groups: number): void {
    if (groups === 0) return;
    for (const { fold } of this.layers) encodeOne(pass, fold!.pipeline, fold!.groups, [this.spec.key_value_heads, groups]);
  }

  encodeOutput(pass: GPUComputePassEncoder): void {
    encode(pass, this.output);
  }

  encodeSample(pass: GPUComputePassEncoder, greedy: boolean): void {
    encode(pass, [greedy ? this.greedy : this.sample]);
  }

  /** Dispatches of a step at a context of `length` tokens. */
  dispatches(length: number): number {
    const each = this.layers.map(({ before, output, after }) => before.length + output.length + after.length + (this.splits(length) > MOST_MERGED ? 2 : 1));
    return this.embed.length + each.reduce((sum, count) => sum + count, 0) + this.output.length + 1;
  }

  private splits(length: number): number {
    const window = this.spec.sliding_window ?? length;
    const tiles = Math.ceil(length / FOLD) - Math.floor(Math.max(0, length - window) / FOLD);
    // A few tiles a workgroup cost less than the kernel that many splits need.
    const most = tiles <= 2 * MOST_MERGED ? Math.min(MOST_MERGED, this.mostSplits) : this.mostSplits;
    const share = Math.ceil(tiles / Math.min(tiles, most));
    return Math.ceil(tiles / share);
  }

  private mergeGroup(splits: number): GPUBindGroup {
    let found = this.merges.get(splits);
    if (!found) {
      const uniform = this.memory.uniform(Uint32Array.of(splits, 0, 0, 0));
      const layout = this.mergePipeline.getBindGroupLayout(0);
      const entries = [this.parts, this.attended, uniform].map((buffer, binding) => ({ binding, resource: { buffer } }));
      found = this.making.device.createBindGroup({ layout, entries });
      this.merges.set(splits, found);
    }
    return found;
  }
}
