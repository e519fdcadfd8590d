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

/** File names of a library, the most specific first. */
export function libraryCandidates(name: string): string[] {
  return [`${libraryFolder()}/libdinograd_${name}.so`];
}

/** The command that builds the libraries for this import. */
export function buildCommand(): string {
  if (packageUrl.protocol === "file:") return "deno task build";
  return `deno run -A ${new URL("tools/setup.ts", packageUrl).href}`;
}
