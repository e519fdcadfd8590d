/**
 * Makes the native libraries: installs what is missing where that is possible, compiles, and does nothing when all is up to date.
 *
 * In a checkout it runs by itself before the tasks that need it. After a remote import, run it once from the same address:
 * `deno run -A <address of the package>/tools/setup.ts`. It then fetches the sources from there and builds into the user's cache folder.
 *
 * `--emulated-cuda` also builds the CUDA library for the emulator (`kernels/cuda/emulation/`), which the tests use.
 *
 * @module
 */
import { libraryFolder, packageUrl } from "../ffi/locate.ts";
import manifest from "../kernels/manifest.json" with { type: "json" };

/** Debian packages that provide what the build needs. */
const packages = { compiler: "g++", cmake: "cmake", ninja: "ninja-build" } as const;
type Need = keyof typeof packages;

const local = packageUrl.protocol === "file:";
const folder = libraryFolder();
const work = local ? decodeURIComponent(new URL("build/cmake", packageUrl).pathname) : `${folder}/cmake`;

/** Failure that is answered with a message and no stack. */
class SetupError extends Error {}

async function run(
  command: string,
  args: string[],
  options: { quiet?: boolean; stdin?: string } = {},
): Promise<{ ok: boolean; text: string }> {
  try {
    const child = new Deno.Command(command, {
      args,
      stdin: options.stdin === undefined ? "null" : "piped",
      stdout: options.quiet ? "piped" : "inherit",
      stderr: options.quiet ? "piped" : "inherit",
      env: { DEBIAN_FRONTEND: "noninteractive" },
    }).spawn();
    if (options.stdin !== undefined) {
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode(options.stdin));
      await writer.close();
    }
    if (!options.quiet) return { ok: (await child.status).success, text: "" };
    const { success, stdout, stderr } = await child.output();
    return { ok: success, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { ok: false, text: `${command}: not found` };
    throw error;
  }
}

/** What the build needs and this machine lacks. */
async function missing(): Promise<Need[]> {
  const compiler = Deno.env.get("CXX") ?? "g++";
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

async function install(needs: Need[]): Promise<void> {
  const names = needs.map((need) => packages[need]).join(" ");
  const apt = await run("apt-get", ["--version"], { quiet: true });
  if (!apt.ok) {
    throw new SetupError(
      `missing: ${names} (names of the Debian packages). Install them with this system's package manager and run this again.`,
    );
  }
  if (Deno.uid() !== 0) {
    throw new SetupError(`missing: ${names}. Install them with:\n\n  sudo apt-get install -y ${names}\n`);
  }
  console.log(`installing ${names}`);
  const update = await run("apt-get", ["update", "-qq"], { quiet: true });
  const done = await run("apt-get", ["install", "-y", "-qq", "--no-install-recommends", ...names.split(" ")], { quiet: true });
  if (!done.ok) throw new SetupError(`apt-get could not install ${names}:\n${update.ok ? "" : update.text}${done.text}`);
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

async function compile(root: URL, emulated: boolean): Promise<void> {
  const configure = await run("cmake", [
    "-S",
    decodeURIComponent(root.pathname),
    "-B",
    work,
    "-G",
    "Ninja",
    "-DCMAKE_BUILD_TYPE=Release",
    `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${folder}`,
    `-DDINOGRAD_EMULATED_CUDA=${emulated ? "ON" : "OFF"}`,
  ], { quiet: true });
  if (!configure.ok) throw new SetupError(`cmake could not configure the build:\n${configure.text}`);
  const build = await run("cmake", ["--build", work], { quiet: !Deno.stdout.isTerminal() });
  if (!build.ok) throw new SetupError(`the native build failed:\n${build.text}`);
}

/**
 * Brings the native libraries up to date.
 *
 * @param emulated Also the emulated CUDA library. Default `false`.
 * @returns True if something had to be built.
 */
export async function setup(emulated = false): Promise<boolean> {
  const stamp = `${folder}/${emulated ? "stamp-emulated" : "stamp"}.txt`;
  const current = () => Deno.readTextFile(stamp).catch(() => "");
  const before = await fingerprint(new URL("kernels/", packageUrl));
  if (await current() === before) return false;
  await Deno.mkdir(folder, { recursive: true });
  // One build at a time: a second process waits and then finds the work done.
  using lock = await Deno.open(`${folder}/lock`, { create: true, write: true });
  await lock.lock(true);
  if (await current() === before) return false;
  const start = performance.now();
  const needs = await missing();
  if (needs.length > 0) await install(needs);
  console.log(`building the native ${emulated ? "libraries" : "library"} in ${folder}`);
  await compile(await sources(), emulated);
  await Deno.writeTextFile(stamp, before);
  console.log(`built in ${((performance.now() - start) / 1000).toFixed(0)} s`);
  return true;
}

if (import.meta.main) {
  try {
    await setup(Deno.args.includes("--emulated-cuda"));
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    console.error(`setup: ${error.message}`);
    Deno.exit(1);
  }
}
