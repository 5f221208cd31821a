// What each kernel of a decoding step takes by the GPU's own clock, and which shape of each matrix-vector product is the fastest.
import { ClassifiedError } from "../../failure";
import { nowNs } from "../../clock";
import type { ProfileDecoding } from "../../protocol";
import { median } from "../../wake";
import type { Product, Stage, Stepper } from "./decoder";
import { read } from "./memory";
import { encode, type Dispatch } from "./steps";
import { int8Of, matvec, matvecKey, packs, widthKey, type MatvecShape, type Variant } from "./variants";

/** A pass is repeated until it takes this long: browsers may round timestamps to 0.1 ms. */
const LEAST_PASS_NS = 5e6;
const MOST_REPEATS = 64;
const ROUNDS = 5;
/** Whole steps are run for so long before anything is timed: an idle GPU's clock is a fraction of a busy one's. */
const WARM_UP_NS = 5e8;

export interface StageTime {
  label: string;
  dispatches: number;
  /** Nanoseconds of all its dispatches in a step, each round's. */
  ns: number[];
}

export interface ProductTime extends StageTime {
  key: string;
  /** Bytes of the matrices, scales and all. */
  bytes: number;
  shape: MatvecShape | null;
  /** Names it whatever its activations are, which have `width` bits. */
  width_key: string;
  width: number;
}

/** Times passes one after the other in one submit. */
class GpuClock {
  private readonly queries: GPUQuerySet;
  private readonly resolved: GPUBuffer;

  constructor(private readonly device: GPUDevice) {
    this.queries = device.createQuerySet({ type: "timestamp", count: 2 });
    this.resolved = device.createBuffer({ size: 16, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC });
  }

  async pass(encodePass: (pass: GPUComputePassEncoder) => void): Promise<number> {
    const encoder = this.device.createCommandEncoder();
    const pass = encoder.beginComputePass({ timestampWrites: { querySet: this.queries, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 } });
    encodePass(pass);
    pass.end();
    encoder.resolveQuerySet(this.queries, 0, 2, this.resolved, 0);
    this.device.queue.submit([encoder.finish()]);
    const [begin, end] = new BigUint64Array(await read(this.device, this.resolved, 16));
    return Number(end! - begin!);
  }

  /** Times of a stage, after a first round that is not counted and says how often it must be repeated to be seen. */
  async rounds(encodeStage: Stage["encode"]): Promise<number[]> {
    const once = await this.pass(encodeStage);
    const repeats = Math.max(1, Math.min(MOST_REPEATS, Math.ceil(LEAST_PASS_NS / Math.max(once, 1))));
    const times: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const ns = await this.pass((pass) => {
        for (let time = 0; time < repeats; time++) encodeStage(pass);
      });
      times.push(ns / repeats);
    }
    return times;
  }

  destroy(): void {
    this.queries.destroy();
    this.resolved.destroy();
  }
}

export async function profile(device: GPUDevice, decoder: Stepper, variant: Variant, { length, shapes, budget_ms }: ProfileDecoding): Promise<Record<string, unknown>> {
  if (!device.features.has("timestamp-query")) throw new ClassifiedError("unsupported", "This adapter has no timestamp-query, without which kernels cannot be timed one by one.");
  const start = nowNs();
  const left = () => budget_ms - (nowNs() - start) / 1e6;
  const refused: string[] = [];
  const jobs: Job[] = [];
  let notTried = 0;
  const make = async (product: Product, shape: MatvecShape | null): Promise<void> => {
    for (const width of widthsOf(product, variant))
      try {
        jobs.push(...(await jobsOf(product, variant, shape, width)));
      } catch (error) {
        refused.push(`${product.label} ${JSON.stringify(shape)}: ${String(error)}`);
      }
  };
  // Everything is compiled first: the clock of a GPU that waits for a compiler falls to a fraction.
  await Promise.all(decoder.products.map((product) => make(product, null)));
  const { maxComputeInvocationsPerWorkgroup: most, maxComputeWorkgroupsPerDimension: widest } = device.limits;
  for (const [workgroup, lanes, rows] of shapes as unknown as [number, number, number][]) {
    // A row's lanes must be whole subgroups.
    if (workgroup > most || (variant.subgroups && lanes < variant.lanes)) continue;
    const shape = { workgroup, lanes, rows };
    const fitting = decoder.products.filter(({ use, linears }) => packs(shape, use) && linears.every(({ parts }) => parts.every((part) => matvec(part, part.rows, variant, 1, use, shape).workgroups <= widest)));
    if (left() < budget_ms / 2) notTried += fitting.length;
    else await Promise.all(fitting.map((product) => make(product, shape)));
  }
  const clock = new GpuClock(device);
  try {
    const begin = nowNs();
    const step = (pass: GPUComputePassEncoder) => decoder.encodeAt(pass, length);
    while (nowNs() - begin < WARM_UP_NS) await clock.pass((pass) => Array.from({ length: 16 }).forEach(() => step(pass)));
    const stages: StageTime[] = [];
    for (const { label, dispatches, encode: encodeStage } of [{ label: "whole step", dispatches: decoder.dispatches(length), encode: step }, ...decoder.stages(length)])
      stages.push({ label, dispatches, ns: await clock.rounds(encodeStage) });
    const products: ProductTime[] = [];
    for (const { dispatches, ...job } of jobs) {
      if (job.shape !== null && left() < 0) notTried++;
      else products.push({ ...job, dispatches: dispatches.length, ns: await clock.rounds((pass) => encode(pass, dispatches)) });
    }
    return { stages, products, not_tried: notTried, refused, search_ms: (nowNs() - start) / 1e6 };
  } finally {
    clock.destroy();
  }
}

type Job = Omit<ProductTime, "ns" | "dispatches"> & { dispatches: Dispatch[] };

/** Bits of the activations that are compared: both kinds where the plan is to be made, otherwise what the product has. */
function widthsOf({ use, linears }: Product, { activations }: Variant): readonly (8 | 32 | undefined)[] {
  const open = activations === "planned" && !use.vectors && !use.packedIn && linears.every(({ parts }) => parts.every(({ layout }) => layout.quantized));
  return open ? [8, 32] : [undefined];
}

/** A product in a shape, over all layers; layers whose matrices are of another width apart. */
async function jobsOf(product: Product, variant: Variant, shape: MatvecShape | null, width: 8 | 32 | undefined): Promise<Job[]> {
  const { label, linears, make } = product;
  const use = width ? { ...product.use, width } : product.use;
  const kinds = new Map<string, number[]>();
  linears.forEach((linear, index) => {
    const key = linear.parts.map((part) => matvecKey(part, variant, use)).join(", ");
    kinds.set(key, [...(kinds.get(key) ?? []), index]);
  });
  return Promise.all(
    [...kinds].map(async ([key, indices]) => {
      const dispatches = (await Promise.all(indices.map((index) => make(index, shape ?? undefined, width)))).flat();
      const bytes = indices.flatMap((index) => linears[index]!.parts).reduce((sum, { values, scales }) => sum + values.size + scales.size, 0);
      const [part] = linears[indices[0]!]!.parts;
      return { label, key, bytes, shape, dispatches, width_key: widthKey(part!, use), width: int8Of(part!, variant, use) ? 8 : 32 };
    }),
  );
}

/** Bits of the activations with which each product was the fastest in any shape, of those that were timed with both. */
export function fastestWidths(products: readonly ProductTime[]): Record<string, number> {
  const best: Record<string, Partial<Record<number, number>>> = {};
  for (const { width_key, width, ns } of products) {
    const own = (best[width_key] ??= {});
    own[width] = Math.min(own[width] ?? Infinity, median(ns));
  }
  return Object.fromEntries(Object.entries(best).flatMap(([key, { 8: int8, 32: float }]) => (int8 && float ? [[key, int8 < float ? 8 : 32]] : [])));
}

/** The fastest shape of each key by the median, where it gains more than noise would; the rest keep the usual one. */
export function fastest(products: readonly ProductTime[], leastGain: number): Record<string, MatvecShape> {
  const found: Record<string, MatvecShape> = {};
  for (const usual of products.filter(({ shape }) => shape === null)) {
    const others = products.filter(({ key, shape }) => key === usual.key && shape !== null);
    const best = others.reduce<ProductTime | null>((a, b) => (a && median(a.ns) <= median(b.ns) ? a : b), null);
    if (best && median(best.ns) < (1 - leastGain) * median(usual.ns)) found[usual.key] = best.shape!;
  }
  return found;
}
