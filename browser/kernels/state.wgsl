// Where generation stands. The sampler moves it on, so that steps can follow one another without the CPU.
struct State {
  position: u32,  // of the token to be processed, or of the first of a chunk
  token: u32,     // the token to be processed; NO_TOKEN where the logits were not finite
  folded: u32,    // tokens of the cache that are quantised; a multiple of FOLD
  rows: u32,      // tokens in the chunk; in a batch's step 0 where the sequence rests
  count: u32,     // tokens sampled since the start
  slot: u32,      // which part of the cache is the sequence's; 0 but in a batch
  unused_0: u32,
  unused_1: u32,
}
const FOLD = 32u;
const NO_TOKEN = 0xffffffffu;
