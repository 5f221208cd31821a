// The key-value cache of a layer. Recent tokens are floats, in a ring of *_RING tokens a head; every full group of FOLD tokens older
// than the recent window is quantised in place of it (the KIVI layout, Liu et al., 2024, https://arxiv.org/abs/2402.02750): keys for each
// channel over 32 tokens, values for each token over 32 channels, asymmetric, x = code * step + least, both float16.
//
// A quantised tile (32 tokens of one head) has BITS planes of words and one plane of (step, least) pairs:
//   keys:   [word][channel]; 2, 4, 8 bits: 32 / BITS tokens a word, token t at bits (t % n) * BITS of word t / n.
//   values: [word][token][channel group]; the same along the group's 32 channels.
//   3 bits: words 0 and 1 hold the two low bits, 16 a word; word 2 the third bit, 32 a word.
// With 16 or 32 bits nothing is folded: the ring holds the whole context.
@group(1) @binding(0) var<storage, CACHE_ACCESS> recent_keys: array<u32>;
@group(1) @binding(1) var<storage, CACHE_ACCESS> recent_values: array<u32>;
#if KEY_BITS < 16
@group(1) @binding(2) var<storage, FOLDED_ACCESS> folded_keys: array<u32>;
#endif
#if VALUE_BITS < 16
@group(1) @binding(3) var<storage, FOLDED_ACCESS> folded_values: array<u32>;
#endif

const CHANNEL_GROUPS = (HEAD_SIZE + 31u) / 32u;
#if KEY_BITS < 16
const KEY_TILE_WORDS = HEAD_SIZE * (KEY_BITS + 1u);
#endif
#if VALUE_BITS < 16
const VALUE_TILE_WORDS = FOLD * CHANNEL_GROUPS * (VALUE_BITS + 1u);
#endif

// Word of element `channel` of a token in a ring of `ring` tokens; two elements a word when `half`.
fn ring_word(head: u32, token: u32, channel: u32, ring: u32, half: bool) -> u32 {
  let element = (head * ring + token % ring) * HEAD_SIZE + channel;
  return select(element, element / 2u, half);
}
