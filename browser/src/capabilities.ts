// What this browser offers, asked of the browser itself.

const header = [0, 97, 115, 109, 1, 0, 0, 0];
const validates = (...body: number[]) => WebAssembly.validate(new Uint8Array([...header, ...body]));

function wasm(): Record<string, unknown> {
  return {
    // i32.const 0, i8x16.splat, drop
    simd: validates(1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, 9, 1, 7, 0, 65, 0, 253, 15, 26, 11),
    // splat three times, i32x4.relaxed_dot_i8x16_i7x16_add_s
    relaxed_simd: validates(1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 19, 1, 17, 0, 65, 1, 253, 15, 65, 2, 253, 15, 65, 3, 253, 15, 253, 147, 2, 11),
    // a shared memory of one page
    threads: self.crossOriginIsolated && validates(5, 4, 1, 3, 1, 1),
    // a memory with 64-bit addresses
    memory64: validates(5, 3, 1, 4, 1),
    jspi: "Suspending" in WebAssembly,
  };
}

/** The limits of an adapter or device; they are getters of its prototype. */
function limits(of: GPUSupportedLimits): Record<string, number> {
  const values: Record<string, number> = {};
  for (const name in of) {
    const value = of[name as keyof GPUSupportedLimits];
    if (typeof value === "number") values[name] = value;
  }
  return values;
}

/** Facts of an adapter. `software_adapter` is null where the browser hides what it is, and `software_adapter_reason` says so. */
export function adapterFacts(adapter: GPUAdapter): Record<string, unknown> {
  const { vendor, architecture, device, description } = adapter.info;
  const fallback = (adapter.info as { isFallbackAdapter?: boolean }).isFallbackAdapter ?? null;
  const text = [vendor, architecture, device, description].join(" ").trim();
  let software: boolean | null = null;
  let reason = "the browser masks the adapter's name and does not say whether it is a fallback adapter";
  if (fallback === true) [software, reason] = [true, "the browser says that it is a fallback adapter"];
  else if (/swiftshader|llvmpipe|lavapipe|softpipe|basic render|software/i.test(text)) [software, reason] = [true, `the adapter is ${text}`];
  else if (fallback === false) [software, reason] = [false, "the browser says that it is no fallback adapter"]; // Firefox gives no name
  else if (vendor !== "") [software, reason] = [false, `the adapter is ${text}`];
  return {
    vendor,
    architecture,
    device,
    description,
    is_fallback_adapter: fallback,
    software_adapter: software,
    software_adapter_reason: reason,
    features: [...adapter.features].sort(),
    limits: limits(adapter.limits),
  };
}

async function webgpu(): Promise<Record<string, unknown>> {
  if (!("gpu" in navigator)) return { available: false, reason: "navigator.gpu does not exist" };
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) return { available: false, reason: "requestAdapter() gives no adapter" };
  return { available: true, ...adapterFacts(adapter), wgsl_language_features: [...navigator.gpu.wgslLanguageFeatures].sort() };
}

/** Each device type: available with the operators it takes, or the browser's own error. */
async function webnn(): Promise<Record<string, unknown>> {
  if (!navigator.ml) return { available: false, reason: "navigator.ml does not exist" };
  const devices: Record<string, unknown> = {};
  for (const deviceType of ["cpu", "gpu", "npu"] as const) {
    try {
      const context = await navigator.ml.createContext({ deviceType });
      const { preferredInputLayout, maxTensorByteLength, input, constant, output, ...operators } = context.opSupportLimits();
      devices[deviceType] = {
        available: true,
        preferred_input_layout: preferredInputLayout,
        max_tensor_bytes: maxTensorByteLength ?? null,
        input_data_types: input.dataTypes,
        constant_data_types: constant.dataTypes,
        output_data_types: output.dataTypes,
        operators: Object.keys(operators).sort(),
      };
      context.destroy();
    } catch (error) {
      devices[deviceType] = { available: false, reason: String(error) };
    }
  }
  const found = Object.values(devices) as { available: boolean; reason?: string }[];
  const available = found.some((device) => device.available);
  return { available, devices, ...(available ? {} : { reason: found[0]?.reason }) };
}

export async function detect(): Promise<Record<string, unknown>> {
  const agent = navigator as unknown as { userAgentData?: { mobile: boolean }; deviceMemory?: number };
  return {
    user_agent: navigator.userAgent,
    mobile: agent.userAgentData?.mobile ?? /\bMobi|Android/.test(navigator.userAgent),
    device_memory_gb: agent.deviceMemory ?? null, // the browser rounds it, or hides it
    cross_origin_isolated: self.crossOriginIsolated,
    hardware_concurrency: navigator.hardwareConcurrency,
    wasm: wasm(),
    webgpu: await webgpu(),
    webnn: await webnn(),
  };
}
