// One vector through a matrix, with what comes before and after it: RMS norm (NORM); bias (HAS_BIAS); then y = ..., y += ... (RESIDUAL),
// silu(gate) * up (SWIGLU: the first half of the rows is the gate), or logits and each workgroup's greatest (GREATEST).
// A team of LANES invocations has ROWS rows at a time; a lane loads one vec4 of codes of each. The vector lies in workgroup memory in
// blocks of as many values as a vec4 has codes, with one vec4 of padding between blocks so that lanes meet no bank conflicts.
// Where the vector fits there at once (WHOLE), it is brought in once and the workgroup goes from rows to rows; the first codes are on
// their way meanwhile. Where a team is a subgroup (ONE_SUBGROUP), its sums need no workgroup memory and no barrier.
// With PACKED_OUT (of SWIGLU) a workgroup has 32 neighbouring rows, whose results leave as int8 with one step, in the order of the next product's
// codes (PACKED_ORDER); with PACKED_IN such a vector comes in: see packed.wgsl.
// With MERGE the vector is the outcome of an attention whose context was split, and its parts are brought together on the way in.
#include matrix
#include finished
#include reduce
#if PACKED_IN
@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>;
#else
#if MERGE
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;  // [head][split][HEAD_SIZE + 4]: see attention_decode
#else
#if QUADS_OF_X
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
#else
@group(0) @binding(2) var<storage, read> x: array<f32>;
#endif
#endif
#endif
#if NORM
#if QUADS_OF_X
@group(0) @binding(3) var<storage, read> norm: array<vec4<f32>>;
#else
@group(0) @binding(3) var<storage, read> norm: array<f32>;
#endif
#endif
#if PACKED_OUT
@group(0) @binding(4) var<storage, read_write> y: array<vec4<u32>>;
#include packed
#else
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
#endif
#if GREATEST
@group(0) @binding(5) var<storage, read_write> greatest: array<vec2<u32>>;
var<workgroup> team_greatest: array<vec2<u32>, WORKGROUP / LANES>;
#include state
#include order
#endif

const TEAMS = WORKGROUP / LANES;

#if MERGE
const PART_QUADS = HEAD_SIZE / 4u + 1u;
var<workgroup> shares: array<f32, HEADS * MOST_MERGED>;  // of each split in its head

fn merge_shares(splits: u32, index: u32) {
  for (var h = index; h < HEADS; h += WORKGROUP) {
    var highest = -1e30;
    for (var s = 0u; s < splits; s++) { highest = max(highest, x[(h * splits + s + 1u) * PART_QUADS - 1u].x); }
    var whole = 0.0;
    for (var s = 0u; s < splits; s++) {
      let part = x[(h * splits + s + 1u) * PART_QUADS - 1u];
      let power = exp(part.x - highest);
      whole += power * part.y;
      shares[h * MOST_MERGED + s] = power;
    }
    for (var s = 0u; s < splits; s++) { shares[h * MOST_MERGED + s] /= whole; }
  }
  workgroupBarrier();
}

fn quad_of_x(q: u32) -> vec4<f32> {
  let splits = u32(x[PART_QUADS - 1u].z);
  let h = min(q / (HEAD_SIZE / 4u), HEADS - 1u);
  var sum = vec4(0.0);
  for (var s = 0u; s < splits; s++) { sum += shares[h * MOST_MERGED + s] * x[(h * splits + s) * PART_QUADS + q % (HEAD_SIZE / 4u)]; }
  return select(vec4(0.0), sum, q < COLUMNS / 4u);
}
#else
#if !PACKED_IN
// Values 4 q to 4 q + 3 of the vector, 0 beyond its end.
fn quad_of_x(q: u32) -> vec4<f32> {
#if QUADS_OF_X
  return select(vec4(0.0), x[min(q, COLUMNS / 4u - 1u)], q < COLUMNS / 4u);
#else
  let k = 4u * q;
  let last = COLUMNS - 1u;
  let four = vec4(x[min(k, last)], x[min(k + 1u, last)], x[min(k + 2u, last)], x[min(k + 3u, last)]);
  return select(vec4(0.0), four, vec4(k, k + 1u, k + 2u, k + 3u) < vec4(COLUMNS));
#endif
}
#endif
#endif

#if NORM
fn quad_of_norm(q: u32) -> vec4<f32> {
#if QUADS_OF_X
  return norm[min(q, COLUMNS / 4u - 1u)];
#else
  let k = 4u * q;
  let last = COLUMNS - 1u;
  return vec4(norm[min(k, last)], norm[min(k + 1u, last)], norm[min(k + 2u, last)], norm[min(k + 3u, last)]);
#endif
}
#endif

#if INT8
#include matvec_int8
#else
#include matvec_float
#endif

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
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
  let team = index / LANES;
  let lane = index % LANES;
  _ = &scales;  // bound also where nothing of it is read
  const rows = MATRIX_ROWS / STREAMS;
  const tiles = (rows + TEAMS * ROWS - 1u) / (TEAMS * ROWS);
#if PACKED_OUT
  const EACH = 32u / (TEAMS * ROWS);
  let first_tile = workgroup.x * EACH;
#else
  let first_tile = workgroup.x;
#endif
#if GREATEST
  var best = vec2<u32>(0u, NO_TOKEN);
#endif
#if WHOLE
  // Their loads begin here and end behind the vector's.
#for r 0 ROWS
  let early$r = values[min((first_tile * TEAMS + team) * ROWS + $ru, rows - 1u) * ROW_VEC4S + min(lane, ROW_BLOCKS - 1u)];
#endfor
#if SWIGLU
#for r 0 ROWS
  let early$r_up = values[(rows + min((first_tile * TEAMS + team) * ROWS + $ru, rows - 1u)) * ROW_VEC4S + min(lane, ROW_BLOCKS - 1u)];
#endfor
#endif
#endif
#if MERGE
  merge_shares(u32(x[PART_QUADS - 1u].z), index);
#endif
#if NORM
  // What an invocation brings in stays in its registers until the sum of squares is known.
  var squares = 0.0;
#for q 0 OWN
  let own$q = quad_of_x(index + $qu * WORKGROUP);
  squares += dot(own$q, own$q);
#endfor
#if OWN == 0
  for (var q = index; q < (COLUMNS + 3u) / 4u; q += WORKGROUP) {
    let four = quad_of_x(q);
    squares += dot(four, four);
  }
#endif
#for q 0 OWN
  let weight$q = quad_of_norm(index + $qu * WORKGROUP);
#endfor
  let scale = inverseSqrt(workgroup_sum(squares, index, subgroup_lane, subgroup_size) / f32(COLUMNS) + EPSILON);
#for q 0 OWN
  if (index + $qu * WORKGROUP < PADDED / 4u) { put(index + $qu * WORKGROUP, own$q * scale * weight$q); }
#endfor
#endif
#if WHOLE && !PACKED_IN
#if !NORM
#for q 0 OWN
  let own$q = quad_of_x(index + $qu * WORKGROUP);
#endfor
#for q 0 OWN
  if (index + $qu * WORKGROUP < PADDED / 4u) { put(index + $qu * WORKGROUP, own$q); }
#endfor
#endif
#if OWN == 0
  for (var q = index; q < PADDED / 4u; q += WORKGROUP) {
#if NORM
    put(q, quad_of_x(q) * scale * quad_of_norm(q));
#else
    put(q, quad_of_x(q));
#endif
  }
#endif
  staged_now(PADDED, index);
#endif
#if PACKED_OUT
  for (var tile = first_tile; tile < first_tile + EACH; tile += 1u) {
#else
  for (var tile = first_tile; tile < tiles; tile += workgroups.x) {
#endif
  let first = (tile * TEAMS + team) * ROWS;
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
#if !WHOLE
    workgroupBarrier();
    for (var q = index; q < min(TILE, PADDED - start) / 4u; q += WORKGROUP) {
#if NORM
      put(q, quad_of_x(start / 4u + q) * scale * quad_of_norm(start / 4u + q));
#else
      put(q, quad_of_x(start / 4u + q));
#endif
    }
    staged_now(min(TILE, PADDED - start), index);
#endif
    for (var b = lane; b < TILE / BLOCK && start / BLOCK + b < ROW_BLOCKS; b += LANES) {
      let block = start / BLOCK + b;
#if WHOLE
      let begun = tile == first_tile && b == lane;
#for r 0 ROWS
      var w$r = early$r;
      if (!begun) { w$r = values[row$r * ROW_VEC4S + block]; }
      let high$r = high_words(row$r, block);
#endfor
#if SWIGLU
#for r 0 ROWS
      var w$r_up = early$r_up;
      if (!begun) { w$r_up = values[row$r_up * ROW_VEC4S + block]; }
      let high$r_up = high_words(row$r_up, block);
#endfor
#endif
#else
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
#if ONE_SUBGROUP
#for r 0 ROWS
  let total$r = subgroupAdd(sum$r);
#endfor
#if SWIGLU
#for r 0 ROWS
  let total$r_up = subgroupAdd(sum$r_up);
#endfor
#endif
#else
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
  let team_at = team * parts;
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
  let team_at = team * LANES;
#endif
#for r 0 ROWS
  var total$r = 0.0;
  for (var i = 0u; i < parts; i++) { total$r += partials[$ru * STREAMS * subgroups + team_at + i]; }
#if SWIGLU
  var total$r_up = 0.0;
  for (var i = 0u; i < parts; i++) { total$r_up += partials[($ru * 2u + 1u) * subgroups + team_at + i]; }
#endif
#endfor
#endif
  if (lane == 0u) {
#for r 0 ROWS
    if (first + $ru < rows) {
      let total = finished(total$r, row$r);
#if SWIGLU
      let gated = total / (1.0 + exp(-total)) * finished(total$r_up, row$r_up);
#if PACKED_OUT
      block_of_results[row$r % 32u] = gated;
#else
      y[row$r] = gated;
#endif
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
  }
#if PACKED_OUT
  workgroupBarrier();
  pack_results(workgroup.x, rows, index);
#endif
#if GREATEST
  if (lane == 0u) { team_greatest[team] = best; }
  workgroupBarrier();
  if (index == 0u) {
    for (var i = 1u; i < TEAMS; i++) {
      let other = team_greatest[i];
      if (other.y != NO_TOKEN && (other.x > best.x || (other.x == best.x && other.y < best.y))) { best = other; }
    }
    greatest[GREATEST_AT + workgroup.x] = best;
  }
#endif
}
