// A compiled model: what one timed iteration does.
import { nowNs } from "./clock";
import { toHost, type GraphBytes, type InferenceSession, type OnnxRuntime, type Tensor } from "./engines/onnxruntime";
import type { HostTensors } from "./frames";
import type { SampleTimes } from "./protocol";

export interface Iteration {
  times: SampleTimes;
  outputs: HostTensors;
  bytesReadBack: number;
}

export interface Model {
  /** One pass or one generation; `limit` ends a generation after that many tokens. */
  iterate(limit?: number): Promise<Iteration>;
  release(): Promise<void>;
}

/** The iteration with `ns` before it in its times: what made its inputs. */
export function after(ns: number, iteration: Iteration): Iteration {
  const { total_ns, token_ns } = iteration.times;
  return { ...iteration, times: { total_ns: total_ns + ns, token_ns: token_ns.map((each) => each + ns) } };
}

export function bytesOf(tensors: HostTensors): number {
  return Object.values(tensors).reduce((sum, { data }) => sum + data.byteLength, 0);
}

/** A model of one graph, run once for each iteration. */
export class SinglePass implements Model {
  private constructor(
    private readonly session: InferenceSession,
    private readonly feeds: Record<string, Tensor>,
  ) {}

  static async compile(runtime: OnnxRuntime, graph: GraphBytes, dimensions: Record<string, number>, inputs: HostTensors): Promise<SinglePass> {
    const session = await runtime.createSession(graph, dimensions);
    return new SinglePass(session, feedsOf(runtime, graph, inputs));
  }

  /** `run` resolves when its outputs lie in the page's memory, so the time holds the readback. */
  async iterate(): Promise<Iteration> {
    const start = nowNs();
    const results = (await this.session.run(this.feeds)) as Record<string, Tensor>;
    const total_ns = nowNs() - start;
    const outputs = Object.fromEntries(Object.entries(results).map(([name, tensor]) => [name, toHost(tensor)]));
    return { times: { total_ns, token_ns: [] }, outputs, bytesReadBack: bytesOf(outputs) };
  }

  release(): Promise<void> {
    return this.session.release();
  }
}

/** The inputs that the graph takes, as tensors. */
export function feedsOf(runtime: OnnxRuntime, { spec }: GraphBytes, inputs: HostTensors): Record<string, Tensor> {
  const feeds: Record<string, Tensor> = {};
  for (const { name } of spec.inputs) {
    const input = inputs[name];
    if (input) feeds[name] = runtime.hostTensor(input);
  }
  return feeds;
}
