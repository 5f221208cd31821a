// Brings a model's files into memory and checks that they are the ones of the manifest.
import type { GraphBytes } from "./engines/onnxruntime";
import { ClassifiedError } from "./failure";
import type { GraphSpec } from "./protocol";
import { sha256Hex } from "./sha256";

/** `onBytes` is told each piece that arrives. */
export async function fetchGraph(spec: GraphSpec, onBytes?: (bytes: number) => void): Promise<GraphBytes> {
  return { spec, files: await Promise.all(spec.files.map((name) => fetchFile(spec.folder, name, onBytes))) };
}

async function fetchFile(folder: string, name: string, onBytes?: (bytes: number) => void): Promise<Uint8Array> {
  const response = await fetch(`model/${folder}${encodeURIComponent(name)}`);
  if (!response.ok) throw new ClassifiedError("load_failed", `${name} could not be fetched: HTTP status ${response.status}.`);
  if (!onBytes || !response.body) return new Uint8Array(await response.arrayBuffer());
  const whole = new Uint8Array(Number(response.headers.get("content-length")));
  let filled = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    whole.set(value, filled); // a RangeError where more comes than was announced
    filled += value.length;
    onBytes(value.length);
  }
  if (filled !== whole.length)
    throw new ClassifiedError("load_failed", `${name} ended after ${filled} of ${whole.length} bytes.`);
  return whole;
}

/** Fails on a file whose SHA-256 is not the manifest's. */
export async function verify({ spec, files }: GraphBytes): Promise<void> {
  for (const [index, bytes] of files.entries()) {
    const found = await sha256Hex(bytes);
    if (found !== spec.sha256[index])
      throw new ClassifiedError("load_failed", `${spec.files[index]} is not the file of the manifest: its SHA-256 is ${found}, not ${spec.sha256[index]}.`);
  }
}
