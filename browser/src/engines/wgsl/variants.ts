// Which variants of the kernels an adapter gets, and the constants that follow from its features.
import type { EngineSpec } from "../../protocol";
import { ClassifiedError } from "../../failure";
import { oneShape, type Part } from "./matrix";
import type { Constants } from "./shader";
import { defaultShape, fasterInInt8, WORKGROUP, type MatvecShape, type ProductTraits } from "./shapes";

export { WORKGROUP, type MatvecShape } from "./shapes";

export interface Variant {
  subgroups: boolean;
  /** Of single tokens; `planned` chooses for each product. */
  activations: "float" | "int8" | "planned";
  /** Whether prompts multiply quantised weights with int8 activations. */
  chunkInt8: boolean;
  /** Of the tiles of matrix-matrix products. */
  element: "f32" | "f16";
  software: boolean;
  /** Invocations that share a row of a matrix-vector product: no fewer than a subgroup has. */
  lanes: number;
  /** The size of every subgroup, 0 where sizes differ or are not known. */
  subgroupSize: number;
  /** Of the adapter, as the browser says it; empty where it does not. */
  vendor: string;
  /** Invocations that a workgroup may have. */
  mostInvocations: number;
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
  /** Bits of a product's activations that a search found, by `widthKey`. */
  tunedWidth: (key: string) => number | null;
  /** Whether gate and up leave int8 activations for down, where its codes allow it. */
  packedDown: boolean;
}

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
  const int8 = spec.activations !== "float";
  const chunkInt8 = spec.prefill_arithmetic === "int8";
  if (spec.packed_down && !int8) throw new ClassifiedError("unsupported", "Float activations are not packed: take int8 or planned ones with packed_down.");
  if ((int8 || chunkInt8) && !navigator.gpu.wgslLanguageFeatures.has("packed_4x8_integer_dot_product"))
    throw new ClassifiedError("unsupported", "This browser's WGSL has no packed_4x8_integer_dot_product, which int8 activations need: use float.");
  if (int8 && spec.batch > 1) throw new ClassifiedError("unsupported", "Several sequences at a time have float activations: load the model with them, or for one sequence.");
  const half = spec.prefill_arithmetic === "float16";
  if (half && !device.features.has("shader-f16"))
    throw new ClassifiedError("unsupported", "This adapter lacks shader-f16, which float16 arithmetic needs: use float32.");
  return {
    subgroups,
    activations: spec.activations,
    packedDown: spec.packed_down,
    chunkInt8,
    element: half ? "f16" : "f32",
    software,
    lanes: subgroups ? Math.max(32, largest) : 32,
    subgroupSize: smallest === largest ? smallest : 0,
    vendor: adapterInfo?.vendor ?? "",
    mostInvocations: device.limits.maxComputeInvocationsPerWorkgroup,
    workgroupBytes: device.limits.maxComputeWorkgroupStorageSize,
    invocations: INVOCATIONS,
    tokens: software && !chunkInt8 ? 1 : 4,
    attentionWorkgroups: spec.attention_workgroups || (software ? 16 : 256),
    tuned: (key) => {
      const [workgroup, lanes, rows] = SHAPE_NAMES.map((name) => spec.tuned[`${adapter}|${key} ${name}`]);
      return workgroup && lanes && rows ? { workgroup, lanes, rows } : null;
    },
    tunedWidth: (key) => spec.tuned[`${adapter}|${key} activations`] ?? null,
  };
}

/** Constants of `reduce`. */
export function reduction({ subgroups }: Variant, sums: number): Constants {
  return { SUBGROUPS: subgroups ? 1 : 0, WORKGROUP, SUMS: sums };
}

export interface MatvecUse {
  norm?: boolean;
  residual?: boolean;
  swiglu?: boolean;
  greatest?: boolean;
  /** So many vectors at once, with float activations and nothing but bias and residual fused. */
  vectors?: number;
  /** Its activations, whatever the variant says: what a search compares. */
  width?: 8 | 32;
  /** int8 activations that gate and up leave, in the order of codes of so many bits, and that down takes. */
  packedOut?: number;
  packedIn?: boolean;
  /** The vector is what an attention that was split left in parts. */
  merge?: { heads: number; headSize: number };
}

export const SHAPE_NAMES = ["workgroup", "lanes", "rows"] as const;

/** Names a matrix-vector product among those whose best shape may differ. */
export function matvecKey(part: Part, variant: Variant, use: MatvecUse): string {
  return productKey(part, use, int8Of(part, variant, use));
}

/** The same whatever its activations are. */
export function widthKey(part: Part, use: MatvecUse): string {
  return productKey(part, use, false);
}

function productKey({ layout, rows }: Part, { swiglu, merge, vectors, packedOut, packedIn }: MatvecUse, int8: boolean): string {
  const { COLUMNS, BITS } = layout.constants;
  const uses = [int8 && "int8", swiglu && "swiglu", merge && "merging", vectors && `of ${vectors} vectors`, packedOut && "packing", packedIn && "packed"];
  return [`matvec ${rows}x${COLUMNS} ${BITS} bits`, ...uses.filter(Boolean)].join(" ");
}

/** Whether a product's activations are rounded to int8. */
export function int8Of(part: Part, variant: Variant, use: MatvecUse): boolean {
  if (!part.layout.quantized || use.vectors) return false;
  if (use.packedIn) return true;
  if (use.width) return use.width === 8;
  if (variant.activations !== "planned") return variant.activations === "int8";
  const found = variant.tunedWidth(widthKey(part, use));
  return found === null ? fasterInInt8(traits(part, true, use), variant) : found === 8;
}

/** Whether a shape has whole tiles within the 32 rows that a workgroup packs, where it packs. */
export function packs({ workgroup, lanes, rows }: MatvecShape, { packedOut }: MatvecUse): boolean {
  return !packedOut || 32 % (rows * (workgroup / lanes)) === 0;
}

/** Whether down can take activations that gate and up packed: sub-blocks of 32 values, and one order of bytes. */
export function takesPacked(part: Part): boolean {
  return part.layout.quantized && [2, 4].includes(part.layout.constants["BITS"] as number);
}

function traits(part: Part, int8: boolean, { swiglu = false, merge, vectors = 0 }: MatvecUse): ProductTraits {
  const { PADDED, BITS } = part.layout.constants as Record<string, number>;
  return { rows: swiglu ? part.rows / 2 : part.rows, padded: PADDED!, bits: BITS!, int8, gated: swiglu, merging: merge !== undefined, vectors };
}

/** What a search found on this adapter, or the default of its kind. */
export function shapeOf(part: Part, variant: Variant, use: MatvecUse): MatvecShape {
  const found = variant.tuned(matvecKey(part, variant, use));
  if (found) return found;
  const { workgroup, lanes, rows } = defaultShape(traits(part, int8Of(part, variant, use), use), variant);
  // A workgroup that packs has whole tiles within 32 rows.
  return { workgroup, lanes, rows: use.packedOut ? Math.min(rows, 32 / (workgroup / lanes)) : rows };
}

/** Bytes of workgroup memory that `values` of the vector take, as kernels/matvec_*.wgsl declare them. */
function stagedBytes(values: number, constants: Constants, int8: boolean): number {
  const { BLOCK, SUB_BLOCK, SUBS, BITS } = constants as Record<string, number>;
  const words = SUB_BLOCK! / 4;
  if (int8) return (values / BLOCK!) * (SUBS! * words * (BITS === 3 ? 2 : 1) + 4) * 4 + (values / SUB_BLOCK!) * 8 + values * 4;
  return (values / BLOCK!) * (BLOCK! / 4 + (BLOCK === 4 ? 0 : 1)) * 16 + (values / SUB_BLOCK!) * 4;
}

/** Constants of a matrix-vector product, and how many workgroups it takes. `allRows` has the matrix that the part is of. `greatestAt`: where its workgroups' greatest logits begin. */
export function matvec(part: Part, allRows: number, variant: Variant, epsilon: number, use: MatvecUse, asked?: MatvecShape, greatestAt = 0): { constants: Constants; workgroups: number } {
  const { constants } = part.layout;
  const { norm, residual, swiglu, greatest, merge, vectors, packedOut, packedIn } = use;
  const { workgroup, lanes, rows } = asked ?? shapeOf(part, variant, use);
  if (vectors) {
    const shape = { WORKGROUP: workgroup, LANES: lanes, ROWS: rows, VECTORS: vectors };
    const sizes = { MATRIX_ROWS: part.rows, ALL_ROWS: allRows, QUADS_OF_X: (constants["COLUMNS"] as number) % 4 === 0 ? 1 : 0 };
    const fused = { RESIDUAL: residual ? 1 : 0, HAS_BIAS: part.hasBias ? 1 : 0 };
    return { workgroups: Math.ceil(part.rows / (rows * (workgroup / lanes))), constants: { ...oneShape(part), ...reduction(variant, vectors), ...shape, ...sizes, ...fused } };
  }
  const int8 = int8Of(part, variant, use);
  if (!packs({ workgroup, lanes, rows }, use)) throw new ClassifiedError("unsupported", `Workgroups of ${workgroup} invocations with ${rows} rows for each ${lanes} do not pack blocks of 32 rows.`);
  const padded = constants["PADDED"] as number;
  const columns = constants["COLUMNS"] as number;
  const block = constants["BLOCK"] as number;
  const streams = swiglu ? 2 : 1;
  // Beside the vector lie the partial sums, the greatest logits, and the parts' shares of an attention, each begun at 16 bytes.
  const room = variant.workgroupBytes - 96 - (4 * rows * streams * workgroup) / (variant.subgroups ? 4 : 1) - 8 * (workgroup / lanes) - (merge ? 4 * merge.heads * MOST_MERGED : 0);
  const blocks = padded / block;
  const most = Math.max(1, Math.floor(room / stagedBytes(block, constants, int8))); // blocks at a time
  const whole = packedIn === true || blocks <= most;
  const tile = packedIn ? padded : Math.ceil(blocks / Math.ceil(blocks / most)) * block;
  const tiles = Math.ceil(part.rows / streams / (rows * (workgroup / lanes)));
  // Workgroups that bring the vector in once go through several tiles of rows, all as many.
  const each = packedOut ? 32 / (rows * (workgroup / lanes)) : whole ? Math.ceil(tiles / Math.ceil(variant.invocations / workgroup)) : 1;
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
      OWN: whole && !merge && !packedIn && own <= MOST_OWN ? own : 0,
      QUADS_OF_X: columns % 4 === 0 ? 1 : 0,
      ONE_SUBGROUP: variant.subgroups && variant.subgroupSize === lanes ? 1 : 0,
      ...(merge ? { MERGE: 1, HEADS: merge.heads, HEAD_SIZE: merge.headSize, MOST_MERGED } : {}),
      EPSILON: epsilon,
      ...(packedOut ? { PACKED_OUT: 1, PACKED_ORDER: packedOut } : {}),
      ...(packedIn ? { PACKED_IN: 1 } : {}),
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
