// Attention of one token of each sequence, split over the context: workgroup (key-value head, split, sequence) rotates the queries of the head's group, goes over its
// tiles of 32 tokens with an online softmax (Dao et al., 2022, https://arxiv.org/abs/2205.14135), and leaves a part for attention_merge,
// or the result where there is one split. The split that has the last tile first rotates the token's key and appends key and value to the cache.
#include state
#include cache
#include cache_store
#include cache_tile
@group(0) @binding(0) var<storage, read> states: array<State>;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> rotary: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> attended: array<f32>;  // [sequence][head][HEAD_SIZE]
@group(0) @binding(4) var<storage, read_write> parts: array<f32>;     // [sequence][head][split][HEAD_SIZE + 4]: sum, greatest score, weight, splits
#include rotary

const QUADS = GROUP * HEAD_QUADS;
const SCORES = GROUP * FOLD;
const OWN_SCORES = (SCORES + WORKGROUP - 1u) / WORKGROUP;
const OWN_QUADS = (QUADS + WORKGROUP - 1u) / WORKGROUP;
const TEAMS = max(1u, WORKGROUP / QUADS);  // where a workgroup has more invocations than quads, they share the tokens
var<workgroup> queries: array<vec4<f32>, QUADS>;
var<workgroup> scores: array<f32, SCORES>;
var<workgroup> powers: array<f32, SCORES>;
var<workgroup> sums: array<vec4<f32>, TEAMS * QUADS>;
var<workgroup> weights: array<f32, TEAMS * QUADS>;
const LEAST = -1e30;

fn tile_greatest(h: u32) -> f32 {
  var highest = LEAST;
  for (var k = 0u; k < FOLD; k++) { highest = max(highest, scores[h * FOLD + k]); }
  return highest;
}

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let head = workgroup.x;
  let split = workgroup.y;
  let splits = workgroups.y;
#if BATCH
  let column = workgroup.z;
  let state = states[column];
  if (state.rows == 0u) { return; }
  let cached = state.slot * KEY_VALUE_HEADS + head;
#else
  const column = 0u;
  let state = states[0];
  let cached = head;
#endif
  let qkv_at = column * (HEADS + 2u * KEY_VALUE_HEADS) * HEAD_SIZE;
  let position = state.position;
  let folded = state.folded;
  let length = position + 1u;
  let oldest = select(0u, length - WINDOW, length > WINDOW);
  let first_tile = oldest / FOLD;
  let tiles = (length + FOLD - 1u) / FOLD - first_tile;
  let share = (tiles + splits - 1u) / splits;

  for (var i = index; i < QUADS; i += WORKGROUP) {
    let at = qkv_at + (head * GROUP + i / HEAD_QUADS) * HEAD_SIZE;
    let c = i % HEAD_QUADS * 4u;
    queries[i] = SCORE_SCALE * vec4(
      rotated(at, c, position), rotated(at, c + 1u, position), rotated(at, c + 2u, position), rotated(at, c + 3u, position));
  }
  // Sequences of a batch have as many splits as the longest needs, so the last ones may have no tile.
  if (split == (tiles - 1u) / share) {
    for (var c = 2u * index; c < HEAD_SIZE; c += 2u * WORKGROUP) {
      let key_at = qkv_at + (HEADS + head) * HEAD_SIZE;
      let value_at = qkv_at + (HEADS + KEY_VALUE_HEADS + head) * HEAD_SIZE;
      store_key(cached, position, c, vec2(rotated(key_at, c, position), rotated(key_at, c + 1u, position)));
      store_value(cached, position, c, vec2(qkv[value_at + c], qkv[value_at + c + 1u]));
    }
  }
  storageBarrier();

  // Each invocation follows the greatest score of the heads whose quads it sums.
  var greatest: array<f32, OWN_QUADS>;
  var weight: array<f32, OWN_QUADS>;
  var sum: array<vec4<f32>, OWN_QUADS>;
  for (var n = 0u; n < OWN_QUADS; n++) { greatest[n] = LEAST; }
  let team = index / QUADS;

  for (var t = 0u; t < share; t++) {
    let first = (first_tile + split * share + t) * FOLD;
    workgroupBarrier();
#if TILE_LOADS
    let floats = first >= folded;
    var values: TileFloats;
    if (floats) {
      let keys = fetch_keys(cached, first, length, index);
      values = fetch_values(cached, first, length, index);
      place_floats(keys, first, length, index);
    } else {
      load_keys(cached, first, folded, length, index);
    }
#else
    load_keys(cached, first, folded, length, index);
#endif
    workgroupBarrier();
    for (var i = index; i < SCORES; i += WORKGROUP) {
      let token = i % FOLD;
      let begin = i / FOLD * HEAD_QUADS;
      var score = 0.0;
      for (var q = 0u; q < HEAD_QUADS; q++) { score += dot(queries[begin + q], tile[token * TILE_STRIDE + q]); }
      scores[i] = select(LEAST, score, first + token >= oldest && first + token < length);
    }
    workgroupBarrier();
    // The tile's own greatest score is enough for the powers; sums are brought to the greatest of all below.
    for (var i = index; i < SCORES; i += WORKGROUP) {
      powers[i] = select(0.0, exp(scores[i] - tile_greatest(i / FOLD)), scores[i] > LEAST);
    }
#if TILE_LOADS
    if (floats) { place_floats(values, first, length, index); } else { load_values(cached, first, folded, length, index); }
#else
    load_values(cached, first, folded, length, index);
#endif
    workgroupBarrier();
    for (var n = 0u; n < OWN_QUADS; n++) {
      let own = select(index + n * WORKGROUP, index % QUADS, TEAMS > 1u);
      if (own < QUADS && team < TEAMS) {
        let h = own / HEAD_QUADS;
        let here = tile_greatest(h);
        let highest = max(greatest[n], here);
        let shrink = exp(greatest[n] - highest);
        let grow = exp(here - highest);
        greatest[n] = highest;
        var part = vec4(0.0);
        var parted = 0.0;
        for (var k = select(0u, team, TEAMS > 1u); k < FOLD; k += TEAMS) {
          let power = powers[h * FOLD + k];
          parted += power;
          part += power * tile[k * TILE_STRIDE + own % HEAD_QUADS];
        }
        weight[n] = weight[n] * shrink + parted * grow;
        sum[n] = sum[n] * shrink + part * grow;
      }
    }
  }
  // TEAMS share the same greatest score, so their sums add up.
  workgroupBarrier();
  for (var n = 0u; n < OWN_QUADS; n++) {
    let i = select(index + n * WORKGROUP, index, TEAMS > 1u);
    if (i < TEAMS * QUADS) {
      sums[i] = sum[n];
      weights[i] = weight[n];
    }
  }
  workgroupBarrier();
  for (var n = 0u; n < OWN_QUADS; n++) {
    let own = index + n * WORKGROUP;
    if (own < QUADS) {
      var total = vec4(0.0);
      var whole = 0.0;
      for (var other = 0u; other < TEAMS; other++) {
        total += sums[other * QUADS + own];
        whole += weights[other * QUADS + own];
      }
      let h = column * HEADS + head * GROUP + own / HEAD_QUADS;
      let c = own % HEAD_QUADS * 4u;
      if (splits == 1u) {
        let result = total / whole;
        for (var k = 0u; k < 4u; k++) { attended[h * HEAD_SIZE + c + k] = result[k]; }
      } else {
        let at = (h * splits + split) * (HEAD_SIZE + 4u);
        for (var k = 0u; k < 4u; k++) { parts[at + c + k] = total[k]; }
        if (c == 0u) {
          parts[at + HEAD_SIZE] = greatest[n];
          parts[at + HEAD_SIZE + 1u] = whole;
          parts[at + HEAD_SIZE + 2u] = f32(splits);
        }
      }
    }
  }
}
