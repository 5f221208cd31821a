// Brings a model's files in by chunks: several at once, in the order in which they are needed, each checked against its SHA-256 before it is
// used, kept in the browser's cache where asked, and taken up again where a connection drops.
import { ClassifiedError } from "./failure";
import { Keep } from "./keep";
import type { ChunkSpec } from "./protocol";
import { sha256Hex } from "./sha256";

/** `bytes` is the file's memory, which its chunks are fetched into: none has a buffer of its own. */
export interface LoadedFile {
  name: string;
  bytes: Uint8Array<ArrayBuffer>;
}

/** What happened while loading. */
export interface LoadingReport {
  bytes_fetched: number;
  bytes_from_cache: number;
  /** Ranges that were asked for again because a connection dropped or a status said so. */
  resumed: number;
  /** Chunks that were fetched a second time because their SHA-256 was wrong. */
  refetched: number;
  /** "off", "kept", or why chunks could not be kept or read. */
  cache: string;
}

/** HTTP/1.1 browsers open six connections to a server; one is left for the runtime's own files. */
const CONNECTIONS = 5;
const ATTEMPTS = 5;
const FIRST_PAUSE_MS = 50; // doubled after each failure of the same chunk

interface Chunk {
  file: LoadedFile;
  index: number;
  digest: string;
  offset: number;
  bytes: number;
}

export class Loader {
  readonly report: LoadingReport = { bytes_fetched: 0, bytes_from_cache: 0, resumed: 0, refetched: 0, cache: "off" };
  private readonly queue: Chunk[] = [];
  private readonly left = new Map<string, number>();
  private readonly arrivals = new Map<string, { promise: Promise<void>; resolve: () => void; reject: (error: unknown) => void }>();
  private readonly cache = new Keep();
  private failed = false;

  /** Files in the order in which they are needed; `address` gives a file's URL; `onProgress` is told each piece that arrives. */
  constructor(
    files: readonly LoadedFile[],
    spec: ChunkSpec,
    private readonly keep: boolean,
    private readonly address: (name: string) => string,
    private readonly onProgress: (name: string, bytes: number) => void = () => {},
  ) {
    for (const file of files) {
      const digests = spec.digests[file.name];
      const size = spec.sizes[file.name];
      if (!digests || size === undefined) throw new ClassifiedError("load_failed", `${file.name} has no chunks in the manifest.`);
      this.left.set(file.name, digests.length);
      let [resolve, reject] = [() => {}, (_: unknown) => {}];
      const promise = new Promise<void>((yes, no) => ([resolve, reject] = [yes, no]));
      promise.catch(() => {}); // a file that nobody has asked for yet may fail
      this.arrivals.set(file.name, { promise, resolve, reject });
      digests.forEach((digest, index) => {
        const offset = index * spec.bytes;
        this.queue.push({ file, index, digest, offset, bytes: Math.min(spec.bytes, size - offset) });
      });
      if (digests.length === 0) resolve();
    }
  }

  /** Resolves when the whole file has come. */
  arrived(name: string): Promise<void> {
    return this.arrivals.get(name)!.promise;
  }

  /** Begins to load; resolves when all has come, and rejects with the first failure. */
  async start(): Promise<void> {
    if (this.keep) await this.cache.open();
    this.report.cache = this.cache.state;
    try {
      await Promise.all(Array.from({ length: CONNECTIONS }, () => this.work()));
    } finally {
      this.report.cache = this.cache.state;
    }
  }

  private async work(): Promise<void> {
    for (let chunk = this.queue.shift(); chunk && !this.failed; chunk = this.queue.shift()) {
      const { name } = chunk.file;
      try {
        await this.bring(chunk);
      } catch (error) {
        this.failed = true;
        this.arrivals.forEach(({ reject }) => reject(error)); // no effect on what has come
        throw error;
      }
      const left = this.left.get(name)! - 1;
      this.left.set(name, left);
      if (left === 0) this.arrivals.get(name)!.resolve();
    }
  }

  /** Fills the chunk's place, and fails where what came is not what the manifest says. */
  private async bring(chunk: Chunk): Promise<void> {
    const { name } = chunk.file;
    const kept = await this.cache.get(chunk.digest);
    if (kept) {
      placeOf(chunk).set(kept);
      this.report.bytes_from_cache += kept.length;
      return this.onProgress(name, kept.length);
    }
    let bytes = await this.fetched(chunk);
    let digest = await sha256Hex(bytes);
    if (digest !== chunk.digest) {
      this.report.refetched++;
      this.onProgress(name, -bytes.length);
      bytes = await this.fetched(chunk);
      digest = await sha256Hex(bytes);
      if (digest !== chunk.digest)
        throw new ClassifiedError(
          "load_failed",
          `${name} is not the file of the manifest: bytes ${chunk.offset} to ${chunk.offset + chunk.bytes - 1} came twice with a wrong SHA-256 (${digest}, not ${chunk.digest}).`,
        );
    }
    await this.cache.put(chunk.digest, bytes);
  }

  /** The chunk's bytes; after a drop, only those that are missing are asked for. */
  private async fetched(chunk: Chunk): Promise<Uint8Array<ArrayBuffer>> {
    const { file: { name }, offset, bytes } = chunk;
    const whole = placeOf(chunk);
    let filled = 0;
    let pause = FIRST_PAUSE_MS;
    for (let attempt = 1; filled < bytes; attempt++) {
      let problem: string;
      try {
        const range = `bytes=${offset + filled}-${offset + bytes - 1}`;
        const response = await fetch(this.address(name), { headers: { Range: range }, cache: "no-store" });
        if (response.status === 206) {
          for (const reader = response.body!.getReader(); ; ) {
            const { done, value } = await reader.read();
            if (done) break;
            whole.set(value, filled);
            filled += value.length;
            this.report.bytes_fetched += value.length;
            this.onProgress(name, value.length);
          }
          problem = `it ended after ${filled} of ${bytes} bytes`;
        } else {
          await response.body?.cancel();
          problem = response.ok ? "the server does not answer ranges" : `HTTP status ${response.status}`;
          if (response.status < 500) throw new ClassifiedError("load_failed", `${name} could not be fetched: ${problem}.`);
        }
      } catch (error) {
        if (error instanceof ClassifiedError) throw error;
        problem = `the connection dropped (${error instanceof Error ? error.message : String(error)})`;
      }
      if (filled === bytes) break;
      if (attempt === ATTEMPTS || this.failed)
        throw new ClassifiedError("load_failed", `${name} could not be fetched in ${attempt} attempts: at byte ${offset + filled}, ${problem}.`);
      this.report.resumed++;
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause *= 2;
    }
    return whole;
  }
}

const placeOf = ({ file, offset, bytes }: Chunk) => file.bytes.subarray(offset, offset + bytes);
