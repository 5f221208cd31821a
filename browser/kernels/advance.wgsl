// Hands the chosen token on: to the page's ring of results, to the set of seen tokens, and to the next step.
fn advance(token: u32, log_probability: f32) {
  results[state.count % RESULTS] = vec2(token, bitcast<u32>(log_probability));
  if (token != NO_TOKEN) { seen[token / 32u] |= 1u << (token % 32u); }
  state.count += 1u;
  state.token = token;
  state.position += 1u;
#if FOLDING
  if (state.position - state.folded >= RECENT + FOLD) { state.folded += FOLD; }
#endif
}
