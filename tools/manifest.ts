/**
 * Writes `kernels/manifest.json`: the native sources that a remote import has to fetch. `--check` only compares.
 *
 * @module
 */
const root = new URL("../kernels/", import.meta.url);

async function list(folder: URL, prefix: string): Promise<string[]> {
  const found: string[] = [];
  for await (const entry of Deno.readDir(folder)) {
    const name = prefix + entry.name;
    if (entry.isDirectory) {
      if (name !== "test") found.push(...await list(new URL(`${entry.name}/`, folder), `${name}/`));
    } else if (/\.(h|cpp|cu|cuh|txt)$/.test(entry.name)) {
      found.push(name);
    }
  }
  return found;
}

const text = JSON.stringify({ files: (await list(root, "")).sort() }, null, 2) + "\n";
const target = new URL("manifest.json", root);
const before = await Deno.readTextFile(target).catch(() => "");
if (before === text) Deno.exit(0);
if (Deno.args.includes("--check")) {
  console.error("kernels/manifest.json is out of date: run deno task manifest");
  Deno.exit(1);
}
await Deno.writeTextFile(target, text);
