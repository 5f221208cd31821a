// GPU buffers by use, so that the bytes of each use can be told, and a size that the device refuses is said with its numbers.
import { nowNs } from "../../clock";
import { mapForReading, type Readback } from "../../wake";
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
export async function read(device: GPUDevice, buffer: GPUBuffer, bytes: number, offset = 0, readback: Readback = "plain"): Promise<ArrayBuffer> {
  const staging = device.createBuffer({ size: Math.ceil(bytes / 4) * 4, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, offset, staging, 0, staging.size);
  device.queue.submit([encoder.finish()]);
  await mapForReading(device, staging, readback);
  const copy = staging.getMappedRange().slice(0, bytes);
  staging.destroy();
  return copy;
}

/** Nanoseconds from a submit of so many copies of a buffer to its end. Buffers are made, and touched once, before. */
export async function timeCopies({ device }: Memory, bytes: number, repeats: number): Promise<number> {
  const [source, target] = [0, 1].map(() => device.createBuffer({ size: bytes, usage: GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST }));
  const submit = async (count: number) => {
    const encoder = device.createCommandEncoder();
    for (let time = 0; time < count; time++) encoder.copyBufferToBuffer(source!, 0, target!, 0, bytes);
    const start = nowNs();
    device.queue.submit([encoder.finish()]);
    await read(device, target!, 4, bytes - 4); // a readback ends sooner than onSubmittedWorkDone in some browsers, and is what a token waits for
    return nowNs() - start;
  };
  await submit(1);
  const ns = await submit(repeats);
  source!.destroy();
  target!.destroy();
  return ns;
}
