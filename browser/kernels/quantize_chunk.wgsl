// A chunk's vectors as int8, one step for 32 values: 64 tokens and 4 such blocks a workgroup, a block an invocation. `words` has the values in
// the order in which masks take the codes of ORDER bits out of a word (see matvec_int8), rows padded with zeros to whole 64 values;
// `blocks` has each block's step, and its sum for the zeros.
#include state
#include int8_order
@group(0) @binding(2) var<storage, read> state: State;
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> words: array<vec4<u32>>;  // [token][block][2]
@group(0) @binding(5) var<storage, read_write> blocks: array<vec2<f32>>;  // [token][block]

const BLOCKS = (COLUMNS + 63u) / 64u * 2u;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let token = workgroup.y * 64u + index / 4u;
  let block = workgroup.x * 4u + index % 4u;
  if (token >= state.rows || block >= BLOCKS) { return; }
  var values: array<f32, 32>;
  var most = 0.0;
  var bad = 0u;
  for (var i = 0u; i < 32u; i++) {
    let k = block * 32u + i;
    values[i] = select(0.0, x[token * COLUMNS + min(k, COLUMNS - 1u)], k < COLUMNS);
    most = max(most, abs(values[i]));
    if ((bitcast<u32>(values[i]) & 0x7f800000u) == 0x7f800000u) { bad = 0x7fc00000u; }
  }
  // What is not finite must not be rounded away: the step becomes NaN.
  let step = select(most / 127.0, bitcast<f32>(bad), bad != 0u);
  let inverse = select(1.0 / step, 0.0, step == 0.0);
  var packed: array<u32, 8>;
  var total = 0;
  for (var i = 0u; i < 8u; i++) {
    let first = first_of(i);
    let four = vec4(values[first], values[first + CODES_APART], values[first + 2u * CODES_APART], values[first + 3u * CODES_APART]);
    packed[i] = pack4xI8(vec4<i32>(round(four * inverse)));
    total += dot4I8Packed(packed[i], 0x01010101u);
  }
  let at = token * BLOCKS + block;
  words[2u * at] = vec4(packed[0], packed[1], packed[2], packed[3]);
  words[2u * at + 1u] = vec4(packed[4], packed[5], packed[6], packed[7]);
  blocks[at] = vec2(step, f32(total) * step);
}
