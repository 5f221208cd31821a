// The key-value cache: see kernels/cache.wgsl for its layout. Here are its sizes, its buffers, and how far it is filled.
import type { DecoderSpec, EngineSpec } from "../../protocol";
import type { Memory } from "./memory";
import type { Constants } from "./shader";

export const FOLD = 32;

export interface LayerCache {
  recentKeys: GPUBuffer;
  recentValues: GPUBuffer;
  foldedKeys: GPUBuffer | null;
  foldedValues: GPUBuffer | null;
}

export class KeyValueCache {
  readonly layers: LayerCache[];
  readonly folding: boolean;
  readonly contextLength: number;
  private readonly ring: number;
  /** Of each sequence: tokens that the device has seen, and how many of them are quantised. */
  readonly slots: { length: number; folded: number }[];

  constructor(
    memory: Memory,
    private readonly decoder: DecoderSpec,
    private readonly engine: EngineSpec,
  ) {
    const { key_bits, value_bits, recent_tokens, prefill_tokens, context_length, batch } = engine;
    this.slots = Array.from({ length: batch }, () => ({ length: 0, folded: 0 }));
    const { key_value_heads, head_size, layers } = decoder;
    this.folding = key_bits < 16 || value_bits < 16;
    this.contextLength = Math.ceil(context_length / FOLD) * FOLD;
    // Before a chunk at most recent + FOLD - 1 tokens are unfolded, then the chunk comes.
    this.ring = Math.min(this.contextLength, Math.ceil((recent_tokens + FOLD + prefill_tokens) / FOLD) * FOLD);
    const recent = (bits: number) => (batch * key_value_heads * this.ringOf(bits) * head_size * (bits === 32 ? 32 : 16)) / 8;
    const tiles = batch * key_value_heads * (this.contextLength / FOLD);
    const foldedKeys = tiles * head_size * (key_bits + 1) * 4;
    const foldedValues = tiles * FOLD * Math.ceil(head_size / 32) * (value_bits + 1) * 4;
    this.layers = layers.map(() => ({
      recentKeys: memory.storage("keys", recent(key_bits)),
      recentValues: memory.storage("values", recent(value_bits)),
      foldedKeys: key_bits < 16 ? memory.storage("keys", foldedKeys) : null,
      foldedValues: value_bits < 16 ? memory.storage("values", foldedValues) : null,
    }));
  }

  private ringOf(bits: number): number {
    return bits < 16 ? this.ring : this.contextLength;
  }

  /** Of the only sequence, or the first of a batch. */
  get length(): number {
    return this.slots[0]!.length;
  }

  get folded(): number {
    return this.slots[0]!.folded;
  }

  get constants(): Constants {
    const { heads, key_value_heads, head_size, sliding_window } = this.decoder;
    const { key_bits, value_bits, recent_tokens } = this.engine;
    return {
      KEY_BITS: key_bits,
      VALUE_BITS: value_bits,
      KEY_RING: this.ringOf(key_bits),
      VALUE_RING: this.ringOf(value_bits),
      FOLDED_TILES: this.contextLength / FOLD,
      BATCH: this.engine.batch > 1 ? 1 : 0,
      FOLDING: this.folding ? 1 : 0,
      RECENT: recent_tokens,
      HEADS: heads,
      KEY_VALUE_HEADS: key_value_heads,
      GROUP: heads / key_value_heads,
      HEAD_SIZE: head_size,
      PADDED_CHANNELS: head_size % 32 === 0 ? 0 : 1,
      WINDOW: sliding_window ?? 0xffffffff,
      SCORE_SCALE: 1 / Math.sqrt(head_size),
    };
  }

  /** Bindings of a layer for a kernel; `folded` says whether the kernel uses the quantised part. */
  bindings(layer: number, folded: boolean): Record<number, GPUBuffer | null> {
    const { recentKeys, recentValues, foldedKeys, foldedValues } = this.layers[layer]!;
    return { 0: recentKeys, 1: recentValues, 2: folded ? foldedKeys : null, 3: folded ? foldedValues : null };
  }

  /** Bindings of a layer for the folding kernel, which touches only what is quantised. */
  foldBindings(layer: number): Record<number, GPUBuffer | null> {
    const { recentKeys, recentValues, foldedKeys, foldedValues } = this.layers[layer]!;
    return { 0: foldedKeys && recentKeys, 1: foldedValues && recentValues, 2: foldedKeys, 3: foldedValues };
  }

  /** Groups to fold once `length` tokens are there, and that they are folded from now on. The same rule as in kernels/advance.wgsl. */
  fold(length: number, slot = 0): number {
    const filled = this.slots[slot]!;
    filled.length = length;
    if (!this.folding) return 0;
    const groups = Math.max(0, Math.floor((length - filled.folded - this.engine.recent_tokens) / FOLD));
    filled.folded += groups * FOLD;
    return groups;
  }

  /** Forgets what comes after `length` tokens; returns how many are left. A quantised group goes whole: its tokens' floats are gone. */
  truncate(length: number, slot = 0): number {
    const filled = this.slots[slot]!;
    if (length >= filled.length) return filled.length;
    if (length < filled.folded) length = filled.folded = Math.floor(length / FOLD) * FOLD;
    filled.length = length;
    return length;
  }
}
