// How often a token's attention is split over its context, and how many parts are brought together.
import type { DecoderSpec } from "../../protocol";
import { FOLD, type KeyValueCache } from "./kv_cache";
import type { Memory } from "./memory";
import { encodeOne, type Making } from "./steps";
import { MOST_MERGED } from "./variants";

export class AttentionSplits {
  /** [sequence][head][split][head size + 4]. */
  readonly parts: GPUBuffer;
  readonly most: number;
  private pipeline!: GPUComputePipeline;
  private readonly groups = new Map<number, GPUBindGroup>();

  constructor(
    private readonly making: Making,
    private readonly memory: Memory,
    private readonly spec: DecoderSpec,
    cache: KeyValueCache,
    private readonly sequences: number,
    private readonly attended: GPUBuffer,
  ) {
    const { heads, head_size, key_value_heads } = spec;
    this.most = Math.max(1, Math.min(cache.contextLength / FOLD, Math.floor(making.variant.attentionWorkgroups / (key_value_heads * sequences))));
    this.parts = memory.storage("attention", sequences * heads * this.most * (head_size + 4) * 4);
  }

  async compile(): Promise<void> {
    this.pipeline = await this.making.pipelines.get("attention_merge", { HEAD_SIZE: this.spec.head_size, WORKGROUP: 64 });
  }

  /** At a context of `length` tokens. */
  count(length: number): number {
    const window = this.spec.sliding_window ?? length;
    const tiles = Math.ceil(length / FOLD) - Math.floor(Math.max(0, length - window) / FOLD);
    // A few tiles a workgroup cost less than the kernel that many splits need.
    const most = tiles <= 2 * MOST_MERGED ? Math.min(MOST_MERGED, this.most) : this.most;
    const share = Math.ceil(tiles / Math.min(tiles, most));
    return Math.ceil(tiles / share);
  }

  encodeMerge(pass: GPUComputePassEncoder, splits: number): void {
    encodeOne(pass, this.pipeline, [this.group(splits)], [this.spec.heads, this.sequences]);
  }

  private group(splits: number): GPUBindGroup {
    let found = this.groups.get(splits);
    if (!found) {
      const uniform = this.memory.uniform(Uint32Array.of(splits, 0, 0, 0));
      const layout = this.pipeline.getBindGroupLayout(0);
      const entries = [this.parts, this.attended, uniform].map((buffer, binding) => ({ binding, resource: { buffer } }));
      found = this.making.device.createBindGroup({ layout, entries });
      this.groups.set(splits, found);
    }
    return found;
  }
}
