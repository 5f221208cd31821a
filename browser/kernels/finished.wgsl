// A row's result from the sum of its products: the row's scale, and its bias where there is one.
fn finished(sum: f32, row: u32) -> f32 {
  var total = sum;
#if BITS <= 8
  total *= row_scale(row) / 255.0;
#endif
#if HAS_BIAS
  total += bias(row);
#endif
  return total;
}
