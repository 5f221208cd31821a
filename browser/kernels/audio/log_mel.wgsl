// Log-mel spectrogram, one workgroup a frame: window, real FFT of $POINTS samples as a complex one of half as many, power, mel filters,
// logarithm. The frame's values never leave the workgroup's memory.
const HALF: u32 = $HALFu;
const THREADS: u32 = $THREADSu;

struct Parameters {
  samples: u32, // of a row, with its padding
  hop: u32,
  mels: u32,
  mel_stride: u32,
  frame_stride: u32,
  row_stride: u32,
  first_output: u32,
  first_frame: u32,
  scale: f32, // of the decimal logarithm: 1, or 10 for decibels
}

@group(0) @binding(0) var<storage, read> waves: array<f32>;
@group(0) @binding(1) var<storage, read> rows: array<vec4u>; // of each row: first sample, samples, samples with its repetitions
@group(0) @binding(2) var<storage, read> table: array<vec2f>; // HALF roots of unity, HALF + 1 of twice the order, HALF pairs of the window
@group(0) @binding(3) var<storage, read> filters: array<vec4u>; // of each mel filter: first bin, bins, first weight
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read_write> features: array<$OUT>;
@group(0) @binding(6) var<storage, read_write> peaks: array<atomic<u32>>; // of each row, ordered as in `ordered`
@group(0) @binding(7) var<uniform> parameters: Parameters;

var<workgroup> even: array<vec2f, HALF>;
var<workgroup> odd: array<vec2f, HALF>;
var<workgroup> power: array<f32, HALF + 1u>;
var<workgroup> peak: atomic<u32>;

fn times(a: vec2f, b: vec2f) -> vec2f {
  return vec2f(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

/// Bits whose order as integers is that of the numbers.
fn ordered(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

/// Sample of a row: reflected at its two ends, the recording (repeated or not) followed by zeros.
fn sample(row: vec4u, position: i32) -> f32 {
  let last = i32(parameters.samples) - 1;
  var index = abs(position);
  index = select(index, 2 * last - index, index > last);
  if (u32(index) >= row.z) {
    return 0.0;
  }
  return waves[row.x + u32(index) % row.y];
}

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let row = rows[group.y];
  let frame = parameters.first_frame + group.x;
  let first = i32(frame * parameters.hop) - i32(HALF);
  for (var pair = thread; pair < HALF; pair += THREADS) {
    let at = first + 2 * i32(pair);
    even[pair] = vec2f(sample(row, at), sample(row, at + 1)) * table[2u * HALF + 1u + pair];
  }
  workgroupBarrier();
$PASSES
  for (var bin = thread; bin <= HALF; bin += THREADS) {
    let forward = $RESULT[bin % HALF];
    let mirrored = $RESULT[(HALF - bin) % HALF] * vec2f(1.0, -1.0);
    let rest = times(forward - mirrored, table[HALF + bin]);
    let value = 0.5 * (forward + mirrored + vec2f(rest.y, -rest.x));
    power[bin] = dot(value, value);
  }
  workgroupBarrier();
  var loudest = 0u; // below every number that there is
  let output = parameters.first_output + group.y * parameters.row_stride + frame * parameters.frame_stride;
  for (var mel = thread; mel < parameters.mels; mel += THREADS) {
    let filter_ = filters[mel];
    var sum = 0.0;
    for (var bin = 0u; bin < filter_.y; bin++) {
      sum += weights[filter_.z + bin] * power[filter_.x + bin];
    }
    let value = parameters.scale * 0.30102999566 * log2(max(sum, 1e-10));
    features[output + mel * parameters.mel_stride] = $OUT(value);
    loudest = max(loudest, ordered(value));
  }
  $PEAK
  workgroupBarrier();
  if (thread == 0u) {
    atomicMax(&peaks[group.y], atomicLoad(&peak));
  }
}
