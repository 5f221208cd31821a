// Puts channels `channel` and `channel + 1` of a token into the rings.
fn store_key(head: u32, token: u32, channel: u32, pair: vec2<f32>) {
#if KEY_BITS == 32
  let at = ring_word(head, token, channel, KEY_RING, false);
  recent_keys[at] = bitcast<u32>(pair.x);
  recent_keys[at + 1u] = bitcast<u32>(pair.y);
#else
  recent_keys[ring_word(head, token, channel, KEY_RING, true)] = pack2x16float(pair);
#endif
}

fn store_value(head: u32, token: u32, channel: u32, pair: vec2<f32>) {
#if VALUE_BITS == 32
  let at = ring_word(head, token, channel, VALUE_RING, false);
  recent_values[at] = bitcast<u32>(pair.x);
  recent_values[at + 1u] = bitcast<u32>(pair.y);
#else
  recent_values[ring_word(head, token, channel, VALUE_RING, true)] = pack2x16float(pair);
#endif
}
