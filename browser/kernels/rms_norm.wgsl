// RMS norm of a chunk's vectors (Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467): one workgroup a token.
#include reduce
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> norm: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

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
  let at = workgroup.x * COLUMNS;
  var squares = 0.0;
  for (var k = index; k < COLUMNS; k += WORKGROUP) { squares += x[at + k] * x[at + k]; }
  let scale = inverseSqrt(workgroup_sum(squares, index, subgroup_lane, subgroup_size) / f32(COLUMNS) + EPSILON);
  for (var k = index; k < COLUMNS; k += WORKGROUP) { y[at + k] = x[at + k] * scale * norm[k]; }
}
