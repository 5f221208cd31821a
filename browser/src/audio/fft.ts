// A mixed-radix Stockham FFT as WGSL text: passes of radix 2, 3, 4, 5 and 8 between two arrays in workgroup memory.

/** Radices whose product is `points`, largest first; RangeError where it has a prime factor above 5. */
export function radices(points: number): number[] {
  const found: number[] = [];
  let rest = points;
  for (const radix of [8, 5, 4, 3, 2])
    while (rest % radix === 0) {
      found.push(radix);
      rest /= radix;
    }
  if (rest !== 1 || points < 2) throw new RangeError(`An FFT of ${points} points is not made: only the factors 2, 3 and 5 are.`);
  return found;
}

/** exp(-2 pi i k / order) for k below `count`, as pairs. */
export function roots(order: number, count: number): Float32Array<ArrayBuffer> {
  const values = new Float32Array(2 * count);
  for (let k = 0; k < count; k++) {
    values[2 * k] = Math.cos((2 * Math.PI * k) / order);
    values[2 * k + 1] = -Math.sin((2 * Math.PI * k) / order);
  }
  return values;
}

const literal = (value: number) => value.toFixed(9);

/** `value` times exp(-2 pi i power / order), as an expression. */
function turned(value: string, power: number, order: number): string {
  const quarter = (4 * (power % order)) / order;
  if (quarter === 0) return value;
  if (quarter === 1) return `vec2f(${value}.y, -${value}.x)`;
  if (quarter === 2) return `(-${value})`;
  if (quarter === 3) return `vec2f(-${value}.y, ${value}.x)`;
  const angle = (-2 * Math.PI * power) / order;
  return `times(${value}, vec2f(${literal(Math.cos(angle))}, ${literal(Math.sin(angle))}))`;
}

/** Adds lines that transform the values named `inputs`, and gives the names of the results. */
function butterfly(inputs: readonly string[], prefix: string, lines: string[]): string[] {
  const order = inputs.length;
  if (order === 1) return [...inputs];
  const name = (index: number) => `${prefix}${index}`;
  if (order % 2 === 0) {
    const even = butterfly(inputs.filter((_, index) => index % 2 === 0), `${prefix}e`, lines);
    const odd = butterfly(inputs.filter((_, index) => index % 2 === 1), `${prefix}o`, lines);
    for (let k = 0; k < order / 2; k++) {
      lines.push(`let ${prefix}t${k} = ${turned(odd[k]!, k, order)};`);
      lines.push(`let ${name(k)} = ${even[k]} + ${prefix}t${k};`);
      lines.push(`let ${name(k + order / 2)} = ${even[k]} - ${prefix}t${k};`);
    }
  } else {
    for (let k = 0; k < order; k++)
      lines.push(`let ${name(k)} = ${inputs.map((value, index) => turned(value, index * k, order)).join(" + ")};`);
  }
  return inputs.map((_, index) => name(index));
}

/** The passes over `points` values that begin in the array `even`, and the array where the result is. */
export function passes(points: number): { source: string; result: string } {
  const lines: string[] = [];
  let [from, to] = ["even", "odd"];
  let done = 1;
  for (const radix of radices(points)) {
    const part = points / radix;
    const inner: string[] = [`let k = j % ${done}u;`];
    const inputs = Array.from({ length: radix }, (_, index) => {
      const value = `${from}[j + ${index * part}u]`;
      const step = (points / (done * radix)) * index;
      inner.push(`let v${index} = ${index === 0 || done === 1 ? value : `times(${value}, table[k * ${step}u])`};`);
      return `v${index}`;
    });
    const outputs = butterfly(inputs, "w", inner);
    inner.push(`let at = (j / ${done}u) * ${done * radix}u + k;`);
    outputs.forEach((value, index) => inner.push(`${to}[at + ${index * done}u] = ${value};`));
    lines.push(`  for (var j = thread; j < ${part}u; j += THREADS) {`, ...inner.map((line) => `    ${line}`), "  }", "  workgroupBarrier();");
    done *= radix;
    [from, to] = [to, from];
  }
  return { source: lines.join("\n"), result: from };
}
