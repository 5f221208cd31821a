// Cosine and sine of every position and frequency, in double precision; frequencies come from Python, scaling included.
export function rotaryTable(inverseFrequencies: readonly number[], positions: number, factor: number): Float32Array<ArrayBuffer> {
  const table = new Float32Array(2 * positions * inverseFrequencies.length);
  let at = 0;
  for (let position = 0; position < positions; position++)
    for (const frequency of inverseFrequencies) {
      // transformers multiplies in float32; the angle is what the model was trained with.
      const angle = Math.fround(position * Math.fround(frequency));
      table[at++] = Math.cos(angle) * factor;
      table[at++] = Math.sin(angle) * factor;
    }
  return table;
}
