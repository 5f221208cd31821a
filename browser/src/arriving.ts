// A model's files on their way into the page: whole ones, or chunks of which the first graph's come first, so that its session can be made
// while the others still arrive.
import { ClassifiedError } from "./failure";
import { fetchGraph, verify } from "./fetch";
import type { GraphBytes } from "./engines/onnxruntime";
import { Loader, type LoadingReport } from "./loading";
import type { GraphSpec, ModelProgress, Optimizations } from "./protocol";

export type Graphs = Record<string, GraphBytes>;
export type Tell = (event: ModelProgress) => void;

const TELL_EVERY_MS = 50;

export interface Arriving {
  graphs: Graphs;
  /** Resolves when everything has come. */
  all: Promise<void>;
  report: LoadingReport;
}

/** All files at once, each whole, and checked when all are there. */
export async function fetchAll(specs: Record<string, GraphSpec>, tell: Tell | null, id = 0): Promise<Graphs> {
  const progress = tell && new Progress(specs, tell, id);
  const fetched = await Promise.all(
    Object.entries(specs).map(async ([component, spec]) => {
      progress?.told(component, "fetch");
      return [component, await fetchGraph(spec, progress ? (bytes) => progress.came(component, bytes) : undefined)] as const;
    }),
  );
  for (const [component, graph] of fetched) {
    progress?.told(component, "verify");
    await verify(graph);
  }
  return Object.fromEntries(fetched);
}

/** Chunks, several at once and each checked; those first that are compiled first. `onReady` hears of each graph that is complete. */
export function arriving(specs: Record<string, GraphSpec>, { chunks, keep }: Pick<Optimizations, "chunks" | "keep">, tell: Tell, onReady: (component: string, bytes: number) => void = () => {}, id = 0): Arriving {
  if (!chunks) throw new ClassifiedError("load_failed", "Parallel loading needs the digests of the files' chunks.");
  const order = Object.entries(specs).sort(([a], [b]) => Number(b === "decoder") - Number(a === "decoder"));
  const files = order.flatMap(([component, spec]) => spec.files.map((name) => ({ component, spec, name, bytes: new Uint8Array(chunks.sizes[name] ?? 0) })));
  const progress = new Progress(specs, tell, id);
  const components = new Map(files.map(({ name, component }) => [name, component]));
  const folders = new Map(files.map(({ name, spec }) => [name, spec.folder]));
  const loader = new Loader(
    files,
    chunks,
    keep,
    (name) => `model/${folders.get(name) ?? ""}${encodeURIComponent(name)}`,
    (name, bytes) => progress.came(components.get(name)!, bytes),
  );
  for (const [component] of order) progress.told(component, "fetch");
  const all = loader.start();
  all.catch(() => {}); // whoever waits for a file gets its failure
  const graphs = Object.fromEntries(
    order.map(([component, spec]) => {
      const own = files.filter((file) => file.component === component);
      const coming = Promise.all(own.map(({ name }) => loader.arrived(name))).then(() => {
        progress.told(component, "verify"); // each chunk was, as it came
        onReady(component, own.reduce((sum, { bytes }) => sum + bytes.length, 0));
        return own.map(({ bytes }) => bytes as Uint8Array);
      });
      coming.catch(() => {});
      return [component, { spec, files: [], arriving: coming }];
    }),
  );
  return { graphs, all, report: loader.report };
}

/** Tells how far each component is, at most every TELL_EVERY_MS, and when it is complete. */
class Progress {
  private readonly loaded: Record<string, number> = {};
  private readonly last: Record<string, number> = {};

  constructor(
    private readonly specs: Record<string, GraphSpec>,
    private readonly tell: Tell,
    private readonly id: number,
  ) {}

  came(component: string, bytes: number): void {
    const loaded = (this.loaded[component] ?? 0) + bytes;
    this.loaded[component] = loaded;
    const now = performance.now();
    if (loaded < this.specs[component]!.bytes && now - (this.last[component] ?? 0) < TELL_EVERY_MS) return;
    this.last[component] = now;
    this.told(component, "fetch");
  }

  told(component: string, phase: ModelProgress["phase"]): void {
    this.tell({ type: "ModelProgress", id: this.id, component, phase, loaded_bytes: this.loaded[component] ?? 0, total_bytes: this.specs[component]!.bytes });
  }
}
