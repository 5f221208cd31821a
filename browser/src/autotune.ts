// The variant of the audio front end's kernels, by trying them on the live adapter.
import { GpuFrontEnd } from "./audio/gpu";
import { DEFAULT, type Variant } from "./audio/kernels";
import type { Recordings } from "./audio/recordings";
import { nowNs } from "./clock";
import type { AudioSpec } from "./protocol";
import { median, Reader, type Readback } from "./wake";

export interface Tuned extends Variant {
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

/** What earlier starts found on the adapter of this key. */
export function tunedVariant(tuned: Record<string, number>, key: string | null): Variant {
  return { threads: tuned[`${key}|log_mel`] ?? DEFAULT.threads, subgroups: tuned[`${key}|log_mel_subgroups`] === 1 };
}

const nameOf = ({ threads, subgroups }: Variant) => `${threads}${subgroups ? " subgroups" : ""}`;
const SIZES = [DEFAULT.threads, 128, 32, 256];
const ROUNDS = 5;
// Another variant must gain more than this, or the default stays: what is smaller is noise on most machines.
const LEAST_GAIN = 0.05;

/** Candidates in turn, round by round, so that all see the same machine; the default where nothing is clearly faster. */
export async function tuneFrontEnd({ gpu, readback, key }: { gpu: GPUDevice; readback: Readback; key: string }, spec: AudioSpec, recordings: Recordings, budgetMs: number): Promise<Tuned> {
  const begin = nowNs();
  const left = () => budgetMs - (nowNs() - begin) / 1e6;
  const most = gpu.limits.maxComputeInvocationsPerWorkgroup;
  const reader = new Reader(gpu, readback);
  const ways = gpu.features.has("subgroups") ? [false, true] : [false];
  const candidates = SIZES.filter((threads) => threads <= most).flatMap((threads) => ways.map((subgroups) => ({ threads, subgroups })));
  const tried: { variant: Variant; frontEnd: GpuFrontEnd; times: number[] }[] = [];
  try {
    for (const variant of candidates) {
      if (tried.length > 0 && left() < 0) break;
      const frontEnd = await GpuFrontEnd.create(gpu, spec, variant);
      tried.push({ variant, frontEnd, times: [] });
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
  const usual = measured[0]; // the default is tried first
  const best = measured.reduce<(typeof measured)[number] | undefined>((a, b) => (a && median(a.times) <= median(b.times) ? a : b), undefined);
  const gains = best && usual && median(best.times) < (1 - LEAST_GAIN) * median(usual.times);
  return {
    ...(gains ? best.variant : DEFAULT),
    candidates_ns: Object.fromEntries(tried.map(({ variant, times }) => [nameOf(variant), times])),
    cut_short: tried.length < candidates.length || measured.some(({ times }) => times.length < ROUNDS),
    search_ms: (nowNs() - begin) / 1e6,
    adapter_key: key,
  };
}
