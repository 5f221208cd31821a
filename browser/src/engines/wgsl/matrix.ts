// Weight matrices on the device. A `Linear` is everything that is applied to one vector (queries, keys and values; gate and up), in
// parts: neighbouring matrices of one format go into one part and are one dispatch, and a part that a binding cannot hold is cut by rows.
import type { MatrixSpec } from "../../protocol";
import { toFloat32 } from "./floats";
import type { Memory } from "./memory";
import type { Constants } from "./shader";

const HEADER_WORDS = 16;
/** Where planes begin, from word 2 of the header on. */
const HEADER_BASES = ["BIAS_BASE", "SCALES_BASE", "ZEROS_BASE", "HIGH_BASE"];
/** Sizes that follow in the header, in this order from word 6 on. */
const HEADER_SIZES = ["COLUMNS", "PADDED", "GROUPS", "SCALE_WORDS", "ZERO_WORDS", "HIGH_WORDS", "ROW_VEC4S"];
/** Parts begin at a multiple of it, so that no workgroup has rows of two. */
const PART_ROWS = 256;

/** How a format's codes lie in a row, for the kernels. */
export interface Layout {
  constants: Constants;
  /** Bytes of a row of the codes as stored, and as uploaded (whole vec4s). */
  storedRow: number;
  row: number;
  highRow: number;
  storedHighRow: number;
  quantized: boolean;
}

export function layoutOf({ format, bits, group_size, columns }: MatrixSpec): Layout {
  const quantized = format === "quantized";
  const width = quantized ? bits : format === "float32" ? 32 : 16;
  const low = width === 3 ? 2 : width;
  const block = 128 / low; // values in a vec4 of codes
  const subBlock = quantized ? Math.min(32, block) : block;
  const rowBlocks = Math.ceil(columns / block);
  const padded = rowBlocks * block;
  const groups = quantized ? Math.ceil(columns / group_size) : 1;
  const storedColumns = quantized ? groups * group_size : columns;
  return {
    quantized,
    storedRow: (storedColumns * low) / 8,
    row: rowBlocks * 16,
    storedHighRow: width === 3 ? storedColumns / 8 : 0,
    highRow: width === 3 ? padded / 8 : 0,
    constants: {
      BITS: width,
      BRAIN: format === "bfloat16" ? 1 : 0,
      BLOCK: block,
      SUB_BLOCK: subBlock,
      SUBS: block / subBlock,
      SUB_QUADS: subBlock / 4,
      SUB_VEC4S: Math.ceil(subBlock / 16),
      LEVELS: 2 ** width,
      LARGEST_CODE: 2 ** Math.min(width, 8) - 1,
      GROUP_SIZE: quantized ? group_size : padded,
      GROUPS: groups,
      SCALE_WORDS: quantized ? Math.ceil(groups / 4) : 1,
      ZERO_WORDS: quantized ? Math.ceil(groups / 8) : 1,
      HIGH_WORDS: width === 3 ? padded / 32 : 1,
      ROW_VEC4S: rowBlocks,
      ROW_BLOCKS: rowBlocks,
      PADDED: padded,
      COLUMNS: columns,
    },
  };
}

/** The constants of a kernel that reads a matrix's sizes from its header: one pipeline for all matrices of a format. */
export function anyShape({ constants }: Layout): Constants {
  const sizes = [...HEADER_BASES, ...HEADER_SIZES, "ALL_ROWS"].map((size, index) => [size, `scales[${2 + index}u]`]);
  const { ROW_BLOCKS: _, ...rest } = constants;
  // The group's size decides which group a column is in; of float weights there is one group.
  return { ...rest, ...Object.fromEntries(sizes), ...((constants["BITS"] as number) > 8 ? { GROUP_SIZE: 1 } : {}) };
}

/** The same for a kernel that is made for one shape. */
export function oneShape({ layout, rows, biasAt, scalesAt, zerosAt }: Part): Constants {
  return { ...layout.constants, BIAS_BASE: biasAt, SCALES_BASE: scalesAt, ZEROS_BASE: zerosAt, HIGH_BASE: (rows * layout.row) / 4 };
}

export interface Part {
  layout: Layout;
  firstRow: number;
  rows: number;
  hasBias: boolean;
  values: GPUBuffer;
  scales: GPUBuffer;
  /** In words of `scales`. */
  biasAt: number;
  scalesAt: number;
  zerosAt: number;
}

interface Source {
  spec: MatrixSpec;
  firstRow: number;
}

export class Linear {
  readonly rows: number;
  readonly columns: number;
  readonly parts: Part[] = [];
  private readonly sources: Source[] = [];

  constructor(
    private readonly memory: Memory,
    readonly name: string,
    specs: readonly MatrixSpec[],
    use: string,
  ) {
    this.columns = specs[0]!.columns;
    let row = 0;
    for (const spec of specs) {
      this.sources.push({ spec, firstRow: row });
      row += spec.rows;
    }
    this.rows = row;
    for (let at = 0; at < specs.length; ) {
      let end = at + 1;
      while (end < specs.length && alike(specs[at]!, specs[end]!)) end++;
      const first = this.sources[at]!.firstRow;
      this.addParts(specs[at]!, first, (this.sources[end]?.firstRow ?? row) - first, specs.slice(at, end).some(({ bias }) => bias), use);
      at = end;
    }
  }

  private addParts(spec: MatrixSpec, firstRow: number, rows: number, hasBias: boolean, use: string): void {
    const layout = layoutOf(spec);
    const most = Math.floor(this.memory.largest / (layout.row + layout.highRow) / PART_ROWS) * PART_ROWS;
    if (most === 0) throw new Error(`A row of ${this.name} is too long for a binding of this adapter.`);
    const { SCALE_WORDS, ZERO_WORDS } = layout.constants as Record<string, number>;
    for (let done = 0; done < rows; done += most) {
      const count = Math.min(most, rows - done);
      const biasAt = HEADER_WORDS + (layout.quantized ? count : 0);
      const scalesAt = biasAt + (hasBias ? count : 0);
      const zerosAt = scalesAt + (layout.quantized ? count * SCALE_WORDS! : 0);
      const words = zerosAt + (layout.quantized ? count * ZERO_WORDS! : 0);
      const values = this.memory.storage(use, count * (layout.row + layout.highRow));
      const scales = this.memory.storage(`${use} scales`, words * 4);
      const sizes = HEADER_SIZES.map((size) => layout.constants[size] as number);
      const header = Uint32Array.of(count, firstRow + done, biasAt, scalesAt, zerosAt, (count * layout.row) / 4, ...sizes, this.rows);
      this.memory.device.queue.writeBuffer(scales, 0, header);
      this.parts.push({ layout, firstRow: firstRow + done, rows: count, hasBias, values, scales, biasAt, scalesAt, zerosAt });
    }
  }

  /** Puts one plane of a source matrix where it belongs. */
  write(matrix: string, plane: string, bytes: Uint8Array): void {
    const source = this.sources.find(({ spec }) => spec.name === matrix)!;
    for (const part of this.parts) {
      const first = Math.max(part.firstRow, source.firstRow);
      const end = Math.min(part.firstRow + part.rows, source.firstRow + source.spec.rows);
      if (first < end) this.writeRows(part, plane, bytes, source, first, end);
    }
  }

  private writeRows(part: Part, plane: string, bytes: Uint8Array, { spec, firstRow }: Source, first: number, end: number): void {
    const { layout, values, scales } = part;
    const from = first - firstRow; // in the source
    const to = first - part.firstRow; // in the part
    const count = end - first;
    const rows = (row: number, buffer: GPUBuffer, at: number, pitch: number) =>
      this.upload(buffer, at + to * pitch, repitched(bytes.subarray(from * row, (from + count) * row), row, pitch, count));
    const numbers = (at: number, dtype: string, size: number) =>
      this.upload(scales, 4 * (at + to), new Uint8Array(toFloat32(bytes.subarray(from * size, (from + count) * size), dtype).buffer));
    const { SCALE_WORDS, ZERO_WORDS } = layout.constants as Record<string, number>;
    if (plane === "codes" || plane === "values") rows(layout.storedRow, values, 0, layout.row);
    else if (plane === "codes_high") rows(layout.storedHighRow, values, part.rows * layout.row, layout.highRow);
    else if (plane === "scale_codes") rows(4 * SCALE_WORDS!, scales, 4 * part.scalesAt, 4 * SCALE_WORDS!);
    else if (plane === "zero_codes") rows(4 * ZERO_WORDS!, scales, 4 * part.zerosAt, 4 * ZERO_WORDS!);
    else if (plane === "row_scales") numbers(HEADER_WORDS, "float16", 2);
    else if (plane === "bias") numbers(part.biasAt, spec.bias_dtype, spec.bias_dtype === "float32" ? 4 : 2);
    else throw new Error(`${spec.name} has a plane '${plane}' that is not known here.`);
  }

  private upload(buffer: GPUBuffer, offset: number, bytes: Uint8Array): void {
    this.memory.device.queue.writeBuffer(buffer, offset, bytes as Uint8Array<ArrayBuffer>);
  }
}

/** Whether matrices can lie in one part. */
export function alike(a: MatrixSpec, b: MatrixSpec): boolean {
  return a.format === b.format && a.bits === b.bits && a.group_size === b.group_size && a.columns === b.columns;
}

function repitched(bytes: Uint8Array, row: number, pitch: number, rows: number): Uint8Array {
  if (row === pitch) return bytes;
  const out = new Uint8Array(rows * pitch);
  const length = Math.min(row, pitch);
  for (let at = 0; at < rows; at++) out.set(bytes.subarray(at * row, at * row + length), at * pitch);
  return out;
}
