// Rotates a chunk's queries (in place, scaled for the scores) and keys, and puts keys and values into the cache. One workgroup for each
// token and head: first the query heads, then the key-value heads.
#include state
#include cache
#include cache_store
@group(0) @binding(0) var<storage, read> state: State;
@group(0) @binding(1) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> rotary: array<vec2<f32>>;
#include rotary
var<workgroup> turned: array<f32, HEAD_SIZE>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) index: u32) {
  let token = workgroup.x;
  let row = token * (HEADS + 2u * KEY_VALUE_HEADS) * HEAD_SIZE;
  let at = row + workgroup.y * HEAD_SIZE;
  let position = state.position + token;
  for (var c = index; c < HEAD_SIZE; c += WORKGROUP) { turned[c] = rotated(at, c, position); }
  workgroupBarrier();
  if (workgroup.y < HEADS) {
    for (var c = index; c < HEAD_SIZE; c += WORKGROUP) { qkv[at + c] = turned[c] * SCORE_SCALE; }
    return;
  }
#if BATCH
  let head = state.slot * KEY_VALUE_HEADS + workgroup.y - HEADS;
#else
  let head = workgroup.y - HEADS;
#endif
  let value_at = at + KEY_VALUE_HEADS * HEAD_SIZE;
  for (var c = 2u * index; c < HEAD_SIZE; c += 2u * WORKGROUP) {
    store_key(head, position, c, vec2(turned[c], turned[c + 1u]));
    store_value(head, position, c, vec2(qkv[value_at + c], qkv[value_at + c + 1u]));
  }
}
