// Where generation stands. The sampler moves it on, so that steps can follow one another without the CPU.
struct State {
  position: u32,  // of the token to be processed, or of the first of a chunk
  token: u32,     // the token to be processed; NO_TOKEN where the logits were not finite
  folded: u32,    // tokens of the cache that are quantised; a multiple of FOLD
  rows: u32,      // tokens in the chunk
  count: u32,     // tokens sampled since the start
  unused_0: u32,
  unused_1: u32,
  unused_2: u32,
}
const FOLD = 32u;
const NO_TOKEN = 0xffffffffu;
