// A decoder language model on one device: loading, logits, and the answer that is being generated.
import { adapterKey } from "../../autotune";
import { nowNs } from "../../clock";
import { openGpu, type Device } from "../../devices";
import { ClassifiedError } from "../../failure";
import type { HostTensors } from "../../frames";
import type { Readback } from "../../wake";
import type { BatchTokens, GenerateTokens, LoadLanguageModel, ProfileDecoding, TokenBatch } from "../../protocol";
import { Answer } from "./answer";
import { Batch } from "./batch";
import { BatchDecoder } from "./batch_decoder";
import { Decoder, RESULTS, STATE_BYTES, type Shared, type Stepper } from "./decoder";
import { float32Tensor } from "./floats";
import { KeyValueCache } from "./kv_cache";
import { Memory, read } from "./memory";
import { Pipelines } from "./pipelines";
import { Prefill } from "./prefill";
import { fastest, fastestWidths, profile, type ProductTime } from "./profile";
import { rotaryTable } from "./rotary";
import { chooseVariant, matvecKey, shapeOf, type MatvecShape, type Variant } from "./variants";
import { Weights } from "./weights";

/** Readbacks of 16 bytes that are timed at loading, each way; the better way is kept and its median sets the steps of a submit. */
const READBACK_TRIALS = 5;
/** Another shape of a product must gain more than this, or the usual one stays. */
const LEAST_GAIN = 0.03;

export class LanguageModel {
  readonly memory: Memory;
  readonly pipelines: Pipelines;
  readonly cache: KeyValueCache;
  readonly prefill: Prefill;
  readonly decoder: Stepper;
  readonly shared: Shared;
  readonly variant: Variant;
  /** Median time from a submit to its 16 bytes being readable. */
  readbackNs = Infinity;
  /** Which way of reading back was faster here. */
  readback: Readback = "plain";
  /** Tokens that the cache holds, as far as they are known on this side. */
  ids: number[] = [];
  /** Buffers for reading results back that no submit uses; answers take them and put them back. */
  readonly stagings: GPUBuffer[] = [];
  private readonly weights: Weights;
  private readonly compiling: Promise<unknown>;
  private answer: Answer | null = null;
  /** Of an engine that runs one sequence at a time, and of one that runs several. */
  private readonly single: Decoder | null;
  private readonly batch: Batch | null;

  constructor(
    readonly device: Device & { gpu: GPUDevice },
    readonly spec: LoadLanguageModel,
  ) {
    const { gpu } = device;
    const { decoder, engine } = spec;
    const facts = device.facts as { software_adapter: boolean | null };
    this.variant = chooseVariant(gpu, gpu.adapterInfo ?? null, facts.software_adapter === true, engine, adapterKey(device.facts));
    this.memory = new Memory(gpu);
    this.pipelines = new Pipelines(gpu);
    this.weights = new Weights(this.memory, spec);
    this.cache = new KeyValueCache(this.memory, decoder, engine);
    const rotary = this.memory.storage("rotary table", this.cache.contextLength * decoder.head_size * 4);
    gpu.queue.writeBuffer(rotary, 0, rotaryTable(decoder.inverse_frequencies, this.cache.contextLength, decoder.rotary_factor));
    this.shared = {
      state: this.memory.storage("state", engine.batch * STATE_BYTES),
      chunk: this.memory.storage("state", STATE_BYTES),
      sampling: this.memory.storage("state", engine.batch * 32),
      seen: this.memory.storage("state", engine.batch * Math.ceil(decoder.vocabulary / 32) * 4),
      results: this.memory.storage("state", engine.batch * RESULTS * 8),
      rotary,
      hidden: this.memory.storage("activations", engine.batch * decoder.hidden_size * 4),
      logits: this.memory.storage("logits", engine.batch * decoder.vocabulary * 4),
      greatest: this.memory.storage("logits", engine.batch > 1 ? 0 : decoder.vocabulary * 8),
    };
    const making = { device: gpu, pipelines: this.pipelines, variant: this.variant, epsilon: decoder.norm_epsilon };
    const parts = [making, this.memory, decoder, this.weights, this.cache, this.shared] as const;
    const several = engine.batch > 1 ? new BatchDecoder(...parts, engine.batch) : null;
    this.single = several ? null : new Decoder(...parts);
    this.batch = several && new Batch(this, several, engine.batch);
    this.decoder = several ?? this.single!;
    this.prefill = new Prefill(making, this.memory, decoder, engine, this.weights, this.cache, this.shared);
    this.compiling = Promise.all([this.decoder.compile(), this.prefill.compile()]);
    this.compiling.catch(() => {}); // told by `ready`
  }

  static async open(spec: LoadLanguageModel): Promise<LanguageModel> {
    const device = await openGpu({ ...spec, precision: "float32" });
    return new LanguageModel(device as Device & { gpu: GPUDevice }, spec);
  }

  loadFile(name: string): Promise<void> {
    return this.weights.load(name);
  }

  /** Resolves when every pipeline is there and all that was uploaded is on the device. */
  async ready(): Promise<void> {
    await this.compiling;
    await this.device.gpu.queue.onSubmittedWorkDone();
    for (const readback of ["plain", "woken"] as const) {
      const times: number[] = [];
      for (let trial = 0; trial < READBACK_TRIALS; trial++) {
        const start = nowNs();
        await read(this.device.gpu, this.shared.state, 16, 0, readback);
        times.push(nowNs() - start);
      }
      const median = times.sort((a, b) => a - b)[READBACK_TRIALS >> 1]!;
      // Waking costs the page and the GPU process time of their own, so it must be worth it (in Firefox it is, many times over).
      if (median < this.readbackNs / 2) [this.readbackNs, this.readback] = [median, readback];
    }
  }

  /** Begins an answer; returns how many tokens of the prompt the cache held already, and in a batch which sequence it is. */
  generate(request: GenerateTokens): Record<string, number> {
    if (this.batch?.free === 0) throw new ClassifiedError("page_error", "Every sequence of the batch runs: cancel one first.");
    if (this.answer && !this.answer.over) throw new ClassifiedError("page_error", "An answer is still being generated: cancel it first.");
    const { prompt } = request;
    this.check(prompt);
    if (prompt.length >= this.cache.contextLength)
      throw new ClassifiedError("unsupported", `A prompt of ${prompt.length} tokens leaves no room in a context of ${this.cache.contextLength}.`);
    if (this.batch) return this.batch.begin(request);
    let common = 0;
    while (common < prompt.length - 1 && this.ids[common] === prompt[common]) common++;
    const reused = this.truncate(common);
    this.answer = new Answer(this, this.single!, request, prompt.slice(reused));
    return { reused_tokens: reused };
  }

  next(id: number): Promise<TokenBatch> {
    if (!this.answer) throw new ClassifiedError("page_error", "No answer was begun.");
    return this.answer.next(id);
  }

  nextOfBatch(id: number): Promise<BatchTokens> {
    if (!this.batch) throw new ClassifiedError("page_error", "This engine runs one sequence at a time.");
    return this.batch.next(id);
  }

  /** Ends a sequence of a batch, or everything that runs. */
  async cancel(sequence = 0): Promise<void> {
    if (this.batch && sequence > 0) return this.batch.cancel(sequence);
    await this.batch?.cancelAll();
    await this.answer?.cancel();
  }

  truncate(length: number): number {
    if (this.batch) return this.batch.truncate(length);
    const left = this.cache.truncate(Math.min(length, this.ids.length));
    this.ids.length = Math.min(this.ids.length, left);
    return left;
  }

  /** Logits of every position, after everything was forgotten. */
  async logits(tokens: readonly number[], path: "prefill" | "decode"): Promise<HostTensors> {
    await this.cancel();
    this.check(tokens);
    if (tokens.length > this.cache.contextLength) throw new ClassifiedError("unsupported", `${tokens.length} tokens are more than the context of ${this.cache.contextLength}.`);
    this.truncate(0);
    // The last sequence of a batch, so that the others' places are passed.
    const slot = this.cache.slots.length - 1;
    this.cache.truncate(0, slot);
    const { vocabulary } = this.spec.decoder;
    const all = new Float32Array(tokens.length * vocabulary);
    const { gpu } = this.device;
    for (let at = 0; at < tokens.length; at += this.prefill.logitsTokens) {
      const chunk = tokens.slice(at, at + this.prefill.logitsTokens);
      const encode = await this.prefill.logits(chunk.length);
      let buffer = this.prefill.logitsBuffer;
      if (path === "prefill") this.prefill.submit(chunk, (encoder) => (buffer = encode(encoder)), slot);
      else chunk.forEach((token, index) => this.submitStep(token, slot, buffer, 4 * index * vocabulary));
      all.set(new Float32Array(await read(gpu, buffer, 4 * chunk.length * vocabulary, 0, this.readback)), at * vocabulary);
    }
    if (this.batch) this.writeState(slot, new Uint32Array(STATE_BYTES / 4)); // it rests
    this.ids = this.batch ? [] : [...tokens];
    return { logits: float32Tensor(all, [tokens.length, vocabulary]) };
  }

  /** One step of a token that is given; its logits are copied to `buffer`. */
  private submitStep(token: number, slot: number, buffer: GPUBuffer, offset: number): void {
    const { gpu } = this.device;
    const { length, folded } = this.cache.slots[slot]!;
    this.writeState(slot, Uint32Array.of(length, token, folded, 1, 0, slot));
    const encoder = gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    this.decoder.encodeStep(pass, [slot]);
    this.decoder.encodeOutput(pass);
    pass.end();
    encoder.copyBufferToBuffer(this.shared.logits, 4 * slot * this.spec.decoder.vocabulary, buffer, offset, 4 * this.spec.decoder.vocabulary);
    gpu.queue.submit([encoder.finish()]);
  }

  /** Times of a decoding step's kernels; the cache is empty afterwards. */
  async profile(request: ProfileDecoding): Promise<Record<string, unknown>> {
    await this.cancel();
    const length = Math.min(request.length, this.cache.contextLength);
    this.cache.slots.forEach((_, slot) => this.writeState(slot, Uint32Array.of(length - 1, 0, 0, 1, 0, slot)));
    const found = await profile(this.device.gpu, this.decoder, this.variant, { ...request, length });
    this.ids = [];
    this.cache.slots.forEach((_, slot) => this.writeState(slot, new Uint32Array(STATE_BYTES / 4)));
    this.batch?.truncate(0);
    this.cache.truncate(0);
    return { ...found, length, adapter_key: adapterKey(this.device.facts), fastest: fastest(found["products"] as ProductTime[], LEAST_GAIN), widths: fastestWidths(found["products"] as ProductTime[]) };
  }

  /** Tells the device where a sequence's next token goes and which one it is, as kernels/state.wgsl has it. */
  writeState(slot: number, state: Uint32Array<ArrayBuffer>): void {
    this.device.gpu.queue.writeBuffer(this.shared.state, slot * STATE_BYTES, state);
  }

  private check(tokens: readonly number[]): void {
    const { vocabulary } = this.spec.decoder;
    if (tokens.length === 0) throw new ClassifiedError("page_error", "There must be at least one token.");
    const wrong = tokens.find((token) => !(Number.isInteger(token) && token >= 0 && token < vocabulary));
    if (wrong !== undefined) throw new ClassifiedError("page_error", `Token ${wrong} is not in the vocabulary of ${vocabulary}.`);
  }

  /** How each matrix-vector product is spread: as a search found it, or by default. */
  private shapes(): Record<string, MatvecShape> {
    const named = this.decoder.products.flatMap(({ use, linears }) => linears.flatMap(({ parts }) => parts.map((part) => [matvecKey(part, this.variant, use), shapeOf(part, this.variant, use)] as const)));
    return Object.fromEntries(named);
  }

  inspect(): Record<string, unknown> {
    const { software: _, tuned: __, workgroupBytes: ___, invocations: ____, tunedWidth: _____, vendor: ______, mostInvocations: _______, ...variant } = this.variant;
    return {
      device: this.device.facts,
      variant,
      shapes: this.shapes(),
      buffers_bytes: this.memory.bytesByUse,
      total_bytes: Object.values(this.memory.bytesByUse).reduce((sum, bytes) => sum + bytes, 0),
      peak_bytes: this.device.bytes?.().peak ?? null,
      pipelines: this.pipelines.compiled,
      readback_ns: Number.isFinite(this.readbackNs) ? this.readbackNs : null,
      readback: this.readback,
      dispatches_per_token: this.decoder.dispatches(Math.max(1, this.cache.length)),
      context_length: this.cache.contextLength,
      cached_tokens: this.cache.length,
      quantized_tokens: this.cache.folded,
      batch: this.cache.slots.length,
      last_answer: (this.batch ?? this.answer)?.timing ?? null,
    };
  }

  close(): void {
    this.memory.destroy();
    this.device.gpu.destroy();
  }
}
