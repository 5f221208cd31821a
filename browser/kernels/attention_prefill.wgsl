// Attention of a chunk of tokens: workgroup (16 queries, key-value head). A key-value head's queries are all tokens' heads of its group,
// so a tile of keys serves the whole group. Eight invocations share a query. Queries are rotated and scaled, keys are in the cache.
#include state
#include cache
#include cache_tile
@group(0) @binding(0) var<storage, read> state: State;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read_write> attended: array<f32>;

const QUERIES = 16u;
const SHARE = 8u;  // WORKGROUP = QUERIES * SHARE
const OWN_QUADS = (HEAD_QUADS + SHARE - 1u) / SHARE;
const LEAST = -1e30;
var<workgroup> queries: array<vec4<f32>, QUERIES * TILE_STRIDE>;
var<workgroup> scores: array<f32, QUERIES * (FOLD + 1u)>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let head = workgroup.y;
#if BATCH
  let cached = state.slot * KEY_VALUE_HEADS + head;
#else
  let cached = head;
#endif
  let rows = state.rows;
  let start = state.position;
  let first_query = workgroup.x * QUERIES;
  let width = (HEADS + 2u * KEY_VALUE_HEADS) * HEAD_SIZE;
  for (var i = index; i < QUERIES * HEAD_QUADS; i += 128u) {
    let query = min(first_query + i / HEAD_QUADS, rows * GROUP - 1u);
    let at = query / GROUP * width + (head * GROUP + query % GROUP) * HEAD_SIZE + i % HEAD_QUADS * 4u;
    queries[i / HEAD_QUADS * TILE_STRIDE + i % HEAD_QUADS] = vec4(qkv[at], qkv[at + 1u], qkv[at + 2u], qkv[at + 3u]);
  }
  let mine = index / SHARE;
  let share = index % SHARE;
  let query = min(first_query + mine, rows * GROUP - 1u);
  let length = start + query / GROUP + 1u;  // tokens that this query sees, the oldest of the window first
  let oldest = select(0u, length - WINDOW, length > WINDOW);
  // The tiles that any of the workgroup's queries sees.
  let shortest = start + first_query / GROUP + 1u;
  let longest = start + min(first_query + QUERIES - 1u, rows * GROUP - 1u) / GROUP + 1u;
  let begin = select(0u, shortest - WINDOW, shortest > WINDOW) / FOLD;
  let to = (longest + FOLD - 1u) / FOLD;

  var greatest = LEAST;
  var weight = 0.0;
  var sum: array<vec4<f32>, OWN_QUADS>;
  for (var t = begin; t < to; t++) {
    let first = t * FOLD;
    workgroupBarrier();
    load_keys(cached, first, state.folded, longest, index);
    workgroupBarrier();
    for (var token = share; token < FOLD; token += SHARE) {
      var score = 0.0;
      for (var q = 0u; q < HEAD_QUADS; q++) { score += dot(queries[mine * TILE_STRIDE + q], tile[token * TILE_STRIDE + q]); }
      scores[mine * (FOLD + 1u) + token] = select(LEAST, score, first + token >= oldest && first + token < length);
    }
    workgroupBarrier();
    load_values(cached, first, state.folded, longest, index);
    var highest = greatest;
    for (var k = 0u; k < FOLD; k++) { highest = max(highest, scores[mine * (FOLD + 1u) + k]); }
    workgroupBarrier();
    for (var token = share; token < FOLD; token += SHARE) {
      let at = mine * (FOLD + 1u) + token;
      scores[at] = select(0.0, exp(scores[at] - highest), scores[at] > LEAST);
    }
    workgroupBarrier();
    let shrink = exp(greatest - highest);
    greatest = highest;
    weight *= shrink;
    for (var n = 0u; n < OWN_QUADS; n++) { sum[n] *= shrink; }
    for (var k = 0u; k < FOLD; k++) {
      let power = scores[mine * (FOLD + 1u) + k];
      weight += power;
      for (var n = 0u; n < OWN_QUADS; n++) {
        let q = min(share + n * SHARE, HEAD_QUADS - 1u);
        sum[n] += power * tile[k * TILE_STRIDE + q];
      }
    }
  }
  if (first_query + mine < rows * GROUP) {
    let at = (query / GROUP * HEADS + head * GROUP + query % GROUP) * HEAD_SIZE;
    for (var n = 0u; n < OWN_QUADS; n++) {
      let q = share + n * SHARE;
      if (q < HEAD_QUADS) {
        for (var k = 0u; k < 4u; k++) { attended[at + 4u * q + k] = sum[n][k] / weight; }
      }
    }
  }
}
