// The workgroup size of the audio front end, by trying them on the live adapter.
import { GpuFrontEnd } from "./audio/gpu";
import { DEFAULT_THREADS } from "./audio/kernels";
import type { Recordings } from "./audio/recordings";
import { nowNs } from "./clock";
import type { AudioSpec } from "./protocol";
import { median, Reader, type Readback } from "./wake";

export interface Tuned {
  threads: number;
  /** Times of each candidate that was tried. */
  candidates_ns: Record<string, number[]>;
  /** Whether the budget ended the search before all candidates had all their rounds. */
  cut_short: boolean;
  search_ms: number;
  adapter_key: string;
}

/** Names the adapter, as far as the browser tells, with the features that kernels use. */
export function adapterKey(facts: Record<string, unknown>): string {
  const names = ["vendor", "architecture", "device", "description"].map((name) => String(facts[name] ?? "")).filter(Boolean);
  return [...names, ...(facts["features_used"] as string[])].join(" ") || "unnamed";
}

const CANDIDATES = [DEFAULT_THREADS, 128, 32, 256];
const ROUNDS = 5;
// Another size must gain more than this, or the default stays: what is smaller is noise on most machines.
const LEAST_GAIN = 0.05;

/** Candidates in turn, round by round, so that all see the same machine; the default where nothing is clearly faster. */
export async function tuneFrontEnd({ gpu, readback, key }: { gpu: GPUDevice; readback: Readback; key: string }, spec: AudioSpec, recordings: Recordings, budgetMs: number): Promise<Tuned> {
  const begin = nowNs();
  const left = () => budgetMs - (nowNs() - begin) / 1e6;
  const most = gpu.limits.maxComputeInvocationsPerWorkgroup;
  const reader = new Reader(gpu, readback);
  const tried: { threads: number; frontEnd: GpuFrontEnd; times: number[] }[] = [];
  try {
    for (const threads of CANDIDATES.filter((count) => count <= most)) {
      if (tried.length > 0 && left() < 0) break;
      const frontEnd = await GpuFrontEnd.create(gpu, spec, threads);
      tried.push({ threads, frontEnd, times: [] });
      await reader.read([{ buffer: frontEnd.run(recordings).buffer, bytes: 4 }]); // warm-up
    }
    for (let round = 0; round < ROUNDS && left() > 0; round++)
      for (const { frontEnd, times } of tried) {
        const start = nowNs();
        await reader.read([{ buffer: frontEnd.run(recordings).buffer, bytes: 4 }]);
        times.push(nowNs() - start);
      }
  } finally {
    tried.forEach(({ frontEnd }) => frontEnd.destroy());
    reader.destroy();
  }
  const measured = tried.filter(({ times }) => times.length > 0);
  const usual = measured.find(({ threads }) => threads === DEFAULT_THREADS);
  const best = measured.reduce<(typeof measured)[number] | undefined>((a, b) => (a && median(a.times) <= median(b.times) ? a : b), undefined);
  const gains = best && usual && median(best.times) < (1 - LEAST_GAIN) * median(usual.times);
  return {
    threads: gains ? best.threads : DEFAULT_THREADS,
    candidates_ns: Object.fromEntries(tried.map(({ threads, times }) => [threads, times])),
    cut_short: tried.length < CANDIDATES.filter((count) => count <= most).length || measured.some(({ times }) => times.length < ROUNDS),
    search_ms: (nowNs() - begin) / 1e6,
    adapter_key: key,
  };
}
