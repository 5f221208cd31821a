// The part of WebNN that is used here; TypeScript has no types for it yet (https://www.w3.org/TR/webnn/).
interface MLContextOptions {
  deviceType?: "cpu" | "gpu" | "npu";
  powerPreference?: "default" | "low-power" | "high-performance";
}
interface MLTensor {
  destroy(): void;
}
interface MLOpSupportLimits {
  preferredInputLayout: string;
  maxTensorByteLength?: number;
  input: { dataTypes: string[] };
  constant: { dataTypes: string[] };
  output: { dataTypes: string[] };
  [operator: string]: unknown;
}
interface MLContext {
  readonly lost: Promise<{ message: string }>;
  createTensor(descriptor: { dataType: string; shape: number[]; readable?: boolean; writable?: boolean }): Promise<MLTensor>;
  opSupportLimits(): MLOpSupportLimits;
  destroy(): void;
}
interface Navigator {
  readonly ml?: { createContext(options?: MLContextOptions): Promise<MLContext> };
}
