// One kernel on tensors of the caller: how tests compare each variant with its reference.
import { openGpu } from "../../devices";
import type { Data, HostTensors } from "../../frames";
import type { RunKernel } from "../../protocol";
import { read } from "./memory";
import { Pipelines } from "./pipelines";

let opened: Promise<{ gpu: GPUDevice; pipelines: Pipelines }> | null = null;

async function open(): Promise<{ gpu: GPUDevice; pipelines: Pipelines }> {
  const { gpu } = await openGpu({ power_preference: null, software_adapter: false, precision: "float32" });
  return { gpu: gpu!, pipelines: new Pipelines(gpu!) };
}

export async function runKernel({ kernel, constants, workgroups, outputs, subgroups, repeats }: RunKernel, tensors: HostTensors): Promise<HostTensors> {
  opened ??= open();
  const { gpu, pipelines } = await opened;
  const use = subgroups ?? gpu.features.has("subgroups" as GPUFeatureName);
  const pipeline = await pipelines.get(kernel, { ...constants, SUBGROUPS: use ? 1 : 0 });
  const { STORAGE, UNIFORM, COPY_SRC, COPY_DST } = GPUBufferUsage;
  const buffers = new Map<string, { buffer: GPUBuffer; bytes: number }>();
  const groups: Record<number, GPUBindGroupEntry[]> = {};
  for (const [name, { data }] of Object.entries(tensors)) {
    const [place, kind] = name.split(" ") as [string, string?]; // "0.3" or "0.2 uniform"
    const [group, binding] = place.split(".").map(Number) as [number, number];
    const size = Math.max(16, Math.ceil(data.byteLength / 16) * 16);
    const buffer = gpu.createBuffer({ size, usage: (kind === "uniform" ? UNIFORM : STORAGE) | COPY_SRC | COPY_DST, mappedAtCreation: true });
    new Uint8Array(buffer.getMappedRange()).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    buffer.unmap();
    buffers.set(name, { buffer, bytes: data.byteLength });
    (groups[group] ??= []).push({ binding, resource: { buffer } });
  }
  const encoder = gpu.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  gpu.pushErrorScope("validation");
  for (const [index, entries] of Object.entries(groups))
    pass.setBindGroup(Number(index), gpu.createBindGroup({ layout: pipeline.getBindGroupLayout(Number(index)), entries }));
  const [x = 1, y = 1, z = 1] = workgroups;
  for (let time = 0; time < repeats; time++) pass.dispatchWorkgroups(x, y, z);
  pass.end();
  gpu.queue.submit([encoder.finish()]);
  const wrong = await gpu.popErrorScope();
  if (wrong) throw new Error(wrong.message);
  const results: HostTensors = {};
  for (const name of outputs) {
    const { buffer, bytes } = buffers.get(name)!;
    const data = new Uint8Array(await read(gpu, buffer, bytes)) as unknown as Data;
    results[name] = { dtype: "uint8", shape: [bytes], data };
  }
  for (const { buffer } of buffers.values()) buffer.destroy();
  return results;
}
