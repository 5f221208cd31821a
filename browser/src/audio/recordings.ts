// Recordings as the page gets them, and which stretch of which recording each row of the model's batch is.
import { ClassifiedError } from "../failure";
import type { HostTensors } from "../frames";
import type { AudioSpec } from "../protocol";
import { resampledLength, resampler } from "./filters";

/** Mono recordings one after the other, full scale at 1. */
export interface Recordings {
  samples: Float32Array<ArrayBuffer>;
  lengths: readonly number[];
  rate: number;
}

/** A row: `length` samples from `start` of recording `wave`, whose first sample is number `offset`. */
export interface Row {
  wave: number;
  offset: number;
  start: number;
  length: number;
}

/** Reads the tensors `samples` (float32) and `lengths` (int32). */
export function recordingsOf({ samples, lengths }: HostTensors, rate: number): Recordings {
  const recordings = { samples: samples!.data as unknown as Float32Array<ArrayBuffer>, lengths: Array.from(lengths!.data, Number), rate };
  const total = recordings.lengths.reduce((sum, length) => sum + length, 0);
  const empty = recordings.lengths.findIndex((length) => length < 1);
  if (recordings.lengths.length === 0) throw new ClassifiedError("inference_failed", "There is no recording.");
  if (empty >= 0) throw new ClassifiedError("inference_failed", `Recording ${empty} is empty: it has no samples.`);
  if (total !== recordings.samples.length)
    throw new ClassifiedError("inference_failed", `The recordings have ${total} samples by their lengths, and ${recordings.samples.length} were given.`);
  return recordings;
}

/** Rows of all recordings: a longer one is cut every `row_step` samples, or only its beginning is taken where that is 0. */
export function rowsOf(lengths: readonly number[], { samples, row_step }: AudioSpec): Row[] {
  const rows: Row[] = [];
  let offset = 0;
  lengths.forEach((length, wave) => {
    const count = row_step ? 1 + Math.max(0, Math.ceil((length - samples) / row_step)) : 1;
    for (let index = 0; index < count; index++) {
      const start = index * row_step;
      rows.push({ wave, offset, start, length: Math.min(samples, length - start) });
    }
    offset += length;
  });
  return rows;
}

/** Rows of recordings that come at another rate than the model's. */
export function resampledRows({ lengths, rate }: Recordings, spec: AudioSpec): Row[] {
  const { up, down } = resampler(rate, spec.rate);
  return rowsOf(rate === spec.rate ? lengths : lengths.map((length) => resampledLength(length, { up, down })), spec);
}

/** Samples of a row that are not zero padding: the recording, repeated as often as it fits where `padding` is "repeat". */
export function filled({ length }: Row, { samples, padding }: AudioSpec): number {
  return padding === "repeat" ? length * Math.floor(samples / length) : length;
}

/** Frames of a row: the last one is left out by Whisper's front end. */
export function frameCount(samples: number, { hop, kind }: AudioSpec): number {
  return Math.floor(samples / hop) + (kind === "decibels" ? 1 : 0);
}

/** Shape of the model's input for that many rows. */
export function featureShape(rows: number, spec: AudioSpec): number[] {
  if (spec.kind === "waveform") return [rows, spec.samples];
  const frames = frameCount(spec.samples, spec);
  return spec.kind === "whisper" ? [rows, spec.mels, frames] : [rows, spec.fusion ? 4 : 1, frames, spec.mels];
}

/** First frames of the three crops of a long recording: one of each third of the possible ones, by `fractions` in [0, 1). */
export function cropStarts(whole: number, frames: number, fractions: readonly number[]): number[] {
  const count = whole - frames + 1;
  // Thirds as numpy.array_split makes them: the first ones are longer where 3 does not divide the count.
  const sizes = [0, 1, 2].map((third) => Math.floor(count / 3) + (third < count % 3 ? 1 : 0));
  let begin = 0;
  return sizes.map((size, third) => {
    const start = size === 0 ? 0 : begin + Math.floor(fractions[third]! * size);
    begin += size;
    return start;
  });
}

/** Where crops start when nothing else is asked: the middle of each third, the same every time. */
export const MIDDLE_CROPS: readonly number[] = [0.5, 0.5, 0.5];
