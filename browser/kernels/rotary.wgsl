// Rotary positions, pairs half a head apart (Su et al., 2021, https://arxiv.org/abs/2104.09864). The table holds cosine and sine of every
// position and frequency, made on the CPU in double precision: WGSL promises its own only near zero.
// qkv is [token][queries, keys, values]; `at` is where the head begins.
fn rotated(at: u32, channel: u32, position: u32) -> f32 {
  const half = HEAD_SIZE / 2u;
  let low = channel < half;
  let turn = rotary[position * half + channel % half];
  let other = qkv[select(at + channel - half, at + channel + half, low)];
  return qkv[at + channel] * turn.x + select(other, -other, low) * turn.y;
}
