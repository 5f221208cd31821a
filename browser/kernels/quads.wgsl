// Four neighbouring weights of a block, as numbers. Quantised ones come as 1 + code / 2^BITS: the code's bits go straight to the
// top of a mantissa, which needs no conversion from integer to float.
#if BITS == 2
fn quad(w: vec4<u32>, high: vec2<u32>, sub: u32, i: u32) -> vec4<f32> {
  let u = w[sub * 2u + i / 4u] >> (8u * (i % 4u));
  return bitcast<vec4<f32>>(((vec4(u) << vec4(21u, 19u, 17u, 15u)) & vec4(0x600000u)) | vec4(0x3f800000u));
}
#endif
#if BITS == 3
fn quad(w: vec4<u32>, high: vec2<u32>, sub: u32, i: u32) -> vec4<f32> {
  let u = w[sub * 2u + i / 4u] >> (8u * (i % 4u));
  let h = high[sub] >> (4u * i);
  let bits = ((vec4(u) << vec4(20u, 18u, 16u, 14u)) & vec4(0x300000u)) | ((vec4(h) << vec4(22u, 21u, 20u, 19u)) & vec4(0x400000u));
  return bitcast<vec4<f32>>(bits | vec4(0x3f800000u));
}
#endif
#if BITS == 4
fn quad(w: vec4<u32>, high: vec2<u32>, sub: u32, i: u32) -> vec4<f32> {
  let u = w[i / 2u] >> (16u * (i % 2u));
  return bitcast<vec4<f32>>(((vec4(u) << vec4(19u, 15u, 11u, 7u)) & vec4(0x780000u)) | vec4(0x3f800000u));
}
#endif
#if BITS == 8
fn quad(w: vec4<u32>, high: vec2<u32>, sub: u32, i: u32) -> vec4<f32> {
  let u = w[i];
  return bitcast<vec4<f32>>((vec4(u << 15u, u << 7u, u >> 1u, u >> 9u) & vec4(0x7f8000u)) | vec4(0x3f800000u));
}
#endif
#if BITS == 16
#if BRAIN
fn quad(w: vec4<u32>, high: vec2<u32>, sub: u32, i: u32) -> vec4<f32> {
  let a = w[2u * i];
  let b = w[2u * i + 1u];
  return bitcast<vec4<f32>>(vec4(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u));
}
#else
fn quad(w: vec4<u32>, high: vec2<u32>, sub: u32, i: u32) -> vec4<f32> {
  return vec4(unpack2x16float(w[2u * i]), unpack2x16float(w[2u * i + 1u]));
}
#endif
#endif
#if BITS == 32
fn quad(w: vec4<u32>, high: vec2<u32>, sub: u32, i: u32) -> vec4<f32> { return bitcast<vec4<f32>>(w); }
#endif
