// The usual front end of a page, in JavaScript: a spectrogram by frames in float64 with dense mel filters, its FFT a power of two or, for
// other lengths, Bluestein's (https://doi.org/10.1109/TAU.1970.1162132). The peer of the one on the GPU, and what runs without WebGPU.
import type { HostTensor } from "../frames";
import type { AudioSpec } from "../protocol";
import { hann, melFilters, resampledLength, resampler } from "./filters";
import { cropStarts, featureShape, filled, frameCount, MIDDLE_CROPS, rowsOf, type Recordings } from "./recordings";

/** A complex FFT in place on arrays of a power of two. */
class PowerOfTwo {
  private readonly cos: Float64Array;
  private readonly sin: Float64Array;

  constructor(readonly size: number) {
    this.cos = Float64Array.from({ length: size / 2 }, (_, k) => Math.cos((2 * Math.PI * k) / size));
    this.sin = Float64Array.from({ length: size / 2 }, (_, k) => -Math.sin((2 * Math.PI * k) / size));
  }

  transform(real: Float64Array, imaginary: Float64Array): void {
    const { size, cos, sin } = this;
    for (let index = 1, reversed = 0; index < size; index++) {
      let bit = size >> 1;
      for (; reversed & bit; bit >>= 1) reversed ^= bit;
      reversed ^= bit;
      if (index >= reversed) continue;
      [real[index], real[reversed]] = [real[reversed]!, real[index]!];
      [imaginary[index], imaginary[reversed]] = [imaginary[reversed]!, imaginary[index]!];
    }
    for (let half = 1; half < size; half *= 2) {
      const step = size / (2 * half);
      for (let begin = 0; begin < size; begin += 2 * half)
        for (let k = 0; k < half; k++) {
          const [a, b] = [begin + k, begin + k + half];
          const [c, s] = [cos[k * step]!, sin[k * step]!];
          const x = real[b]! * c - imaginary[b]! * s;
          const y = real[b]! * s + imaginary[b]! * c;
          real[b] = real[a]! - x;
          imaginary[b] = imaginary[a]! - y;
          real[a]! += x;
          imaginary[a]! += y;
        }
    }
  }
}

/** Squared magnitudes of the first half of a real signal's spectrum. */
class PowerSpectrum {
  private readonly fft: PowerOfTwo;
  private readonly chirp: { cos: Float64Array; sin: Float64Array; real: Float64Array; imaginary: Float64Array } | null = null;
  private readonly real: Float64Array;
  private readonly imaginary: Float64Array;

  constructor(private readonly size: number) {
    const power = (size & (size - 1)) === 0;
    const length = power ? size : 2 ** Math.ceil(Math.log2(2 * size - 1));
    this.fft = new PowerOfTwo(length);
    this.real = new Float64Array(length);
    this.imaginary = new Float64Array(length);
    if (power) return;
    const angle = (k: number) => (Math.PI * ((k * k) % (2 * size))) / size;
    const cos = Float64Array.from({ length: size }, (_, k) => Math.cos(angle(k)));
    const sin = Float64Array.from({ length: size }, (_, k) => Math.sin(angle(k)));
    const [real, imaginary] = [new Float64Array(length), new Float64Array(length)];
    for (let k = 0; k < size; k++)
      for (const at of [k, (length - k) % length]) {
        real[at] = cos[k]!;
        imaginary[at] = sin[k]!;
      }
    this.fft.transform(real, imaginary);
    this.chirp = { cos, sin, real, imaginary };
  }

  of(frame: Float64Array, power: Float64Array): void {
    const { real, imaginary, chirp, fft, size } = this;
    real.fill(0);
    imaginary.fill(0);
    if (!chirp) {
      real.set(frame);
      fft.transform(real, imaginary);
    } else {
      for (let k = 0; k < size; k++) {
        real[k] = frame[k]! * chirp.cos[k]!;
        imaginary[k] = -frame[k]! * chirp.sin[k]!;
      }
      fft.transform(real, imaginary);
      for (let k = 0; k < real.length; k++) {
        // The conjugate of the product, so that a forward transform is the inverse one but for its scale.
        const x = real[k]! * chirp.real[k]! - imaginary[k]! * chirp.imaginary[k]!;
        imaginary[k] = -(real[k]! * chirp.imaginary[k]! + imaginary[k]! * chirp.real[k]!);
        real[k] = x;
      }
      fft.transform(real, imaginary);
    }
    const scale = chirp ? real.length ** -2 : 1;
    for (let k = 0; k <= size / 2; k++) power[k] = scale * (real[k]! ** 2 + imaginary[k]! ** 2);
  }
}

export class CpuFrontEnd {
  private readonly window: Float64Array;
  private readonly spectrum: PowerSpectrum | null;
  private readonly filters: Float64Array[];

  constructor(private readonly spec: AudioSpec) {
    this.window = hann(spec.window);
    this.spectrum = spec.kind === "waveform" ? null : new PowerSpectrum(spec.window);
    const bins = spec.window / 2 + 1;
    this.filters = !this.spectrum
      ? []
      : melFilters(spec).map(({ first, weights }) => {
          const dense = new Float64Array(bins);
          dense.set(weights, first);
          return dense;
        });
  }

  run({ samples, lengths, rate }: Recordings, crops: readonly number[] = MIDDLE_CROPS): HostTensor {
    const { spec } = this;
    const waves: Float64Array[] = [];
    let offset = 0;
    for (const length of lengths) {
      waves.push(resampled(Float64Array.from(samples.subarray(offset, offset + length)), rate, spec.rate));
      offset += length;
    }
    if (spec.kind === "waveform" && spec.standardise) waves.forEach(standardise);
    const rows = rowsOf(waves.map(({ length }) => length), spec);
    const shape = featureShape(rows.length, spec);
    const values = new Float32Array(shape.reduce((product, size) => product * size));
    const size = values.length / rows.length;
    rows.forEach((row, index) => {
      const wave = waves[row.wave]!;
      const target = values.subarray(index * size, (index + 1) * size);
      const long = spec.fusion && wave.length > spec.samples;
      const signal = new Float64Array(long ? wave.length : spec.samples);
      if (long) signal.set(wave);
      else for (let at = 0; at < filled(row, spec); at += row.length) signal.set(wave.subarray(row.start, row.start + row.length), at);
      if (spec.kind === "waveform") target.set(signal);
      else this.spectrogram(signal, target, crops);
    });
    return { dtype: "float32", shape, data: values };
  }

  private spectrogram(signal: Float64Array, target: Float32Array, crops: readonly number[]): void {
    const { spec } = this;
    const whole = frameCount(signal.length, spec);
    const mels = spec.mels;
    const frame = new Float64Array(spec.window);
    const power = new Float64Array(spec.window / 2 + 1);
    const values = new Float64Array(whole * mels);
    const last = signal.length - 1;
    let peak = -Infinity;
    for (let index = 0; index < whole; index++) {
      for (let at = 0; at < spec.window; at++) {
        let position = Math.abs(index * spec.hop + at - spec.window / 2);
        if (position > last) position = 2 * last - position;
        frame[at] = signal[position]! * this.window[at]!;
      }
      this.spectrum!.of(frame, power);
      for (let mel = 0; mel < mels; mel++) {
        const filter = this.filters[mel]!;
        let sum = 0;
        for (let bin = 0; bin < power.length; bin++) sum += power[bin]! * filter[bin]!;
        const value = Math.log10(Math.max(sum, 1e-10)) * (spec.kind === "decibels" ? 10 : 1);
        values[index * mels + mel] = value;
        peak = Math.max(peak, value);
      }
    }
    if (spec.kind === "whisper")
      for (let mel = 0; mel < mels; mel++)
        for (let index = 0; index < whole; index++) target[mel * whole + index] = (Math.max(values[index * mels + mel]!, peak - 8) + 4) / 4;
    else if (spec.fusion) fuse(values, whole, target, frameCount(spec.samples, spec), mels, crops);
    else target.set(values);
  }
}

/** See kernels/audio/fuse.wgsl. */
function fuse(values: Float64Array, whole: number, target: Float32Array, frames: number, mels: number, crops: readonly number[]): void {
  for (let frame = 0; frame < frames; frame++) {
    const centre = Math.max(((frame + 0.5) * whole) / frames - 0.5, 0);
    const below = Math.floor(centre);
    const above = Math.min(below + 1, whole - 1);
    for (let mel = 0; mel < mels; mel++) {
      const low = values[below * mels + mel]!;
      target[frame * mels + mel] = low + (values[above * mels + mel]! - low) * (centre - below);
    }
  }
  cropStarts(whole, frames, crops).forEach((start, crop) =>
    target.set(values.subarray(start * mels, (start + frames) * mels), (crop + 1) * frames * mels),
  );
}

function standardise(wave: Float64Array): void {
  const mean = wave.reduce((sum, value) => sum + value, 0) / wave.length;
  const variance = wave.reduce((sum, value) => sum + (value - mean) ** 2, 0) / wave.length;
  const factor = 1 / Math.sqrt(variance + 1e-7);
  for (let index = 0; index < wave.length; index++) wave[index] = (wave[index]! - mean) * factor;
}

function resampled(wave: Float64Array, from: number, to: number): Float64Array {
  if (from === to) return wave;
  const { up, down, taps, centre } = resampler(from, to);
  return Float64Array.from({ length: resampledLength(wave.length, { up, down }) }, (_, output) => {
    const position = output * down + centre;
    const end = Math.min(Math.floor(position / up), wave.length - 1);
    let sum = 0;
    for (let input = Math.max(Math.ceil((position - 2 * centre) / up), 0); input <= end; input++) sum += wave[input]! * taps[position - input * up]!;
    return sum;
  });
}
