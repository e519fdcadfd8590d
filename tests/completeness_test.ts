import { assertEquals } from "@std/assert";
import * as dinograd from "../mod.ts";
import { families } from "./table/mod.ts";

/** The text of every test and of the modules that tests start, but for this file. */
async function texts(folder: URL): Promise<string> {
  let all = "";
  for await (const entry of Deno.readDir(folder)) {
    const url = new URL(entry.name, folder);
    if (entry.isDirectory && entry.name !== "table") all += await texts(new URL(`${entry.name}/`, folder));
    else if (entry.name.endsWith(".ts") && entry.name !== "completeness_test.ts") all += await Deno.readTextFile(url);
  }
  return all;
}

Deno.test("every exported function has a row in the op table or a test that calls it", async () => {
  const rows = new Set(Object.values(families).flat().map((row) => row.name.split(" ")[0]));
  const called = await texts(new URL(".", import.meta.url));
  const untested = Object.entries(dinograd)
    .filter(([name, value]) => typeof value === "function" && /^[a-z]/.test(name) && !rows.has(name))
    .map(([name]) => name)
    .filter((name) => !new RegExp(`\\b${name}\\(`).test(called));
  assertEquals(untested, []);
});
