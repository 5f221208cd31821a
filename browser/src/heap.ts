// The JavaScript heap of the page and its worker. Only the page may ask the browser for it (measureUserAgentSpecificMemory of the Measure
// Memory API, https://wicg.github.io/performance-measure-memory), so the worker, which does all the work, asks the page.

export interface Heap {
  js_heap_bytes: number | null;
  js_heap_reason: string | null;
}

/** What goes between worker and page beside frames, which are texts and buffers. */
export interface HeapMessage {
  heap: Heap | null;
}

/** The browsers that we start measure at once; others wait for a garbage collection, up to 20 s. None measures while a worker sleeps in wasm,
 * as those of onnxruntime-web's threads do. */
const WAIT_MS = 2000;
const MISSING = "this browser has no performance.measureUserAgentSpecificMemory";

export const isHeapMessage = (data: unknown): data is HeapMessage => typeof data === "object" && data !== null && "heap" in data;

const waiting: ((heap: Heap) => void)[] = [];

/** In the worker: asks the page. Wasm memory and GPU buffers are not part of it. */
export function jsHeap(): Promise<Heap> {
  return new Promise((resolve) => {
    waiting.push(resolve);
    self.postMessage({ heap: null } satisfies HeapMessage);
  });
}

/** In the worker: the page's answer. */
export function heapTold({ heap }: HeapMessage): void {
  for (const resolve of waiting.splice(0)) resolve(heap!);
}

type Measured = { breakdown: { bytes: number; types: string[] }[] } | string;
let pending: Promise<Measured> | null = null;

/** In the page. One measurement at a time; one that was not done in time is not waited for again, so that asking costs its time once. */
export async function measureHeap(): Promise<Heap> {
  const { measureUserAgentSpecificMemory: measure } = performance as unknown as { measureUserAgentSpecificMemory?: () => Promise<Exclude<Measured, string>> };
  if (!measure || !crossOriginIsolated) return { js_heap_bytes: null, js_heap_reason: MISSING };
  const wait = pending ? 0 : WAIT_MS;
  pending ??= measure
    .call(performance)
    .catch((error: unknown) => String(error))
    .finally(() => (pending = null));
  const late = new Promise<null>((resolve) => setTimeout(resolve, wait, null));
  const found = await Promise.race([pending, late]);
  if (typeof found === "string") return { js_heap_bytes: null, js_heap_reason: found };
  if (!found) return { js_heap_bytes: null, js_heap_reason: `the browser did not measure it within ${WAIT_MS / 1000} s, as it does not while threads of wasm sleep` };
  const bytes = found.breakdown.filter(({ types }) => types.includes("JavaScript")).reduce((sum, part) => sum + part.bytes, 0);
  return { js_heap_bytes: bytes, js_heap_reason: null };
}
