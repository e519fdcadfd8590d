/**
 * Builds the kernels with the address and undefined-behaviour sanitizers and runs `kernels/test/`: every symbol of `ffi/symbols.ts` with random
 * headers and arguments, valid ones among them, and process groups over Gloo whose ranks are threads. `--calls=N` sets the number of calls (default 100000),
 * `--seed=N` the sequence. Then the tests that reach every kernel run on the sanitized library.
 *
 * @module
 */
import { symbols } from "../ffi/symbols.ts";
import { parseArgs } from "@std/cli";

const options = parseArgs(Deno.args, { string: ["calls", "seed"], default: { calls: "100000", seed: "1" } });
const root = decodeURIComponent(new URL("../", import.meta.url).pathname);
const build = `${root}build/sanitize`;

/** Symbols that the random calls leave out, with the reason. */
const excluded: Readonly<Record<string, string>> = {
  dg_set_threads: "the run keeps two threads",
  dg_memory_limit: "a random limit would end the run's own allocations",
};

/** One C++ case a symbol: parameters drawn by type and name. */
function cases(): string {
  return Object.entries(symbols).filter(([name]) => !(name in excluded)).map(([name, { parameters }], index) => {
    const args = (parameters as readonly string[]).map((type) => {
      switch (type) {
        case "pointer":
          return "fuzz.frame()";
        case "buffer":
          return "fuzz.buffer()";
        case "u32":
          return "fuzz.u32()";
        case "i32":
          return "fuzz.i32()";
        case "f64":
          return "fuzz.f64()";
        default:
          throw new TypeError(`sanitize: no random value for a parameter of type ${type} in ${name}`);
      }
    });
    return `  case ${index}: return fuzz.result("${name}", ${name}(${args.join(", ")}));`;
  }).join("\n");
}

/** Tests that between them call every kernel with valid arguments. */
const tests = [
  "ops",
  "batch_norm",
  "batch_norm_eval",
  "compile",
  "compile_guards",
  "conv_norm",
  "conv_stats",
  "convolution",
  "convolution_depthwise",
  "convolution_few",
  "convolution_grouped",
  "convolution_product",
  "convolution_winograd",
  "fused_activation",
  "indexing",
  "interpolate",
  "loss",
  "math",
  "matmul",
  "memory_order",
  "normalization",
  "optim",
  "pooling",
  "random",
  "reduction",
  "sort",
];

async function run(command: string, args: string[], env: Record<string, string> = {}): Promise<void> {
  const { success } = await new Deno.Command(command, { args, env, cwd: root, stdout: "inherit", stderr: "inherit" }).output();
  if (!success) Deno.exit(1);
}

/** Path of a library of the compiler's. */
async function compilerLibrary(name: string): Promise<string> {
  const { stdout } = await new Deno.Command(Deno.env.get("CXX") ?? "g++", { args: [`-print-file-name=${name}`] }).output();
  return await Deno.realPath(new TextDecoder().decode(stdout).trim());
}

const count = Object.keys(symbols).length - Object.keys(excluded).length;
await Deno.mkdir(build, { recursive: true });
const table = `// Written by tools/sanitize.ts from ffi/symbols.ts.
constexpr int kFunctions = ${count};
inline int64_t call(int which, Fuzz& fuzz) {
  switch (which) {
${cases()}
  default: return 0;
  }
}
`;
const file = `${build}/calls.inc`;
if (await Deno.readTextFile(file).catch(() => "") !== table) await Deno.writeTextFile(file, table);
await run("cmake", [
  "-S",
  `${root}kernels`,
  "-B",
  build,
  "-G",
  "Ninja",
  "-DCMAKE_BUILD_TYPE=Debug",
  "-DDINOGRAD_SANITIZE=ON",
  "-Wno-dev",
  "--log-level=ERROR",
]);
await run("cmake", ["--build", build]);
await run(`${build}/kernel_tests`, [String(options.calls), String(options.seed)]);
if (await Deno.stat(`${build}/rank_tests`).then((it) => it.isFile, () => false)) {
  await run(`${build}/rank_tests`, ["12", String(options.seed)]);
} else console.log("libgloo-dev is not installed: process groups are left out");
await run(Deno.execPath(), ["test", "-A", "--no-check", "--quiet", "--reporter=dot", ...tests.map((name) => `tests/${name}_test.ts`)], {
  DINOGRAD_LIBRARY_DIR: build,
  // The sanitizer's run time has to come first in the process, before V8's.
  LD_PRELOAD: `${await compilerLibrary("libasan.so")} ${await compilerLibrary("libstdc++.so.6")}`,
  ASAN_OPTIONS: "detect_leaks=0:use_sigaltstack=0",
});
