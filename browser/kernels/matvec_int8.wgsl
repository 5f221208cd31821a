// The vector as int8 with one scale for each sub-block, and products of four at a time (dot4I8Packed). The activations are rounded, so
// results differ from the float path's by about half a percent of the vector's size. Bytes lie in the order in which masks take the
// codes out of a word: a word of 4-bit codes gives codes 0 2 4 6, then 1 3 5 7; of 2-bit codes 0 4 8 12, then 1 5 9 13, and so on.
#include int8_order
#if !PACKED_IN
const WORDS = SUB_BLOCK / 4u;
#if BITS == 3
const HIGH_ORDER = 1u;  // the plane of high bits gives bits 0 8 16 24, ..., so a second copy is kept in that order
#else
const HIGH_ORDER = 0u;
#endif
const QUADS = WORDS / 4u;  // vec4s of packed words in a sub-block
const STRIDE = SUBS * QUADS * (1u + HIGH_ORDER) + 1u;
var<workgroup> staged: array<vec4<u32>, TILE / BLOCK * STRIDE>;
var<workgroup> steps: array<f32, TILE / SUB_BLOCK>;
var<workgroup> totals: array<f32, TILE / SUB_BLOCK>;

var<workgroup> floats: array<vec4<f32>, TILE / 4u>;

fn float_at(k: u32) -> f32 { return floats[k / 4u][k % 4u]; }

// Values k, k + stride, ... of a sub-block as one word.
fn packed(k: u32, stride: u32, sub_block: u32) -> u32 {
  let step = steps[sub_block];
  let inverse = select(1.0 / step, 0.0, step == 0.0);
  let four = vec4(float_at(k), float_at(k + stride), float_at(k + 2u * stride), float_at(k + 3u * stride));
  return pack4xI8(vec4<i32>(round(four * inverse)));
}

fn put(q: u32, four: vec4<f32>) { floats[q] = four; }

// After the vector's (or its tile's) first `used` values were put.
fn staged_now(used: u32, index: u32) {
  workgroupBarrier();
  for (var s = index; s < used / SUB_BLOCK; s += WORKGROUP) {
    var largest = vec4(0.0);
    var bad = 0u;
    for (var q = 0u; q < WORDS; q++) {
      let four = floats[s * WORDS + q];
      largest = max(largest, abs(four));
      let infinite = (bitcast<vec4<u32>>(four) & vec4(0x7f800000u)) == vec4(0x7f800000u);
      if (any(infinite)) { bad = 0x7fc00000u; }
    }
    let most = max(max(largest.x, largest.y), max(largest.z, largest.w));
    // What is not finite must not be rounded away: the step becomes NaN.
    steps[s] = select(most / 127.0, bitcast<f32>(bad), bad != 0u);
  }
  workgroupBarrier();
  for (var n = index; n < used / 16u; n += WORKGROUP) {
    let s = n / QUADS;
    let i = n % QUADS * 4u;
    let begin = s * SUB_BLOCK;
    let at = s / SUBS * STRIDE + s % SUBS * QUADS + n % QUADS;
    var words: vec4<u32>;
    for (var j = 0u; j < 4u; j++) { words[j] = packed(begin + first_of(i + j), CODES_APART, s); }
    staged[at] = words;
#if BITS == 3
    for (var j = 0u; j < 4u; j++) { words[j] = packed(begin + i + j, 8u, s); }
    staged[at + SUBS * QUADS] = words;
#endif
  }
  workgroupBarrier();
  for (var s = index; s < used / SUB_BLOCK; s += WORKGROUP) {
    let at = s / SUBS * STRIDE + s % SUBS * QUADS;
    var total = 0;
    for (var i = 0u; i < QUADS; i++) {
      let four = staged[at + i];
      total += dot4I8Packed(four.x, 0x01010101u) + dot4I8Packed(four.y, 0x01010101u)
        + dot4I8Packed(four.z, 0x01010101u) + dot4I8Packed(four.w, 0x01010101u);
    }
    totals[s] = f32(total) * steps[s];
  }
  workgroupBarrier();
}
#endif

struct SubBlock {
#for i 0 SUB_QUADS
  x$i: u32,
#if BITS == 3
  y$i: u32,
#endif
#endfor
  step: f32,
  total: f32,
}

#if PACKED_IN
// Straight from memory: the whole vector is a few kilobytes, which the cores' caches hold.
fn load_x(b: u32, sub: u32) -> SubBlock {
  let at = 3u * (b * SUBS + sub);
  let low = x[at];
  let high = x[at + 1u];
  let rest = bitcast<vec4<f32>>(x[at + 2u]);
  var v: SubBlock;
  v.x0 = low.x; v.x1 = low.y; v.x2 = low.z; v.x3 = low.w;
  v.x4 = high.x; v.x5 = high.y; v.x6 = high.z; v.x7 = high.w;
  v.step = rest.x;
  v.total = rest.y;
  return v;
}
#else
fn load_x(b: u32, sub: u32) -> SubBlock {
  let at = b * STRIDE + sub * QUADS;
  var v: SubBlock;
#for i 0 SUB_VEC4S
  let four$i = staged[at + $iu];
#if BITS == 3
  let high$i = staged[at + SUBS * QUADS + $iu];
#endif
#endfor
  v.x0 = four0.x; v.x1 = four0.y; v.x2 = four0.z; v.x3 = four0.w;
#if SUB_VEC4S == 2
  v.x4 = four1.x; v.x5 = four1.y; v.x6 = four1.z; v.x7 = four1.w;
#endif
#if BITS == 3
  v.y0 = high0.x; v.y1 = high0.y; v.y2 = high0.z; v.y3 = high0.w;
  v.y4 = high1.x; v.y5 = high1.y; v.y6 = high1.z; v.y7 = high1.w;
#endif
  v.step = steps[b * SUBS + sub];
  v.total = totals[b * SUBS + sub];
  return v;
}
#endif

fn product(v: SubBlock, w: vec4<u32>, high: vec2<u32>, sub: u32, row: u32, group: u32) -> f32 {
  var sum = 0;
#for i 0 SUB_QUADS
#if BITS == 4
  sum += dot4I8Packed((w[$iu / 2u] >> (4u * ($iu % 2u))) & 0x0f0f0f0fu, v.x$i);
#endif
#if BITS == 8
  sum += dot4I8Packed(w[$iu] ^ 0x80808080u, v.x$i);
#endif
#if BITS <= 3
  sum += dot4I8Packed((w[sub * 2u + $iu / 4u] >> (2u * ($iu % 4u))) & 0x03030303u, v.x$i);
#endif
#if BITS == 3
  sum += 4 * dot4I8Packed((high[sub] >> $iu) & 0x01010101u, v.y$i);
#endif
#endfor
#if BITS == 8
  let begin = 128.0;  // the codes were made signed
#else
  let begin = 0.0;
#endif
  return scale_code(row, group) * (v.step * f32(sum) - (zero(row, group) - begin) * v.total);
}
