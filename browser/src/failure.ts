// Errors with the class under which Python stores them.
import type { ErrorClass } from "./protocol";

export class ClassifiedError extends Error {
  constructor(
    readonly errorClass: ErrorClass,
    message: string,
  ) {
    super(message);
  }
}

const outOfMemory = /out of memory|\bOOM\b|bad_alloc|allocation failed|failed to allocate|could not allocate/i;
const unsupported = /NotSupportedError|not supported|unsupported|Could not find an implementation|exceeds? the (max )?.*limit/i;
const lost = /device (is|was) lost|context is lost|Tensor has been destroyed|A valid external Instance reference no longer exists/i;

/** The class of an error by its text, which is all that browsers and ONNX Runtime give; `otherwise` where it says nothing. */
export function classify(error: unknown, otherwise: ErrorClass): { errorClass: ErrorClass; message: string } {
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  if (error instanceof ClassifiedError) return { errorClass: error.errorClass, message: error.message };
  if (outOfMemory.test(message)) return { errorClass: "out_of_memory", message };
  if (lost.test(message)) return { errorClass: "device_lost", message };
  if (unsupported.test(message)) return { errorClass: "unsupported", message };
  return { errorClass: otherwise, message };
}
