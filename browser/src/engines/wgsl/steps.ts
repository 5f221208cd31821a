// Dispatches that are made once and encoded many times.
import { anyShape, type Linear } from "./matrix";
import { bind, type Pipelines } from "./pipelines";
import { matvec, reduction, type MatvecShape, type MatvecUse, type Variant } from "./variants";

export interface Dispatch {
  pipeline: GPUComputePipeline;
  groups: readonly GPUBindGroup[];
  workgroups: readonly [number, number?, number?];
}

export function encode(pass: GPUComputePassEncoder, dispatches: readonly Dispatch[]): void {
  for (const { pipeline, groups, workgroups } of dispatches) encodeOne(pass, pipeline, groups, workgroups);
}

export function encodeOne(
  pass: GPUComputePassEncoder,
  pipeline: GPUComputePipeline,
  groups: readonly GPUBindGroup[],
  [x, y = 1, z = 1]: readonly [number, number?, number?],
): void {
  pass.setPipeline(pipeline);
  groups.forEach((group, index) => pass.setBindGroup(index, group));
  pass.dispatchWorkgroups(x, y, z);
}

/** What every step maker needs. */
export interface Making {
  device: GPUDevice;
  pipelines: Pipelines;
  variant: Variant;
  epsilon: number;
}

/** `y = linear x` of one vector, or of a few (`use.vectors`), a dispatch for each part. */
export function vectorSteps(
  { device, pipelines, variant, epsilon }: Making,
  linear: Linear,
  use: MatvecUse,
  buffers: { x: GPUBuffer; y: GPUBuffer; norm?: GPUBuffer; greatest?: GPUBuffer },
  shape?: MatvecShape,
): Promise<Dispatch[]> {
  let before = 0; // workgroups of the parts before, whose greatest logits come first
  const parts = linear.parts.map(async (part) => {
    const { constants, workgroups } = matvec(part, linear.rows, variant, epsilon, use, shape, before);
    before += workgroups;
    const pipeline = await pipelines.get(use.vectors ? "matvec_batch" : "matvec", constants, linear.name.replace(/^layers\.\d+\./, ""));
    const { values, scales } = part;
    const group = bind(device, pipeline, 0, { 0: values, 1: scales, 2: buffers.x, 3: buffers.norm ?? null, 4: buffers.y, 5: buffers.greatest ?? null });
    return { pipeline, groups: [group], workgroups: [workgroups] as const };
  });
  return Promise.all(parts);
}

/** RMS norm of several vectors: the caller says how many, as workgroups. */
export async function normStep({ device, pipelines, variant, epsilon }: Making, columns: number, x: GPUBuffer, weights: GPUBuffer, y: GPUBuffer): Promise<Dispatch> {
  const pipeline = await pipelines.get("rms_norm", { ...reduction(variant, 1), COLUMNS: columns, EPSILON: epsilon });
  return { pipeline, groups: [bind(device, pipeline, 0, { 0: x, 1: weights, 2: y })], workgroups: [1] };
}

/** What a chunk's products share: int8 activations are made for each of them in the same place. */
export interface ChunkBuffers {
  state: GPUBuffer;
  x: GPUBuffer;
  y: GPUBuffer;
  words: GPUBuffer | null;
  blocks: GPUBuffer | null;
}

/** `y = linear x` of a chunk's vectors; the caller multiplies the workgroups by the chunk's tiles. */
export async function chunkSteps(making: Making, linear: Linear, residual: boolean, buffers: ChunkBuffers): Promise<Dispatch[]> {
  const { device, pipelines, variant } = making;
  const steps: Promise<Dispatch>[] = [];
  let order = 0; // of the bytes that lie in `words`
  for (const part of linear.parts) {
    const { constants, quantized } = part.layout;
    const bits = constants["BITS"] as number;
    const fused = { RESIDUAL: residual ? 1 : 0, HAS_BIAS: part.hasBias ? 1 : 0 };
    const int8 = variant.chunkInt8 && quantized;
    if (int8 && order !== Math.max(bits, 3)) {
      order = Math.max(bits, 3); // 2 and 3 bits have the same
      steps.push(quantizeStep(making, linear, order, buffers));
    }
    steps.push(
      (async () => {
        const pipeline = int8
          ? await pipelines.get("matmul_int8", { ...anyShape(part.layout), ...fused, TOKENS: variant.tokens }, `${bits}-bit matrix of an int8 chunk`)
          : await pipelines.get("matmul", { ...anyShape(part.layout), ...fused, TOKENS: variant.tokens, ELEMENT: variant.element }, `${bits}-bit matrix of a chunk`);
        const { state, x, y, words, blocks } = buffers;
        const group = bind(device, pipeline, 0, { 0: part.values, 1: part.scales, 2: state, 3: int8 ? words : x, 4: y, ...(int8 ? { 5: blocks } : {}) });
        return { pipeline, groups: [group], workgroups: [Math.ceil(part.rows / 64)] as const };
      })(),
    );
  }
  return Promise.all(steps);
}

async function quantizeStep({ device, pipelines }: Making, linear: Linear, order: number, { state, x, words, blocks }: ChunkBuffers): Promise<Dispatch> {
  const pipeline = await pipelines.get("quantize_chunk", { COLUMNS: linear.columns, ORDER: order });
  const group = bind(device, pipeline, 0, { 2: state, 3: x, 4: words, 5: blocks });
  return { pipeline, groups: [group], workgroups: [Math.ceil(int8Blocks(linear.columns) / 4)] as const };
}

/** Blocks of 32 int8 activations that a vector is padded to. */
export function int8Blocks(columns: number): number {
  return Math.ceil(columns / 64) * 2;
}
