// The worker: answers Python's requests one after the other. Everything heavy runs here, away from the page's own thread.
import { detect } from "./capabilities";
import { listeners } from "./coverage";
import { answerLanguageModel } from "./engines/wgsl/host";
import { ClassifiedError, classify } from "./failure";
import { decode, encode, type HostTensors } from "./frames";
import { heapTold, isHeapMessage, type HeapMessage } from "./heap";
import { Launch } from "./launch";
import type { Console, ErrorClass, ReleaseStored, Reply, Request } from "./protocol";
import { Serving } from "./serving";
import { release, share, use } from "./shared_files";
import { workshop } from "./workshop";

const send = (reply: Reply, tensors?: HostTensors) => {
  const frame = encode(reply, tensors);
  self.postMessage(frame, { transfer: typeof frame === "string" ? [] : [frame] });
};

for (const level of ["error", "warn", "log", "info", "debug"] as const) {
  const original = console[level].bind(console);
  console[level] = (...values: unknown[]) => {
    const text = values.map(String).join(" ").replace(/\x1b\[[\d;]*m/g, "");
    if (listeners.size > 0) return listeners.forEach((listen) => listen(text));
    // ONNX Runtime writes its warnings to console.error; its own mark tells them apart.
    const told = level === "error" && /\[[VIW]:onnxruntime/.test(text) ? "warn" : level;
    if (told === "error" || told === "warn") send({ type: "Console", id: 0, level: told, text } satisfies Console);
    original(...values);
  };
}

let launch: Launch | null = null;
const serving = new Serving(send);
let queue: Promise<void> = Promise.resolve();

function current(): Launch {
  if (!launch) throw new ClassifiedError("page_error", "No model was opened.");
  return launch;
}

async function answer(request: Exclude<Request, ReleaseStored>, inputs: HostTensors): Promise<[Reply, HostTensors?]> {
  const { id } = request;
  switch (request.type) {
    case "Detect":
      return [{ type: "Facts", id, facts: await detect() }];
    case "Open":
      launch = new Launch(request, inputs);
      return [{ type: "Opened", id, clock_resolution_ns: launch.clockResolutionNs }];
    case "Fetch":
      return [{ type: "Timed", id, ns: await current().fetch() }];
    case "Load":
      return [{ type: "Timed", id, ns: await current().load() }];
    case "Compile":
      return [{ type: "Timed", id, ns: await current().compile() }];
    case "First": {
      const { times, outputs, bytesReadBack } = await current().iterate();
      return [{ type: "Sampled", id, samples: [times], bytes_read_back: bytesReadBack }, outputs];
    }
    case "Sample":
      return [{ type: "Sampled", id, ...(await current().sample(request.count)) }];
    case "Count":
      return [{ type: "Counted", id, nodes: await current().count() }];
    case "TimeNodes":
      return [{ type: "Facts", id, facts: { ...(await current().timeNodes()) } }];
    case "Inspect":
      return [{ type: "Facts", id, facts: current().facts() }];
    case "Prepare":
      return [{ type: "Facts", id, facts: await current().prepare((event) => send({ ...event, id })) }];
    case "RecordPipelines":
      return [{ type: "Facts", id, facts: { pipelines: request.model ? serving.recorded(request.model) : current().recorded() } }];
    case "AudioFeatures":
    case "CompileKernels":
    case "TryReadback":
    case "Tune":
    case "Evict":
      return workshop(request, inputs);
    case "LoseDevice":
      await current().loseDevice();
      return [{ type: "Done", id }];
    case "Echo":
      return [{ type: "Done", id }, inputs];
    case "ShareFiles":
      return [{ type: "Facts", id, facts: { reason: await share([request.to_page, request.from_page]) } }];
    case "UseFiles":
      use(request.found);
      return [{ type: "Done", id }];
    case "CancelRequest":
      serving.cancel(request);
      return [{ type: "Done", id }];
    case "OpenModel":
    case "Infer":
    case "Decode":
    case "CloseModel":
    case "LoseModelDevice":
    case "PageMemory":
      return serving.answer(request, inputs);
    default:
      return answerLanguageModel(request, inputs);
  }
}

const otherwise: Partial<Record<Request["type"], ErrorClass>> = {
  Fetch: "load_failed",
  Load: "load_failed",
  Compile: "load_failed",
  Prepare: "load_failed",
  Count: "load_failed",
  First: "inference_failed",
  Sample: "inference_failed",
  OpenModel: "load_failed",
  Infer: "inference_failed",
  Decode: "inference_failed",
};

async function handle(frame: string | ArrayBuffer): Promise<void> {
  const { request, tensors } = decode(frame);
  if (request.type === "ReleaseStored") return release(request.stored_at); // for each large reply: an answer would be one too many
  const work = async () => answer(request, tensors());
  try {
    send(...(await (launch && request.type !== "LoseDevice" ? launch.guarded(work) : work())));
  } catch (error) {
    const { errorClass, message } = classify(error, otherwise[request.type] ?? "page_error");
    send({ type: "Failure", id: request.id, error_class: errorClass, message });
  }
}

// These do not wait behind what they end, or have nothing to do with it.
const AT_ONCE: readonly Request["type"][] = ["CancelRequest", "LoseDevice", "LoseModelDevice", "Detect", "ShareFiles", "UseFiles", "ReleaseStored"];

self.onmessage = ({ data }: MessageEvent<string | ArrayBuffer | HeapMessage>) => {
  if (isHeapMessage(data)) return heapTold(data);
  if (typeof data === "string" && AT_ONCE.some((type) => data.startsWith(`{"type": "${type}"`))) return void handle(data);
  queue = queue.then(() => handle(data));
};
self.addEventListener("error", ({ message }) => send({ type: "Failure", id: 0, ...{ error_class: "page_error", message: `worker: ${message}` } }));
self.addEventListener("unhandledrejection", ({ reason }) => {
  const { errorClass, message } = classify(reason, "page_error");
  send({ type: "Failure", id: 0, error_class: errorClass, message });
});
