// One answer. Two submits are in flight at a time, each of several steps, so that the device works on while results are read back.
// What was computed beyond a stop token is forgotten.
import { nowNs } from "../../clock";
import { ClassifiedError } from "../../failure";
import type { GenerateTokens, TokenBatch } from "../../protocol";
import { mapForReading } from "../../wake";
import { RESULTS, type Decoder } from "./decoder";
import type { LanguageModel } from "./model";
import { IN_FLIGHT, newTiming, NO_TOKEN, notFinite, stepsOfSubmit, stops, writeSampling, type Timing } from "./sequence";

interface Batch {
  first: number;
  steps: number;
  staging: GPUBuffer;
  readable: Promise<unknown>;
}

export class Answer {
  over = false;
  readonly timing: Timing;
  private readonly tokens: number[] = [];
  private readonly tokenNs: number[] = [];
  private readonly logprobs: number[] = [];
  private given = 0;
  private reason = "";
  private failed: unknown = null;
  private cancelled = false;
  private wake: () => void = () => {};
  private readonly running: Promise<void>;
  private readonly greedy: boolean;
  private stepsPerSubmit = 1;

  constructor(
    private readonly model: LanguageModel,
    private readonly decoder: Decoder,
    private readonly request: GenerateTokens,
    rest: readonly number[],
  ) {
    const { temperature, repetition_penalty, logprobs } = request.sampling;
    this.greedy = temperature === 0 && repetition_penalty === 1 && !logprobs;
    const prompt = request.prompt.length;
    this.timing = newTiming(prompt, prompt - rest.length);
    this.running = this.run(rest).catch((error: unknown) => {
      this.failed = error;
      this.end("");
    });
  }

  /** What came since the last call; waits for a token or the end. After each chunk of a long prompt it answers with nothing, so that a
   * request to cancel, which waits behind this one, comes through. */
  async next(id: number): Promise<TokenBatch> {
    if (this.given === this.tokens.length && !this.over) await new Promise<void>((resolve) => (this.wake = resolve));
    if (this.failed && this.given === this.tokens.length) throw this.failed;
    const tokens = this.tokens.slice(this.given);
    const token_ns = this.tokenNs.slice(this.given);
    const logprobs = this.request.sampling.logprobs ? this.logprobs.slice(this.given) : [];
    this.given = this.tokens.length;
    return { type: "TokenBatch", id, tokens, token_ns, logprobs, reason: this.over && !this.failed ? this.reason : "" };
  }

  async cancel(): Promise<void> {
    this.cancelled = true;
    await this.running;
  }

  private end(reason: string): void {
    this.reason = reason;
    this.over = true;
    this.wake();
  }

  private async run(rest: readonly number[]): Promise<void> {
    const { model, request } = this;
    const start = nowNs();
    writeSampling(model, request);
    await this.prefill(rest);
    // The context's last place may be filled: the token that follows it needs none.
    const most = Math.min(request.max_new_tokens, model.cache.contextLength - request.prompt.length + 1);
    const inFlight: Batch[] = [];
    let asked = 0;
    let firstNs = 0;
    let previousNs = nowNs();
    while (!this.over) {
      while (!this.cancelled && asked < most && inFlight.length < IN_FLIGHT) {
        const steps = asked === 0 ? 1 : Math.min(this.stepsPerSubmit, most - asked);
        inFlight.push(this.submit(asked, steps));
        asked += steps;
      }
      const batch = inFlight.shift();
      if (!batch) {
        const full = most < request.max_new_tokens;
        await this.finish(this.cancelled ? "cancelled" : full ? "context" : "length", inFlight);
        break;
      }
      await batch.readable;
      const now = nowNs();
      const stopped = this.take(batch, now - start);
      if (batch.first === 0) {
        firstNs = now;
        this.timing.prefill_ns = now - start;
      } else {
        this.timing.decode_ns = now - firstNs;
        this.timing.decoded_tokens = this.tokens.length - 1;
        this.timing.steps_per_submit = this.stepsPerSubmit = stepsOfSubmit(this.stepsPerSubmit, (now - previousNs) / batch.steps, model.readbackNs);
      }
      previousNs = now;
      if (stopped) await this.finish("stop", inFlight);
      else this.wake();
    }
  }

  /** Fills the cache with the prompt but its last token's answer; leaves that token's vector for the output matrix. */
  private async prefill(rest: readonly number[]): Promise<void> {
    const { model } = this;
    const width = 4 * model.spec.decoder.hidden_size;
    let before = Promise.resolve<unknown>(undefined);
    for (let at = 0; at < rest.length; at += model.prefill.tokens) {
      const chunk = rest.slice(at, at + model.prefill.tokens);
      model.prefill.submit(chunk, (encoder) => encoder.copyBufferToBuffer(model.prefill.hidden, (chunk.length - 1) * width, model.shared.hidden, 0, width));
      model.ids.push(...chunk);
      if (at + chunk.length === rest.length) break;
      // The device works on this chunk while the page waits for the one before it.
      await before;
      before = model.device.gpu.queue.onSubmittedWorkDone();
      this.wake();
      if (this.cancelled) break;
    }
    model.writeState(0, Uint32Array.of(model.cache.length - 1, 0, model.cache.folded, 1, 0));
  }

  /** Submits `steps` steps from the `first` sampled token on. The first of all has its vector already. */
  private submit(first: number, steps: number): Batch {
    const { decoder } = this;
    const { device, shared } = this.model;
    const encoder = device.gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (let step = first; step < first + steps; step++) {
      if (step > 0) decoder.encodeStep(pass);
      decoder.encodeOutput(pass);
      decoder.encodeSample(pass, this.greedy);
    }
    pass.end();
    const staging = this.model.stagings.pop() ?? this.model.memory.readback(RESULTS * 8);
    encoder.copyBufferToBuffer(shared.results, 0, staging, 0, RESULTS * 8);
    device.gpu.queue.submit([encoder.finish()]);
    this.timing.submits++;
    return { first, steps, staging, readable: mapForReading(device.gpu, staging, this.model.readback) };
  }

  /** Takes a batch's tokens, which are known `ns` after the start; true where one of them ends the answer. */
  private take({ first, steps, staging }: Batch, ns: number): boolean {
    const results = new Uint32Array(staging.getMappedRange());
    const logprobs = new Float32Array(results.buffer);
    let stopped = false;
    let bad = false;
    for (let step = first; step < first + steps && !stopped && !bad; step++) {
      const at = 2 * (step % RESULTS);
      bad = results[at] === NO_TOKEN;
      if (bad) break;
      this.tokens.push(results[at]!);
      this.tokenNs.push(ns);
      this.logprobs.push(logprobs[at + 1]!);
      stopped = stops(this.tokens, this.request);
    }
    staging.unmap();
    this.model.stagings.push(staging);
    if (bad) {
      const position = this.request.prompt.length + this.tokens.length - 1;
      this.model.ids = [];
      this.model.cache.truncate(0);
      throw new ClassifiedError("inference_failed", notFinite(position));
    }
    return stopped;
  }

  private async finish(reason: string, inFlight: readonly Batch[]): Promise<void> {
    for (const { readable, staging } of inFlight) {
      await readable;
      staging.unmap();
      this.model.stagings.push(staging);
    }
    const { model, request } = this;
    if (reason !== "cancelled" || this.tokens.length > 0) model.ids = [...request.prompt, ...this.tokens];
    model.truncate(model.ids.length);
    model.ids.length = Math.min(model.ids.length, model.cache.length);
    this.end(reason);
  }
}
