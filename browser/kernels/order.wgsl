// A number as an unsigned integer of the same order; what is not finite comes last, as NOT_FINITE.
const NOT_FINITE = 0xffffffffu;
fn order(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) { return NOT_FINITE; }
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}
