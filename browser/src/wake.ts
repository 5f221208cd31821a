// Reading results back from the GPU. Firefox looks for finished work only when something is submitted, or every 100 ms; so while a map is
// pending, empty submits keep it looking. Which way is faster on this adapter is tried, never assumed.
import { nowNs } from "./clock";
import type { Optimizations } from "./protocol";

export type Readback = "plain" | "woken";

// A message to oneself comes back at once, where timers of nested calls wait 4 ms.
const channel = new MessageChannel();
const waiting: (() => void)[] = [];
channel.port1.onmessage = () => waiting.splice(0).forEach((resolve) => resolve());

function turn(): Promise<void> {
  return new Promise((resolve) => {
    waiting.push(resolve);
    channel.port2.postMessage(null);
  });
}

/** A long wait is not spun through: that would take a core from whoever does the work. Nested timers come every 4 ms. */
const SPIN_NS = 10_000_000;
const SPACING_NS = 200_000; // each submit is work for another process

/** Submits nothing, again and again with a turn of the event loop between, until `pending` settles: at most one each 0.2 ms, and after
 * 10 ms one each 4 ms. */
export async function wakeUntil(device: GPUDevice, pending: Promise<unknown>): Promise<void> {
  let settled = false;
  const settle = () => void (settled = true); // whoever awaits `pending` itself gets the error
  pending.then(settle, settle);
  const start = nowNs();
  for (let next = start; !settled; ) {
    const now = nowNs();
    if (now >= next) {
      device.queue.submit([]);
      next = now + SPACING_NS;
    }
    await (now - start < SPIN_NS ? turn() : new Promise((resolve) => setTimeout(resolve, 1)));
  }
}

/** `buffer.mapAsync(READ)`, woken where that was found faster. */
export async function mapForReading(device: GPUDevice, buffer: GPUBuffer, readback: Readback, size?: number): Promise<void> {
  const pending = buffer.mapAsync(GPUMapMode.READ, 0, size);
  if (readback === "woken") await wakeUntil(device, pending);
  await pending;
}

/** Contents of several buffers with one copy, one submit and one map. Buffers need COPY_SRC; `bytes` are multiples of 4. */
export class Reader {
  private staging: GPUBuffer | null = null;

  constructor(
    private readonly device: GPUDevice,
    public readback: Readback,
  ) {}

  async read(parts: readonly { buffer: GPUBuffer; bytes: number }[]): Promise<ArrayBuffer[]> {
    const total = parts.reduce((sum, { bytes }) => sum + align(bytes), 0);
    if (!this.staging || this.staging.size < total) {
      this.staging?.destroy();
      this.staging = this.device.createBuffer({ label: "readback", size: Math.max(16, total), usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
    }
    const staging = this.staging;
    const encoder = this.device.createCommandEncoder();
    let offset = 0;
    for (const { buffer, bytes } of parts) {
      encoder.copyBufferToBuffer(buffer, 0, staging, offset, Math.ceil(bytes / 4) * 4);
      offset += align(bytes);
    }
    this.device.queue.submit([encoder.finish()]);
    await mapForReading(this.device, staging, this.readback, Math.max(8, total));
    offset = 0;
    const results = parts.map(({ bytes }) => {
      const copy = staging.getMappedRange(offset, Math.ceil(bytes / 4) * 4).slice(0, bytes);
      offset += align(bytes);
      return copy;
    });
    staging.unmap();
    return results;
  }

  destroy(): void {
    this.staging?.destroy();
  }
}

const align = (bytes: number) => Math.ceil(bytes / 8) * 8;

/** Rounds of the trial at a start: enough to tell 100 ms from 1. */
const TRIAL_ROUNDS = 3;

export interface Trial {
  readback: Readback;
  plain_ns: number[];
  woken_ns: number[];
}

/** Which readback is faster on this device: a small copy and a map, both ways in turn. "woken" only where its median is below 0.8 of
 * the other's, as it keeps the browser's GPU process busier. */
export async function tryReadback(device: GPUDevice, rounds: number): Promise<Trial> {
  const source = device.createBuffer({ size: 16, usage: GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST });
  const times: Record<Readback, number[]> = { plain: [], woken: [] };
  const readers = { plain: new Reader(device, "plain"), woken: new Reader(device, "woken") };
  for (let round = -1; round < rounds; round++)
    for (const readback of ["plain", "woken"] as const) {
      device.queue.writeBuffer(source, 0, new Uint32Array([round, 0, 0, 0]));
      const start = nowNs();
      await readers[readback].read([{ buffer: source, bytes: 16 }]);
      if (round >= 0) times[readback].push(nowNs() - start); // the first of each is warm-up
    }
  Object.values(readers).forEach((reader) => reader.destroy());
  source.destroy();
  const readback = median(times.woken) < 0.8 * median(times.plain) ? "woken" : "plain";
  return { readback, plain_ns: times.plain, woken_ns: times.woken };
}

/** The readback that is asked for, or with "auto" the one that was found faster on this adapter, now or in an earlier start. */
export async function chooseReadback(device: GPUDevice, key: string, { readback, tuned }: Pick<Optimizations, "readback" | "tuned">): Promise<Trial> {
  if (readback !== "auto") return { readback, plain_ns: [], woken_ns: [] };
  const known = tuned[`${key}|readback`];
  if (known !== undefined) return { readback: known ? "woken" : "plain", plain_ns: [], woken_ns: [] };
  return tryReadback(device, TRIAL_ROUNDS);
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
