// Polyphase resampling by up/down: y[n] = sum over j of x[j] * taps[n * down - j * up + centre], as in scipy.signal.resample_poly.
struct Parameters {
  up: u32,
  down: u32,
  centre: u32, // index of the middle tap; there are 2 * centre + 1
  stretch: u32, // outputs that one row of workgroups covers
}

@group(0) @binding(0) var<storage, read> waves: array<f32>;
@group(0) @binding(1) var<storage, read> bounds: array<vec4u>; // of each wave: first input, inputs, first output, outputs
@group(0) @binding(2) var<storage, read> taps: array<f32>;
@group(0) @binding(3) var<storage, read_write> resampled: array<f32>;
@group(0) @binding(4) var<uniform> parameters: Parameters;

@compute @workgroup_size($THREADS)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let bound = bounds[id.z];
  let output = id.y * parameters.stretch + id.x;
  if (id.x >= parameters.stretch || output >= bound.w) {
    return;
  }
  // n * down overflows for long waves, so whole periods of `up` outputs, each `down` inputs, are taken off first.
  let up = i32(parameters.up);
  let period = i32(output / parameters.up) * i32(parameters.down);
  let position = i32(output % parameters.up) * i32(parameters.down) + i32(parameters.centre);
  let last_tap = 2 * i32(parameters.centre);
  let beyond = position - last_tap;
  var first = -(-beyond / up); // rounded up, as division truncates towards zero
  if (beyond > 0) {
    first = (beyond + up - 1) / up;
  }
  let begin = max(first, -period);
  let end = min(position / up, i32(bound.y) - 1 - period);
  var sum = 0.0;
  for (var input = begin; input <= end; input++) {
    sum += waves[bound.x + u32(period + input)] * taps[u32(position - input * up)];
  }
  resampled[bound.z + output] = sum;
}
