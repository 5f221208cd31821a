// GPU buffers by use, so that the bytes of each use can be told, and a size that the device refuses is said with its numbers.
import { ClassifiedError } from "../../failure";

export class Memory {
  readonly bytesByUse: Record<string, number> = {};
  private readonly buffers: GPUBuffer[] = [];

  constructor(readonly device: GPUDevice) {}

  /** The most bytes that one binding may have. */
  get largest(): number {
    const { maxStorageBufferBindingSize, maxBufferSize } = this.device.limits;
    return Math.min(maxStorageBufferBindingSize, maxBufferSize);
  }

  /** A storage buffer of zeros; its size is rounded up to 16 bytes. */
  storage(use: string, bytes: number): GPUBuffer {
    const { STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
    const size = Math.max(16, Math.ceil(bytes / 16) * 16);
    if (size > this.largest)
      throw new ClassifiedError("unsupported", `${use} needs a buffer of ${size} bytes and this adapter allows ${this.largest}: choose a smaller context, chunk or width.`);
    return this.add(use, this.device.createBuffer({ label: use, size, usage: STORAGE | COPY_SRC | COPY_DST }));
  }

  uniform(values: Uint32Array<ArrayBuffer>): GPUBuffer {
    const buffer = this.device.createBuffer({ label: "uniforms", size: values.byteLength, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
    this.device.queue.writeBuffer(buffer, 0, values);
    return this.add("uniforms", buffer);
  }

  readback(bytes: number): GPUBuffer {
    return this.add("readback", this.device.createBuffer({ label: "readback", size: bytes, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST }));
  }

  private add(use: string, buffer: GPUBuffer): GPUBuffer {
    this.bytesByUse[use] = (this.bytesByUse[use] ?? 0) + buffer.size;
    this.buffers.push(buffer);
    return buffer;
  }

  destroy(): void {
    this.buffers.splice(0).forEach((buffer) => buffer.destroy());
  }
}

/** Bytes of a buffer, read back through one that is made for it. */
export async function read(device: GPUDevice, buffer: GPUBuffer, bytes: number, offset = 0): Promise<ArrayBuffer> {
  const staging = device.createBuffer({ size: Math.ceil(bytes / 4) * 4, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, offset, staging, 0, staging.size);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const copy = staging.getMappedRange().slice(0, bytes);
  staging.destroy();
  return copy;
}
