// Composes a kernel's source from its file, the files that it includes and the constants of a variant.
//
//   #include name          the file, once a shader
//   #if CONDITION, #else, #endif       CONDITION: NAME, !NAME, NAME == n, NAME < n, NAME <= n, joined by &&; an unknown name is 0
//   #for i 0 END, #endfor  the lines once for each i; $i is the number, $iu the number as u32
// Every constant becomes `const NAME`; its name in `FLOATS` makes it f32, otherwise it is u32.
import advance from "../../../kernels/advance.wgsl";
import append from "../../../kernels/append.wgsl";
import attention_decode from "../../../kernels/attention_decode.wgsl";
import attention_merge from "../../../kernels/attention_merge.wgsl";
import attention_prefill from "../../../kernels/attention_prefill.wgsl";
import cache from "../../../kernels/cache.wgsl";
import cache_store from "../../../kernels/cache_store.wgsl";
import cache_tile from "../../../kernels/cache_tile.wgsl";
import dequantize from "../../../kernels/dequantize.wgsl";
import embed from "../../../kernels/embed.wgsl";
import finished from "../../../kernels/finished.wgsl";
import fold from "../../../kernels/fold.wgsl";
import matmul from "../../../kernels/matmul.wgsl";
import int8_order from "../../../kernels/int8_order.wgsl";
import matmul_results from "../../../kernels/matmul_results.wgsl";
import matmul_int8 from "../../../kernels/matmul_int8.wgsl";
import matrix from "../../../kernels/matrix.wgsl";
import matvec from "../../../kernels/matvec.wgsl";
import matvec_batch from "../../../kernels/matvec_batch.wgsl";
import matvec_float from "../../../kernels/matvec_float.wgsl";
import matvec_int8 from "../../../kernels/matvec_int8.wgsl";
import order from "../../../kernels/order.wgsl";
import packed from "../../../kernels/packed.wgsl";
import quads from "../../../kernels/quads.wgsl";
import quantize_chunk from "../../../kernels/quantize_chunk.wgsl";
import reduce from "../../../kernels/reduce.wgsl";
import rms_norm from "../../../kernels/rms_norm.wgsl";
import rotary from "../../../kernels/rotary.wgsl";
import sample from "../../../kernels/sample.wgsl";
import sample_greedy from "../../../kernels/sample_greedy.wgsl";
import sampling from "../../../kernels/sampling.wgsl";
import state from "../../../kernels/state.wgsl";
import swiglu from "../../../kernels/swiglu.wgsl";

const files: Record<string, string> = {
  advance, append, attention_decode, attention_merge, attention_prefill, cache, cache_store, cache_tile, dequantize, embed, finished, fold, int8_order, matmul, matmul_int8, matmul_results, matrix,
  matvec, matvec_batch, matvec_float, matvec_int8, order, packed, quads, quantize_chunk, reduce, rms_norm, rotary, sample, sample_greedy, sampling, state, swiglu,
};

export type Constants = Record<string, number | string>;

const FLOATS = new Set(["EPSILON", "SCORE_SCALE", "LEVELS", "LARGEST_CODE"]);

/** The WGSL source of a variant of a kernel. Strings in `constants` are put in place of their names; numbers are declared. */
export function compose(kernel: string, constants: Constants): string {
  const included = new Set<string>();
  const body = include(kernel, constants, included).join("\n");
  const head = [...(constants["SUBGROUPS"] ? ["enable subgroups;"] : []), ...(constants["ELEMENT"] === "f16" ? ["enable f16;"] : [])];
  let text = body;
  for (const [name, value] of Object.entries(constants)) {
    if (typeof value === "string") text = text.replace(new RegExp(`\\b${name}\\b`, "g"), value);
    else head.push(FLOATS.has(name) ? `const ${name} = f32(${floatText(value)});` : `const ${name} = ${value}u;`);
  }
  return [...head, text].join("\n");
}

function floatText(value: number): string {
  const text = value.toExponential();
  return text.includes(".") ? text : text.replace("e", ".0e");
}

function include(name: string, constants: Constants, included: Set<string>): string[] {
  const source = files[name];
  if (source === undefined) throw new Error(`There is no kernel '${name}'.`);
  included.add(name);
  return expand(source.split("\n"), constants, included);
}

function expand(lines: readonly string[], constants: Constants, included: Set<string>): string[] {
  const out: string[] = [];
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at]!;
    const [word, ...rest] = line.trim().split(/\s+/);
    if (word === "#include") {
      if (!included.has(rest[0]!)) out.push(...include(rest[0]!, constants, included));
    } else if (word === "#if" || word === "#for") {
      const { body, otherwise, end } = block(lines, at);
      if (word === "#if") out.push(...expand(holds(rest.join(" "), constants) ? body : otherwise, constants, included));
      else {
        const [variable, from, to] = rest as [string, string, string];
        for (let i = number(from, constants); i < number(to, constants); i++) {
          const pattern = new RegExp(`\\$${variable}(u?)(?![A-Za-z0-9])`, "g");
          out.push(...expand(body.map((text) => text.replace(pattern, `${i}$1`)), constants, included));
        }
      }
      at = end;
    } else out.push(line);
  }
  return out;
}

/** The lines of a block that opens at `at`, and where it ends. */
function block(lines: readonly string[], at: number): { body: string[]; otherwise: string[]; end: number } {
  const body: string[] = [];
  const otherwise: string[] = [];
  let into = body;
  let depth = 0;
  for (let end = at + 1; end < lines.length; end++) {
    const word = lines[end]!.trim().split(/\s+/)[0]!;
    if (word === "#if" || word === "#for") depth++;
    if (depth === 0 && word === "#else") {
      into = otherwise;
      continue;
    }
    if (word === "#endif" || word === "#endfor") {
      if (depth === 0) return { body, otherwise, end };
      depth--;
    }
    into.push(lines[end]!);
  }
  throw new Error(`A block is never closed: ${lines[at]}`);
}

function holds(condition: string, constants: Constants): boolean {
  return condition.split("&&").every((term) => {
    const [left, operator, right] = term.trim().split(/\s+/) as [string, string?, string?];
    if (operator === undefined) return left.startsWith("!") ? number(left.slice(1), constants) === 0 : number(left, constants) !== 0;
    const [a, b] = [number(left, constants), number(right!, constants)];
    return operator === "==" ? a === b : operator === "<" ? a < b : a <= b;
  });
}

function number(text: string, constants: Constants): number {
  if (/^\d+$/.test(text)) return Number(text);
  const value = constants[text];
  return typeof value === "number" ? value : 0;
}
