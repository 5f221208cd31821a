// Frames of the bridge: see web/protocol.py for the format.
import { ALIGNMENT, SHARED_BYTES, type DataType, type Reply, type Request, type TensorHeader } from "./protocol";
import { load, store } from "./shared_files";

export type Data = ArrayBufferView<ArrayBuffer> & ArrayLike<number | bigint>;

/** A tensor in the page's memory, row-major. */
export interface HostTensor {
  dtype: DataType;
  shape: readonly number[];
  data: Data;
  /** Where the values are instead of in `data`: a buffer of the runtime's device. */
  gpu?: GPUBuffer;
}
export type HostTensors = Record<string, HostTensor>;

type Constructor = new (buffer: ArrayBuffer, offset?: number, length?: number) => Data;
const half = (globalThis as unknown as { Float16Array?: Constructor }).Float16Array ?? Uint16Array;
const constructors: Record<DataType, { create: Constructor; size: number }> = {
  float32: { create: Float32Array, size: 4 },
  float16: { create: half as Constructor, size: 2 },
  int64: { create: BigInt64Array as unknown as Constructor, size: 8 },
  int32: { create: Int32Array, size: 4 },
  uint8: { create: Uint8Array, size: 1 },
  int8: { create: Int8Array, size: 1 },
  bool: { create: Uint8Array, size: 1 },
};

export function elementBytes(dtype: DataType): number {
  return constructors[dtype].size;
}

/** Elements of a tensor of this shape. */
export function elements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

export function zeros(dtype: DataType, shape: readonly number[]): HostTensor {
  const { create, size } = constructors[dtype];
  return { dtype, shape, data: new create(new ArrayBuffer(elements(shape) * size)) };
}

/** Bytes as a tensor, without a copy. */
export function view(dtype: DataType, shape: readonly number[], bytes: ArrayBuffer): HostTensor {
  return { dtype, shape, data: new constructors[dtype].create(bytes) };
}

type Headed = Request & { tensors?: readonly TensorHeader[]; stored_at?: number };

/** The message, and what gives its tensors: views into the frame, or into what the shared file has of them; throws where it has not. */
export function decode(frame: string | ArrayBuffer): { request: Request; tensors: () => HostTensors } {
  if (typeof frame !== "string") {
    const length = new DataView(frame).getUint32(0, true);
    const { tensors: headers = [], ...request } = JSON.parse(new TextDecoder().decode(new Uint8Array(frame, 4, length))) as Headed;
    return { request: request as Request, tensors: () => views(headers, frame, 4 + length) };
  }
  const { tensors: headers, stored_at, ...request } = JSON.parse(frame) as Headed;
  if (!headers || stored_at === undefined) return { request: request as Request, tensors: () => ({}) };
  return { request: request as Request, tensors: () => loaded(headers, stored_at) };
}

function loaded(headers: readonly TensorHeader[], at: number): HostTensors {
  const end = (of: readonly TensorHeader[]) => Math.max(0, ...of.map((header) => header.offset + header.bytes));
  const buffer = new ArrayBuffer(end(headers)); // of an empty tensor the place may be behind the last byte that was stored
  load(at, new Uint8Array(buffer, 0, end(headers.filter(({ bytes }) => bytes > 0))));
  return views(headers, buffer, 0);
}

function views(headers: readonly TensorHeader[], buffer: ArrayBuffer, start: number): HostTensors {
  const tensors: HostTensors = {};
  for (const { name, dtype, shape, offset, bytes } of headers) {
    const { create, size } = constructors[dtype as DataType];
    tensors[name] = { dtype: dtype as DataType, shape, data: new create(buffer, start + offset, bytes / size) };
  }
  return tensors;
}

export function encode(reply: Reply, tensors: HostTensors = {}): string | ArrayBuffer {
  const headers: TensorHeader[] = [];
  let offset = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    headers.push({ name, dtype, shape, offset, bytes: data.byteLength });
    offset += Math.ceil(data.byteLength / ALIGNMENT) * ALIGNMENT;
  }
  if (headers.length === 0) return JSON.stringify(reply);
  if (offset >= SHARED_BYTES) {
    const stored_at = store(offset, headers.map(({ name, offset }) => ({ offset, data: tensors[name]!.data })));
    if (stored_at !== null) return JSON.stringify({ ...reply, tensors: headers, stored_at });
  }
  let json = new TextEncoder().encode(JSON.stringify({ ...reply, tensors: headers }));
  const padded = Math.ceil((4 + json.length) / ALIGNMENT) * ALIGNMENT - 4;
  const frame = new Uint8Array(4 + padded + offset).fill(0x20, 4, 4 + padded);
  new DataView(frame.buffer).setUint32(0, padded, true);
  frame.set(json, 4);
  for (const { name, offset: at } of headers) {
    const { data } = tensors[name]!;
    frame.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 4 + padded + at);
  }
  return frame.buffer;
}
