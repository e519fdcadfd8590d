/**
 * The TensorFlow.js side of the benchmarks, on its WebAssembly back end with threads and SIMD: one JSON command a line on stdin, one JSON answer a line on
 * stdout. See run.ts.
 *
 * @module
 */
import { rows } from "./rows.ts";
import { type Tensor, tf, wasm } from "./tf.ts";

const threads = Number(Deno.env.get("BENCH_THREADS") ?? "2");
wasm.setThreadsCount(threads);
await tf.setBackend("wasm");
await tf.ready();

/** The tensors of a safetensors file. */
function load(path: string): Record<string, Tensor> {
  const bytes = Deno.readFileSync(path), size = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + size)));
  delete header.__metadata__;
  const out: Record<string, Tensor> = {};
  for (
    const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries<{ dtype: string; shape: number[]; data_offsets: number[] }>(
      header,
    )
  ) {
    const data = bytes.slice(8 + size + from, 8 + size + to).buffer;
    out[name] = dtype === "F32"
      ? tf.tensor(new Float32Array(data), shape)
      : tf.tensor(Int32Array.from(new BigInt64Array(data), Number), shape, "int32");
  }
  return out;
}

let step: () => Tensor[] = () => [];

/** Sixteen elements of each, evenly spread, as the other sides take them. */
function sampled(tensors: readonly Tensor[]): number[] {
  return tensors.flatMap((x) => {
    const flat = x.dataSync(), every = Math.max(1, Math.floor(flat.length / 16));
    return Array.from({ length: Math.min(16, Math.ceil(flat.length / every)) }, (_, i) => flat[i * every]);
  });
}

function answer(command: Record<string, unknown>): Record<string, unknown> {
  if (command.do === "load") {
    const build = rows[command.name as string];
    if (build === undefined) return { why: null };
    try {
      const tensors = load(command.path as string), values: number[] = [];
      step = build(tensors);
      for (let i = 0; i < (command.checks as number); i++) {
        const results = step();
        values.push(...sampled(results));
        for (const it of results) it.dispose();
      }
      return { values };
    } catch (error) {
      return { why: `TensorFlow.js: ${(error as Error).message.split("\n")[0].slice(0, 200)}` };
    }
  }
  const begin = performance.now();
  for (let i = 0; i < (command.steps as number); i++) for (const it of step()) it.dispose();
  return { ms: (performance.now() - begin) / (command.steps as number) };
}

const encoder = new TextEncoder();
const say = (line: unknown) => Deno.stdout.writeSync(encoder.encode(JSON.stringify(line) + "\n"));
say({ version: tf.version["tfjs-core"], threads: wasm.getThreadsCount(), simd: await tf.env().getAsync("WASM_HAS_SIMD_SUPPORT") });
let rest = "";
for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  rest += text;
  for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
    const line = rest.slice(0, end);
    rest = rest.slice(end + 1);
    say(answer(JSON.parse(line)));
  }
}
Deno.exit(0); // its workers would keep the process
