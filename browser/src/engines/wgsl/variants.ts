// Which variants of the kernels an adapter gets, and the constants that follow from its features.
import type { EngineSpec } from "../../protocol";
import { ClassifiedError } from "../../failure";
import { oneShape, type Part } from "./matrix";
import type { Constants } from "./shader";

export interface Variant {
  subgroups: boolean;
  int8: boolean;
  /** Whether prompts multiply quantised weights with int8 activations. */
  chunkInt8: boolean;
  /** Of the tiles of matrix-matrix products. */
  element: "f32" | "f16";
  software: boolean;
  /** Invocations that share a row of a matrix-vector product: no fewer than a subgroup has. */
  lanes: number;
  /** The size of every subgroup, 0 where sizes differ or are not known. */
  subgroupSize: number;
  /** Bytes of workgroup memory. */
  workgroupBytes: number;
  /** Invocations of a dispatch whose workgroups go through several tiles. */
  invocations: number;
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
/** Parts of an attention that the next product brings together by itself; more go through a kernel of their own. */
export const MOST_MERGED = 8;
/** Quads of the vector that an invocation keeps in registers while the sum of squares is made. */
const MOST_OWN = 16;
/** Invocations that keep a large GPU busy; a software adapter has a few threads. */
const INVOCATIONS = 1 << 17;

export function chooseVariant(device: GPUDevice, adapterInfo: GPUAdapterInfo | null, software: boolean, spec: EngineSpec, adapter: string): Variant {
  const info = adapterInfo as { subgroupMinSize?: number; subgroupMaxSize?: number } | null;
  const largest = info?.subgroupMaxSize ?? 0;
  const smallest = info?.subgroupMinSize ?? 0;
  // Sums over subgroups need sizes that are known, and at most a workgroup / 4 of them.
  const fits = smallest >= 4 && largest <= WORKGROUP && WORKGROUP % Math.max(largest, 1) === 0;
  const subgroups = spec.subgroups !== false && device.features.has("subgroups" as GPUFeatureName) && fits;
  if (spec.subgroups === true && !subgroups) throw new ClassifiedError("unsupported", "This adapter has no subgroups of a known size between 4 and 128.");
  const int8 = spec.activations === "int8";
  const chunkInt8 = spec.prefill_arithmetic === "int8";
  if ((int8 || chunkInt8) && !navigator.gpu.wgslLanguageFeatures.has("packed_4x8_integer_dot_product"))
    throw new ClassifiedError("unsupported", "This browser's WGSL has no packed_4x8_integer_dot_product, which int8 activations need: use float.");
  const half = spec.prefill_arithmetic === "float16";
  if (half && !device.features.has("shader-f16"))
    throw new ClassifiedError("unsupported", "This adapter lacks shader-f16, which float16 arithmetic needs: use float32.");
  return {
    subgroups,
    int8,
    chunkInt8,
    element: half ? "f16" : "f32",
    software,
    lanes: subgroups ? Math.max(32, largest) : 32,
    subgroupSize: smallest === largest ? smallest : 0,
    workgroupBytes: device.limits.maxComputeWorkgroupStorageSize,
    invocations: INVOCATIONS,
    tokens: software && !chunkInt8 ? 1 : 4,
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
  /** The vector is what an attention that was split left in parts. */
  merge?: { heads: number; headSize: number };
}

export const SHAPE_NAMES = ["workgroup", "lanes", "rows"] as const;

/** Names a matrix-vector product among those whose best shape may differ. */
export function matvecKey({ layout, rows }: Part, { int8 }: Variant, { swiglu, merge }: MatvecUse): string {
  const { COLUMNS, BITS } = layout.constants;
  return `matvec ${rows}x${COLUMNS} ${BITS} bits${int8 && layout.quantized ? " int8" : ""}${swiglu ? " swiglu" : ""}${merge ? " merging" : ""}`;
}

function usualShape(part: Part, variant: Variant, { swiglu }: MatvecUse): MatvecShape {
  const rows = swiglu ? part.rows / 2 : part.rows;
  // A long vector is worth more rows a workgroup, as each workgroup brings it in.
  const workgroup = (part.layout.constants["PADDED"] as number) > 4096 && !variant.software ? 2 * WORKGROUP : WORKGROUP;
  return { workgroup, lanes: variant.lanes, rows: Math.min(swiglu ? 2 : 4, rowsOfTeam(rows)) };
}

/** Bytes of workgroup memory that `values` of the vector take, as kernels/matvec_*.wgsl declare them. */
function stagedBytes(values: number, constants: Constants, int8: boolean): number {
  const { BLOCK, SUB_BLOCK, SUBS, BITS } = constants as Record<string, number>;
  const words = SUB_BLOCK! / 4;
  if (int8) return (values / BLOCK!) * (SUBS! * words * (BITS === 3 ? 2 : 1) + 4) * 4 + (values / SUB_BLOCK!) * 8 + values * 4;
  return (values / BLOCK!) * (BLOCK! / 4 + (BLOCK === 4 ? 0 : 1)) * 16 + (values / SUB_BLOCK!) * 4;
}

/** Constants of a matrix-vector product, and how many workgroups it takes. `greatestAt`: where its workgroups' greatest logits begin. */
export function matvec(part: Part, variant: Variant, epsilon: number, use: MatvecUse, asked?: MatvecShape, greatestAt = 0): { constants: Constants; workgroups: number } {
  const { constants, quantized } = part.layout;
  const { norm, residual, swiglu, greatest, merge } = use;
  const { workgroup, lanes, rows } = asked ?? variant.tuned(matvecKey(part, variant, use)) ?? usualShape(part, variant, use);
  const int8 = variant.int8 && quantized;
  const padded = constants["PADDED"] as number;
  const columns = constants["COLUMNS"] as number;
  const block = constants["BLOCK"] as number;
  const streams = swiglu ? 2 : 1;
  // Beside the vector lie the partial sums, the greatest logits, and the parts' shares of an attention, each begun at 16 bytes.
  const room = variant.workgroupBytes - 96 - (4 * rows * streams * workgroup) / (variant.subgroups ? 4 : 1) - 8 * (workgroup / lanes) - (merge ? 4 * merge.heads * MOST_MERGED : 0);
  const blocks = padded / block;
  const most = Math.max(1, Math.floor(room / stagedBytes(block, constants, int8))); // blocks at a time
  const whole = blocks <= most;
  const tile = Math.ceil(blocks / Math.ceil(blocks / most)) * block;
  const tiles = Math.ceil(part.rows / streams / (rows * (workgroup / lanes)));
  // Workgroups that bring the vector in once go through several tiles of rows, all as many.
  const each = whole ? Math.ceil(tiles / Math.ceil(variant.invocations / workgroup)) : 1;
  const own = Math.ceil(padded / 4 / workgroup);
  return {
    workgroups: Math.ceil(tiles / each),
    constants: {
      ...oneShape(part),
      ...reduction(variant, rows * streams),
      WORKGROUP: workgroup,
      LANES: lanes,
      ROWS: rows,
      STREAMS: streams,
      MATRIX_ROWS: part.rows,
      TILE: tile,
      WHOLE: whole ? 1 : 0,
      OWN: whole && !merge && own <= MOST_OWN ? own : 0,
      QUADS_OF_X: columns % 4 === 0 ? 1 : 0,
      ONE_SUBGROUP: variant.subgroups && variant.subgroupSize === lanes ? 1 : 0,
      ...(merge ? { MERGE: 1, HEADS: merge.heads, HEAD_SIZE: merge.headSize, MOST_MERGED } : {}),
      EPSILON: epsilon,
      INT8: int8 ? 1 : 0,
      ORDER: constants["BITS"] as number,
      NORM: norm ? 1 : 0,
      RESIDUAL: residual ? 1 : 0,
      SWIGLU: swiglu ? 1 : 0,
      GREATEST: greatest ? 1 : 0,
      GREATEST_AT: greatestAt,
      HAS_BIAS: part.hasBias ? 1 : 0,
    },
  };
}
