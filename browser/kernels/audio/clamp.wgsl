// Whisper's normalisation: nothing more than 8 decades below the row's peak, then (x + 4) / 4.
struct Parameters {
  row_stride: u32,
  stretch: u32, // values that one row of workgroups covers
}

@group(0) @binding(0) var<storage, read> spectrogram: array<f32>;
@group(0) @binding(1) var<storage, read> peaks: array<u32>;
@group(0) @binding(2) var<storage, read_write> features: array<$OUT>;
@group(0) @binding(3) var<uniform> parameters: Parameters;

@compute @workgroup_size($THREADS)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let index = id.y * parameters.stretch + id.x;
  if (id.x >= parameters.stretch || index >= parameters.row_stride) {
    return;
  }
  let bits = peaks[id.z];
  let peak = bitcast<f32>(select(~bits, bits & 0x7fffffffu, bits >= 0x80000000u));
  let at = id.z * parameters.row_stride + index;
  features[at] = $OUT((max(spectrogram[at], peak - 8.0) + 4.0) / 4.0);
}
