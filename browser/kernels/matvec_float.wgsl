// The vector as float32 in workgroup memory.
#include quads
const QUADS = SUB_BLOCK / 4u;
const STRIDE = BLOCK / 4u + select(1u, 0u, BLOCK == 4u);
var<workgroup> staged: array<vec4<f32>, TILE / BLOCK * STRIDE>;
#if BITS <= 8
var<workgroup> totals: array<f32, TILE / SUB_BLOCK>;  // of each sub-block, for the zeros
#endif

fn put(q: u32, four: vec4<f32>) { staged[q / (BLOCK / 4u) * STRIDE + q % (BLOCK / 4u)] = four; }

// After the vector's (or its tile's) first `used` values were put.
fn staged_now(used: u32, index: u32) {
  workgroupBarrier();
#if BITS <= 8
  for (var s = index; s < used / SUB_BLOCK; s += WORKGROUP) {
    let at = s / SUBS * STRIDE + s % SUBS * QUADS;
    var total = vec4(0.0);
    for (var i = 0u; i < QUADS; i++) { total += staged[at + i]; }
    totals[s] = dot(total, vec4(1.0));
  }
  workgroupBarrier();
#endif
}

struct SubBlock {
#for i 0 SUB_QUADS
  x$i: vec4<f32>,
#endfor
  total: f32,
}

fn load_x(b: u32, sub: u32) -> SubBlock {
  let at = b * STRIDE + sub * QUADS;
  var v: SubBlock;
#for i 0 SUB_QUADS
  v.x$i = staged[at + $iu];
#endfor
#if BITS <= 8
  v.total = totals[b * SUBS + sub];
#endif
  return v;
}

fn product(v: SubBlock, w: vec4<u32>, high: vec2<u32>, sub: u32, row: u32, group: u32) -> f32 {
  var sum = 0.0;
#for i 0 SUB_QUADS
  sum += dot(v.x$i, quad(w, high, sub, $iu));
#endfor
#if BITS <= 8
  return scale_code(row, group) * (LEVELS * (sum - v.total) - zero(row, group) * v.total);
#else
  return sum;
#endif
}
