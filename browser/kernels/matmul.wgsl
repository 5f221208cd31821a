// A chunk of vectors through a matrix: y[token][row] = x[token] . W[row] (+ bias), y = or y += (RESIDUAL). 16 x 16 invocations make a tile of
// 16 * TOKENS tokens and 64 rows; 32 columns at a time lie in workgroup memory, the weights dequantised once for the whole tile.
// ELEMENT is f32, or f16 (then four products are added in f16, everything else in f32).
#include dequantize
#include state
@group(0) @binding(2) var<storage, read> state: State;
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

const STEP_QUADS = 8u;
const STRIDE = STEP_QUADS + 1u;
const TILE_TOKENS = 16u * TOKENS;
var<workgroup> staged_x: array<vec4<ELEMENT>, TILE_TOKENS * STRIDE>;
var<workgroup> staged_w: array<vec4<ELEMENT>, 64u * STRIDE>;

fn input(token: u32, k: u32) -> f32 { return select(0.0, x[token * COLUMNS + min(k, COLUMNS - 1u)], k < COLUMNS); }

@compute @workgroup_size(16, 16)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let tokens = state.rows;
  let rows = scales[ROWS_AT];
  let first_row = workgroup.x * 64u;
  let first_token = workgroup.y * TILE_TOKENS;
#for t 0 TOKENS
  var sum$t = vec4(0.0);
#endfor
  for (var start = 0u; start < PADDED; start += 4u * STEP_QUADS) {
    workgroupBarrier();
    for (var i = index; i < TILE_TOKENS * STEP_QUADS; i += 256u) {
      let token = min(first_token + i / STEP_QUADS, tokens - 1u);
      let k = start + i % STEP_QUADS * 4u;
      staged_x[i / STEP_QUADS * STRIDE + i % STEP_QUADS] =
        vec4<ELEMENT>(vec4(input(token, k), input(token, k + 1u), input(token, k + 2u), input(token, k + 3u)));
    }
    for (var i = index; i < 64u * STEP_QUADS; i += 256u) {
      let row = min(first_row + i / STEP_QUADS, rows - 1u);
      let k = start + i % STEP_QUADS * 4u;
      var four = vec4(0.0);
      if (k < PADDED) { four = weights(row, k / BLOCK, k % BLOCK / SUB_BLOCK, k % SUB_BLOCK / 4u); }
      staged_w[i / STEP_QUADS * STRIDE + i % STEP_QUADS] = vec4<ELEMENT>(four);
    }
    workgroupBarrier();
    for (var q = 0u; q < STEP_QUADS; q++) {
      let w0 = staged_w[local.x * STRIDE + q];
      let w1 = staged_w[(local.x + 16u) * STRIDE + q];
      let w2 = staged_w[(local.x + 32u) * STRIDE + q];
      let w3 = staged_w[(local.x + 48u) * STRIDE + q];
#for t 0 TOKENS
      let x$t = staged_x[(local.y + 16u * $tu) * STRIDE + q];
      sum$t += vec4<f32>(vec4(dot(x$t, w0), dot(x$t, w1), dot(x$t, w2), dot(x$t, w3)));
#endfor
    }
  }
#include matmul_results
}
