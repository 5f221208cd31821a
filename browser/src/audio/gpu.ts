// The audio front end on the GPU: PCM goes up once, the model's input stays there as a buffer.
import { ClassifiedError } from "../failure";
import { elementBytes, type HostTensor } from "../frames";
import type { AudioSpec, GraphSpec } from "../protocol";
import { roots } from "./fft";
import { hann, melFilters, resampledLength, resampler } from "./filters";
import { DEFAULT, pipeline, STRETCH, type KernelName } from "./kernels";
import { cropStarts, featureShape, filled, frameCount, MIDDLE_CROPS, rowsOf, type Recordings, type Row } from "./recordings";

export type FeatureType = "float32" | "float16";

export interface Features {
  buffer: GPUBuffer;
  shape: number[];
  dtype: FeatureType;
}

/** What the graphs take the front end's features as. */
export function featureType(graphs: readonly GraphSpec[], { input }: AudioSpec): FeatureType {
  const taken = graphs.flatMap(({ inputs }) => inputs).find(({ name }) => name === input)?.dtype;
  if (taken !== "float32" && taken !== "float16")
    throw new ClassifiedError("unsupported", `The audio front end makes float32 or float16, and the graph takes ${taken ?? "nothing"} as ${input}.`);
  return taken;
}

/** Features as an input of a model on the same device. */
export function onDevice({ buffer, shape, dtype }: Features): HostTensor {
  return { dtype, shape, data: new Float32Array(0), gpu: buffer };
}

const MOST_GROUPS = 65535; // of one dimension of a dispatch

export class GpuFrontEnd {
  private readonly buffers = new Map<string, GPUBuffer>();
  private readonly uniforms = new Map<string, GPUBuffer>();
  private taps: { rate: number; buffer: GPUBuffer; up: number; down: number; centre: number } | null = null;

  private constructor(
    private readonly device: GPUDevice,
    private readonly spec: AudioSpec,
    private readonly threads: number,
    private readonly dtype: FeatureType,
    private readonly pipelines: Partial<Record<KernelName, GPUComputePipeline>>,
    private readonly constants: { table: GPUBuffer; filters: GPUBuffer; weights: GPUBuffer } | null,
  ) {}

  /** Compiles what this front end needs, all kernels at once; `rates` other than the model's need the resampling kernel. */
  static async create(device: GPUDevice, spec: AudioSpec, variant = DEFAULT, dtype: FeatureType = "float32"): Promise<GpuFrontEnd> {
    const needed = [...(dtype === "float16" ? ["shader-f16"] : []), ...(variant.subgroups ? ["subgroups"] : [])];
    const lacking = needed.find((feature) => !device.features.has(feature));
    if (lacking) throw new ClassifiedError("unsupported", `This audio front end needs ${lacking}, which the WebGPU adapter lacks.`);
    const names: KernelName[] = ["resample"];
    if (spec.kind === "waveform") names.push("standardise", "scatter", "gather");
    else names.push("log_mel");
    if (spec.kind === "whisper") names.push("clamp");
    if (spec.fusion) names.push("fuse");
    const last = spec.kind === "waveform" ? "standardise" : spec.kind === "whisper" ? "clamp" : spec.fusion ? "fuse" : "log_mel";
    const half = (name: KernelName) => dtype === "float16" && name === last;
    const made = await Promise.all(names.map(async (name) => [name, await pipeline(device, name, variant, spec.window, half(name))] as const));
    const constants = spec.kind === "waveform" ? null : spectrogramConstants(device, spec);
    return new GpuFrontEnd(device, spec, variant.threads, dtype, Object.fromEntries(made), constants);
  }

  /** The model's input for these recordings. The buffer is this front end's own and holds until its next run. */
  run(recordings: Recordings, crops: readonly number[] = MIDDLE_CROPS): Features {
    const encoder = this.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    const { buffer: waves, lengths } = this.resampled(pass, recordings);
    const rows = rowsOf(lengths, this.spec);
    const shape = featureShape(rows.length, this.spec);
    const features = this.buffer("features", elementBytes(this.dtype) * shape.reduce((product, size) => product * size));
    if (this.spec.kind === "waveform") this.waveform(pass, waves, lengths, rows, features);
    else if (this.spec.fusion) this.fused(pass, waves, lengths, rows, features, crops);
    else this.spectrograms(pass, waves, rows, features);
    pass.end();
    this.device.queue.submit([encoder.finish()]);
    return { buffer: features, shape, dtype: this.dtype };
  }

  destroy(): void {
    for (const buffer of [...this.buffers.values(), ...this.uniforms.values()]) buffer.destroy();
    if (this.constants) Object.values(this.constants).forEach((buffer) => buffer.destroy());
    this.taps?.buffer.destroy();
  }

  private resampled(pass: GPUComputePassEncoder, { samples, lengths, rate }: Recordings): { buffer: GPUBuffer; lengths: readonly number[] } {
    const buffer = this.upload("waves", samples);
    if (rate === this.spec.rate) return { buffer, lengths };
    if (this.taps?.rate !== rate) {
      this.taps?.buffer.destroy();
      const { taps, ...factors } = resampler(rate, this.spec.rate);
      this.taps = { rate, ...factors, buffer: constant(this.device, Float32Array.from(taps)) };
    }
    const { up, down, centre, buffer: taps } = this.taps;
    const out = lengths.map((length) => resampledLength(length, { up, down }));
    const bounds = this.upload("resample bounds", Uint32Array.from(zip(lengths, out).flatMap(([[from, length], [to, made]]) => [from, length, to, made])));
    const output = this.buffer("resampled", 4 * sum(out));
    const [x, y] = this.stretches(Math.max(...out));
    this.dispatch(pass, "resample", [buffer, bounds, taps, output, this.uniform([up, down, centre, x * this.threads])], [x, y, lengths.length]);
    return { buffer: output, lengths: out };
  }

  private spectrograms(pass: GPUComputePassEncoder, waves: GPUBuffer, rows: readonly Row[], features: GPUBuffer): void {
    const { spec } = this;
    const frames = frameCount(spec.samples, spec);
    const [melStride, frameStride] = spec.kind === "whisper" ? [frames, 1] : [1, spec.mels];
    const peaks = this.upload("peaks", new Uint32Array(rows.length));
    const size = spec.mels * frames;
    const clamped = spec.kind === "whisper";
    const spectrogram = clamped ? this.buffer("spectrogram", 4 * size * rows.length) : features;
    this.logMel(pass, waves, "rows", rows.map((row) => [row, row.length, filled(row, spec)]), spectrogram, peaks, { samples: spec.samples, frames, melStride, frameStride, firstOutput: 0 });
    if (!clamped) return;
    const [x, y] = this.stretches(size);
    this.dispatch(pass, "clamp", [spectrogram, peaks, features, this.uniform([size, x * this.threads])], [x, y, rows.length]);
  }

  /** Four spectrograms of each recording: shrunk and three crops of a long one, four times the same of a short one. */
  private fused(pass: GPUComputePassEncoder, waves: GPUBuffer, lengths: readonly number[], rows: readonly Row[], features: GPUBuffer, crops: readonly number[]): void {
    const { spec } = this;
    const frames = frameCount(spec.samples, spec);
    rows.forEach((row, index) => {
      const length = lengths[row.wave]!;
      const long = length > spec.samples;
      const samples = long ? length : spec.samples;
      const whole = frameCount(samples, spec);
      const spectrogram = this.buffer(`spectrogram ${index}`, 4 * whole * spec.mels);
      const peaks = this.upload("peaks", new Uint32Array(1));
      const part = { samples, frames: whole, melStride: 1, frameStride: spec.mels, firstOutput: 0 };
      this.logMel(pass, waves, `rows ${index}`, [long ? [row, length, length] : [row, row.length, filled(row, spec)]], spectrogram, peaks, part);
      const starts = cropStarts(whole, frames, crops);
      const parameters = this.uniform([whole, frames, spec.mels, 4 * index * frames * spec.mels, ...starts, 0]);
      this.dispatch(pass, "fuse", [spectrogram, features, parameters], [Math.ceil((frames * spec.mels) / this.threads), 4, 1]);
    });
  }

  private logMel(
    pass: GPUComputePassEncoder,
    waves: GPUBuffer,
    label: string,
    rows: readonly (readonly [row: Row, length: number, repeated: number])[],
    features: GPUBuffer,
    peaks: GPUBuffer,
    { samples, frames, melStride, frameStride, firstOutput }: Record<"samples" | "frames" | "melStride" | "frameStride" | "firstOutput", number>,
  ): void {
    const { mels, hop, kind, window } = this.spec;
    if (samples <= window / 2) throw new ClassifiedError("inference_failed", `A spectrogram with windows of ${window} needs more than ${window / 2} samples.`);
    const table = this.upload(label, Uint32Array.from(rows.flatMap(([{ offset, start }, length, repeated]) => [offset + start, length, repeated, 0])));
    for (let first = 0; first < frames; first += MOST_GROUPS) {
      const numbers = [samples, hop, mels, melStride, frameStride, mels * frames, firstOutput, first];
      const parameters = this.uniform(numbers, [kind === "decibels" ? 10 : 1]);
      const { filters, weights, table: constants } = this.constants!;
      const bound = [waves, table, constants, filters, weights, features, peaks, parameters];
      this.dispatch(pass, "log_mel", bound, [Math.min(frames - first, MOST_GROUPS), rows.length, 1]);
    }
  }

  private waveform(pass: GPUComputePassEncoder, waves: GPUBuffer, lengths: readonly number[], rows: readonly Row[], values: GPUBuffer): void {
    const counts = lengths.map((length) => Math.ceil(length / STRETCH));
    const bounds = this.upload("moment bounds", Uint32Array.from(zip(lengths, counts).flatMap(([[from, length], [to, count]]) => [from, length, to, count])));
    const stretches = this.buffer("stretches", 16 * sum(counts));
    const moments = this.buffer("moments", 8 * lengths.length);
    if (this.spec.standardise) {
      this.dispatch(pass, "scatter", [waves, bounds, stretches], [Math.max(...counts), lengths.length, 1]);
      this.dispatch(pass, "gather", [bounds, stretches, moments], [lengths.length, 1, 1]);
    }
    const table = this.upload("rows", Uint32Array.from(rows.flatMap(({ wave, offset, start, length }) => [offset + start, length, 0, wave])));
    const [x, y] = this.stretches(this.spec.samples);
    const parameters = this.uniform([this.spec.samples, x * this.threads, Number(this.spec.standardise)]);
    this.dispatch(pass, "standardise", [waves, table, moments, values, parameters], [x, y, rows.length]);
  }

  /** Workgroups for `count` values, as a row of them and the number of rows. */
  private stretches(count: number): [number, number] {
    const groups = Math.ceil(count / this.threads);
    const x = Math.min(groups, MOST_GROUPS);
    return [x, Math.ceil(groups / x)];
  }

  private dispatch(pass: GPUComputePassEncoder, name: KernelName, buffers: readonly GPUBuffer[], groups: readonly [number, number, number]): void {
    const pipeline = this.pipelines[name]!;
    const used = USED[name] ?? buffers.map((_, index) => index);
    const entries = used.map((binding, index) => ({ binding, resource: { buffer: buffers[index]! } }));
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, this.device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
    pass.dispatchWorkgroups(...groups);
  }

  private upload(label: string, data: Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>): GPUBuffer {
    const buffer = this.buffer(label, data.byteLength);
    this.device.queue.writeBuffer(buffer, 0, data);
    return buffer;
  }

  /** A buffer that is kept between runs and grows; ONNX Runtime binds whole vec4s. */
  private buffer(label: string, bytes: number): GPUBuffer {
    const size = Math.max(16, Math.ceil(bytes / 16) * 16);
    const most = Math.min(this.device.limits.maxStorageBufferBindingSize, this.device.limits.maxBufferSize);
    if (size > most)
      throw new ClassifiedError("unsupported", `The recordings need a buffer of ${size} bytes for ${label}, and this adapter's buffers end at ${most}: give fewer or shorter ones.`);
    const known = this.buffers.get(label);
    if (known?.size === size) return known;
    known?.destroy();
    const { STORAGE, COPY_DST, COPY_SRC } = GPUBufferUsage;
    const buffer = this.device.createBuffer({ label: `audio ${label}`, size, usage: STORAGE | COPY_DST | COPY_SRC });
    this.buffers.set(label, buffer);
    return buffer;
  }

  private uniform(integers: readonly number[], floats: readonly number[] = []): GPUBuffer {
    const key = [...integers, ";", ...floats].join();
    const known = this.uniforms.get(key);
    if (known) return known;
    const size = Math.ceil((integers.length + floats.length) / 4) * 16;
    const buffer = this.device.createBuffer({ size, usage: GPUBufferUsage.UNIFORM, mappedAtCreation: true });
    const bytes = buffer.getMappedRange();
    new Uint32Array(bytes).set(integers);
    new Float32Array(bytes, 4 * integers.length, floats.length).set(floats);
    buffer.unmap();
    this.uniforms.set(key, buffer);
    return buffer;
  }
}

// Bindings that an entry point uses, where they are not the first ones: an automatic layout has no others.
const USED: Partial<Record<KernelName, number[]>> = { scatter: [0, 1, 2], gather: [1, 2, 3] };

function spectrogramConstants(device: GPUDevice, spec: AudioSpec): { table: GPUBuffer; filters: GPUBuffer; weights: GPUBuffer } {
  const half = spec.window / 2;
  const filters = melFilters(spec);
  let offset = 0;
  const places = filters.flatMap(({ first, weights }) => {
    offset += weights.length;
    return [first, weights.length, offset - weights.length, 0];
  });
  return {
    table: constant(device, Float32Array.from([...roots(half, half), ...roots(spec.window, half + 1), ...hann(spec.window)])),
    filters: constant(device, Uint32Array.from(places)),
    weights: constant(device, Float32Array.from(filters.flatMap(({ weights }) => weights))),
  };
}

function constant(device: GPUDevice, data: Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>): GPUBuffer {
  const size = Math.max(16, Math.ceil(data.byteLength / 16) * 16);
  const buffer = device.createBuffer({ size, usage: GPUBufferUsage.STORAGE, mappedAtCreation: true });
  new Uint8Array(buffer.getMappedRange()).set(new Uint8Array(data.buffer));
  buffer.unmap();
  return buffer;
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

/** [first, length] of each part of two arrays that are cut into `a` and `b`. */
function zip(a: readonly number[], b: readonly number[]): [[number, number], [number, number]][] {
  let [first, second] = [0, 0];
  return a.map((length, index) => {
    const part: [[number, number], [number, number]] = [[first, length], [second, b[index]!]];
    first += length;
    second += b[index]!;
    return part;
  });
}
