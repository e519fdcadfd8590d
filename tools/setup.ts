/**
 * Makes the native libraries: installs what is missing where that is possible, compiles, and does nothing when all is up to date.
 *
 * In a checkout it runs by itself before the tasks that need it. After a remote import, run it once from the same address:
 * `deno run -A <address of the package>/tools/setup.ts`. It then fetches the sources from there and builds into the user's cache folder.
 *
 * The CUDA library is built if `nvcc` (release 12 or later) is on the PATH; `--cuda-toolkit=pip` fetches one otherwise. `--emulated-cuda` also builds it for
 * the emulator (`kernels/cuda/emulation/`), which the tests use. The library of process groups over Gloo is built where Debian's `libgloo-dev` is installed;
 * `--gloo` installs it.
 *
 * @module
 */
import { libraryFolder, packageUrl } from "../ffi/locate.ts";
import manifest from "../kernels/manifest.json" with { type: "json" };
import { type Toolkit, toolkit } from "./cuda_toolkit.ts";
import { install, run, SetupError } from "./system.ts";

/** Debian packages that provide what the build needs. */
const packages = { compiler: "g++", cmake: "cmake", ninja: "ninja-build", gloo: "libgloo-dev" } as const;
type Need = keyof typeof packages;

const local = packageUrl.protocol === "file:";
const folder = libraryFolder();
const work = local ? decodeURIComponent(new URL("build/cmake", packageUrl).pathname) : `${folder}/cmake`;

const compiler = Deno.env.get("CXX") ?? "g++";

/** True where programs can be compiled against Gloo. */
async function hasGloo(): Promise<boolean> {
  const args = ["-std=c++20", "-x", "c++", "-", "-o", "/dev/null", "-lgloo"];
  return (await run(compiler, args, { quiet: true, stdin: "#include <gloo/transport/tcp/device.h>\nint main() {}\n" })).ok;
}

/** What the build needs and this machine lacks. */
async function missing(): Promise<Need[]> {
  const [compiles, cmake, ninja] = await Promise.all([
    run(compiler, ["-std=c++20", "-fopenmp", "-x", "c++", "-fsyntax-only", "-"], {
      quiet: true,
      stdin: "#include <omp.h>\n#include <array>\nint main() {}\n",
    }),
    run("cmake", ["--version"], { quiet: true }),
    run("ninja", ["--version"], { quiet: true }),
  ]);
  const needs: Need[] = [];
  if (!compiles.ok) needs.push("compiler");
  if (!cmake.ok) needs.push("cmake");
  if (!ninja.ok) needs.push("ninja");
  return needs;
}

/** A text that changes when a source or the machine does. */
async function fingerprint(root: URL): Promise<string> {
  const parts: string[] = [Deno.build.target, await processor()];
  for (const name of manifest.files) {
    if (!local) {
      parts.push(name);
      continue;
    }
    const info = await Deno.stat(new URL(name, root));
    parts.push(`${name} ${info.size} ${info.mtime?.getTime()}`);
  }
  return `${packageUrl.href}\n${parts.join("\n")}\n`;
}

/** The instruction sets of the processor: the library is built for the machine that it runs on. */
async function processor(): Promise<string> {
  try {
    return (await Deno.readTextFile("/proc/cpuinfo")).match(/^(flags|Features)\s*:.*$/m)?.[0] ?? "";
  } catch {
    return "";
  }
}

/** The native sources: in place, or fetched to the cache folder. */
async function sources(): Promise<URL> {
  const remote = new URL("kernels/", packageUrl);
  if (local) return remote;
  const target = new URL(`file://${folder}/kernels/`);
  for (const name of manifest.files) {
    const response = await fetch(new URL(name, remote));
    if (!response.ok) throw new SetupError(`fetching ${new URL(name, remote)}: ${response.status} ${response.statusText}`);
    const file = new URL(name, target);
    await Deno.mkdir(new URL(".", file), { recursive: true });
    await Deno.writeFile(file, new Uint8Array(await response.arrayBuffer()));
  }
  return target;
}

/** Libraries by what they are for, with their CMake targets. */
const targets = {
  cpu: "dinograd_cpu",
  emulated: "dinograd_cuda_emulated",
  cuda: "dinograd_cuda",
  gloo: "dinograd_gloo",
  nccl: "dinograd_nccl",
  ncclEmulated: "nccl_emulated",
} as const;
type Part = keyof typeof targets;

async function compile(root: URL, parts: readonly Part[], cuda: Toolkit | null): Promise<void> {
  const configure = await run("cmake", [
    "-S",
    decodeURIComponent(root.pathname),
    "-B",
    work,
    "-G",
    "Ninja",
    "-DCMAKE_BUILD_TYPE=Release",
    `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${folder}`,
    "-DDINOGRAD_EMULATED_CUDA=ON", // a target that is built when it is named
    ...cuda === null ? [] : [`-DDINOGRAD_NVCC=${cuda.nvcc}`, `-DDINOGRAD_CUBLAS=${cuda.cublas}`, `-DDINOGRAD_CUDART=${cuda.cudart}`],
  ], { quiet: true });
  if (!configure.ok) throw new SetupError(`cmake could not configure the build:\n${configure.text}`);
  const names = parts.map((part) => targets[part]);
  const build = await run("cmake", ["--build", work, "--target", ...names], { quiet: !Deno.stdout.isTerminal() });
  if (!build.ok) throw new SetupError(`the native build failed:\n${build.text}`);
}

/** What {@linkcode setup} builds besides the CPU library. */
export interface SetupOptions {
  /** The CUDA library for the emulator, which runs its kernels on the CPU. Default `false`. */
  emulated?: boolean;
  /** Fetch a CUDA toolkit for the CUDA library if none is installed. Default `false`: it is built if `nvcc` is on the PATH. */
  fetchToolkit?: boolean;
  /** Install Gloo, for process groups, where it is missing. Default `false`: their library is built if Gloo is installed. */
  gloo?: boolean;
}

/** Brings the native libraries up to date. @returns True if something had to be built. */
export async function setup(options: SetupOptions = {}): Promise<boolean> {
  const cuda = await toolkit(options.fetchToolkit ?? false);
  const parts: Part[] = ["cpu", ...options.emulated ? ["emulated" as const] : [], ...cuda !== null ? ["cuda" as const] : []];
  if (options.emulated || cuda !== null) parts.push("nccl");
  if (options.emulated) parts.push("ncclEmulated");
  if (await hasGloo()) parts.push("gloo");
  else if (options.gloo) {
    await install([packages.gloo]);
    parts.push("gloo");
  }
  const before = await fingerprint(new URL("kernels/", packageUrl));
  const stampOf = (part: Part) => `${folder}/${part === "cpu" ? "stamp" : `stamp-${part}`}.txt`;
  const wanted = (part: Part) => part === "cuda" ? `${before}${JSON.stringify(cuda)}\n` : before;
  const outdated = async () => {
    const texts = await Promise.all(parts.map((part) => Deno.readTextFile(stampOf(part)).catch(() => "")));
    const lacking = options.gloo && !await Deno.stat(`${folder}/libdinograd_gloo.so`).then((it) => it.isFile, () => false);
    return parts.filter((part, i) => texts[i] !== wanted(part) || (part === "gloo" && lacking));
  };
  if ((await outdated()).length === 0) return false;
  await Deno.mkdir(folder, { recursive: true });
  // One build at a time: a second process waits and then finds the work done.
  using lock = await Deno.open(`${folder}/lock`, { create: true, write: true });
  await lock.lock(true);
  const due = await outdated();
  if (due.length === 0) return false;
  const start = performance.now();
  const needs = await missing();
  if (needs.length > 0) await install(needs.map((need) => packages[need]));
  console.log(`building ${due.map((part) => targets[part]).join(", ")} in ${folder}`);
  const root = await sources(), rest = due.filter((part) => part !== "gloo");
  if (rest.length > 0) await compile(root, rest, cuda);
  if (rest.length < due.length) {
    try {
      await compile(root, ["gloo"], cuda);
    } catch (error) {
      // Gloo's headers differ between releases; whoever did not ask for it gets along without.
      if (!(error instanceof SetupError) || options.gloo) throw error;
      console.log("process groups over Gloo are left out: this release of libgloo-dev does not fit (build with --gloo to see how)");
    }
  }
  for (const part of due) await Deno.writeTextFile(stampOf(part), wanted(part));
  console.log(`built in ${((performance.now() - start) / 1000).toFixed(0)} s`);
  return true;
}

if (import.meta.main) {
  const known = new Set(["--emulated-cuda", "--cuda-toolkit=pip", "--gloo"]);
  try {
    const unknown = Deno.args.find((arg) => !known.has(arg));
    if (unknown !== undefined) throw new SetupError(`unknown option ${unknown}, there are ${[...known].join(", ")}`);
    const asked = (name: string) => Deno.args.includes(name);
    await setup({ emulated: asked("--emulated-cuda"), fetchToolkit: asked("--cuda-toolkit=pip"), gloo: asked("--gloo") });
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(`setup: ${error.message}`);
    Deno.exit(1);
  }
}
