// Hands the chosen token on: to the page's ring of results, to the set of seen tokens, and to the next step. `seen_at`: where the sequence's set begins.
fn advance(column: u32, seen_at: u32, token: u32, log_probability: f32) {
  results[column * RESULTS + states[column].count % RESULTS] = vec2(token, bitcast<u32>(log_probability));
  if (token != NO_TOKEN) { seen[seen_at + token / 32u] |= 1u << (token % 32u); }
  states[column].count += 1u;
  states[column].token = token;
  states[column].position += 1u;
#if FOLDING
  if (states[column].position - states[column].folded >= RECENT + FOLD) { states[column].folded += FOLD; }
#endif
}
