// What does not depend on the recording: mel filters, the window and the resampling filter, all computed in float64.
import type { AudioSpec } from "../protocol";

/** A triangular filter: `weights` of the bins from `first` on; every other bin has weight 0. */
export interface MelFilter {
  first: number;
  weights: number[];
}

// Slaney's scale (Auditory Toolbox, 1998): linear up to 1 kHz, logarithmic above. HTK's: 2595 log10(1 + f / 700).
const BREAK_HZ = 1000;
const BREAK_MEL = 15;
const LOG_STEP = Math.log(6.4) / 27;

function toMel(hz: number, scale: AudioSpec["mel_scale"]): number {
  if (scale === "htk") return 2595 * Math.log10(1 + hz / 700);
  return hz < BREAK_HZ ? (3 * hz) / 200 : BREAK_MEL + Math.log(hz / BREAK_HZ) / LOG_STEP;
}

function toHz(mel: number, scale: AudioSpec["mel_scale"]): number {
  if (scale === "htk") return 700 * (10 ** (mel / 2595) - 1);
  return mel < BREAK_MEL ? (200 * mel) / 3 : BREAK_HZ * Math.exp(LOG_STEP * (mel - BREAK_MEL));
}

/** The mel filter bank; Slaney's scale comes with Slaney's normalisation (each filter has area 1), HTK's with none. */
export function melFilters({ mel_scale, window, mels, rate, minimum_hz, maximum_hz }: AudioSpec): MelFilter[] {
  const [low, high] = [toMel(minimum_hz, mel_scale), toMel(maximum_hz, mel_scale)];
  const corners = Array.from({ length: mels + 2 }, (_, index) => toHz(low + ((high - low) * index) / (mels + 1), mel_scale));
  const bins = window / 2 + 1;
  const binHz = Math.floor(rate / 2) / (bins - 1);
  return Array.from({ length: mels }, (_, mel) => {
    const [left, centre, right] = corners.slice(mel, mel + 3) as [number, number, number];
    const area = mel_scale === "slaney" ? 2 / (right - left) : 1;
    const weights = Array.from({ length: bins }, (_, bin) =>
      area * Math.max(0, Math.min((bin * binHz - left) / (centre - left), (right - bin * binHz) / (right - centre))),
    );
    const first = Math.max(0, weights.findIndex((weight) => weight > 0));
    return { first, weights: weights.slice(first).filter((weight) => weight > 0) }; // a triangle has no zeros inside
  });
}

/** The periodic Hann window. */
export function hann(length: number): Float64Array {
  return Float64Array.from({ length }, (_, index) => 0.5 - 0.5 * Math.cos((2 * Math.PI * index) / length));
}

function besselI0(x: number): number {
  let [sum, term] = [1, 1];
  for (let k = 1; term > 1e-17 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

export interface Resampler {
  up: number;
  down: number;
  /** 2 * centre + 1 taps of a low-pass filter at the lower Nyquist frequency, Kaiser window with beta 5: scipy's resample_poly. */
  taps: Float64Array;
  centre: number;
}

export function resampler(from: number, to: number): Resampler {
  let [divisor, rest] = [from, to];
  while (rest) [divisor, rest] = [rest, divisor % rest];
  const [up, down] = [to / divisor, from / divisor];
  const slower = Math.max(up, down);
  const centre = 10 * slower;
  const taps = Float64Array.from({ length: 2 * centre + 1 }, (_, index) => {
    const x = (Math.PI * (index - centre)) / slower;
    return (x === 0 ? 1 : Math.sin(x) / x) * besselI0(5 * Math.sqrt(1 - ((index - centre) / centre) ** 2));
  });
  const gain = up / taps.reduce((sum, tap) => sum + tap, 0);
  return { up, down, taps: taps.map((tap) => tap * gain), centre };
}

export function resampledLength(length: number, { up, down }: Pick<Resampler, "up" | "down">): number {
  return Math.ceil((length * up) / down);
}
