// Brings the parts of an attention that is split more than MOST_MERGED times together: workgroup (query head, sequence).
@group(0) @binding(0) var<storage, read> parts: array<f32>;
@group(0) @binding(1) var<storage, read_write> attended: array<f32>;
@group(0) @binding(2) var<uniform> splits: vec4<u32>;

@compute @workgroup_size(WORKGROUP)
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  const part = HEAD_SIZE + 4u;
  let head = workgroup.y * workgroups.x + workgroup.x;
  let base = head * splits.x * part;
  var highest = -1e30;
  for (var s = 0u; s < splits.x; s++) { highest = max(highest, parts[base + s * part + HEAD_SIZE]); }
  for (var c = index; c < HEAD_SIZE; c += WORKGROUP) {
    var sum = 0.0;
    var weight = 0.0;
    for (var s = 0u; s < splits.x; s++) {
      let at = base + s * part;
      let power = exp(parts[at + HEAD_SIZE] - highest);
      sum += power * parts[at + c];
      weight += power * parts[at + HEAD_SIZE + 1u];
    }
    attended[head * HEAD_SIZE + c] = sum / weight;
  }
}
