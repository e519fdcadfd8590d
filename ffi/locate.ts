/**
 * Where native libraries are: beside a checkout in `build/`, or in the user's cache for a remote import.
 *
 * @module
 */

/** Folder of the package: a `file:` URL in a checkout, a remote one for an import by URL or from JSR. */
export const packageUrl: URL = new URL("../", import.meta.url);

function environment(name: string): string | undefined {
  try {
    return Deno.env.get(name);
  } catch {
    return undefined; // no permission to read it: as if it were not set
  }
}

/** Folder that `setup` builds into and that `libraryOf` looks into. */
export function libraryFolder(): string {
  const named = environment("DINOGRAD_LIBRARY_DIR");
  if (named) return named;
  if (packageUrl.protocol === "file:") return decodeURIComponent(new URL("build/lib", packageUrl).pathname);
  const cache = environment("XDG_CACHE_HOME") ?? `${environment("HOME") ?? "."}/.cache`;
  return `${cache}/dinograd/${packageUrl.href.replace(/[^A-Za-z0-9.@]+/g, "_")}`;
}

/** A native library: its file is `libdinograd_<name>.so`. */
export type LibraryName = "cpu" | "cuda" | "gloo" | "nccl";

/**
 * File names of a library, the first to try first. For CUDA: the file that `DINOGRAD_CUDA_LIBRARY` names; with `DINOGRAD_EMULATED_CUDA=1` the build
 * whose kernels run on the CPU, for tests; then the one for GPUs.
 */
export function libraryCandidates(name: LibraryName): string[] {
  const candidates = [`${libraryFolder()}/libdinograd_${name}.so`];
  if (name !== "cuda") return candidates;
  if (environment("DINOGRAD_EMULATED_CUDA") === "1") candidates.unshift(`${libraryFolder()}/libdinograd_cuda_emulated.so`);
  const named = environment("DINOGRAD_CUDA_LIBRARY");
  if (named) candidates.unshift(named);
  return candidates;
}

/** The NCCL that goes with a CUDA library of this path: for the emulated one its stand-in. */
export function ncclPath(cudaPath: string): string {
  const named = environment("DINOGRAD_NCCL_LIBRARY");
  if (named) return named;
  if (cudaPath.endsWith("_emulated.so")) return cudaPath.replace(/[^/]*$/, "libnccl_emulated.so");
  const fetched = `${toolkitFolder()}/nvidia/nccl/lib/libnccl.so.2`;
  try {
    return Deno.statSync(fetched).isFile ? fetched : "libnccl.so.2";
  } catch {
    return "libnccl.so.2"; // the loader looks for it
  }
}

/** Folder that setup unpacks a CUDA toolkit into. */
export function toolkitFolder(): string {
  return packageUrl.protocol === "file:"
    ? decodeURIComponent(new URL("build/cuda-toolkit", packageUrl).pathname)
    : `${libraryFolder()}/cuda-toolkit`;
}

/** The command that builds a library for this import. */
export function buildCommand(name: LibraryName): string {
  const command = packageUrl.protocol === "file:" ? "deno task build" : `deno run -A ${new URL("tools/setup.ts", packageUrl).href}`;
  const flags = { cpu: "", cuda: " --cuda-toolkit=pip", gloo: " --gloo", nccl: "" } satisfies Record<LibraryName, string>;
  return command + flags[name];
}
