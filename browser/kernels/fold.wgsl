// Quantises full groups of 32 tokens that have left the recent window: workgroup (key-value head, group after `folded`, sequence).
#include state
#include cache
@group(0) @binding(0) var<storage, read> states: array<State>;

fn code(value: f32, least: f32, step: f32, largest: f32) -> u32 {
  if (step == 0.0) { return 0u; }
  return u32(clamp(floor((value - least) / step + 0.5), 0.0, largest));
}

// Step and least value as they are stored, two float16 in a word. The codes are made for the stored ones, not for the exact ones.
fn stored_scale(least: f32, most: f32, largest: f32) -> u32 { return pack2x16float(vec2((most - least) / largest, least)); }

#if KEY_BITS < 16
fn recent_key(head: u32, token: u32, channel: u32) -> f32 {
  let pair = unpack2x16float(recent_keys[ring_word(head, token, channel, KEY_RING, true)]);
  return select(pair.x, pair.y, channel % 2u == 1u);
}
#endif
#if VALUE_BITS < 16
fn recent_value(head: u32, token: u32, channel: u32) -> f32 {
#if PADDED_CHANNELS
  if (channel >= HEAD_SIZE) { return 0.0; }  // the last group is filled up with zeros
#endif
  let pair = unpack2x16float(recent_values[ring_word(head, token, channel, VALUE_RING, true)]);
  return select(pair.x, pair.y, channel % 2u == 1u);
}
#endif

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) index: u32) {
#if BATCH
  let state = states[workgroup.z];
  // Not every sequence of a step has a full group.
  if (state.folded + RECENT + (workgroup.y + 1u) * FOLD > state.position + state.rows) { return; }
  let head = state.slot * KEY_VALUE_HEADS + workgroup.x;
#else
  let state = states[0];
  let head = workgroup.x;
#endif
  let first = state.folded + workgroup.y * FOLD;
  let tile = head * FOLDED_TILES + first / FOLD;
#if KEY_BITS < 16
  for (var c = index; c < HEAD_SIZE; c += WORKGROUP) {
    var least = recent_key(head, first, c);
    var most = least;
    for (var t = 1u; t < FOLD; t++) {
      let value = recent_key(head, first + t, c);
      least = min(least, value);
      most = max(most, value);
    }
    const largest = f32((1u << KEY_BITS) - 1u);
    let word = stored_scale(least, most, largest);
    let scale = unpack2x16float(word);
    var codes: array<u32, KEY_BITS>;
    for (var t = 0u; t < FOLD; t++) {
      let q = code(recent_key(head, first + t, c), scale.y, scale.x, largest);
#if KEY_BITS == 3
      codes[t / 16u] |= (q & 3u) << (2u * (t % 16u));
      codes[2] |= (q >> 2u) << t;
#else
      codes[t * KEY_BITS / 32u] |= q << (t * KEY_BITS % 32u);
#endif
    }
    let base = tile * KEY_TILE_WORDS + c;
    for (var w = 0u; w < KEY_BITS; w++) { folded_keys[base + w * HEAD_SIZE] = codes[w]; }
    folded_keys[base + KEY_BITS * HEAD_SIZE] = word;
  }
#endif
#if VALUE_BITS < 16
  for (var i = index; i < FOLD * CHANNEL_GROUPS; i += WORKGROUP) {
    let token = first + i / CHANNEL_GROUPS;
    let begin = i % CHANNEL_GROUPS * 32u;
    var least = recent_value(head, token, begin);
    var most = least;
    for (var c = 1u; c < 32u; c++) {
      let value = recent_value(head, token, begin + c);
      least = min(least, value);
      most = max(most, value);
    }
    const largest = f32((1u << VALUE_BITS) - 1u);
    let word = stored_scale(least, most, largest);
    let scale = unpack2x16float(word);
    var codes: array<u32, VALUE_BITS>;
    for (var c = 0u; c < 32u; c++) {
      let q = code(recent_value(head, token, begin + c), scale.y, scale.x, largest);
#if VALUE_BITS == 3
      codes[c / 16u] |= (q & 3u) << (2u * (c % 16u));
      codes[2] |= (q >> 2u) << c;
#else
      codes[c * VALUE_BITS / 32u] |= q << (c * VALUE_BITS % 32u);
#endif
    }
    let base = tile * VALUE_TILE_WORDS + i;
    for (var w = 0u; w < VALUE_BITS; w++) { folded_values[base + w * FOLD * CHANNEL_GROUPS] = codes[w]; }
    folded_values[base + VALUE_BITS * FOLD * CHANNEL_GROUPS] = word;
  }
#endif
}
