// Several answers at once, each in a slot of the cache. A sequence joins and leaves between steps: its prompt but the last token fills its slot
// a chunk at a time, with a step of the others between two chunks; then its last token goes into the common step. Slots differ in length,
// sampling and seed. Whatever is with the device when a sequence leaves is thrown away, and its slot is free for the next submit.
import { nowNs } from "../../clock";
import type { BatchTokens, GenerateTokens } from "../../protocol";
import { mapForReading } from "../../wake";
import type { BatchDecoder } from "./batch_decoder";
import { RESULTS, STATE_BYTES } from "./decoder";
import type { LanguageModel } from "./model";
import { IN_FLIGHT, newTiming, NO_TOKEN, notFinite, stepsOfSubmit, stops, writeSampling, type Timing } from "./sequence";

/** What of a sequence is to be told. */
interface Told {
  sequence: number;
  tokens: number[];
  token_ns: number[];
  logprobs: number[];
  reason: string;
  failure: string;
}

interface Sequence {
  number: number;
  slot: number;
  request: GenerateTokens;
  timing: Timing;
  beganNs: number;
  firstNs: number;
  /** What of the prompt is not in the cache yet, its last token included. */
  rest: readonly number[];
  /** Tokens at most, those whose steps were submitted, and those that were read back. */
  most: number;
  asked: number;
  tokens: number[];
  joined: boolean;
  over: boolean;
  told: Told;
}

interface Submit {
  parts: { sequence: Sequence; first: number }[];
  steps: number;
  staging: GPUBuffer;
  readable: Promise<unknown>;
}

export class Batch {
  timing: Timing | null = null;
  private readonly slots: (Sequence | null)[];
  /** What each slot's cache holds. */
  private readonly ids: number[][];
  /** Sequences of which something is to be told, those that run among them. */
  private readonly known = new Map<number, Sequence>();
  private inFlight: Submit[] = [];
  private numbers = 0;
  private stepsPerSubmit = 1;
  private previousNs = 0;
  private running: Promise<void> | null = null;
  private failed: unknown = null;
  private wake: () => void = () => {};

  constructor(
    private readonly model: LanguageModel,
    private readonly decoder: BatchDecoder,
    size: number,
  ) {
    this.slots = Array.from({ length: size }, () => null);
    this.ids = this.slots.map(() => []);
  }

  get free(): number {
    return this.slots.filter((sequence) => sequence === null).length;
  }

  /** Begins an answer in the free slot that holds most of its prompt already. */
  begin(request: GenerateTokens): { sequence: number; reused_tokens: number; began_ns: number } {
    const { prompt } = request;
    const { cache } = this.model;
    let [slot, common] = [-1, -1];
    this.slots.forEach((sequence, index) => {
      if (sequence) return;
      let same = 0;
      while (same < prompt.length - 1 && this.ids[index]![same] === prompt[same]) same++;
      if (same > common) [slot, common] = [index, same];
    });
    const reused = cache.truncate(Math.min(common, this.ids[slot]!.length), slot);
    this.ids[slot] = prompt.slice(0, reused);
    const number = ++this.numbers;
    const sequence: Sequence = {
      number,
      slot,
      request,
      timing: newTiming(prompt.length, reused),
      beganNs: nowNs(),
      firstNs: 0,
      rest: prompt.slice(reused),
      // The context's last place may be filled: the token that follows it needs none.
      most: Math.min(request.max_new_tokens, cache.contextLength - prompt.length + 1),
      asked: 0,
      tokens: [],
      joined: false,
      over: false,
      told: nothing(number),
    };
    this.failed = null;
    this.slots[slot] = sequence;
    this.known.set(number, sequence);
    writeSampling(this.model, request, slot);
    this.running ??= this.run().catch((error: unknown) => {
      this.failed = error;
      this.inFlight = [];
      this.slots.fill(null);
      this.known.clear();
      this.ended();
    });
    return { sequence: number, reused_tokens: reused, began_ns: sequence.beganNs };
  }

  /** What came of each sequence since the last call, as soon as there is something; nothing where none runs, and after each chunk of a
   * prompt, so that a request that waits behind this one comes through. */
  async next(id: number): Promise<BatchTokens> {
    if (!this.news() && this.running) await new Promise<void>((resolve) => (this.wake = resolve));
    if (this.failed) throw this.failed;
    const parts: Told[] = [];
    for (const sequence of this.known.values()) {
      if (sequence.told.tokens.length === 0 && !sequence.over) continue;
      parts.push(sequence.told);
      sequence.told = nothing(sequence.number);
      if (sequence.over) this.known.delete(sequence.number);
    }
    return { type: "BatchTokens", id, parts };
  }

  /** Ends a sequence; one that is over already stays as it was. */
  cancel(number: number): void {
    const sequence = this.known.get(number);
    if (sequence && !sequence.over) this.leave(sequence, "cancelled");
  }

  /** Ends all, and waits until the device has done what it was given. */
  async cancelAll(): Promise<void> {
    for (const sequence of this.slots) if (sequence) this.leave(sequence, "cancelled");
    await this.running;
  }

  /** Forgets what comes after `length` tokens in every slot; the most that one still holds. No sequence may run. */
  truncate(length: number): number {
    const left = this.ids.map((ids, slot) => {
      this.ids[slot] = ids.slice(0, this.model.cache.truncate(Math.min(length, ids.length), slot));
      return this.ids[slot].length;
    });
    return Math.max(...left);
  }

  private ended(): void {
    this.running = null;
    this.wake();
  }

  private news(): boolean {
    return [...this.known.values()].some(({ told, over }) => over || told.tokens.length > 0);
  }

  private async run(): Promise<void> {
    this.previousNs = nowNs();
    let chunk: Promise<unknown> | null = null; // of a prompt, which the device works on
    for (;;) {
      const filling = this.slots.find((sequence) => sequence && !sequence.joined) ?? null;
      if (filling) {
        await chunk; // the device is a chunk behind at most
        chunk = this.fill(filling);
      }
      const stepping = this.slots.filter((sequence): sequence is Sequence => sequence !== null && sequence.joined && sequence.asked < sequence.most);
      if (stepping.length > 0 && this.inFlight.length < IN_FLIGHT) this.inFlight.push(this.submit(stepping));
      const submit = this.inFlight.length === IN_FLIGHT || stepping.length === 0 ? this.inFlight.shift() : undefined;
      if (submit) {
        await submit.readable;
        this.take(submit);
        this.wake();
      } else if (stepping.length === 0) {
        if (!this.slots.some((sequence) => sequence !== null)) return this.ended();
        await chunk;
        this.wake();
      }
    }
  }

  /** A chunk of a prompt; after the last one the sequence takes part in the steps. */
  private fill(sequence: Sequence): Promise<unknown> | null {
    const { model } = this;
    const { slot, request } = sequence;
    const rows = Math.min(model.prefill.tokens, sequence.rest.length - 1);
    let done: Promise<unknown> | null = null;
    if (rows > 0) {
      model.prefill.submit(sequence.rest.slice(0, rows), () => {}, slot);
      done = model.device.gpu.queue.onSubmittedWorkDone();
      sequence.rest = sequence.rest.slice(rows);
      this.ids[slot] = request.prompt.slice(0, request.prompt.length - sequence.rest.length);
    }
    if (sequence.rest.length === 1) {
      sequence.joined = true;
      const { length, folded } = model.cache.slots[slot]!;
      this.model.writeState(slot, Uint32Array.of(length, sequence.rest[0]!, folded, 1, 0, slot));
    }
    return done;
  }

  /** Submits steps of all sequences that take part, as many as none of them ends before. */
  private submit(stepping: readonly Sequence[]): Submit {
    const { device, memory, shared, stagings } = this.model;
    const steps = Math.min(this.stepsPerSubmit, ...stepping.map(({ most, asked }) => most - asked));
    const parts = stepping.map((sequence) => ({ sequence, first: sequence.asked }));
    const slots = stepping.map(({ slot }) => slot);
    const encoder = device.gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (let step = 0; step < steps; step++) {
      this.decoder.encodeStep(pass, slots);
      this.decoder.encodeOutput(pass);
      this.decoder.encodeSample(pass);
    }
    pass.end();
    const bytes = shared.results.size;
    const staging = stagings.pop() ?? memory.readback(bytes);
    encoder.copyBufferToBuffer(shared.results, 0, staging, 0, bytes);
    device.gpu.queue.submit([encoder.finish()]);
    for (const sequence of stepping) {
      sequence.asked += steps;
      sequence.timing.submits++;
      if (sequence.asked === sequence.most) this.rest(sequence.slot);
    }
    return { parts, steps, staging, readable: mapForReading(device.gpu, staging, this.model.readback) };
  }

  /** Leaves a slot out of the steps to come. */
  private rest(slot: number): void {
    this.model.writeState(slot, new Uint32Array(STATE_BYTES / 4));
  }

  private take({ parts, steps, staging }: Submit): void {
    const results = new Uint32Array(staging.getMappedRange());
    const logprobs = new Float32Array(results.buffer);
    const now = nowNs();
    for (const { sequence, first } of parts) {
      for (let step = first; step < first + steps && !sequence.over; step++) {
        const at = 2 * (sequence.slot * RESULTS + (step % RESULTS));
        if (results[at] === NO_TOKEN) this.fail(sequence);
        else this.give(sequence, results[at]!, logprobs[at + 1]!, now);
      }
      sequence.timing.steps_per_submit = this.stepsPerSubmit;
    }
    staging.unmap();
    this.model.stagings.push(staging);
    this.stepsPerSubmit = stepsOfSubmit(this.stepsPerSubmit, (now - this.previousNs) / steps, this.model.readbackNs);
    this.previousNs = now;
  }

  private give(sequence: Sequence, token: number, logprob: number, now: number): void {
    const { tokens, told, timing, request } = sequence;
    tokens.push(token);
    told.tokens.push(token);
    told.token_ns.push(now - sequence.beganNs);
    if (request.sampling.logprobs) told.logprobs.push(logprob);
    if (tokens.length === 1) {
      sequence.firstNs = now;
      timing.prefill_ns = now - sequence.beganNs;
    }
    timing.decode_ns = now - sequence.firstNs;
    timing.decoded_tokens = tokens.length - 1;
    if (stops(tokens, request)) this.leave(sequence, "stop");
    else if (tokens.length === sequence.most) this.leave(sequence, sequence.most < request.max_new_tokens ? "context" : "length");
  }

  private fail(sequence: Sequence): void {
    sequence.told.failure = notFinite(sequence.request.prompt.length + sequence.tokens.length - 1);
    this.leave(sequence, "failed");
    this.model.cache.truncate(0, sequence.slot);
    this.ids[sequence.slot] = [];
  }

  private leave(sequence: Sequence, reason: string): void {
    const { slot, request, tokens } = sequence;
    sequence.over = true;
    sequence.told.reason = reason;
    this.timing = sequence.timing;
    this.slots[slot] = null;
    this.rest(slot);
    const ids = sequence.joined ? [...request.prompt, ...tokens] : this.ids[slot]!;
    this.ids[slot] = ids.slice(0, this.model.cache.truncate(ids.length, slot));
    this.wake();
  }
}

function nothing(sequence: number): Told {
  return { sequence, tokens: [], token_ns: [], logprobs: [], reason: "", failure: "" };
}
