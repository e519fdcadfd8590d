/**
 * What can be known of the CUDA library without a GPU: that it exports the functions of `ffi/symbols.ts` and no others, what its kernels take of registers and
 * shared memory (a kernel that spills registers is an error), and that on a machine without a driver it can be opened and says what is missing. Of NCCL, where it
 * was fetched with the toolkit: that `kernels/nccl/api.h` is as its own header, that it has every function that is used, and that the back end opens it.
 *
 * Kernels are listed by name, the largest numbers of their variants in a row; `--all` lists every variant. Then a line a family, with the occupancy that its
 * registers allow.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { refusal } from "../ffi/communicator.ts";
import { ncclSymbols } from "../ffi/communicator_symbols.ts";
import { libraryFolder, ncclPath, toolkitFolder } from "../ffi/locate.ts";
import { symbols } from "../ffi/symbols.ts";
import { run } from "./system.ts";

const options = parseArgs(Deno.args, { boolean: ["all"] });
const library = `${libraryFolder()}/libdinograd_cuda.so`;
const logs = new URL("../build/cmake/cuda/", import.meta.url);
let failures = 0;

function fail(text: string): void {
  console.error(`FAILED ${text}`);
  failures++;
}

async function output(command: string, args: readonly string[], stdin?: string): Promise<string> {
  const { ok, text } = await run(command, args, { quiet: true, stdin });
  if (!ok) throw new Error(`${command}: ${text}`);
  return text;
}

// ---- symbols

async function checkSymbols(): Promise<void> {
  const header = await Deno.readTextFile(new URL("../kernels/streams.h", import.meta.url)); // for native code
  const beside = new Set([...header.matchAll(/DG_EXPORT \w+ (dg_\w+)\(/g)].map((it) => it[1]));
  const lines = (await output("nm", ["-D", "--defined-only", library])).trim().split("\n");
  const exported = new Set(lines.map((line) => line.split(" ").at(-1)!));
  const absent = [...Object.keys(symbols), ...beside].filter((name) => !exported.has(name)),
    extra = [...exported].filter((name) => !(name in symbols) && !beside.has(name));
  if (absent.length > 0) fail(`not exported: ${absent.join(", ")}`);
  if (extra.length > 0) fail(`exported and not in the table: ${extra.join(", ")}`);
  if (absent.length + extra.length === 0) console.log(`ok     exports the ${exported.size} functions of the table and no others`);
}

// ---- kernels

/** What ptxas says of a kernel for one architecture. */
interface Kernel {
  family: string;
  name: string;
  architecture: string;
  registers: number;
  shared: number;
  stack: number;
  spills: number;
}

function parse(family: string, log: string): Kernel[] {
  const kernels: Kernel[] = [];
  const pattern =
    /Compiling entry function '(\w+)' for '(\w+)'[\s\S]*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads[\s\S]*?Used (\d+) registers(.*)/g;
  for (const [, name, architecture, stack, stores, loads, registers, rest] of log.matchAll(pattern)) {
    const shared = Number(/(\d+) bytes smem/.exec(rest)?.[1] ?? 0);
    kernels.push({
      family,
      name,
      architecture,
      registers: Number(registers),
      shared,
      stack: Number(stack),
      spills: Number(stores) + Number(loads),
    });
  }
  return kernels;
}

/** `void dg::(anonymous namespace)::name<args>(...)` as `name<args>`, or without the arguments. */
function shortName(text: string): string {
  const plain = text.replaceAll("(anonymous namespace)::", "").replaceAll("dg::", "").replace(/^void /, "");
  let depth = 0, end = plain.length;
  for (let i = 0; i < plain.length; i++) {
    if (plain[i] === "<") depth++;
    else if (plain[i] === ">") depth--;
    else if (plain[i] === "(" && depth === 0) {
      end = i;
      break;
    }
  }
  const whole = plain.slice(0, end);
  return options.all ? whole : whole.split("<")[0];
}

/**
 * Share of a multiprocessor's 64 warps (compute capability 8.0 and 9.0: 65,536 registers, given out by 256 to a warp) that registers leave room for, with blocks of
 * 256 threads.
 */
function occupancy(registers: number): number {
  const ofWarp = Math.ceil(registers * 32 / 256) * 256, warps = Math.min(64, Math.floor(65536 / ofWarp));
  return Math.floor(warps / 8) * 8 / 64;
}

/** A line a family: the registers of the kernel in the middle and of the largest, and what occupancy they allow. */
function printFamilies(kernels: readonly Kernel[]): void {
  console.log(`${"family".padEnd(24)} kernels registers (middle, most) occupancy (middle, least)`);
  const families = Map.groupBy(kernels.filter((it) => it.architecture === "sm_90"), (it) => it.family);
  for (const [family, list] of [...families].sort(([a], [b]) => a.localeCompare(b))) {
    const registers = list.map((it) => it.registers).sort((a, b) => a - b),
      middle = registers[registers.length >> 1],
      most = registers.at(-1)!;
    const percent = (n: number) => `${Math.round(occupancy(n) * 100)} %`;
    console.log(
      family.padEnd(24),
      String(list.length).padStart(7),
      `${middle}, ${most}`.padStart(24),
      `${percent(middle)}, ${percent(most)}`.padStart(25),
    );
  }
}

async function checkKernels(): Promise<void> {
  const kernels: Kernel[] = [];
  for await (const { name } of Deno.readDir(logs)) {
    if (name.endsWith(".log")) kernels.push(...parse(name.replace(/\.o\.log$/, ""), await Deno.readTextFile(new URL(name, logs))));
  }
  if (kernels.length === 0) return fail(`no kernels in ${logs.pathname}`);
  const names = (await output("c++filt", [], kernels.map((it) => it.name).join("\n"))).split("\n").map(shortName);
  const rows = new Map<string, Kernel & { variants: number }>();
  kernels.forEach((it, i) => {
    const key = `${names[i]} ${it.architecture}`, row = rows.get(key);
    if (row === undefined) rows.set(key, { ...it, name: names[i], variants: 1 });
    else {
      row.variants++;
      for (const part of ["registers", "shared", "stack", "spills"] as const) row[part] = Math.max(row[part], it[part]);
    }
  });
  const sorted = [...rows.values()].sort((a, b) => a.name.localeCompare(b.name) || a.architecture.localeCompare(b.architecture));
  const width = Math.min(100, Math.max(...sorted.map((it) => it.name.length)));
  console.log(`${"kernel".padEnd(width)} arch   variants registers shared  stack spills`);
  for (const it of sorted) {
    console.log(
      it.name.slice(0, width).padEnd(width),
      it.architecture.padEnd(6),
      String(it.variants).padStart(8),
      String(it.registers).padStart(9),
      String(it.shared).padStart(6),
      String(it.stack).padStart(6),
      String(it.spills).padStart(6),
    );
  }
  printFamilies(kernels);
  const spilling = sorted.filter((it) => it.spills > 0);
  for (const it of spilling) fail(`${it.name} spills ${it.spills} bytes on ${it.architecture}`);
  if (spilling.length === 0) console.log(`ok     none of ${kernels.length} kernels spills registers`);
}

// ---- opening

/** What using the library does here; runs in a process of its own so that nothing chosen there holds here. */
const probe = `import { cuda, ones } from ${JSON.stringify(new URL("../mod.ts", import.meta.url).href)};
try {
  const total = ones([1000], { device: "cuda" }).sum().item();
  console.log(total === 1000 ? "ok" : "FAILED", cuda.properties().name, "adds up to", total);
} catch (error) {
  console.log(error.name, error.message);
}`;

async function checkOpening(): Promise<void> {
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(file, probe);
  const config = decodeURIComponent(new URL("../deno.json", import.meta.url).pathname);
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--config", config, file],
    env: { DINOGRAD_CUDA_LIBRARY: library, DINOGRAD_EMULATED_CUDA: "0" },
  });
  const { stdout, stderr } = await child.output();
  await Deno.remove(file);
  const text = (new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr)).trim();
  if (text.startsWith("ok ")) console.log(`ok     on a GPU: ${text.slice(3)}`);
  else if (text.startsWith("DeviceError ")) console.log(`ok     without a GPU: ${text}`);
  else fail(`opening ${library}: ${text}`);
}

// ---- NCCL

async function checkNccl(): Promise<void> {
  const toolkit = toolkitFolder(), nccl = ncclPath(library), backend = `${libraryFolder()}/libdinograd_nccl.so`;
  if (!nccl.startsWith("/")) return console.log("--     NCCL is not fetched: its header and functions are not compared");
  const source = decodeURIComponent(new URL("../kernels/test/nccl_api.cc", import.meta.url).pathname);
  const includes = [`${toolkit}/nvidia/cu13/include`, `${toolkit}/nvidia/nccl/include`].flatMap((it) => ["-isystem", it]);
  const compared = await run(Deno.env.get("CXX") ?? "g++", ["-std=c++20", "-fsyntax-only", ...includes, source], { quiet: true });
  if (!compared.ok) return fail(`kernels/nccl/api.h differs from NCCL's header:\n${compared.text}`);
  const header = await Deno.readTextFile(new URL("../kernels/nccl/api.h", import.meta.url));
  const names = [...header.matchAll(/^ {2}X\((\w+),/gm)].map((it) => it[1]);
  const none = { parameters: [], result: "void" } as const;
  try {
    Deno.dlopen(nccl, Object.fromEntries(names.map((name) => [name, none]))).close();
    const opened = Deno.dlopen(backend, ncclSymbols), path = (text: string) => new TextEncoder().encode(`${text}\0`);
    const status = opened.symbols.dg_nccl_open(path(library), path(nccl));
    if (status !== 0) return fail(`${backend} does not open ${nccl}: ${refusal(opened.symbols, status).message}`);
    console.log(
      `ok     NCCL ${opened.symbols.dg_nccl_version()} has the ${names.length} functions that are used, as its header declares them`,
    );
  } catch (error) {
    fail(`NCCL: ${error instanceof Error ? error.message : error}`);
  }
}

try {
  await Deno.stat(library);
} catch {
  console.error(`${library} is not built: deno task build --cuda-toolkit=pip`);
  Deno.exit(1);
}
await checkSymbols();
await checkKernels();
await checkOpening();
await checkNccl();
Deno.exit(failures === 0 ? 0 : 1);
