// Counts the compute pipelines that a device makes, and the time until each is there. WebGPU has no counter of its own.
import { nowNs } from "./clock";

export interface Pipelines {
  count: number;
  ns: number;
}

/** `ns` adds up each pipeline's own time; those that compile at once count more than once. A synchronous call may return before the
 *  browser has compiled, so only asynchronous ones are timed in full. */
export function countPipelines(gpu: GPUDevice): Pipelines {
  const pipelines = { count: 0, ns: 0 };
  const create = gpu.createComputePipeline.bind(gpu);
  gpu.createComputePipeline = (descriptor) => {
    const start = nowNs();
    const made = create(descriptor);
    pipelines.count += 1;
    pipelines.ns += nowNs() - start;
    return made;
  };
  const createAsync = gpu.createComputePipelineAsync.bind(gpu);
  gpu.createComputePipelineAsync = async (descriptor) => {
    const start = nowNs();
    const made = await createAsync(descriptor);
    pipelines.count += 1;
    pipelines.ns += nowNs() - start;
    return made;
  };
  return pipelines;
}
