// Rows of the embedding table: of each sequence's token to be processed (DECODE), or of a chunk's tokens. One workgroup a token; a table that is
// split over several buffers is dispatched once for each, and each writes the tokens that it has.
#include dequantize
#include state
@group(0) @binding(2) var<storage, read> states: array<State>;
#if !DECODE
@group(0) @binding(3) var<storage, read> tokens: array<u32>;
#endif
@group(0) @binding(4) var<storage, read_write> hidden: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) index: u32) {
#if DECODE
  let token = min(states[workgroup.x].token, VOCABULARY - 1u);  // after logits that are not finite the answer is thrown away anyway
#else
  let token = min(tokens[workgroup.x], VOCABULARY - 1u);
#endif
  let first = scales[FIRST_ROW_AT];
  if (token < first || token - first >= scales[ROWS_AT]) { return; }
  for (var q = index; q < (COLUMNS + 3u) / 4u; q += WORKGROUP) {
    let k = 4u * q;
    let block = k / BLOCK;
    let four = weights(token - first, block, k % BLOCK / SUB_BLOCK, k % SUB_BLOCK / 4u);
    for (var i = 0u; i < min(4u, COLUMNS - k); i++) { hidden[workgroup.x * COLUMNS + k + i] = four[i]; }
  }
}
