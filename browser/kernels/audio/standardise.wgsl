// Rows of waves with mean 0 and variance 1, zeros after each recording's end.
struct Parameters {
  samples: u32, // of a row
  stretch: u32, // samples that one row of workgroups covers
  standardise: u32, // 0: the samples as they are
}

@group(0) @binding(0) var<storage, read> waves: array<f32>;
@group(0) @binding(1) var<storage, read> rows: array<vec4u>; // of each row: first sample, samples, unused, its wave
@group(0) @binding(2) var<storage, read> moments: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> values: array<$OUT>;
@group(0) @binding(4) var<uniform> parameters: Parameters;

@compute @workgroup_size($THREADS)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let index = id.y * parameters.stretch + id.x;
  if (id.x >= parameters.stretch || index >= parameters.samples) {
    return;
  }
  let row = rows[id.z];
  var value = 0.0;
  if (index < row.y) {
    value = waves[row.x + index];
    if (parameters.standardise != 0u) {
      let moment = moments[row.w];
      value = (value - moment.x) * moment.y;
    }
  }
  values[id.z * parameters.samples + index] = $OUT(value);
}
