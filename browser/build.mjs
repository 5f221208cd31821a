// Builds the runtime into the Python package: the page, its worker, the ONNX Runtime files they load, and the dashboard's Plotly.
import { build } from "esbuild";
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const here = new URL(".", import.meta.url);
const out = new URL("../src/ipfs_accelerate_py/web/static/", here);
const ort = new URL("node_modules/onnxruntime-web/dist/", here);

await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
await build({
  entryPoints: ["src/main.ts", "src/worker.ts"],
  absWorkingDir: fileURLToPath(here),
  outdir: fileURLToPath(out),
  bundle: true,
  splitting: true, // the worker imports only the ONNX Runtime build that a launch needs
  format: "esm",
  target: "es2022",
  outExtension: { ".js": ".mjs" },
  conditions: ["onnxruntime-web-use-extern-wasm"],
  loader: { ".wgsl": "text" },
  legalComments: "linked",
  loader: { ".wgsl": "text" },
  logLevel: "info",
});
await copyFile(new URL("src/index.html", here), new URL("index.html", out));
// wasm runs the plain build; WebGPU and WebNN are only in the asyncify one.
for (const name of ["ort-wasm-simd-threaded", "ort-wasm-simd-threaded.asyncify"])
  for (const suffix of ["mjs", "wasm"]) await copyFile(new URL(`${name}.${suffix}`, ort), new URL(`${name}.${suffix}`, out));
// A quarter of the bytes, for links where they count.
for (const name of ["ort-wasm-simd-threaded", "ort-wasm-simd-threaded.asyncify"])
  await writeFile(new URL(`${name}.wasm.gz`, out), gzipSync(await readFile(new URL(`${name}.wasm`, ort)), { level: 9 }));
// What the dashboard draws with: Plotly's own bundle of bars and scatters, a quarter of the whole one that Python's package carries.
await copyFile(new URL("node_modules/plotly.js-basic-dist-min/plotly-basic.min.js", here), new URL("plotly-basic.min.js", out));
