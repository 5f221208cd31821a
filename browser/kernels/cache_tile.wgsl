// Brings 32 tokens of a head's keys or values into workgroup memory as floats: `tile`, a row a token, rows TILE_STRIDE vec4s apart.
const HEAD_QUADS = HEAD_SIZE / 4u;
const TILE_STRIDE = HEAD_QUADS + 1u;  // one of padding: no bank conflicts between rows
var<workgroup> tile: array<vec4<f32>, FOLD * TILE_STRIDE>;

fn codes_of(word: u32, low: u32, width: u32) -> vec4<f32> {
  let shifts = vec4(low, low + width, low + 2u * width, low + 3u * width);
  return vec4<f32>((vec4(word) >> shifts) & vec4((1u << width) - 1u));
}

// Tokens from `length` on are given as zeros: what lies there may be anything.
fn load_keys(head: u32, first: u32, folded: u32, length: u32, index: u32) {
#if KEY_BITS < 16
  if (first < folded) {
    let base = (head * FOLDED_TILES + first / FOLD) * KEY_TILE_WORDS;
#if KEY_BITS == 3
    for (var i = index; i < 2u * HEAD_QUADS; i += WORKGROUP) {
#else
    for (var i = index; i < KEY_BITS * HEAD_QUADS; i += WORKGROUP) {
#endif
      let word = i / HEAD_QUADS;
      let q = i % HEAD_QUADS;
      let at = base + word * HEAD_SIZE + 4u * q;
      let w = vec4(folded_keys[at], folded_keys[at + 1u], folded_keys[at + 2u], folded_keys[at + 3u]);
      let scale_at = base + KEY_BITS * HEAD_SIZE + 4u * q;
      let a = unpack2x16float(folded_keys[scale_at]);
      let b = unpack2x16float(folded_keys[scale_at + 1u]);
      let c = unpack2x16float(folded_keys[scale_at + 2u]);
      let d = unpack2x16float(folded_keys[scale_at + 3u]);
      let step = vec4(a.x, b.x, c.x, d.x);
      let least = vec4(a.y, b.y, c.y, d.y);
#if KEY_BITS == 3
      let high_at = base + 2u * HEAD_SIZE + 4u * q;
      let high = vec4(folded_keys[high_at], folded_keys[high_at + 1u], folded_keys[high_at + 2u], folded_keys[high_at + 3u]);
      for (var t = 0u; t < 16u; t++) {
        let code = ((w >> vec4(2u * t)) & vec4(3u)) | (((high >> vec4(16u * word + t)) & vec4(1u)) << vec4(2u));
        tile[(16u * word + t) * TILE_STRIDE + q] = vec4<f32>(code) * step + least;
      }
#else
      const tokens = 32u / KEY_BITS;
      for (var t = 0u; t < tokens; t++) {
        let code = (w >> vec4(KEY_BITS * t)) & vec4((1u << KEY_BITS) - 1u);
        tile[(tokens * word + t) * TILE_STRIDE + q] = vec4<f32>(code) * step + least;
      }
#endif
    }
    return;
  }
#endif
  for (var i = index; i < FOLD * HEAD_QUADS; i += WORKGROUP) {
    let t = i / HEAD_QUADS;
    let q = i % HEAD_QUADS;
    var four = vec4(0.0);
    if (first + t < length) {
#if KEY_BITS == 32
      let at = ring_word(head, first + t, 4u * q, KEY_RING, false);
      four = bitcast<vec4<f32>>(vec4(recent_keys[at], recent_keys[at + 1u], recent_keys[at + 2u], recent_keys[at + 3u]));
#else
      let at = ring_word(head, first + t, 4u * q, KEY_RING, true);
      four = vec4(unpack2x16float(recent_keys[at]), unpack2x16float(recent_keys[at + 1u]));
#endif
    }
    tile[t * TILE_STRIDE + q] = four;
  }
}

fn load_values(head: u32, first: u32, folded: u32, length: u32, index: u32) {
#if VALUE_BITS < 16
  if (first < folded) {
    let base = (head * FOLDED_TILES + first / FOLD) * VALUE_TILE_WORDS;
    const plane = FOLD * CHANNEL_GROUPS;
#if VALUE_BITS == 3
    for (var i = index; i < 2u * plane; i += WORKGROUP) {
#else
    for (var i = index; i < VALUE_BITS * plane; i += WORKGROUP) {
#endif
      let word = i / plane;
      let pair = i % plane;  // token and channel group
      let w = folded_values[base + i];
      let scale = unpack2x16float(folded_values[base + VALUE_BITS * plane + pair]);
#if VALUE_BITS == 3
      let high = folded_values[base + 2u * plane + pair] >> (16u * word);
      const quads = 4u;
#else
      const quads = 8u / VALUE_BITS;
#endif
      let at = pair / CHANNEL_GROUPS * TILE_STRIDE + pair % CHANNEL_GROUPS * 8u + word * quads;
      for (var q = 0u; q < quads; q++) {
#if PADDED_CHANNELS
        if (pair % CHANNEL_GROUPS * 8u + word * quads + q >= HEAD_QUADS) { continue; }
#endif
#if VALUE_BITS == 3
        let code = codes_of(w, 8u * q, 2u) + 4.0 * codes_of(high, 4u * q, 1u);
#else
        let code = codes_of(w, 4u * VALUE_BITS * q, VALUE_BITS);
#endif
        tile[at + q] = code * scale.x + vec4(scale.y);
      }
    }
    return;
  }
#endif
  for (var i = index; i < FOLD * HEAD_QUADS; i += WORKGROUP) {
    let t = i / HEAD_QUADS;
    let q = i % HEAD_QUADS;
    var four = vec4(0.0);
    if (first + t < length) {
#if VALUE_BITS == 32
      let at = ring_word(head, first + t, 4u * q, VALUE_RING, false);
      four = bitcast<vec4<f32>>(vec4(recent_values[at], recent_values[at + 1u], recent_values[at + 2u], recent_values[at + 3u]));
#else
      let at = ring_word(head, first + t, 4u * q, VALUE_RING, true);
      four = vec4(unpack2x16float(recent_values[at]), unpack2x16float(recent_values[at + 1u]));
#endif
    }
    tile[t * TILE_STRIDE + q] = four;
  }
}

#if TILE_LOADS
// The same in two steps, so that the loads of keys and values are on their way together: floats into registers, registers into the tile.
struct TileFloats {
#for i 0 TILE_LOADS
  four$i: vec4<f32>,
#endfor
}

fn fetch_keys(head: u32, first: u32, length: u32, index: u32) -> TileFloats {
  var found: TileFloats;
#for i 0 TILE_LOADS
  let at$i = ring_word(head, min(first + (index + $iu * WORKGROUP) / HEAD_QUADS, length - 1u), 4u * (index % HEAD_QUADS), KEY_RING, KEY_BITS != 32u);
#if KEY_BITS == 32
  found.four$i = bitcast<vec4<f32>>(vec4(recent_keys[at$i], recent_keys[at$i + 1u], recent_keys[at$i + 2u], recent_keys[at$i + 3u]));
#else
  found.four$i = vec4(unpack2x16float(recent_keys[at$i]), unpack2x16float(recent_keys[at$i + 1u]));
#endif
#endfor
  return found;
}
#endif

#if TILE_LOADS
fn fetch_values(head: u32, first: u32, length: u32, index: u32) -> TileFloats {
  var found: TileFloats;
#for i 0 TILE_LOADS
  let at$i = ring_word(head, min(first + (index + $iu * WORKGROUP) / HEAD_QUADS, length - 1u), 4u * (index % HEAD_QUADS), VALUE_RING, VALUE_BITS != 32u);
#if VALUE_BITS == 32
  found.four$i = bitcast<vec4<f32>>(vec4(recent_values[at$i], recent_values[at$i + 1u], recent_values[at$i + 2u], recent_values[at$i + 3u]));
#else
  found.four$i = vec4(unpack2x16float(recent_values[at$i]), unpack2x16float(recent_values[at$i + 1u]));
#endif
#endfor
  return found;
}
#endif

#if TILE_LOADS
fn place_floats(found: TileFloats, first: u32, length: u32, index: u32) {
#for i 0 TILE_LOADS
  let t$i = (index + $iu * WORKGROUP) / HEAD_QUADS;
  if (t$i < FOLD) { tile[t$i * TILE_STRIDE + index % HEAD_QUADS] = select(vec4(0.0), found.four$i, first + t$i < length); }
#endfor
}
#endif
