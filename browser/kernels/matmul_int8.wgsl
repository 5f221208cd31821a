// A chunk of vectors, as int8 by quantize_chunk, through a matrix of few bits: y[token][row] = x[token] . W[row] (+ bias), y = or y += (RESIDUAL).
// 16 x 16 invocations make a tile of 64 tokens and 64 rows, 4 x 4 results each; 32 columns at a time lie in workgroup memory as bytes and
// are multiplied four at a time (dot4I8Packed), while the next ones are on their way to registers.
#include matrix
#include state
@group(0) @binding(2) var<storage, read> state: State;
@group(0) @binding(3) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> blocks: array<vec2<f32>>;

const STRIDE = 3u;  // two vec4s of a row and one of padding: no bank conflicts
var<workgroup> staged_x: array<vec4<u32>, 64u * STRIDE>;
var<workgroup> staged_w: array<vec4<u32>, 64u * STRIDE>;
var<workgroup> scales_x: array<vec2<f32>, 64>;
var<workgroup> scales_w: array<vec2<f32>, 64>;

// Half `half` (16 codes) of the 32 columns from 32 `k` on, of a row, as bytes.
fn codes(row: u32, k: u32, half: u32) -> vec4<u32> {
#if BITS == 4
  let w = values[row * ROW_VEC4S + k];
  let pair = select(w.xy, w.zw, half == 1u);
  return vec4(pair.x, pair.x >> 4u, pair.y, pair.y >> 4u) & vec4(0x0f0f0f0fu);
#endif
#if BITS == 8
  return values[row * ROW_VEC4S + min(2u * k + half, ROW_VEC4S - 1u)] ^ vec4(0x80808080u);
#endif
#if BITS <= 3
  let w = values[row * ROW_VEC4S + k / 2u];
  let word = w[k % 2u * 2u + half];
  let low = (vec4(word) >> vec4(0u, 2u, 4u, 6u)) & vec4(0x03030303u);
#if BITS == 3
  let h = vec4(high_words(row, k / 2u)[k % 2u]) >> (vec4(16u * half) + vec4(0u, 1u, 2u, 3u));
  let high = (h & vec4(1u)) | ((h & vec4(0x10u)) << vec4(4u)) | ((h & vec4(0x100u)) << vec4(8u)) | ((h & vec4(0x1000u)) << vec4(12u));
  return low | (high << vec4(2u));
#else
  return low;
#endif
#endif
}

struct Next {
  quad: vec4<u32>,
  pair: vec2<f32>,
}

// What an invocation brings in for 32 columns: the first 128 a half of a row of weights, the others a half of a token; and the scale of one of both.
fn fetch(k: u32, index: u32, first_row: u32, first_token: u32, rows: u32, tokens: u32) -> Next {
  let x_blocks = (COLUMNS + 63u) / 64u * 2u;
  let of_row = index < 128u;
  let i = index % 128u;
  var next: Next;
  let row = min(first_row + i / 2u, rows - 1u);
  let token = min(first_token + i / 2u, tokens - 1u);
  if (of_row) {
    next.quad = codes(row, k, i % 2u);
    if (i % 2u == 0u) {
      let group = min(k * 32u / GROUP_SIZE, GROUPS - 1u);
      let scale = row_scale(row) * scale_code(row, group) / 255.0;
#if BITS == 8
      next.pair = vec2(scale, scale * (zero(row, group) - 128.0));  // the codes were made signed
#else
      next.pair = vec2(scale, scale * zero(row, group));
#endif
    }
  } else {
    let at = token * x_blocks + k;
    next.quad = words[2u * at + i % 2u];
    if (i % 2u == 0u) { next.pair = blocks[at]; }
  }
  return next;
}

@compute @workgroup_size(16, 16)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let tokens = state.rows;
  let rows = scales[ROWS_AT];
  let first_row = workgroup.x * 64u;
  let first_token = workgroup.y * 64u;
  let steps = (COLUMNS + 31u) / 32u;
  let i = index % 128u;
#for t 0 TOKENS
  var sum$t = vec4(0.0);
#endfor
  var next = fetch(0u, index, first_row, first_token, rows, tokens);
  for (var k = 0u; k < steps; k++) {
    workgroupBarrier();
    if (index < 128u) {
      staged_w[i / 2u * STRIDE + i % 2u] = next.quad;
      if (i % 2u == 0u) { scales_w[i / 2u] = next.pair; }
    } else {
      staged_x[i / 2u * STRIDE + i % 2u] = next.quad;
      if (i % 2u == 0u) { scales_x[i / 2u] = next.pair; }
    }
    workgroupBarrier();
    if (k + 1u < steps) { next = fetch(k + 1u, index, first_row, first_token, rows, tokens); }
#for r 0 4
    let wa$r = staged_w[(local.x + 16u * $ru) * STRIDE];
    let wb$r = staged_w[(local.x + 16u * $ru) * STRIDE + 1u];
    let ws$r = scales_w[local.x + 16u * $ru];
#endfor
    let scale = vec4(ws0.x, ws1.x, ws2.x, ws3.x);
    let shift = vec4(ws0.y, ws1.y, ws2.y, ws3.y);
#for t 0 TOKENS
    {
      let xa = staged_x[(local.y + 16u * $tu) * STRIDE];
      let xb = staged_x[(local.y + 16u * $tu) * STRIDE + 1u];
      let xs = scales_x[local.y + 16u * $tu];
      let products = vec4<f32>(vec4(dot32(xa, xb, wa0, wb0), dot32(xa, xb, wa1, wb1), dot32(xa, xb, wa2, wb2), dot32(xa, xb, wa3, wb3)));
      sum$t += scale * xs.x * products - shift * xs.y;
    }
#endfor
  }
#include matmul_results
}

fn dot32(xa: vec4<u32>, xb: vec4<u32>, wa: vec4<u32>, wb: vec4<u32>) -> i32 {
  return dot4I8Packed(xa.x, wa.x) + dot4I8Packed(xa.y, wa.y) + dot4I8Packed(xa.z, wa.z) + dot4I8Packed(xa.w, wa.w)
    + dot4I8Packed(xb.x, wb.x) + dot4I8Packed(xb.y, wb.y) + dot4I8Packed(xb.z, wb.z) + dot4I8Packed(xb.w, wb.w);
}
