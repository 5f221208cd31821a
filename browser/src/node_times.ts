// How long nodes ran on each execution provider, from ONNX Runtime's profiler, which prints its events to the console.
import { listeners } from "./coverage";
import type { OnnxRuntime } from "./engines/onnxruntime";
import type { Model } from "./model";

/** What the profiler saw in `iterations` iterations of a model; microseconds. */
export interface NodeTimes {
  iterations: number;
  /** Of the whole iterations, by the page's clock. */
  wall_us: number;
  /** Of kernels on the GPU, by its timestamps, and how many there were; 0 of both where the adapter has none. */
  gpu_us: number;
  gpu_kernels: number;
  /** Of nodes by provider, by the CPU's clock: for a GPU's provider what it took to hand them over, not to run them. */
  node_us: Record<string, number>;
}

const ITERATIONS = 3;
// A model that is slower than this, on a software adapter say, is watched once only.
const SLOW_NS = 5e9;

/** Times the nodes of the model that `compile` makes: with the profiler on, so its times are for shares alone. */
export async function timeNodes(runtime: OnnxRuntime, compile: () => Promise<Model>): Promise<NodeTimes> {
  runtime.profiled = [];
  let model: Model | null = null;
  const lines: string[] = [];
  let iterations = 0;
  let wallNs = 0;
  try {
    model = await compile();
    while (iterations < ITERATIONS) {
      const { total_ns } = (await model.iterate()).times;
      iterations += 1;
      wallNs += total_ns;
      if (total_ns > SLOW_NS) break;
    }
    const listen = (text: string) => void lines.push(...text.split("\n"));
    listeners.add(listen);
    try {
      for (const session of runtime.profiled) session.endProfiling();
    } finally {
      listeners.delete(listen);
    }
  } finally {
    runtime.profiled = null;
    await model?.release();
  }
  return { iterations, wall_us: wallNs / 1e3, ...parseEvents(lines) };
}

/** Sums of the events of kernels ("Api", of the GPU) and of nodes, one event a line. */
export function parseEvents(lines: readonly string[]): Pick<NodeTimes, "gpu_us" | "gpu_kernels" | "node_us"> {
  let gpu_us = 0;
  let gpu_kernels = 0;
  const node_us: Record<string, number> = {};
  for (const line of lines) {
    const event = /"cat" : "(\w+)".*?"dur" :(\d+),.*?"name" :"(.*?)","args" : \{(.*)/.exec(line);
    if (!event) continue;
    const [, category, duration, name, args] = event as unknown as [string, string, string, string, string];
    if (category === "Api") {
      gpu_us += Number(duration);
      gpu_kernels += 1;
    } else if (category === "Node" && name.endsWith("_kernel_time")) {
      const provider = /"provider" : "(\w+)"/.exec(args)?.[1];
      if (provider) node_us[provider] = (node_us[provider] ?? 0) + Number(duration);
    }
  }
  return { gpu_us, gpu_kernels, node_us };
}
