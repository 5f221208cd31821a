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
  /** What a search on this adapter found for a matrix-vector product, by `matvecKey`. */
  tuned: (key: string) => MatvecShape | null;
}

/** How a matrix-vector product is spread: a workgroup's invocations, of which `lanes` share a row and have `rows` rows at a time. */
export interface MatvecShape {
  workgroup: number;
  lanes: number;
  rows: number;
}

export const WORKGROUP = 128;

export function chooseVariant(device: GPUDevice, adapterInfo: GPUAdapterInfo | null, software: boolean, spec: EngineSpec, adapter: string): Variant {
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
    tuned: (key) => {
      const [workgroup, lanes, rows] = SHAPE_NAMES.map((name) => spec.tuned[`${adapter}|${key} ${name}`]);
      return workgroup && lanes && rows ? { workgroup, lanes, rows } : null;
    },
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

export const SHAPE_NAMES = ["workgroup", "lanes", "rows"] as const;

/** Names a matrix-vector product among those whose best shape may differ. */
export function matvecKey({ layout, rows }: Part, { int8 }: Variant, { swiglu }: MatvecUse): string {
  const { COLUMNS, BITS } = layout.constants;
  return `matvec ${rows}x${COLUMNS} ${BITS} bits${int8 && layout.quantized ? " int8" : ""}${swiglu ? " swiglu" : ""}`;
}

function usualShape(part: Part, variant: Variant, { swiglu }: MatvecUse): MatvecShape {
  const rows = swiglu ? part.rows / 2 : part.rows;
  return { workgroup: WORKGROUP, lanes: variant.lanes, rows: Math.min(swiglu ? 2 : 4, rowsOfTeam(rows)) };
}

/** Constants of a matrix-vector product, and how many workgroups it takes. */
export function matvec(part: Part, variant: Variant, epsilon: number, use: MatvecUse, asked?: MatvecShape): { constants: Constants; workgroups: number } {
  const { constants, quantized } = part.layout;
  const { norm, residual, swiglu, greatest } = use;
  const shape = asked ?? variant.tuned(matvecKey(part, variant, use)) ?? usualShape(part, variant, use);
  const int8 = variant.int8 && quantized;
  return {
    workgroups: Math.ceil((swiglu ? part.rows / 2 : part.rows) / (shape.rows * (shape.workgroup / shape.lanes))),
    constants: {
      ...oneShape(part),
      ...reduction(variant, shape.rows * (swiglu ? 2 : 1)),
      WORKGROUP: shape.workgroup,
      LANES: shape.lanes,
      ROWS: shape.rows,
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
