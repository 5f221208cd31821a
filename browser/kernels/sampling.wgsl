// What a request asks of the sampler.
struct Sampling {
  temperature: f32,  // 0: the greatest logit
  top_p: f32,        // 1: all
  min_p: f32,        // 0: all
  penalty: f32,      // of tokens seen before; 1: none
  top_k: u32,        // 0: all
  seed: u32,
  logprobs: u32,     // 1: the log-probability of the chosen token, before penalty and temperature
  unused: u32,
}
