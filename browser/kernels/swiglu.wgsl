// silu(gate) * up for a chunk: gated is [token][gate, up], each COLUMNS long (Shazeer, 2020, https://arxiv.org/abs/2002.05202).
@group(0) @binding(0) var<storage, read> gated: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) at: vec3<u32>) {
  if (at.x >= COLUMNS) { return; }
  let gate = gated[2u * at.y * COLUMNS + at.x];
  y[at.y * COLUMNS + at.x] = gate / (1.0 + exp(-gate)) * gated[(2u * at.y + 1u) * COLUMNS + at.x];
}
