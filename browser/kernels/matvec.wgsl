// One vector through a matrix, with what comes before and after it: RMS norm (NORM); bias (HAS_BIAS); then y = ..., y += ... (RESIDUAL),
// silu(gate) * up (SWIGLU: the first half of the rows is the gate), or logits and each workgroup's greatest (GREATEST).
// A team of LANES invocations has ROWS rows at a time; a lane loads one vec4 of codes of each. The vector lies in workgroup memory in
// blocks of as many values as a vec4 has codes, with one vec4 of padding between blocks so that lanes meet no bank conflicts.
#include matrix
#include reduce
@group(0) @binding(2) var<storage, read> x: array<f32>;
#if NORM
@group(0) @binding(3) var<storage, read> norm: array<f32>;
#endif
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
#if GREATEST
@group(0) @binding(5) var<storage, read_write> greatest: array<vec2<u32>>;
var<workgroup> team_greatest: array<vec2<u32>, WORKGROUP / LANES>;
#include state
#include order
#endif

const TEAMS = WORKGROUP / LANES;

fn input(k: u32, scale: f32) -> f32 {
  if (k >= COLUMNS) { return 0.0; }
#if NORM
  return x[k] * scale * norm[k];
#else
  return x[k];
#endif
}

#if INT8
#include matvec_int8
#else
#include matvec_float
#endif

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
#if SUBGROUPS
  @builtin(subgroup_invocation_id) subgroup_lane: u32,
  @builtin(subgroup_size) subgroup_size: u32,
#endif
) {
#if !SUBGROUPS
  let subgroup_lane = 0u;
  let subgroup_size = 1u;
#endif
  var scale = 1.0;
#if NORM
  var squares = 0.0;
  for (var k = index; k < COLUMNS; k += WORKGROUP) { squares += x[k] * x[k]; }
  scale = inverseSqrt(workgroup_sum(squares, index, subgroup_lane, subgroup_size) / f32(COLUMNS) + EPSILON);
#endif
  let team = index / LANES;
  let lane = index % LANES;
  let rows = scales[ROWS_AT] / STREAMS;
  let first = (workgroup.x * TEAMS + team) * ROWS;
#for r 0 ROWS
  let row$r = min(first + $ru, rows - 1u);
  var sum$r = 0.0;
#endfor
#if SWIGLU
#for r 0 ROWS
  let row$r_up = rows + row$r;
  var sum$r_up = 0.0;
#endfor
#endif
  for (var start = 0u; start < PADDED; start += TILE) {
    workgroupBarrier();
    stage(start, scale, index);
    for (var b = lane; b < TILE / BLOCK && start / BLOCK + b < ROW_BLOCKS; b += LANES) {
      let block = start / BLOCK + b;
#for r 0 ROWS
      let w$r = values[row$r * ROW_VEC4S + block];
      let high$r = high_words(row$r, block);
#endfor
#if SWIGLU
#for r 0 ROWS
      let w$r_up = values[row$r_up * ROW_VEC4S + block];
      let high$r_up = high_words(row$r_up, block);
#endfor
#endif
#for s 0 SUBS
      {
        let v = load_x(b, $su);
        let group = min((block * BLOCK + $su * SUB_BLOCK) / GROUP_SIZE, GROUPS - 1u);
#for r 0 ROWS
        sum$r += product(v, w$r, high$r, $su, row$r, group);
#endfor
#if SWIGLU
#for r 0 ROWS
        sum$r_up += product(v, w$r_up, high$r_up, $su, row$r_up, group);
#endfor
#endif
      }
#endfor
    }
  }
  workgroupBarrier();
#if SUBGROUPS
#for r 0 ROWS
  let part$r = subgroupAdd(sum$r);
#endfor
#if SWIGLU
#for r 0 ROWS
  let part$r_up = subgroupAdd(sum$r_up);
#endfor
#endif
  let subgroups = WORKGROUP / subgroup_size;
  if (subgroup_lane == 0u) {
    let at = index / subgroup_size;
#for r 0 ROWS
    partials[$ru * STREAMS * subgroups + at] = part$r;
#if SWIGLU
    partials[($ru * 2u + 1u) * subgroups + at] = part$r_up;
#endif
#endfor
  }
  workgroupBarrier();
  let parts = LANES / subgroup_size;
#else
  let subgroups = WORKGROUP;
  let parts = 1u;
#for r 0 ROWS
  partials[$ru * STREAMS * WORKGROUP + index] = sum$r;
#if SWIGLU
  partials[($ru * 2u + 1u) * WORKGROUP + index] = sum$r_up;
#endif
#endfor
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
#for r 0 ROWS
      partials[$ru * STREAMS * WORKGROUP + index] += partials[$ru * STREAMS * WORKGROUP + index + half];
#if SWIGLU
      partials[($ru * 2u + 1u) * WORKGROUP + index] += partials[($ru * 2u + 1u) * WORKGROUP + index + half];
#endif
#endfor
    }
  }
  workgroupBarrier();
#endif
#if SUBGROUPS
  let team_at = team * parts;
#else
  let team_at = team * LANES;
#endif
#if GREATEST
  var best = vec2<u32>(0u, NO_TOKEN);
#endif
  if (lane == 0u) {
#for r 0 ROWS
    if (first + $ru < rows) {
      var total = 0.0;
      for (var i = 0u; i < parts; i++) { total += partials[$ru * STREAMS * subgroups + team_at + i]; }
      total = finished(total, row$r);
#if SWIGLU
      var up = 0.0;
      for (var i = 0u; i < parts; i++) { up += partials[($ru * 2u + 1u) * subgroups + team_at + i]; }
      up = finished(up, row$r_up);
      y[row$r] = total / (1.0 + exp(-total)) * up;
#else
      let at = scales[FIRST_ROW_AT] + row$r;
#if RESIDUAL
      y[at] += total;
#else
      y[at] = total;
#endif
#if GREATEST
      let key = order(total);
      if (key > best.x || best.y == NO_TOKEN) { best = vec2(key, at); }
#endif
#endif
    }
#endfor
  }
#if GREATEST
  if (lane == 0u) { team_greatest[team] = best; }
  workgroupBarrier();
  if (index == 0u) {
    for (var i = 1u; i < TEAMS; i++) {
      let other = team_greatest[i];
      if (other.y != NO_TOKEN && other.x > best.x) { best = other; }
    }
    greatest[scales[FIRST_ROW_AT] / (TEAMS * ROWS) + workgroup.x] = best;
  }
#endif
}

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
