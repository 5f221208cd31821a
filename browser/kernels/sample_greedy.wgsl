// The greatest logit, from the greatest of each workgroup of the output matrix.
#include state
#include order
@group(0) @binding(0) var<storage, read_write> states: array<State>;
@group(0) @binding(1) var<storage, read_write> seen: array<u32>;
@group(0) @binding(2) var<storage, read_write> results: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> greatest: array<vec2<u32>>;
#include advance
var<workgroup> best: array<vec2<u32>, WORKGROUP>;

fn better(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> { return select(a, b, b.x > a.x || (b.x == a.x && b.y < a.y)); }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) index: u32) {
  var own = vec2(0u, NO_TOKEN);
  for (var i = index; i < CANDIDATES; i += WORKGROUP) { own = better(own, greatest[i]); }
  best[index] = own;
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (index < half) { best[index] = better(best[index], best[index + half]); }
  }
  if (index == 0u) { advance(0u, 0u, select(best[0].y, NO_TOKEN, best[0].x == NOT_FINITE), 0.0); }
}
