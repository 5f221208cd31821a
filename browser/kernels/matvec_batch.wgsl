// A few vectors through a matrix whose weights are read once for all of them: y[v] = ... or y[v] += ... (RESIDUAL), with bias (HAS_BIAS).
// A team of LANES invocations has ROWS rows; a lane loads one vec4 of codes of each, turns four of them at a time into numbers and
// multiplies them with the same four places of all VECTORS vectors. These come straight from memory, where the cores' own caches hold
// them: so many vectors would not lie in workgroup memory at once. LANES is no less than VECTORS.
#include matrix
#include quads
#include finished
#include reduce
#if QUADS_OF_X
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;  // [vector][COLUMNS]
#else
@group(0) @binding(2) var<storage, read> x: array<f32>;
#endif
@group(0) @binding(4) var<storage, read_write> y: array<f32>;  // [vector][ALL_ROWS]

const TEAMS = WORKGROUP / LANES;

// Values 4 q to 4 q + 3 of a vector, 0 beyond its end.
fn quad_of_x(vector: u32, q: u32) -> vec4<f32> {
#if QUADS_OF_X
  return select(vec4(0.0), x[vector * (COLUMNS / 4u) + min(q, COLUMNS / 4u - 1u)], q < COLUMNS / 4u);
#else
  let k = 4u * q;
  let at = vector * COLUMNS;
  let last = COLUMNS - 1u;
  let four = vec4(x[at + min(k, last)], x[at + min(k + 1u, last)], x[at + min(k + 2u, last)], x[at + min(k + 3u, last)]);
  return select(vec4(0.0), four, vec4(k, k + 1u, k + 2u, k + 3u) < vec4(COLUMNS));
#endif
}

fn store(vector: u32, row: u32, sum: f32) {
  let at = vector * ALL_ROWS + scales[FIRST_ROW_AT] + row;
#if RESIDUAL
  y[at] += finished(sum, row);
#else
  y[at] = finished(sum, row);
#endif
}

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
#if SUBGROUPS
  @builtin(subgroup_invocation_id) subgroup_lane: u32,
  @builtin(subgroup_size) subgroup_size: u32,
#endif
) {
  let team = index / LANES;
  let lane = index % LANES;
  let first = (workgroup.x * TEAMS + team) * ROWS;
#for r 0 ROWS
  let row$r = min(first + $ru, MATRIX_ROWS - 1u);
#for v 0 VECTORS
  var sum$r_$v = 0.0;
#endfor
#endfor
  for (var block = lane; block < ROW_BLOCKS; block += LANES) {
#for r 0 ROWS
    let w$r = values[row$r * ROW_VEC4S + block];
    let high$r = high_words(row$r, block);
#endfor
#for s 0 SUBS
    {
      let begin = block * BLOCK + $su * SUB_BLOCK;
#for v 0 VECTORS
      var total$v = 0.0;
#endfor
#for r 0 ROWS
#for v 0 VECTORS
      var part$r_$v = 0.0;
#endfor
#endfor
#for i 0 SUB_QUADS
      {
#for v 0 VECTORS
        let x$v = quad_of_x($vu, begin / 4u + $iu);
#if BITS <= 8
        total$v += dot(x$v, vec4(1.0));
#endif
#endfor
#for r 0 ROWS
        let four$r = quad(w$r, high$r, $su, $iu);
#for v 0 VECTORS
        part$r_$v += dot(x$v, four$r);
#endfor
#endfor
      }
#endfor
#if BITS <= 8
      let group = min(begin / GROUP_SIZE, GROUPS - 1u);
#for r 0 ROWS
      let scale$r = scale_code(row$r, group);
      let zero$r = zero(row$r, group);
#for v 0 VECTORS
      sum$r_$v += scale$r * (LEVELS * (part$r_$v - total$v) - zero$r * total$v);
#endfor
#endfor
#else
#for r 0 ROWS
#for v 0 VECTORS
      sum$r_$v += part$r_$v;
#endfor
#endfor
#endif
    }
#endfor
  }
  // A row at a time, so that the sums of one take the place of the next; lane v finishes vector v.
#for r 0 ROWS
  {
#if SUBGROUPS
  let subgroups = WORKGROUP / subgroup_size;
  let parts = LANES / subgroup_size;
#for v 0 VECTORS
  let part$r_$v = subgroupAdd(sum$r_$v);
  if (subgroup_lane == 0u) { partials[$vu * subgroups + index / subgroup_size] = part$r_$v; }
#endfor
  workgroupBarrier();
  if (lane < VECTORS && first + $ru < MATRIX_ROWS) {
    var total = 0.0;
    for (var i = 0u; i < parts; i++) { total += partials[lane * subgroups + team * parts + i]; }
    store(lane, row$r, total);
  }
  workgroupBarrier();
#else
#for v 0 VECTORS
  partials[$vu * WORKGROUP + index] = sum$r_$v;
#endfor
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      for (var v = 0u; v < VECTORS; v++) { partials[v * WORKGROUP + index] += partials[v * WORKGROUP + index + half]; }
    }
  }
  workgroupBarrier();
  if (lane < VECTORS && first + $ru < MATRIX_ROWS) { store(lane, row$r, partials[lane * WORKGROUP + team * LANES]); }
  workgroupBarrier();
#endif
  }
#endfor
}
