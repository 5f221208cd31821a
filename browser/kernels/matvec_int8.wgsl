// The vector as int8 with one scale for each sub-block, and products of four at a time (dot4I8Packed). The activations are rounded, so
// results differ from the float path's by about half a percent of the vector's size. Bytes lie in the order in which masks take the
// codes out of a word: a word of 4-bit codes gives codes 0 2 4 6, then 1 3 5 7; of 2-bit codes 0 4 8 12, then 1 5 9 13, and so on.
const WORDS = SUB_BLOCK / 4u;
#if BITS == 3
const HIGH_ORDER = 1u;  // the plane of high bits gives bits 0 8 16 24, ..., so a second copy is kept in that order
#else
const HIGH_ORDER = 0u;
#endif
const STRIDE = SUBS * WORDS * (1u + HIGH_ORDER) + 4u;
var<workgroup> staged: array<u32, TILE / BLOCK * STRIDE>;
var<workgroup> steps: array<f32, TILE / SUB_BLOCK>;
var<workgroup> totals: array<f32, TILE / SUB_BLOCK>;

fn packed(k: u32, stride: u32, scale: f32, inverse: f32) -> u32 {
  let four = vec4(input(k, scale), input(k + stride, scale), input(k + 2u * stride, scale), input(k + 3u * stride, scale));
  return pack4xI8(vec4<i32>(round(four * inverse)));
}

fn stage(start: u32, scale: f32, index: u32) {
  let used = min(TILE, PADDED - start);
  for (var s = index; s < used / SUB_BLOCK; s += WORKGROUP) {
    let begin = start + s * SUB_BLOCK;
    var largest = 0.0;
    var bad = 0u;
    for (var i = 0u; i < SUB_BLOCK; i++) {
      let value = input(begin + i, scale);
      largest = max(largest, abs(value));
      if ((bitcast<u32>(value) & 0x7f800000u) == 0x7f800000u) { bad = 0x7fc00000u; }
    }
    let inverse = select(127.0 / largest, 0.0, largest == 0.0);
    let at = s / SUBS * STRIDE + s % SUBS * WORDS;
    var total = 0;
    for (var i = 0u; i < WORDS; i++) {
#if BITS == 4
      let word = packed(begin + i / 2u * 8u + i % 2u, 2u, scale, inverse);
#endif
#if BITS == 8
      let word = packed(begin + i * 4u, 1u, scale, inverse);
#endif
#if BITS <= 3
      let word = packed(begin + i / 4u * 16u + i % 4u, 4u, scale, inverse);
#endif
      staged[at + i] = word;
      total += dot4I8Packed(word, 0x01010101u);
#if BITS == 3
      staged[at + SUBS * WORDS + i] = packed(begin + i, 8u, scale, inverse);
#endif
    }
    // What is not finite must not be rounded away: the step becomes NaN.
    steps[s] = select(largest / 127.0, bitcast<f32>(bad), bad != 0u);
    totals[s] = f32(total) * largest / 127.0;
  }
  workgroupBarrier();
}

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

fn load_x(b: u32, sub: u32) -> SubBlock {
  let at = b * STRIDE + sub * WORDS;
  var v: SubBlock;
#for i 0 SUB_QUADS
  v.x$i = staged[at + $iu];
#if BITS == 3
  v.y$i = staged[at + SUBS * WORDS + $iu];
#endif
#endfor
  v.step = steps[b * SUBS + sub];
  v.total = totals[b * SUBS + sub];
  return v;
}

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
