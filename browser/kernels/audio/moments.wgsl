// Mean and sum of squared deviations of each stretch of a wave, by the pairwise update of Chan, Golub and LeVeque (1979): float32 sums of
// a million samples would lose too many digits. The entry point `gather` merges the stretches of each wave.
const THREADS: u32 = $THREADSu;
const EACH: u32 = $EACHu; // samples of a thread

@group(0) @binding(0) var<storage, read> waves: array<f32>;
@group(0) @binding(1) var<storage, read> bounds: array<vec4u>; // of each wave: first sample, samples, first stretch, stretches
@group(0) @binding(2) var<storage, read_write> stretches: array<vec4f>; // count, mean, sum of squared deviations
@group(0) @binding(3) var<storage, read_write> moments: array<vec2f>; // of each wave: mean and 1 / standard deviation

var<workgroup> partial: array<vec3f, THREADS>;

fn merged(a: vec3f, b: vec3f) -> vec3f {
  let count = a.x + b.x;
  if (count == 0.0) {
    return vec3f(0.0);
  }
  let step = b.y - a.y;
  return vec3f(count, a.y + step * (b.x / count), a.z + b.z + step * step * (a.x * b.x / count));
}

fn reduce(thread: u32) {
  for (var width = THREADS / 2u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (thread < width) {
      partial[thread] = merged(partial[thread], partial[thread + width]);
    }
  }
  workgroupBarrier();
}

@compute @workgroup_size($THREADS)
fn scatter(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let bound = bounds[group.y];
  var sum = 0.0;
  var count = 0u;
  let first = group.x * THREADS * EACH + thread;
  for (var index = 0u; index < EACH; index++) {
    let at = first + index * THREADS;
    if (at < bound.y) {
      sum += waves[bound.x + at];
      count++;
    }
  }
  let mean = sum / f32(max(count, 1u));
  var squares = 0.0;
  for (var index = 0u; index < count; index++) {
    let deviation = waves[bound.x + first + index * THREADS] - mean;
    squares += deviation * deviation;
  }
  partial[thread] = vec3f(f32(count), mean, squares);
  reduce(thread);
  if (thread == 0u && group.x < bound.w) {
    stretches[bound.z + group.x] = vec4f(partial[0], 0.0);
  }
}

@compute @workgroup_size($THREADS)
fn gather(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let bound = bounds[group.x];
  var all = vec3f(0.0);
  for (var index = thread; index < bound.w; index += THREADS) {
    all = merged(all, stretches[bound.z + index].xyz);
  }
  partial[thread] = all;
  reduce(thread);
  if (thread == 0u) {
    let total = partial[0];
    moments[group.x] = vec2f(total.y, 1.0 / sqrt(total.z / total.x + 1e-7));
  }
}
