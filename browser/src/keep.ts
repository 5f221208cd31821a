// What the browser keeps of models between starts, in its Cache API: stretches of files, known by their SHA-256 whatever model they are of.
import { sha256Hex } from "./sha256";

const CACHE_NAME = "ipfs-accelerate-chunks";

export class Keep {
  /** "off", "kept", or why something could not be kept or read. */
  state = "off";
  private cache: Cache | null = null;

  async open(): Promise<void> {
    try {
      this.cache = await caches.open(CACHE_NAME);
      this.state = "kept";
    } catch (error) {
      this.state = `off, as the browser's cache does not open: ${String(error)}`;
    }
  }

  /** The bytes, or null: not there, evicted, or damaged, and then they are fetched. */
  async get(digest: string): Promise<Uint8Array<ArrayBuffer> | null> {
    try {
      const response = await this.cache?.match(keyOf(digest));
      if (!response) return null;
      const bytes = new Uint8Array(await response.arrayBuffer());
      return (await sha256Hex(bytes)) === digest ? bytes : null;
    } catch (error) {
      // What was removed while it was read must not end the loading; the report says so.
      this.state = `could not be read: ${String(error)}`;
      return null;
    }
  }

  async put(digest: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (!this.cache) return;
    try {
      await this.cache.put(keyOf(digest), new Response(bytes, { headers: { "Content-Length": String(bytes.length) } }));
    } catch (error) {
      // A full cache must not end the loading: the model runs from memory, and the report says that the next start fetches again.
      this.cache = null;
      this.state = `full: ${String(error)}`;
    }
  }
}

const keyOf = (digest: string) => new URL(`chunk/${digest}`, location.href).href;

/** Removes `share` (0 to 1) of what is kept, as a browser that needs room does; how much there was. */
export async function evict(share: number): Promise<{ before: number; removed: number }> {
  const cache = await caches.open(CACHE_NAME);
  const keys = await cache.keys();
  const gone = keys.slice(0, Math.ceil(keys.length * share));
  for (const key of gone) await cache.delete(key);
  return { before: keys.length, removed: gone.length };
}
