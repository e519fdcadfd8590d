/**
 * Files that are either written whole or not at all.
 *
 * @module
 */

/** A path that may be a `file:` URL, as text. @throws {TypeError} If it is neither text nor a URL. */
export function pathOf(path: string | URL): string {
  if (typeof path !== "string" && !(path instanceof URL)) {
    throw new TypeError(`a path must be a string or a URL, got ${path === null ? "null" : Array.isArray(path) ? "an array" : typeof path}`);
  }
  return path instanceof URL || /^file:\/\//.test(path) ? decodeURIComponent(new URL(path).pathname) : path;
}

/** Writes all of `bytes`. */
export function writeAll(file: Deno.FsFile, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
}

/**
 * Writes a file by way of a temporary one in the same folder, which is flushed to disk and renamed. When anything fails, the temporary file is
 * removed and an earlier file at `path` is as it was.
 *
 * @param path Where to.
 * @param write Writes the content.
 */
export function writeFileAtomic(path: string | URL, write: (file: Deno.FsFile) => void): void {
  const target = pathOf(path);
  const slash = target.lastIndexOf("/");
  const folder = slash < 0 ? "." : target.slice(0, slash) || "/";
  const temporary = `${folder}/.${target.slice(slash + 1)}.${Deno.pid}-${crypto.randomUUID().slice(0, 8)}.tmp`;
  const file = Deno.openSync(temporary, { write: true, createNew: true });
  try {
    try {
      write(file);
      file.syncDataSync();
    } finally {
      file.close();
    }
    Deno.renameSync(temporary, target);
  } catch (error) {
    Deno.removeSync(temporary);
    throw error;
  }
}
