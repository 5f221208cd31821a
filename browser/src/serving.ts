// The models of this page, each under a name that Python gave it, and the requests to them.
import { OnnxRuntime } from "./engines/onnxruntime";
import { ClassifiedError } from "./failure";
import { fetchGraph, verify } from "./fetch";
import type { HostTensors } from "./frames";
import { nowNs } from "./clock";
import { Guard } from "./guard";
import type { CancelRequest, CloseModel, Decode, DecodedToken, Infer, LoseModelDevice, ModelProgress, OpenModel, PageMemory, Reply } from "./protocol";
import { ServedModel } from "./served";

export type ServingRequest = OpenModel | Infer | Decode | CloseModel | LoseModelDevice | PageMemory;
type Answer = [Reply, HostTensors?];

interface Engine {
  runtime: OnnxRuntime;
  guard: Guard;
}

export class Serving {
  private readonly models = new Map<string, { model: ServedModel; guard: Guard }>();
  private readonly engines = new Map<string, Promise<Engine>>(); // models of one kind share a device
  private readonly cancelled = new Set<number>();

  constructor(private readonly send: (event: ModelProgress | DecodedToken) => void) {}

  /** Never waits its turn: the request that it ends may be the one that is running. */
  cancel({ request }: CancelRequest): void {
    this.cancelled.add(request);
  }

  async answer(request: ServingRequest, inputs: HostTensors): Promise<Answer> {
    const { id } = request;
    switch (request.type) {
      case "OpenModel":
        return this.open(request);
      case "Infer": {
        const { model, guard } = this.named(request.model);
        const { times, outputs } = await guard.run(() => model.infer(inputs));
        return [{ type: "Inferred", id, ns: times.total_ns }, outputs];
      }
      case "Decode": {
        const { model, guard } = this.named(request.model);
        const { times, outputs } = await guard.run(() => model.decode(inputs, request.new_tokens, request.cache_tokens, this.listener(request)));
        const cancelled = this.cancelled.delete(id);
        return [{ type: "Decoded", id, token_ns: times.token_ns, cancelled }, outputs];
      }
      case "CloseModel": {
        await this.named(request.model).model.close();
        this.models.delete(request.model);
        return [{ type: "Done", id }];
      }
      case "LoseModelDevice": {
        const { model, guard } = this.named(request.model);
        if (!model.runtime.device) throw new Error("There is no device to lose.");
        model.runtime.device.lose();
        await guard.untilBroken();
        return [{ type: "Done", id }];
      }
      case "PageMemory":
        return [{ type: "Facts", id, facts: await this.memory() }];
    }
  }

  private async open(request: OpenModel): Promise<Answer> {
    const { id, provider, generation, parallel } = request;
    const start = nowNs();
    const starting = this.engine(request);
    starting.catch(() => {}); // it is awaited below, perhaps after a failed fetch
    const fetching: Record<string, Promise<Awaited<ReturnType<typeof fetchGraph>>>> = {};
    for (const [component, spec] of Object.entries(request.graphs)) {
      let loaded = 0;
      const told = (phase: ModelProgress["phase"]) => this.send({ type: "ModelProgress", id, component, phase, loaded_bytes: loaded, total_bytes: spec.bytes });
      const bring = async () => {
        told("fetch");
        let last = nowNs();
        const graph = await fetchGraph(spec, (bytes) => {
          loaded += bytes;
          if (nowNs() - last > 50e6) {
            last = nowNs();
            told("fetch");
          }
        });
        told("verify");
        await verify(graph);
        return graph;
      };
      fetching[component] = bring();
      fetching[component].catch(() => {});
      if (!parallel) await fetching[component];
    }
    const entries = await Promise.all(Object.entries(fetching).map(async ([name, graph]) => [name, await graph] as const));
    const fetch_ns = nowNs() - start;
    const { runtime, guard } = await starting;
    const compiling = nowNs();
    for (const [component, spec] of Object.entries(request.graphs))
      this.send({ type: "ModelProgress", id, component, phase: "compile", loaded_bytes: spec.bytes, total_bytes: spec.bytes });
    const model = await guard.run(() => ServedModel.compile(runtime, Object.fromEntries(entries), generation, provider === "webnn"));
    this.models.set(request.model, { model, guard });
    const { threads, version, device } = runtime;
    const facts = { engine_version: version, threads, device: device?.facts ?? null };
    return [{ type: "ModelOpened", id, fetch_ns, compile_ns: nowNs() - compiling, facts }];
  }

  private engine(request: OpenModel): Promise<Engine> {
    const { provider, precision, threads, device_type, power_preference, software_adapter } = request;
    const key = JSON.stringify([provider, provider === "webgpu" && precision === "float16", threads, device_type, power_preference, software_adapter]);
    const start = async () => {
      const runtime = await OnnxRuntime.start(request);
      const guard = new Guard();
      guard.watch(runtime.device);
      return { runtime, guard };
    };
    const engine = this.engines.get(key) ?? start();
    this.engines.set(key, engine);
    engine.catch(() => this.engines.delete(key));
    return engine;
  }

  /** Sends each token and says whether to end: at a cancellation, or once every row has come to an end token. */
  private listener({ id, end_tokens }: Decode) {
    const ends = new Set(end_tokens.map(BigInt));
    let open: Set<number> | null = null;
    return async (ids: BigInt64Array, index: number, ns: number): Promise<boolean> => {
      this.send({ type: "DecodedToken", id, index, token_ids: Array.from(ids, Number), ns });
      open ??= new Set(ids.keys());
      ids.forEach((token, row) => ends.has(token) && open!.delete(row));
      await macrotask(); // lets a cancellation in
      return open.size === 0 || this.cancelled.has(id);
    };
  }

  private async memory(): Promise<Record<string, unknown>> {
    const engines = await Promise.all(this.engines.values());
    const buffers = engines.map(({ runtime }) => runtime.device?.bytes?.()).filter((bytes) => bytes !== undefined);
    const sum = (of: "now" | "peak") => (buffers.length ? buffers.reduce((total, bytes) => total + bytes[of], 0) : null);
    const pipelines = engines.flatMap(({ runtime }) => runtime.device?.pipelines ?? []);
    const shaders = pipelines.length
      ? { count: pipelines.reduce((total, { count }) => total + count, 0), compiled_ms: pipelines.reduce((total, { ns }) => total + ns, 0) / 1e6, cache: null }
      : null;
    return { models: [...this.models.keys()], shaders, gpu_buffer_bytes: sum("now"), gpu_buffer_peak_bytes: sum("peak") };
  }

  private named(name: string) {
    const found = this.models.get(name);
    if (!found) throw new ClassifiedError("page_error", `This page has no model '${name}'.`);
    return found;
  }
}

const channel = new MessageChannel();
const waiting: (() => void)[] = [];
channel.port1.onmessage = () => waiting.shift()?.();

/** Resolves after messages that have already arrived were handled; a timer would wait 4 ms. */
function macrotask(): Promise<void> {
  return new Promise((resolve) => {
    waiting.push(resolve);
    channel.port2.postMessage(null);
  });
}
