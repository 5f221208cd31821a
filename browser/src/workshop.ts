// Parts of the optimisations by themselves, on a device of their own: for tests, for tuning and for benchmarks of one part.
import { CpuFrontEnd } from "./audio/cpu";
import { GpuFrontEnd } from "./audio/gpu";
import { compileAll } from "./audio/kernels";
import { recordingsOf } from "./audio/recordings";
import { nowNs } from "./clock";
import { openGpu } from "./devices";
import { elementBytes, elements, view, type HostTensor, type HostTensors } from "./frames";
import { evict } from "./keep";
import type { AudioFeatures, CompileKernels, Evict, Reply, SampleTimes, TryReadback, Tune } from "./protocol";
import { Reader, tryReadback, type Readback } from "./wake";
import { adapterKey, tuneFrontEnd } from "./autotune";

let opened: Promise<{ gpu: GPUDevice; readback: Readback; key: string }> | null = null;

/** One device for all requests, and how it is read fastest. */
function device(): Promise<{ gpu: GPUDevice; readback: Readback; key: string }> {
  opened ??= openGpu({ power_preference: null, software_adapter: false, precision: "float32" }).then(async ({ gpu, broken, facts }) => {
    broken.catch(() => (opened = null)); // the next request gets a new one
    return { gpu: gpu!, readback: (await tryReadback(gpu!, 3)).readback, key: adapterKey(facts) };
  });
  return opened;
}

export async function workshop(request: AudioFeatures | CompileKernels | TryReadback | Tune | Evict, tensors: HostTensors): Promise<[Reply, HostTensors?]> {
  const { id } = request;
  switch (request.type) {
    case "CompileKernels": {
      const { gpu } = await device();
      return [{ type: "Facts", id, facts: { kernels: await compileAll(gpu), features: [...gpu.features].sort() } }];
    }
    case "TryReadback":
      return [{ type: "Facts", id, facts: { ...(await tryReadback((await device()).gpu, request.rounds)) } }];
    case "Tune":
      return [{ type: "Facts", id, facts: { ...(await tuneFrontEnd(await device(), request.audio, recordingsOf(tensors, request.sample_rate), request.budget_ms)) } }];
    case "Evict":
      return [{ type: "Facts", id, facts: await evict(request.share) }];
    case "AudioFeatures": {
      const { samples, features } = await (request.where === "gpu" ? onGpu : onCpu)(request, tensors);
      return [{ type: "Sampled", id, samples, bytes_read_back: features.data.byteLength }, { features }];
    }
  }
}

type Made = { samples: SampleTimes[]; features: HostTensor };

/** Each time ends when the features are complete on the GPU, as far as a page can see it: when 4 bytes of them are read. */
async function onGpu({ audio, sample_rate, threads, subgroups, dtype, repeats, crops }: AudioFeatures, tensors: HostTensors): Promise<Made> {
  const { gpu, readback } = await device();
  const recordings = recordingsOf(tensors, sample_rate);
  const frontEnd = await GpuFrontEnd.create(gpu, audio, { threads, subgroups }, dtype);
  const reader = new Reader(gpu, readback);
  try {
    const samples: SampleTimes[] = [];
    let made = null;
    for (let index = 0; index < repeats; index++) {
      const start = nowNs();
      made = frontEnd.run(recordings, crops);
      await reader.read([{ buffer: made.buffer, bytes: 4 }]);
      samples.push({ total_ns: nowNs() - start, token_ns: [] });
    }
    const { buffer, shape } = made!;
    const size = elementBytes(dtype) * elements(shape);
    const [bytes] = await reader.read([{ buffer, bytes: Math.ceil(size / 4) * 4 }]);
    return { samples, features: view(dtype, shape, bytes!.slice(0, size)) };
  } finally {
    frontEnd.destroy();
    reader.destroy();
  }
}

async function onCpu({ audio, sample_rate, repeats, crops }: AudioFeatures, tensors: HostTensors): Promise<Made> {
  const recordings = recordingsOf(tensors, sample_rate);
  const frontEnd = new CpuFrontEnd(audio);
  const samples: SampleTimes[] = [];
  let features: HostTensor | null = null;
  for (let index = 0; index < repeats; index++) {
    const start = nowNs();
    features = frontEnd.run(recordings, crops);
    samples.push({ total_ns: nowNs() - start, token_ns: [] });
  }
  return { samples, features: features! };
}
