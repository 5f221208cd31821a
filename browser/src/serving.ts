// The models of this page, each under a name that Python gave it, and the requests to them.
import { arriving, fetchAll, type Graphs } from "./arriving";
import { adapterKey, tunedVariant } from "./autotune";
import { openGpu } from "./devices";
import { OnnxRuntime } from "./engines/onnxruntime";
import { ClassifiedError } from "./failure";
import type { HostTensors } from "./frames";
import { nowNs } from "./clock";
import { Guard } from "./guard";
import { jsHeap } from "./heap";
import { PipelineWatch } from "./pipelines";
import type { CancelRequest, CloseModel, Decode, DecodedToken, Infer, LoseModelDevice, ModelProgress, OpenModel, PageMemory, RecordedPipeline, Reply } from "./protocol";
import { ServedModel } from "./served";
import { chooseReadback } from "./wake";

export type ServingRequest = OpenModel | Infer | Decode | CloseModel | LoseModelDevice | PageMemory;
type Answer = [Reply, HostTensors?];

interface Engine {
  runtime: OnnxRuntime;
  guard: Guard;
  watch: PipelineWatch | null;
}

export class Serving {
  private readonly models = new Map<string, { model: ServedModel } & Engine>();
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

  /** The pipelines that the model's device has made so far: of one that models share, those of all of them. */
  recorded(model: string): readonly RecordedPipeline[] {
    return this.named(model).watch?.recorded ?? [];
  }

  /** Fetched and compiled one after the other, or overlapped, as `optimizations` says. */
  private async open(request: OpenModel): Promise<Answer> {
    const { id, provider, generation, graphs: specs, optimizations } = request;
    const start = nowNs();
    const coming = optimizations.parallel_loading ? arriving(specs, optimizations, this.send, () => {}, id) : null;
    const graphs: Graphs = coming?.graphs ?? (await fetchAll(specs, this.send, id));
    let fetched = nowNs();
    const arrived = coming?.all.then(() => void (fetched = nowNs()));
    arrived?.catch(() => {}); // awaited below, perhaps after what failed because of it
    const engine = await this.engine(request);
    const { runtime, guard, watch } = engine;
    const ready = nowNs();
    const gpu = runtime.device?.gpu ?? null;
    const key = gpu ? adapterKey(runtime.device!.facts) : null;
    const before = watch?.ahead_ms.length ?? 0;
    const made = await guard.run(async () => {
      const ahead = watch?.compileAhead(optimizations.pipelines);
      const trial = gpu ? await chooseReadback(gpu, key!, optimizations) : null;
      runtime.readback = trial?.readback ?? "plain";
      for (const [component, spec] of Object.entries(specs))
        this.send({ type: "ModelProgress", id, component, phase: "compile", loaded_bytes: spec.bytes, total_bytes: spec.bytes });
      const audio = optimizations.gpu_audio ? optimizations.audio : null;
      const model = await ServedModel.compile(runtime, graphs, generation, provider === "webnn", audio, tunedVariant(optimizations.tuned, key));
      await arrived;
      await ahead;
      return { model, trial };
    });
    this.models.set(request.model, { model: made.model, ...engine });
    const { threads, version, device } = runtime;
    const facts = {
      engine_version: version,
      threads,
      device: device?.facts ?? null,
      loading: coming?.report ?? null,
      ahead_ms: watch?.ahead_ms.slice(before) ?? [],
      readback: made.trial,
      adapter_key: key,
    };
    return [{ type: "ModelOpened", id, fetch_ns: fetched - start, compile_ns: nowNs() - Math.max(fetched, ready), facts }];
  }

  private engine(request: OpenModel): Promise<Engine> {
    const { provider, precision, threads, device_type, power_preference, software_adapter, optimizations } = request;
    const key = JSON.stringify([provider, provider === "webgpu" && precision === "float16", threads, device_type, power_preference, software_adapter]);
    const start = async () => {
      OnnxRuntime.query = optimizations.runtime_query;
      const opened = provider === "webgpu" ? await openGpu(request) : null;
      const guard = new Guard();
      guard.watch(opened);
      const watch = opened?.gpu ? new PipelineWatch(opened.gpu) : null;
      const runtime = await guard.run(() => OnnxRuntime.start(request, opened ?? undefined));
      if (!opened) guard.watch(runtime.device);
      return { runtime, guard, watch };
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
    return { models: [...this.models.keys()], shaders, gpu_buffer_bytes: sum("now"), gpu_buffer_peak_bytes: sum("peak"), ...(await jsHeap()) };
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
