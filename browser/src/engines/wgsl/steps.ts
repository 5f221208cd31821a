// Dispatches that are made once and encoded many times.
import { anyShape, type Linear } from "./matrix";
import { bind, type Pipelines } from "./pipelines";
import { matvec, type MatvecShape, type MatvecUse, type Variant } from "./variants";

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

/** `y = linear x` of one vector, a dispatch for each part. */
export function vectorSteps(
  { device, pipelines, variant, epsilon }: Making,
  linear: Linear,
  use: MatvecUse,
  buffers: { x: GPUBuffer; y: GPUBuffer; norm?: GPUBuffer; greatest?: GPUBuffer },
  shape?: MatvecShape,
): Promise<Dispatch[]> {
  let before = 0; // workgroups of the parts before, whose greatest logits come first
  const parts = linear.parts.map(async (part) => {
    const { constants, workgroups } = matvec(part, variant, epsilon, use, shape, before);
    before += workgroups;
    const pipeline = await pipelines.get("matvec", constants, linear.name.replace(/^layers\.\d+\./, ""));
    const { values, scales } = part;
    const group = bind(device, pipeline, 0, { 0: values, 1: scales, 2: buffers.x, 3: buffers.norm ?? null, 4: buffers.y, 5: buffers.greatest ?? null });
    return { pipeline, groups: [group], workgroups: [workgroups] as const };
  });
  return Promise.all(parts);
}

/** `y = linear x` of a chunk's vectors; the caller multiplies the workgroups by the chunk's tiles. */
export function chunkSteps(
  { device, pipelines, variant }: Making,
  linear: Linear,
  residual: boolean,
  buffers: { state: GPUBuffer; x: GPUBuffer; y: GPUBuffer },
): Promise<Dispatch[]> {
  const parts = linear.parts.map(async (part) => {
    const constants = {
      ...anyShape(part.layout),
      TOKENS: variant.tokens,
      ELEMENT: variant.element,
      RESIDUAL: residual ? 1 : 0,
      HAS_BIAS: part.hasBias ? 1 : 0,
    };
    const pipeline = await pipelines.get("matmul", constants, `${part.layout.constants["BITS"]}-bit matrix of a chunk`);
    const group = bind(device, pipeline, 0, { 0: part.values, 1: part.scales, 2: buffers.state, 3: buffers.x, 4: buffers.y });
    return { pipeline, groups: [group], workgroups: [Math.ceil(part.rows / 64)] as const };
  });
  return Promise.all(parts);
}
