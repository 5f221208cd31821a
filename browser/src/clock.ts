// The page's clock. Both browsers round performance.now(): to 5 us (Chromium) or 20 us (Firefox) in an isolated page.

/** Nanoseconds since the page began. */
export function nowNs(): number {
  return Math.round(performance.now() * 1e6);
}

/** The smallest step seen between two readings, in nanoseconds. */
export function resolutionNs(steps = 50): number {
  let smallest = Infinity;
  for (let step = 0; step < steps; step++) {
    const start = performance.now();
    let now = start;
    while (now === start) now = performance.now();
    smallest = Math.min(smallest, now - start);
  }
  return Math.round(smallest * 1e6);
}
