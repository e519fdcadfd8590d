/**
 * The CUDA toolkit that the CUDA library is built with: an installed one whose `nvcc` is on the PATH, or the compiler and libraries that NVIDIA publishes
 * as Python packages, unpacked into `build/cuda-toolkit` (no Python is run with them).
 *
 * @module
 */
import { toolkitFolder } from "../ffi/locate.ts";
import { install, run, SetupError } from "./system.ts";

/** Packages and their versions, which fit each other. */
const packages = [
  "nvidia-cuda-nvcc==13.2.86",
  "nvidia-nvvm==13.2.86",
  "nvidia-cuda-crt==13.2.86",
  "nvidia-cuda-runtime==13.2.86",
  "nvidia-cuda-cccl==13.2.86",
  "nvidia-cublas==13.4.1.3",
  "nvidia-nccl-cu13==2.30.7",
] as const;

/** What the build needs of a toolkit. */
export interface Toolkit {
  /** Path of the compiler. */
  readonly nvcc: string;
  /** Path of the cuBLAS library, with the number of its version in the name where there is no other. */
  readonly cublas: string;
  /** Path of the static CUDA run time. */
  readonly cudart: string;
}

const folder = toolkitFolder();

/**
 * Finds the toolkit.
 *
 * @param fetched Fetch it if there is no `nvcc` on the PATH.
 * @returns `null` if there is none and none is to be fetched.
 * @throws {SetupError} If it is too old, not complete, or cannot be fetched.
 */
export async function toolkit(fetched: boolean): Promise<Toolkit | null> {
  for (const directory of (Deno.env.get("PATH") ?? "").split(":")) {
    if (directory !== "" && await isFile(`${directory}/nvcc`)) return await installed(await Deno.realPath(`${directory}/nvcc`));
  }
  if (!fetched) return null;
  await fetchPackages();
  const root = `${folder}/nvidia/cu13`;
  return { nvcc: `${root}/bin/nvcc`, ...await libraries([`${root}/lib`]) };
}

async function installed(nvcc: string): Promise<Toolkit> {
  const { text } = await run(nvcc, ["--version"], { quiet: true });
  const version = /release (\d+)\.(\d+)/.exec(text);
  if (version === null || Number(version[1]) < 12) {
    throw new SetupError(`${nvcc} is ${version?.[0] ?? "of an unknown version"}, the CUDA library needs release 12.0 or later`);
  }
  const root = new URL("../", `file://${nvcc}`).pathname;
  return {
    nvcc,
    ...await libraries([
      `${root}lib64`,
      `${root}lib`,
      `${root}targets/${Deno.build.arch}-linux/lib`,
      `/usr/lib/${Deno.build.arch}-linux-gnu`,
    ]),
  };
}

async function libraries(places: readonly string[]): Promise<{ cublas: string; cudart: string }> {
  const cublas = await find(places, /^libcublas\.so(\.\d+)?$/), cudart = await find(places, /^libcudart_static\.a$/);
  if (cublas === null || cudart === null) {
    const what = cublas === null ? "libcublas.so" : "libcudart_static.a";
    throw new SetupError(`the CUDA toolkit has no ${what} (looked in ${places.join(", ")}): install its libraries for development`);
  }
  return { cublas, cudart };
}

async function find(places: readonly string[], name: RegExp): Promise<string | null> {
  for (const place of places) {
    try {
      const found: string[] = [];
      for await (const entry of Deno.readDir(place)) if (name.test(entry.name)) found.push(entry.name);
      if (found.length > 0) return `${place}/${found.sort().at(-1)}`; // the one with a version, if there is one
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return null;
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch {
    return false;
  }
}

/** Downloads and unpacks what is not there yet. */
async function fetchPackages(): Promise<void> {
  const stamp = `${folder}/packages.txt`, wanted = `${packages.join("\n")}\n`;
  if (await Deno.readTextFile(stamp).catch(() => "") === wanted) return;
  if (Deno.build.target !== "x86_64-unknown-linux-gnu") {
    throw new SetupError(`the CUDA toolkit can be fetched for x86_64 Linux only: install it, so that nvcc is on the PATH`);
  }
  await Deno.remove(folder, { recursive: true }).catch(() => {});
  if (!(await run("python3", ["-m", "pip", "--version"], { quiet: true })).ok) await install(["python3-pip"]);
  const wheels = `${folder}/wheels`;
  await Deno.mkdir(wheels, { recursive: true });
  console.log(`fetching the CUDA toolkit (0.7 GB) into ${folder}`);
  const options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-cache-dir", "--quiet"];
  const download = await run("python3", ["-m", "pip", "download", ...options, "--dest", wheels, ...packages], { quiet: true });
  if (!download.ok) throw new SetupError(`pip could not download the CUDA toolkit:\n${download.text}`);
  for await (const { name } of Deno.readDir(wheels)) {
    const unpacked = await run("python3", ["-m", "zipfile", "-e", `${wheels}/${name}`, folder], { quiet: true });
    if (!unpacked.ok) throw new SetupError(`${name} could not be unpacked:\n${unpacked.text}`);
  }
  await Deno.remove(wheels, { recursive: true });
  for (const programs of [`${folder}/nvidia/cu13/bin`, `${folder}/nvidia/cu13/nvvm/bin`]) {
    for await (const { name, isFile } of Deno.readDir(programs)) if (isFile) await Deno.chmod(`${programs}/${name}`, 0o755);
  }
  await Deno.writeTextFile(stamp, wanted);
}
