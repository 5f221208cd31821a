// Sampling over the whole vocabulary, one workgroup for each sequence: repetition penalty (Keskar et al., 2019, https://arxiv.org/abs/1909.05858),
// temperature, the top_k greatest, of these the smallest set with probability top_p (Holtzman et al., 2020,
// https://arxiv.org/abs/1904.09751), of these what has at least min_p times the greatest probability. Equal logits stay or go together.
// The choice is the greatest of score + Gumbel noise, which has the softmax's distribution; the noise depends only on seed, position and
// token (a counter-based generator), so a seed gives the same text whatever runs beside it.
#include state
#include sampling
#include order
@group(0) @binding(0) var<storage, read_write> states: array<State>;
@group(0) @binding(1) var<storage, read_write> seen: array<u32>;
@group(0) @binding(2) var<storage, read_write> results: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> logits: array<f32>;      // [sequence][VOCABULARY]
@group(0) @binding(4) var<storage, read> requests: array<Sampling>;
#include advance

var<workgroup> bins: array<atomic<u32>, 256>;
var<workgroup> sums: array<vec2<f32>, WORKGROUP>;
var<workgroup> keys: array<vec2<u32>, WORKGROUP>;
var<workgroup> chosen: vec2<u32>;  // of a search: the prefix, and how much lies above it

const SEEN_WORDS = (VOCABULARY + 31u) / 32u;

// A token's score: logit after penalty, over the temperature.
fn score(column: u32, token: u32) -> f32 {
  let sampling = requests[column];
  var value = logits[column * VOCABULARY + token];
  if (sampling.penalty != 1.0 && ((seen[column * SEEN_WORDS + token / 32u] >> (token % 32u)) & 1u) == 1u) {
    value = select(value * sampling.penalty, value / sampling.penalty, value > 0.0);
  }
  return select(value, value / sampling.temperature, sampling.temperature > 0.0);
}

fn hash(value: u32) -> u32 {
  var h = value;
  h = (h ^ (h >> 16u)) * 0x7feb352du;
  h = (h ^ (h >> 15u)) * 0x846ca68bu;
  return h ^ (h >> 16u);
}

// Uniform in (0, 1), by seed, position and token.
fn uniform_number(seed: u32, position: u32, token: u32) -> f32 {
  let h = hash(hash(hash(seed) + position) + token);
  return (f32(h >> 9u) + 0.5) / 8388608.0;
}

// -log(1 - v), which is exponentially distributed. WGSL's log has no relative precision near 1 (an absolute error of 2^-21 is allowed), and
// the greatest noise comes from there: -log(-log(u)) could even be infinite.
fn exponential(v: f32) -> f32 {
  return select(-log(1.0 - v), v * (1.0 + v * (0.5 + v * (1.0 / 3.0 + v * (0.25 + v * 0.2)))), v < 0.1);
}

fn greatest_of_all(own: vec2<u32>, index: u32) -> vec2<u32> {
  keys[index] = own;
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (index < half) {
      let other = keys[index + half];
      if (other.x > keys[index].x || (other.x == keys[index].x && other.y < keys[index].y)) { keys[index] = other; }
    }
  }
  workgroupBarrier();
  let result = keys[0];
  workgroupBarrier();
  return result;
}

fn sum_of_all(own: vec2<f32>, index: u32) -> vec2<f32> {
  sums[index] = own;
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (index < half) { sums[index] += sums[index + half]; }
  }
  workgroupBarrier();
  let result = sums[0];
  workgroupBarrier();
  return result;
}

// The least key of the smallest set of greatest keys that together have `target_weight`, in units of 1 (counting) or of a probability of 2^-30.
fn threshold(target_weight: u32, counting: bool, least: u32, highest: f32, total: f32, column: u32, index: u32) -> u32 {
  if (index == 0u) { chosen = vec2(0u); }
  for (var shift = 24i; shift >= 0; shift -= 8) {
    for (var b = index; b < 256u; b += WORKGROUP) { atomicStore(&bins[b], 0u); }
    workgroupBarrier();
    let prefix = chosen.x;
    let above = chosen.y;
    for (var token = index; token < VOCABULARY; token += WORKGROUP) {
      let value = score(column, token);
      let key = order(value);
      let same = shift == 24 || (key >> u32(shift + 8)) == (prefix >> u32(shift + 8));
      if (same && key >= least) {
        let share = select(u32(exp(value - highest) / total * 1073741824.0 + 0.5), 1u, counting);
        atomicAdd(&bins[(key >> u32(shift)) & 255u], share);
      }
    }
    workgroupBarrier();
    if (index == 0u) {
      var sum = above;
      var base = above;
      var found = 0u;  // where rounding leaves the target out of reach, the last bin that has something
      for (var b = 255i; b >= 0; b--) {
        let here = atomicLoad(&bins[b]);
        if (here == 0u) { continue; }
        found = u32(b);
        base = sum;
        sum += here;
        if (sum >= target_weight) { break; }
      }
      chosen = vec2(prefix | (found << u32(shift)), base);
    }
    workgroupBarrier();
  }
  return chosen.x;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) index: u32) {
#if BATCH
  let column = workgroup.x;
#else
  const column = 0u;
#endif
  let first = column * VOCABULARY;
  let sampling = requests[column];
  let position = states[column].position;
  var own = vec2(0u, NO_TOKEN);
  for (var token = index; token < VOCABULARY; token += WORKGROUP) {
    let key = order(score(column, token));
    if (key > own.x) { own = vec2(key, token); }
  }
  let best = greatest_of_all(own, index);
  let highest = score(column, min(best.y, VOCABULARY - 1u));
  var least = 0u;
  if (sampling.temperature > 0.0) {
    if (sampling.top_k > 0u && sampling.top_k < VOCABULARY) {
      least = threshold(sampling.top_k, true, 0u, highest, 1.0, column, index);
    }
    if (sampling.top_p < 1.0) {
      var part = 0.0;
      for (var token = index; token < VOCABULARY; token += WORKGROUP) {
        let value = score(column, token);
        if (order(value) >= least) { part += exp(value - highest); }
      }
      let total = sum_of_all(vec2(part, 0.0), index).x;
      let target_weight = u32(clamp(sampling.top_p, 0.0, 1.0) * 1073741824.0);
      least = max(least, threshold(max(target_weight, 1u), false, least, highest, total, column, index));
    }
    if (sampling.min_p > 0.0) { least = max(least, order(highest + log(sampling.min_p))); }
  }
  var pick = best;
  if (sampling.temperature > 0.0) {
    own = vec2(0u, NO_TOKEN);
    for (var token = index; token < VOCABULARY; token += WORKGROUP) {
      let value = score(column, token);
      if (order(value) >= least) {
        let noise = -log(exponential(uniform_number(sampling.seed, position, token)));
        let key = order(value + noise);
        if (key > own.x) { own = vec2(key, token); }
      }
    }
    pick = greatest_of_all(own, index);
  }
  var log_probability = 0.0;
  if (sampling.logprobs == 1u) {
    var most = -3.4e38;
    for (var token = index; token < VOCABULARY; token += WORKGROUP) { most = max(most, logits[first + token]); }
    let top = greatest_of_all(vec2(order(most), index), index);
    // `order` turned round, so that every invocation has the same number.
    let raw = bitcast<f32>(select(~top.x, top.x & 0x7fffffffu, (top.x & 0x80000000u) != 0u));
    var part = 0.0;
    for (var token = index; token < VOCABULARY; token += WORKGROUP) { part += exp(logits[first + token] - raw); }
    log_probability = logits[first + min(pick.y, VOCABULARY - 1u)] - raw - log(sum_of_all(vec2(part, 0.0), index).x);
  }
#if BATCH
  let runs = states[column].rows != 0u;
#else
  const runs = true;
#endif
  if (index == 0u && runs) { advance(column, column * SEEN_WORDS, select(pick.y, NO_TOKEN, best.x == NOT_FINITE), log_probability); }
}
