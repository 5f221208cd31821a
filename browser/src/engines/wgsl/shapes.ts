// How a matrix-vector product is spread over the device where no search on its adapter says otherwise.

/** A workgroup's invocations, of which `lanes` share a row and have `rows` rows at a time. */
export interface MatvecShape {
  workgroup: number;
  lanes: number;
  rows: number;
}

/** What of a product decides its shape. */
export interface ProductTraits {
  /** Of the result; half of the matrix's where gate and up are one product. */
  rows: number;
  /** Values of the vector, padded to whole blocks. */
  padded: number;
  bits: number;
  int8: boolean;
  gated: boolean;
  merging: boolean;
  vectors: number;
}

/** And what of the adapter. */
export interface AdapterTraits {
  vendor: string;
  software: boolean;
  subgroups: boolean;
  lanes: number;
  mostInvocations: number;
}

export const WORKGROUP = 128;

type Kind = "long" | "gated" | "vocabulary" | "merging" | "other";
type Measured = Partial<Record<Kind, readonly [workgroup: number, lanes: number, rows: number]>>;

/**
 * Shapes that were the fastest on an adapter of the vendor and gained 3 % or more there; other products keep the usual shape. Measured on
 * one NVIDIA H200 with Chromium 153 at Qwen2 1.5B, 4 bits (benchmarks/results/language-model-nvidia-h200.jsonl), so they are taken for 4 bits.
 */
const MEASURED: readonly { vendor: string; bits: number; int8: boolean; shapes: Measured }[] = [
  { vendor: "nvidia", bits: 4, int8: false, shapes: { long: [256, 32, 2], gated: [256, 32, 1], vocabulary: [256, 32, 2], merging: [256, 32, 1] } },
  { vendor: "nvidia", bits: 4, int8: true, shapes: { long: [256, 32, 2], gated: [256, 32, 1], vocabulary: [256, 32, 4], merging: [256, 32, 1], other: [256, 32, 2] } },
];

function kindOf({ rows, padded, gated, merging }: ProductTraits): Kind {
  if (merging) return "merging";
  if (gated) return "gated";
  if (rows >= 65536) return "vocabulary";
  return padded > 4096 ? "long" : "other";
}

/** Rows that a team has at a time: more where there are enough rows to fill the device all the same. */
function rowsOfTeam(rows: number): number {
  return rows >= 16384 ? 4 : rows >= 4096 ? 2 : 1;
}

/**
 * Products that were faster with int8 activations than with float ones, each in its best shape there, by the same samples. What is not
 * named has float ones.
 */
const FASTER_IN_INT8: readonly { vendor: string; bits: number; kinds: readonly Kind[] }[] = [{ vendor: "nvidia", bits: 4, kinds: ["gated", "vocabulary"] }];

export function fasterInInt8(product: ProductTraits, { vendor, software, subgroups }: AdapterTraits): boolean {
  if (software || !subgroups) return false;
  return FASTER_IN_INT8.some((one) => one.vendor === vendor && one.bits === product.bits && one.kinds.includes(kindOf(product)));
}

export function defaultShape(product: ProductTraits, adapter: AdapterTraits): MatvecShape {
  const { rows, padded, bits, int8, gated, vectors } = product;
  const { vendor, software, subgroups, lanes: usualLanes, mostInvocations } = adapter;
  // Every row has a sum for each vector in registers.
  if (vectors) return { workgroup: WORKGROUP, lanes: usualLanes, rows: software ? 2 : Math.min(4, 2 * rowsOfTeam(rows)) };
  const measured = software ? undefined : MEASURED.find((one) => one.vendor === vendor && one.bits === bits && one.int8 === int8)?.shapes[kindOf(product)];
  if (measured) {
    const [workgroup, lanes, own] = measured;
    // They were measured with subgroups as wide as a row's lanes.
    if (subgroups && lanes === usualLanes && workgroup <= mostInvocations) return { workgroup, lanes, rows: own };
  }
  // A long vector is worth more rows a workgroup, as each workgroup brings it in.
  const workgroup = padded > 4096 && !software ? 2 * WORKGROUP : WORKGROUP;
  return { workgroup, lanes: usualLanes, rows: Math.min(gated ? 2 : 4, rowsOfTeam(rows)) };
}
