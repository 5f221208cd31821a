// One step of decoding as dispatches: 5 a layer (6 where attention is split often), none of which waits for the CPU.
import { ClassifiedError } from "../../failure";
import type { DecoderSpec } from "../../protocol";
import { AttentionSplits } from "./attention_splits";
import { FOLD, type KeyValueCache } from "./kv_cache";
import type { Memory } from "./memory";
import { oneShape, type Linear } from "./matrix";
import { bind } from "./pipelines";
import type { Constants } from "./shader";
import { encode, encodeOne, vectorSteps, type Dispatch, type Making } from "./steps";
import { MOST_MERGED, takesPacked, WORKGROUP, type MatvecShape, type MatvecUse, type Variant } from "./variants";
import type { LayerWeights, Weights } from "./weights";

/** Results of this many sampled tokens are kept on the device; at least twice the steps of a submit. */
export const RESULTS = 128;
export const STATE_BYTES = 32;

/** Buffers that prefill and decoding share; of `sequences` in a batch. */
export interface Shared {
  state: GPUBuffer;
  /** Where the chunk of a prompt stands. */
  chunk: GPUBuffer;
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
  make: (index: number, shape?: MatvecShape, width?: 8 | 32) => Promise<Dispatch[]>;
}

/** Dispatches of a kind, of all layers, for timing. */
export interface Stage {
  label: string;
  dispatches: number;
  encode: (pass: GPUComputePassEncoder) => void;
}

/** What a step does, of one sequence or of a batch. */
export interface Stepper {
  readonly products: readonly Product[];
  compile(): Promise<void>;
  encodeStep(pass: GPUComputePassEncoder, slots: readonly number[]): void;
  encodeOutput(pass: GPUComputePassEncoder): void;
  encodeAt(pass: GPUComputePassEncoder, length: number): void;
  stages(length: number): Stage[];
  dispatches(length: number): number;
}

export function attentionConstants(cache: KeyValueCache, { head_size }: DecoderSpec, { software }: Variant): Constants {
  const threads = software ? WORKGROUP : 2 * WORKGROUP;
  // Loads are unrolled where an invocation always has the same quad of a head.
  const unrolled = threads % (head_size / 4) === 0 ? Math.ceil((FOLD * head_size) / 4 / threads) : 0;
  return { ...cache.constants, WORKGROUP: threads, TILE_LOADS: software ? 0 : unrolled, CACHE_ACCESS: "read_write", FOLDED_ACCESS: "read" };
}

/** What the samplers hand on. */
export function advanceConstants({ constants }: KeyValueCache): Constants {
  return { RESULTS, FOLDING: constants["FOLDING"]!, RECENT: constants["RECENT"]! };
}

export class Decoder implements Stepper {
  /** Every matrix-vector product that is one dispatch a part. */
  products: Product[] = [];
  private embed: Dispatch[] = [];
  private layers: LayerSteps[] = [];
  private output: Dispatch[] = [];
  private greedy!: Dispatch;
  private sample!: Dispatch;
  private readonly attended: GPUBuffer;
  private readonly splits: AttentionSplits;

  constructor(
    private readonly making: Making,
    private readonly memory: Memory,
    private readonly spec: DecoderSpec,
    private readonly weights: Weights,
    private readonly cache: KeyValueCache,
    private readonly shared: Shared,
  ) {
    this.attended = memory.storage("activations", spec.heads * spec.head_size * 4);
    this.splits = new AttentionSplits(making, memory, spec, cache, 1, this.attended);
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
    const attention = pipelines.get("attention_decode", attentionConstants(cache, spec, variant));
    const fold = cache.folding ? pipelines.get("fold", { ...cache.constants, WORKGROUP, CACHE_ACCESS: "read", FOLDED_ACCESS: "read_write" }) : null;
    const merging = this.splits.compile();
    const { layers: all } = weights;
    const product = (label: string, use: MatvecUse, linears: readonly Linear[], buffers: (index: number) => Parameters<typeof vectorSteps>[3]): Product => {
      const made: Product = { label, use, linears, make: (index, shape, width) => vectorSteps(making, linears[index]!, width ? { ...use, width } : use, buffers(index), shape) };
      this.products.push(made);
      return made;
    };
    const qkvProduct = product("qkv", { norm: true }, all.map((one) => one.qkv), (index) => ({ x: hidden, y: qkv, norm: all[index]!.attentionNorm }));
    const outputProduct = product("attention output", { residual: true }, all.map((one) => one.output), () => ({ x: this.attended, y: hidden }));
    const merge = { heads: spec.heads, headSize: spec.head_size };
    const mergedProduct = product("attention output, merging", { residual: true, merge }, all.map((one) => one.output), () => ({ x: this.splits.parts, y: hidden }));
    const packing = this.packing();
    // Three vec4s for 32 values: see kernels/packed.wgsl.
    const forDown = packing ? memory.storage("activations", Math.ceil(spec.intermediate_size / 64) * 96) : act;
    const downProduct = product("down", { residual: true, ...(packing ? { packedIn: true } : {}) }, all.map((one) => one.down), () => ({ x: forDown, y: hidden }));
    const gateUp = all.every((one) => one.gateUp.parts.length === 1)
      ? product("gate and up", { norm: true, swiglu: true, ...(packing ? { packedOut: packing } : {}) }, all.map((one) => one.gateUp), (index) => ({ x: hidden, y: forDown, norm: all[index]!.feedForwardNorm }))
      : null;
    const headProduct = product("output matrix", { norm: true, greatest: true }, [weights.output], () => ({ x: hidden, y: shared.logits, norm: weights.finalNorm, greatest: shared.greatest }));
    const layer = async (one: LayerWeights, index: number): Promise<LayerSteps> => {
      const before = qkvProduct.make(index);
      const output = [outputProduct.make(index), mergedProduct.make(index)] as const;
      const after = [gateUp ? gateUp.make(index) : this.feedForward(one, gated, act), downProduct.make(index)];
      const attend = await attention;
      const own = bind(device, attend, 0, { 0: state, 1: qkv, 2: shared.rotary, 3: this.attended, 4: this.splits.parts });
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
    const advance = advanceConstants(cache);
    const candidates = output.then((parts) => parts.reduce((sum, { workgroups }) => sum + workgroups[0], 0));
    const greedy = candidates.then((CANDIDATES) => pipelines.get("sample_greedy", { ...advance, CANDIDATES, WORKGROUP: 256 }));
    const sample = pipelines.get("sample", { ...advance, SUBGROUPS: 0, WORKGROUP: 256, VOCABULARY: spec.vocabulary });

    // Everything was begun; now it is collected.
    this.embed = await Promise.all(embed);
    this.layers = await layers;
    this.output = await output;
    await merging;
    const { seen, results } = shared;
    const greedyPipeline = await greedy;
    this.greedy = { pipeline: greedyPipeline, groups: [bind(device, greedyPipeline, 0, { 0: state, 1: seen, 2: results, 3: shared.greatest })], workgroups: [1] };
    const samplePipeline = await sample;
    const sampled = bind(device, samplePipeline, 0, { 0: state, 1: seen, 2: results, 3: shared.logits, 4: shared.sampling });
    this.sample = { pipeline: samplePipeline, groups: [sampled], workgroups: [1] };
  }

  /** Bits of down's codes where gate and up leave int8 activations for it, 0 where they leave floats. */
  private packing(): number {
    if (!this.making.variant.packedDown) return 0;
    const { layers } = this.weights;
    const bits = new Set(layers.flatMap(({ down }) => down.parts.map((part) => (takesPacked(part) ? (part.layout.constants["BITS"] as number) : 0))));
    const [only = 0] = bits;
    if (bits.size > 1 || only === 0 || layers.some(({ gateUp }) => gateUp.parts.length > 1))
      throw new ClassifiedError("unsupported", "packed_down needs down projections that all have 2 or all have 4 bits, and gate and up in one part: leave it out for this model.");
    return only;
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
    if (this.cache.fold(length) > 0) for (const { fold } of this.layers) encodeOne(pass, fold!.pipeline, fold!.groups, [this.spec.key_value_heads, 1]);
  }

  /** A step at a context of `length` tokens, for timing: nothing is appended or advanced on this side. */
  encodeAt(pass: GPUComputePassEncoder, length: number): void {
    this.encodeLayers(pass, length);
    this.encodeOutput(pass);
  }

  private encodeLayers(pass: GPUComputePassEncoder, length: number): void {
    encode(pass, this.embed);
    const splits = this.splits.count(length);
    for (const { before, attention, output, merged, after } of this.layers) {
      encode(pass, before);
      encodeOne(pass, attention.pipeline, attention.groups, [this.spec.key_value_heads, splits]);
      if (splits > MOST_MERGED) this.splits.encodeMerge(pass, splits);
      encode(pass, splits > 1 && splits <= MOST_MERGED ? merged : output);
      encode(pass, after);
    }
  }

  /** What a step at a context of `length` tokens does beside its matrix-vector products and the sampler. */
  stages(length: number): Stage[] {
    const splits = this.splits.count(length);
    const { key_value_heads } = this.spec;
    const each = (dispatch: (layer: LayerSteps) => void): void => this.layers.forEach(dispatch);
    return [
      { label: "embedding", dispatches: this.embed.length, encode: (pass) => encode(pass, this.embed) },
      {
        label: `attention, ${splits} splits`,
        dispatches: this.layers.length,
        encode: (pass) => each(({ attention }) => encodeOne(pass, attention.pipeline, attention.groups, [key_value_heads, splits])),
      },
      ...(splits > MOST_MERGED
        ? [{ label: "attention merge", dispatches: this.layers.length, encode: (pass: GPUComputePassEncoder) => each(() => this.splits.encodeMerge(pass, splits)) }]
        : []),
    ];
  }

  encodeOutput(pass: GPUComputePassEncoder): void {
    encode(pass, this.output);
  }

  encodeSample(pass: GPUComputePassEncoder, greedy: boolean): void {
    encode(pass, [greedy ? this.greedy : this.sample]);
  }

  /** Dispatches of a step at a context of `length` tokens. */
  dispatches(length: number): number {
    const each = this.layers.map(({ before, output, after }) => before.length + output.length + after.length + (this.splits.count(length) > MOST_MERGED ? 2 : 1));
    return this.embed.length + each.reduce((sum, count) => sum + count, 0) + this.output.length + 1;
  }
}
