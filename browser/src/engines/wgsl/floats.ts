// Numbers of a model's files as float32.
import type { Data } from "../../frames";

export function toFloat32(bytes: Uint8Array, dtype: string): Float32Array<ArrayBuffer> {
  const copy = bytes.slice().buffer; // aligned, whatever the offset in the file
  if (dtype === "float32") return new Float32Array(copy);
  const halves = new Uint16Array(copy);
  if (dtype === "bfloat16") return new Float32Array(Uint32Array.from(halves, (half) => half << 16).buffer);
  if (dtype === "float16") return Float32Array.from(halves, half16);
  throw new Error(`Numbers of type ${dtype} are not known here.`);
}

/** The value of a float16 by its bits; browsers without Float16Array have no other way. */
export function half16(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const size = exponent === 0 ? fraction * 2 ** -24 : exponent === 31 ? (fraction ? NaN : Infinity) : (1 + fraction / 1024) * 2 ** (exponent - 15);
  return bits & 0x8000 ? -size : size;
}

export function float32Tensor(data: Float32Array<ArrayBuffer>, shape: readonly number[]) {
  return { dtype: "float32" as const, shape, data: data as unknown as Data };
}
