// A single pass whose outputs stay on the GPU until one copy of our own reads them all, instead of one wait for each output.
import { nowNs } from "./clock";
import type { GraphBytes, InferenceSession, OnnxRuntime, Tensor } from "./engines/onnxruntime";
import { elementBytes, elements, view, type HostTensors } from "./frames";
import { bytesOf, feedsOf, type Iteration, type Model } from "./model";
import type { DataType } from "./protocol";
import { Reader } from "./wake";

export class OwnReadback implements Model {
  private constructor(
    private readonly session: InferenceSession,
    private readonly feeds: Record<string, Tensor>,
    private readonly reader: Reader,
  ) {}

  static async compile(runtime: OnnxRuntime, graph: GraphBytes, dimensions: Record<string, number>, inputs: HostTensors): Promise<OwnReadback> {
    const outputs = graph.spec.outputs.map(({ name }) => name);
    const session = await runtime.createSession(graph, dimensions, outputs);
    return new OwnReadback(session, feedsOf(runtime, graph, inputs), new Reader(runtime.device!.gpu!, runtime.readback));
  }

  iterate(): Promise<Iteration> {
    return runAndRead(this.session, this.feeds, this.reader);
  }

  async release(): Promise<void> {
    await this.session.release();
    this.reader.destroy();
  }
}

const bytes = ({ dims, type }: Pick<Tensor, "dims" | "type">) => elements(dims) * elementBytes(type as DataType);

/** One run of a session whose outputs stay on the GPU, and one read of them all. */
export async function runAndRead(session: InferenceSession, feeds: Record<string, Tensor>, reader: Reader): Promise<Iteration> {
  const start = nowNs();
  const results = Object.entries((await session.run(feeds)) as Record<string, Tensor>);
  const parts = results.map(([, { gpuBuffer, dims, type }]) => ({ buffer: gpuBuffer as GPUBuffer, bytes: Math.ceil(bytes({ dims, type }) / 4) * 4 }));
  const read = await reader.read(parts);
  const total_ns = nowNs() - start;
  const outputs: HostTensors = {};
  results.forEach(([name, tensor], index) => {
    outputs[name] = view(tensor.type as DataType, tensor.dims, read[index]!.slice(0, bytes(tensor)));
    tensor.dispose();
  });
  return { times: { total_ns, token_ns: [] }, outputs, bytesReadBack: bytesOf(outputs) };
}
