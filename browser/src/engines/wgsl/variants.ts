// Which variants of the kernels an adapter gets, and the constants that follow from its features.
import type { EngineSpec } from "../../protocol";
import { ClassifiedError } from "../../failure";
import { oneShape, type Part } from "./matrix";
import type { Constants } from "./shader";

export interface Variant {
  subgroups: boolean;
  int8: boolean;
  /** Of the tiles of matrix-matrix products. */
  element: "f32" | "f16";
  software: boolean;
  /** Invocations that share a row of a matrix-vector product: no fewer than a subgroup has. */
  lanes: number;
  /** Tokens a workgroup's invocation has in a matrix-matrix product. */
  tokens: number;
  /** How many workgroups a token's attention is split into, where the context is long enough. */
  attentionWorkgroups: number;
}

export const WORKGROUP = 128;

export function chooseVariant(device: GPUDevice, adapterInfo: GPUAdapterInfo | null, software: boolean, spec: EngineSpec): Variant {
  const info = adapterInfo as { subgroupMinSize?: number; subgroupMaxSize?: number } | null;
  const largest = info?.subgroupMaxSize ?? 0;
  const smallest = info?.subgroupMinSize ?? 0;
  // Sums over subgroups need sizes that are known, and at most a workgroup / 4 of them.
  const fits = smallest >= 4 && largest <= WORKGROUP && WORKGROUP % Math.max(largest, 1) === 0;
  const subgroups = spec.subgroups !== false && device.features.has("subgroups" as GPUFeatureName) && fits;
  if (spec.subgroups === true && !subgroups) throw new ClassifiedError("unsupported", "This adapter has no subgroups of a known size between 4 and 128.");
  const int8 = spec.activations === "int8";
  if (int8 && !navigator.gpu.wgslLanguageFeatures.has("packed_4x8_integer_dot_product"))
    throw new ClassifiedError("unsupported", "This browser's WGSL has no packed_4x8_integer_dot_product, which int8 activations need: use float.");
  const half = spec.prefill_arithmetic === "float16";
  if (half && !device.features.has("shader-f16"))
    throw new ClassifiedError("unsupported", "This adapter lacks shader-f16, which float16 arithmetic needs: use float32.");
  return {
    subgroups,
    int8,
    element: half ? "f16" : "f32",
    software,
    lanes: subgroups ? Math.max(32, largest) : 32,
    tokens: software ? 1 : 4,
    attentionWorkgroups: spec.attention_workgroups || (software ? 16 : 256),
  };
}

/** Constants of `reduce`. */
export function reduction({ subgroups }: Variant, sums: number): Constants {
  return { SUBGROUPS: subgroups ? 1 : 0, WORKGROUP, SUMS: sums };
}

/** Rows that a team has at a time: more where there are enough rows to fill the device all the same. */
function rowsOfTeam(rows: number): number {
  return rows >= 16384 ? 4 : rows >= 4096 ? 2 : 1;
}

export interface MatvecUse {
  norm?: boolean;
  residual?: boolean;
  swiglu?: boolean;
  greatest?: boolean;
}

/** Constants of a matrix-vector product, and how many workgroups it takes. */
export function matvec(part: Part, variant: Variant, epsilon: number, { norm, residual, swiglu, greatest }: MatvecUse): { constants: Constants; workgroups: number } {
  const { constants, quantized } = part.layout;
  const rows = swiglu ? part.rows / 2 : part.rows;
  const perTeam = Math.min(swiglu ? 2 : 4, rowsOfTeam(rows));
  const int8 = variant.int8 && quantized;
  return {
    workgroups: Math.ceil(rows / (perTeam * (WORKGROUP / variant.lanes))),
    constants: {
      ...oneShape(part),
      ...reduction(variant, perTeam * (swiglu ? 2 : 1)),
      LANES: variant.lanes,
      ROWS: perTeam,
      STREAMS: swiglu ? 2 : 1,
      // What of the vector lies in workgroup memory at a time: about 10 KiB.
      TILE: Math.min(2048, constants["PADDED"] as number),
      EPSILON: epsilon,
      INT8: int8 ? 1 : 0,
      NORM: norm ? 1 : 0,
      RESIDUAL: residual ? 1 : 0,
      SWIGLU: swiglu ? 1 : 0,
      GREATEST: greatest ? 1 : 0,
      HAS_BIAS: part.hasBias ? 1 : 0,
    },
  };
}
