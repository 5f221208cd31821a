// What a single answer and the sequences of a batch have in common.
import type { GenerateTokens } from "../../protocol";
import { RESULTS } from "./decoder";
import type { LanguageModel } from "./model";

export const NO_TOKEN = 0xffffffff;
/** Submits that are with the device at a time, so that it works on while results are read back. */
export const IN_FLIGHT = 2;
const MOST_STEPS = RESULTS / 4;

export interface Timing {
  prompt_tokens: number;
  reused_tokens: number;
  prefill_ns: number;
  /** From the first token to the last, and how many came in it. */
  decode_ns: number;
  decoded_tokens: number;
  submits: number;
  steps_per_submit: number;
}

export function newTiming(prompt_tokens: number, reused_tokens: number): Timing {
  return { prompt_tokens, reused_tokens, prefill_ns: 0, decode_ns: 0, decoded_tokens: 0, submits: 0, steps_per_submit: 1 };
}

/** Tells the device how a sequence is sampled, and which tokens its prompt has. */
export function writeSampling({ device, shared, spec }: LanguageModel, { prompt, sampling }: GenerateTokens, slot = 0): void {
  const { temperature, top_p, min_p, repetition_penalty, top_k, seed, logprobs } = sampling;
  const { queue } = device.gpu;
  queue.writeBuffer(shared.sampling, 32 * slot, Float32Array.of(temperature, top_p, min_p, repetition_penalty));
  queue.writeBuffer(shared.sampling, 32 * slot + 16, Uint32Array.of(top_k, seed, logprobs ? 1 : 0, 0));
  const seen = new Uint32Array(Math.ceil(spec.decoder.vocabulary / 32));
  for (const token of prompt) seen[token >> 5]! |= 1 << (token & 31);
  queue.writeBuffer(shared.seen, slot * seen.byteLength, seen);
}

/** Whether the last of `tokens` end the answer. */
export function stops(tokens: readonly number[], { stop }: GenerateTokens): boolean {
  return stop.some((sequence) => sequence.length > 0 && sequence.length <= tokens.length && sequence.every((id, index) => id === tokens[tokens.length - sequence.length + index]));
}

/** Enough steps in a submit that the device has work for as long as a readback takes. */
export function stepsOfSubmit(before: number, stepNs: number, readbackNs: number): number {
  // Twice as long, as the next submit must be encoded within that time too.
  const wanted = Math.ceil((2 * readbackNs) / Math.max(stepNs, 1));
  // Grows gently: the first steps after a prompt say little.
  return Math.max(1, Math.min(MOST_STEPS, wanted, before * 2));
}

export function notFinite(position: number): string {
  return `The logits after token ${position} of the context are not finite: the weights or the width do not fit this model.`;
}
