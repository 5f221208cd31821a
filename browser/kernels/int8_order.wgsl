// In which order a sub-block's values lie as bytes: that in which masks take the codes of ORDER bits out of a word of weights. `first_of` is the
// first of the four values in word `i`; the next ones are CODES_APART further each.
#if ORDER == 4
const CODES_APART = 2u;
fn first_of(i: u32) -> u32 { return i / 2u * 8u + i % 2u; }
#endif
#if ORDER == 8
const CODES_APART = 1u;
fn first_of(i: u32) -> u32 { return i * 4u; }
#endif
#if ORDER <= 3
const CODES_APART = 4u;
fn first_of(i: u32) -> u32 { return i / 4u * 16u + i % 4u; }
#endif
