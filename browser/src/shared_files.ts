// Two files of the page's own (origin private file system) that Python has open as well: large tensors go by them, see web/shared_files.py.
import { SHARED_LIMIT_BYTES } from "./protocol";

/** FileSystemSyncAccessHandle of https://fs.spec.whatwg.org, which workers alone have. */
interface AccessHandle {
  read(bytes: Uint8Array, options: { at: number }): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  close(): void;
}
type Opens = FileSystemFileHandle & { createSyncAccessHandle?: () => Promise<AccessHandle> };

const FOLDER = "ipfs-accelerate-shared";
let toPage: AccessHandle | null = null;
let fromPage: AccessHandle | null = null;
let using = false;
/** Bytes by where they begin, until Python has read them. */
const held = new Map<number, number>();

/** Opens both and writes a mark into each; why that cannot be, or null. */
export async function share(marks: readonly [string, string]): Promise<string | null> {
  try {
    const root = await navigator.storage.getDirectory();
    // What an earlier start of a kept profile left: names without content.
    await root.removeEntry(FOLDER, { recursive: true }).catch(() => {});
    const folder = await root.getDirectoryHandle(FOLDER, { create: true });
    [toPage, fromPage] = await Promise.all(
      marks.map(async (mark) => {
        // A name that was never used: a browser that knows one whose file is gone would not make it anew.
        const file: Opens = await folder.getFileHandle(crypto.randomUUID(), { create: true });
        if (!file.createSyncAccessHandle) throw new Error("this browser has no createSyncAccessHandle");
        const handle = await file.createSyncAccessHandle();
        handle.write(new TextEncoder().encode(mark), { at: 0 });
        return handle;
      }),
    ) as [AccessHandle, AccessHandle];
    return null;
  } catch (error) {
    return `the page cannot open files of its own: ${String(error)}`;
  }
}

/** Whether Python has found them. */
export function use(found: boolean): void {
  using = found;
  if (found) return;
  toPage?.close();
  fromPage?.close();
  [toPage, fromPage] = [null, null];
}

/** Fills `bytes` with those that Python wrote there. */
export function load(at: number, bytes: Uint8Array): void {
  const read = toPage ? toPage.read(bytes, { at }) : 0;
  if (read !== bytes.length) throw new Error(`Of ${bytes.length} bytes that Python stored ${read} are there.`);
}

/** Writes the pieces where nothing else is held; where that is, or null where they must go another way. */
export function store(bytes: number, pieces: readonly { offset: number; data: ArrayBufferView<ArrayBuffer> }[]): number | null {
  if (!using || !fromPage) return null;
  const at = free(bytes);
  if (at + bytes > SHARED_LIMIT_BYTES) return null;
  try {
    for (const { offset, data } of pieces) {
      const written = fromPage.write(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), { at: at + offset });
      if (written !== data.byteLength) throw new Error(`${written} of ${data.byteLength} bytes were written`);
    }
  } catch (error) {
    using = false;
    console.warn(`Large tensors go by the WebSocket from now on, as the shared file cannot be written: ${String(error)}`);
    return null;
  }
  held.set(at, bytes);
  return at;
}

export function release(at: number): void {
  held.delete(at);
}

function free(bytes: number): number {
  let at = 0;
  for (const [begin, taken] of [...held].sort(([a], [b]) => a - b)) {
    if (at + bytes <= begin) break;
    at = Math.max(at, begin + taken);
  }
  return at;
}
