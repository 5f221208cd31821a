// Sums over a workgroup and over its teams of LANES invocations. Subgroups of any size up to LANES that divides it, or none.
#if SUBGROUPS
var<workgroup> partials: array<f32, SUMS * WORKGROUP / 4u>;
#else
var<workgroup> partials: array<f32, SUMS * WORKGROUP>;
#endif

// The sum of `value` over the workgroup, for every invocation.
#if SUBGROUPS
fn workgroup_sum(value: f32, index: u32, subgroup_lane: u32, subgroup_size: u32) -> f32 {
  let part = subgroupAdd(value);
  if (subgroup_lane == 0u) { partials[index / subgroup_size] = part; }
  workgroupBarrier();
  var total = 0.0;
  for (var i = 0u; i < WORKGROUP / subgroup_size; i++) { total += partials[i]; }
  workgroupBarrier();
  return total;
}
#else
fn workgroup_sum(value: f32, index: u32, subgroup_lane: u32, subgroup_size: u32) -> f32 {
  partials[index] = value;
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (index < half) { partials[index] += partials[index + half]; }
  }
  workgroupBarrier();
  let total = partials[0];
  workgroupBarrier();
  return total;
}
#endif
