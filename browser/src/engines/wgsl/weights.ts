// A model's weights on the device, filled from its files one after the other.
import { ClassifiedError } from "../../failure";
import { Keep } from "../../keep";
import type { FileSpec, LoadLanguageModel, MatrixSpec, PlaneSpec } from "../../protocol";
import { sha256Hex } from "../../sha256";
import { toFloat32 } from "./floats";
import { Linear } from "./matrix";
import type { Memory } from "./memory";

export interface LayerWeights {
  qkv: Linear;
  output: Linear;
  gateUp: Linear;
  down: Linear;
  attentionNorm: GPUBuffer;
  feedForwardNorm: GPUBuffer;
}

type Place = { plane: PlaneSpec; put: (bytes: Uint8Array) => void };

export class Weights {
  readonly layers: LayerWeights[];
  readonly embedding: Linear;
  readonly output: Linear;
  readonly finalNorm: GPUBuffer;
  private readonly places: Place[] = [];
  private readonly files: Map<string, FileSpec>;
  private readonly folder: string;
  private readonly keep: boolean;

  constructor(memory: Memory, spec: LoadLanguageModel) {
    this.folder = spec.folder;
    this.keep = spec.keep;
    this.files = new Map(spec.files.map((file) => [file.name, file]));
    const matrices = new Map(spec.matrices.map((matrix) => [matrix.name, matrix]));
    const linear = (name: string, names: readonly string[], use: string): Linear => {
      const specs = names.map((each) => matrices.get(each)!);
      const made = new Linear(memory, name, specs, use);
      for (const source of specs) for (const plane of planesOf(source)) this.places.push({ plane, put: (bytes) => made.write(source.name, plane.name, bytes) });
      return made;
    };
    const vector = (name: string): GPUBuffer => {
      const { dtype, length, plane } = spec.vectors.find((each) => each.name === name)!;
      const buffer = memory.storage("norms", 4 * length);
      this.places.push({ plane, put: (bytes) => memory.device.queue.writeBuffer(buffer, 0, toFloat32(bytes, dtype)) });
      return buffer;
    };
    const { decoder } = spec;
    this.embedding = linear("embedding", [decoder.embedding], "embedding");
    this.output = decoder.output_matrix === decoder.embedding ? this.embedding : linear("output matrix", [decoder.output_matrix], "output matrix");
    this.finalNorm = vector(decoder.final_norm);
    this.layers = decoder.layers.map((layer, index) => ({
      qkv: linear(`layers.${index}.qkv`, layer.qkv, "weights"),
      output: linear(`layers.${index}.attention output`, [layer.output], "weights"),
      gateUp: linear(`layers.${index}.gate and up`, layer.gate_up, "weights"),
      down: linear(`layers.${index}.down`, [layer.down], "weights"),
      attentionNorm: vector(layer.attention_norm),
      feedForwardNorm: vector(layer.feed_forward_norm),
    }));
  }

  /** Fetches a file unless the browser keeps it, compares its digest, and uploads what of it the model uses. */
  async load(name: string): Promise<void> {
    const { bytes: size, sha256 } = this.files.get(name)!;
    const keep = new Keep();
    if (this.keep && sha256 !== null) await keep.open();
    const kept = sha256 === null ? null : await keep.get(sha256);
    if (kept) return this.upload(name, kept.buffer);
    const response = await fetch(`model/${this.folder}${encodeURIComponent(name)}`);
    if (!response.ok) throw new ClassifiedError("load_failed", `${name} could not be fetched: HTTP status ${response.status}.`);
    const content = await response.arrayBuffer();
    if (content.byteLength !== size) throw new ClassifiedError("load_failed", `${name} has ${content.byteLength} bytes, not the ${size} that its folder states.`);
    if (sha256 !== null) {
      const found = await sha256Hex(new Uint8Array(content));
      if (found !== sha256) throw new ClassifiedError("load_failed", `${name} is not the file that its folder states: its SHA-256 is ${found}, not ${sha256}.`);
    }
    if (sha256 !== null) await keep.put(sha256, new Uint8Array(content));
    this.upload(name, content);
  }

  private upload(name: string, content: ArrayBuffer): void {
    for (const { plane, put } of this.places) if (plane.file === name) put(new Uint8Array(content, plane.offset, plane.bytes));
  }
}

function planesOf({ planes, bias }: MatrixSpec): PlaneSpec[] {
  return bias ? [...planes, { ...bias, name: "bias" }] : [...planes];
}
