// Weights as they are, for kernels that spread them over many vectors.
#include matrix
#include quads

// Quad `i` of sub-block `sub` of a block of row `row`.
fn weights(row: u32, block: u32, sub: u32, i: u32) -> vec4<f32> {
  let coded = quad(values[row * ROW_VEC4S + block], high_words(row, block), sub, i);
#if BITS <= 8
  let group = min((block * BLOCK + sub * SUB_BLOCK) / GROUP_SIZE, GROUPS - 1u);
  let scale = row_scale(row) * scale_code(row, group) / 255.0;
  return (coded - vec4(1.0)) * (scale * LEVELS) - vec4(scale * zero(row, group));
#else
  return coded;
#endif
}
