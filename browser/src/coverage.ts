// Which execution provider runs how many nodes, read from ONNX Runtime's verbose log: its JavaScript has no call for it.
import type { OnnxRuntime, SessionPlan } from "./engines/onnxruntime";
import { fetchGraph } from "./fetch";

/** Takes the console's lines while nodes are counted. */
export const listeners = new Set<(line: string) => void>();

/** Nodes by provider of one session, from a second session like it. */
export async function countNodes(runtime: OnnxRuntime, plan: SessionPlan): Promise<Record<string, number>> {
  const lines: string[] = [];
  const listen = (line: string) => void lines.push(line);
  const graph = await fetchGraph(plan.spec);
  listeners.add(listen);
  try {
    const session = await runtime.create(graph, plan, { logSeverityLevel: 0 });
    await session.release();
  } finally {
    listeners.delete(listen);
  }
  return parse(lines);
}

export function parse(lines: readonly string[]): Record<string, number> {
  const nodes: Record<string, number> = {};
  for (const line of lines) {
    // WebNN fuses all that it takes into one node, so what it took is counted before.
    const taken = /number of nodes in the graph: (\d+) number of nodes supported by WebNN: (\d+)/.exec(line);
    if (taken) {
      const [total, supported] = [Number(taken[1]), Number(taken[2])];
      return { WebNNExecutionProvider: supported, ...(total > supported ? { CPUExecutionProvider: total - supported } : {}) };
    }
    const placed = /placed on \[(\w+)\]\. Number of nodes: (\d+)/.exec(line);
    if (placed) nodes[placed[1]!] = Number(placed[2]);
  }
  return nodes;
}
