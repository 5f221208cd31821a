// 32 results of a product as int8 for the next one: three vec4s a block, the bytes in the order in which masks take codes of PACKED_ORDER
// bits out of a word (see int8_order), then their step and, for the zeros, their sum.
var<workgroup> block_of_results: array<f32, 32>;

fn pack_results(block: u32, count: u32, index: u32) {
  if (index != 0u) { return; }
  var most = 0.0;
  var bad = 0u;
  for (var i = 0u; i < 32u; i++) {
    if (block * 32u + i >= count) { block_of_results[i] = 0.0; }
    most = max(most, abs(block_of_results[i]));
    if ((bitcast<u32>(block_of_results[i]) & 0x7f800000u) == 0x7f800000u) { bad = 0x7fc00000u; }
  }
  // What is not finite must not be rounded away: the step becomes NaN.
  let step = select(most / 127.0, bitcast<f32>(bad), bad != 0u);
  let inverse = select(1.0 / step, 0.0, step == 0.0);
  var words: array<u32, 8>;
  var total = 0;
  for (var i = 0u; i < 8u; i++) {
#if PACKED_ORDER == 4
    let at = vec4(i / 2u * 8u + i % 2u) + vec4(0u, 2u, 4u, 6u);
#else
    let at = vec4(i / 4u * 16u + i % 4u) + vec4(0u, 4u, 8u, 12u);
#endif
    let four = vec4(block_of_results[at.x], block_of_results[at.y], block_of_results[at.z], block_of_results[at.w]);
    words[i] = pack4xI8(vec4<i32>(round(four * inverse)));
    total += dot4I8Packed(words[i], 0x01010101u);
  }
  y[3u * block] = vec4(words[0], words[1], words[2], words[3]);
  y[3u * block + 1u] = vec4(words[4], words[5], words[6], words[7]);
  y[3u * block + 2u] = vec4(bitcast<u32>(step), bitcast<u32>(f32(total) * step), 0u, 0u);
}
