// CLAP's fusion of a long recording: its whole spectrogram [whole, mels] shrunk to `frames` by linear interpolation (half-pixel centres, as
// torch's bilinear interpolate), then three crops of it.
struct Parameters {
  whole: u32,
  frames: u32,
  mels: u32,
  first_output: u32,
  crops: vec4u, // first frame of each crop
}

@group(0) @binding(0) var<storage, read> spectrogram: array<f32>;
@group(0) @binding(1) var<storage, read_write> features: array<$OUT>;
@group(0) @binding(2) var<uniform> parameters: Parameters;

@compute @workgroup_size($THREADS)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let size = parameters.frames * parameters.mels;
  if (id.x >= size) {
    return;
  }
  let frame = id.x / parameters.mels;
  let mel = id.x % parameters.mels;
  var value: f32;
  if (id.y == 0u) {
    let centre = max((f32(frame) + 0.5) * (f32(parameters.whole) / f32(parameters.frames)) - 0.5, 0.0);
    let below = min(u32(centre), parameters.whole - 1u);
    let above = min(below + 1u, parameters.whole - 1u);
    let low = spectrogram[below * parameters.mels + mel];
    value = low + (spectrogram[above * parameters.mels + mel] - low) * (centre - f32(below));
  } else {
    value = spectrogram[(parameters.crops[id.y - 1u] + frame) * parameters.mels + mel];
  }
  features[parameters.first_output + id.y * size + id.x] = $OUT(value);
}
