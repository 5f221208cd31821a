// The end of a matrix-matrix product: an invocation's sums (sum0, sum1, ...: four rows of a token each) go to `y`.
#for t 0 TOKENS
  for (var i = 0u; i < 4u; i++) {
    let token = first_token + local.y + 16u * $tu;
    let row = first_row + local.x + 16u * i;
    if (token < tokens && row < rows) {
      var total = sum$t[i];
#if HAS_BIAS
      total += bias(row);
#endif
      let at = token * ALL_ROWS + scales[FIRST_ROW_AT] + row;
#if RESIDUAL
      y[at] += total;
#else
      y[at] = total;
#endif
    }
  }
#endfor
