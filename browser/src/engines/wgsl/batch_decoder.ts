// A step of several sequences at once: weights are read once for all of them, attention and sampler are each sequence's own. Which
// sequences take part stands in their states (`rows`); the others' vectors are computed beside and thrown away.
import type { DecoderSpec } from "../../protocol";
import { AttentionSplits } from "./attention_splits";
import { advanceConstants, attentionConstants, type Product, type Shared, type Stage, type Stepper } from "./decoder";
import type { KeyValueCache } from "./kv_cache";
import type { Memory } from "./memory";
import { oneShape, type Linear } from "./matrix";
import { bind } from "./pipelines";
import { encode, encodeOne, normStep, vectorSteps, type Dispatch, type Making } from "./steps";
import { WORKGROUP, type MatvecShape } from "./variants";
import type { Weights } from "./weights";

interface Layer {
  before: Dispatch[];
  attention: { pipeline: GPUComputePipeline; groups: readonly GPUBindGroup[] };
  after: Dispatch[];
  fold: { pipeline: GPUComputePipeline; groups: readonly GPUBindGroup[] } | null;
}

export class BatchDecoder implements Stepper {
  products: Product[] = [];
  private embed: Dispatch[] = [];
  private layers: Layer[] = [];
  private output: Dispatch[] = [];
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
    private readonly sequences: number,
  ) {
    this.attended = memory.storage("activations", sequences * spec.heads * spec.head_size * 4);
    this.splits = new AttentionSplits(making, memory, spec, cache, sequences, this.attended);
  }

  async compile(): Promise<void> {
    const { making, memory, spec, weights, cache, shared, sequences, attended } = this;
    const { device, pipelines, variant } = making;
    const vectors = (columns: number) => memory.storage("activations", sequences * columns * 4);
    const qkv = vectors((spec.heads + 2 * spec.key_value_heads) * spec.head_size);
    const [normed, gated, act] = [vectors(spec.hidden_size), vectors(2 * spec.intermediate_size), vectors(spec.intermediate_size)];
    const { hidden, state } = shared;

    const embed = weights.embedding.parts.map(async (part) => {
      const pipeline = await pipelines.get("embed", { ...oneShape(part), DECODE: 1, VOCABULARY: spec.vocabulary, WORKGROUP });
      return { pipeline, groups: [bind(device, pipeline, 0, { 0: part.values, 1: part.scales, 2: state, 4: hidden })], workgroups: [sequences] as const };
    });
    const attention = pipelines.get("attention_decode", attentionConstants(cache, spec, variant));
    const fold = cache.folding ? pipelines.get("fold", { ...cache.constants, WORKGROUP, CACHE_ACCESS: "read", FOLDED_ACCESS: "read_write" }) : null;
    const merging = this.splits.compile();
    const swiglu = pipelines.get("swiglu", { COLUMNS: spec.intermediate_size, WORKGROUP });
    const product = (label: string, residual: boolean, linears: readonly Linear[], x: GPUBuffer, y: GPUBuffer): Product => {
      const use = { residual, vectors: sequences };
      const made = { label, use, linears, make: (index: number, shape?: MatvecShape) => vectorSteps(making, linears[index]!, use, { x, y }, shape) };
      this.products.push(made);
      return made;
    };
    const { layers: all } = weights;
    const toQkv = product("qkv", false, all.map((one) => one.qkv), normed, qkv);
    const toOutput = product("attention output", true, all.map((one) => one.output), attended, hidden);
    const toGateUp = product("gate and up", false, all.map((one) => one.gateUp), normed, gated);
    const toDown = product("down", true, all.map((one) => one.down), act, hidden);
    const toLogits = product("output matrix", false, [weights.output], normed, shared.logits);
    const norm = async (by: GPUBuffer) => ({ ...(await normStep(making, spec.hidden_size, hidden, by, normed)), workgroups: [sequences] as const });
    const layers = all.map(async (one, index): Promise<Layer> => {
      const matrices = Promise.all([toQkv, toOutput, toGateUp, toDown].map((each) => each.make(index)));
      const norms = Promise.all([norm(one.attentionNorm), norm(one.feedForwardNorm)]);
      const [attend, folder, gate] = [await attention, await fold, await swiglu];
      const [first, second] = await norms;
      const [ofQkv, ofOutput, ofGateUp, ofDown] = (await matrices) as [Dispatch[], Dispatch[], Dispatch[], Dispatch[]];
      const own = bind(device, attend, 0, { 0: state, 1: qkv, 2: shared.rotary, 3: attended, 4: this.splits.parts });
      const gating = { pipeline: gate, groups: [bind(device, gate, 0, { 0: gated, 1: act })], workgroups: [Math.ceil(spec.intermediate_size / WORKGROUP), sequences] as const };
      return {
        before: [first, ...ofQkv],
        attention: { pipeline: attend, groups: [own, bind(device, attend, 1, cache.bindings(index, true))] },
        after: [...ofOutput, second, ...ofGateUp, gating, ...ofDown],
        fold: folder && { pipeline: folder, groups: [bind(device, folder, 0, { 0: state }), bind(device, folder, 1, cache.foldBindings(index))] },
      };
    });
    const output = Promise.all([norm(weights.finalNorm), toLogits.make(0)]);
    const sampler = pipelines.get("sample", { ...advanceConstants(cache), BATCH: 1, SUBGROUPS: 0, WORKGROUP: 256, VOCABULARY: spec.vocabulary });
    // Everything was begun; now it is collected.
    this.embed = await Promise.all(embed);
    this.layers = await Promise.all(layers);
    const [last, logits] = await output;
    this.output = [last, ...logits];
    await merging;
    const pipeline = await sampler;
    const sampled = bind(device, pipeline, 0, { 0: state, 1: shared.seen, 2: shared.results, 3: shared.logits, 4: shared.sampling });
    this.sample = { pipeline, groups: [sampled], workgroups: [sequences] };
  }

  /** The next token of each of `slots`; afterwards the cache holds it. */
  encodeStep(pass: GPUComputePassEncoder, slots: readonly number[]): void {
    const lengths = slots.map((slot) => this.cache.slots[slot]!.length + 1);
    this.encodeLayers(pass, Math.max(...lengths));
    // The kernel looks whose group is full.
    const groups = slots.map((slot, index) => this.cache.fold(lengths[index]!, slot));
    if (groups.some((count) => count > 0)) for (const { fold } of this.layers) encodeOne(pass, fold!.pipeline, fold!.groups, [this.spec.key_value_heads, 1, this.sequences]);
  }

  encodeOutput(pass: GPUComputePassEncoder): void {
    encode(pass, this.output);
  }

  encodeSample(pass: GPUComputePassEncoder): void {
    encode(pass, [this.sample]);
  }

  /** A step of all sequences at a context of `length` tokens, for timing. */
  encodeAt(pass: GPUComputePassEncoder, length: number): void {
    this.encodeLayers(pass, length);
    this.encodeOutput(pass);
  }

  stages(length: number): Stage[] {
    const splits = this.splits.count(length);
    const grid = [this.spec.key_value_heads, splits, this.sequences] as const;
    const encodeAll = (pass: GPUComputePassEncoder) => this.layers.forEach(({ attention: { pipeline, groups } }) => encodeOne(pass, pipeline, groups, grid));
    return [{ label: `attention, ${splits} splits`, dispatches: this.layers.length, encode: encodeAll }];
  }

  dispatches(length: number): number {
    const each = this.layers.map(({ before, after }) => before.length + after.length + (this.splits.count(length) > 1 ? 2 : 1));
    return this.embed.length + each.reduce((sum, count) => sum + count, 0) + this.output.length + 1;
  }

  private encodeLayers(pass: GPUComputePassEncoder, length: number): void {
    encode(pass, this.embed);
    const splits = this.splits.count(length);
    for (const { before, attention, after } of this.layers) {
      encode(pass, before);
      encodeOne(pass, attention.pipeline, attention.groups, [this.spec.key_value_heads, splits, this.sequences]);
      if (splits > 1) this.splits.encodeMerge(pass, splits);
      encode(pass, after);
    }
  }
}
