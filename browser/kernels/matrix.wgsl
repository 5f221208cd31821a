// A matrix [rows, columns] in two buffers: `values` (the codes, each row padded to whole vec4s; for 3 bits the plane of high bits after
// them) and `scales`. The formats are those of quantize/formats.py, and float32, float16 and bfloat16.
@group(0) @binding(0) var<storage, read> values: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> scales: array<u32>;

const ROWS_AT = 0u;        // rows in these buffers
const FIRST_ROW_AT = 1u;   // which row of the whole matrix the first one is
// Words 2 to 5: where in `scales` the biases, scale codes and zero codes begin, and where in `values` (in words) the plane of high bits.
// BIAS_BASE, SCALES_BASE, ZEROS_BASE and HIGH_BASE are these words, or the numbers where the pipeline is for one shape.
const ROW_SCALES_AT = 16u;
// Words 6 to 13 hold the sizes by which a variant for every shape reads them: see `anyShape` in engines/wgsl/matrix.ts.

// Scale of a group in units of the row's scale / 255.
fn scale_code(row: u32, group: u32) -> f32 {
  return f32((scales[SCALES_BASE + row * SCALE_WORDS + group / 4u] >> (8u * (group % 4u))) & 255u);
}

// Zero of a group in codes.
fn zero(row: u32, group: u32) -> f32 {
  return f32((scales[ZEROS_BASE + row * ZERO_WORDS + group / 8u] >> (4u * (group % 8u))) & 15u) * (LARGEST_CODE / 15.0);
}

fn row_scale(row: u32) -> f32 { return bitcast<f32>(scales[ROW_SCALES_AT + row]); }

fn bias(row: u32) -> f32 { return bitcast<f32>(scales[BIAS_BASE + row]); }

// The high bits of block `block` (64 weights) of a row of 3-bit weights.
fn high_words(row: u32, block: u32) -> vec2<u32> {
#if BITS == 3
  let at = HIGH_BASE + row * HIGH_WORDS + block * 2u;
  let four = values[at / 4u];
  return select(four.xy, four.zw, at % 4u == 2u);
#else
  return vec2(0u);
#endif
}
