// Counts and times the compute pipelines that are made on a device, whoever makes them.
import { nowNs } from "./clock";

export interface PipelineTime {
  label: string;
  /** From the call until the pipeline was there; null for a synchronous call, which returns before the browser has compiled. */
  ms: number | null;
}

export class PipelineWatch {
  readonly made: PipelineTime[] = [];

  constructor(device: GPUDevice) {
    const later = device.createComputePipelineAsync.bind(device);
    const now = device.createComputePipeline.bind(device);
    device.createComputePipelineAsync = async (descriptor) => {
      const entry: PipelineTime = { label: labelOf(descriptor), ms: null };
      this.made.push(entry);
      const start = nowNs();
      const pipeline = await later(descriptor);
      entry.ms = (nowNs() - start) / 1e6;
      return pipeline;
    };
    device.createComputePipeline = (descriptor) => {
      this.made.push({ label: labelOf(descriptor), ms: null });
      return now(descriptor);
    };
  }
}

const labelOf = ({ label, compute }: GPUComputePipelineDescriptor) => label || compute.module.label || "(no label)";
