import { assert, assertEquals } from "@std/assert";
import * as opCodes from "../ffi/op_codes.ts";
import { libraryCandidates } from "../ffi/locate.ts";
import { symbols } from "../ffi/symbols.ts";

const header = await Deno.readTextFile(new URL("../kernels/abi.h", import.meta.url));

/** FFI type of a C parameter. */
function ffiType(c: string): string {
  if (c === "const dg_tensor*") return "pointer";
  if (c.endsWith("*")) return "buffer";
  const types: Record<string, string> = { uint32_t: "u32", int32_t: "i32", double: "f64" };
  const type = types[c];
  assert(type !== undefined, `no FFI type for ${c}`);
  return type;
}

/** The functions that the header declares: result, then parameter types and names. */
function declarations(): Map<string, { result: string; parameters: string[]; names: string[] }> {
  const found = new Map<string, { result: string; parameters: string[]; names: string[] }>();
  for (const [, result, name, list] of header.matchAll(/DG_EXPORT\s+(\w+)\s+(dg_\w+)\(([^)]*)\);/g)) {
    const parameters = list.trim() === "void" ? [] : list.split(",").map((it) => it.trim().replace(/\s+/g, " "));
    const split = parameters.map((it) => /^(.*?[\s*])(\w+)$/.exec(it)!);
    found.set(name, { result: ffiType(result), parameters: split.map((m) => ffiType(m[1].trim())), names: split.map((m) => m[2]) });
  }
  return found;
}

Deno.test("symbols hold the functions of abi.h with their types, and no others", () => {
  const declared = declarations();
  assertEquals(Object.keys(symbols).sort(), [...declared.keys()].sort());
  for (const [name, { parameters, result }] of Object.entries(symbols)) {
    assertEquals([...parameters] as string[], declared.get(name)!.parameters, name);
    assertEquals(result as string, declared.get(name)!.result, name);
  }
});

Deno.test("symbols name each parameter as abi.h does", async () => {
  const declared = declarations();
  const table = await Deno.readTextFile(new URL("../ffi/symbols.ts", import.meta.url));
  for (const [, name, body] of table.matchAll(/^ {2}(dg_\w+): \{(.*\},$|[\s\S]*?^ {2}\},$)/gm)) {
    const names = [...body.matchAll(/"\w+", \/\/ (\w+)/g)].map((m) => m[1]);
    assertEquals(names, declared.get(name)!.names, name);
  }
});

Deno.test("symbols are what the library exports", async () => {
  const [path] = libraryCandidates("cpu");
  const library = Deno.dlopen(path, symbols); // fails if one is missing
  library.close();
  const bytes = new TextDecoder("latin1").decode(await Deno.readFile(path));
  const exported = new Set([...bytes.matchAll(/\0(dg_[a-z0-9_]+)(?=\0)/g)].map((m) => m[1]));
  assertEquals([...exported].filter((name) => !(name in symbols)), []);
});

Deno.test("op codes are those of common/op_codes.h", async () => {
  const source = await Deno.readTextFile(new URL("../kernels/common/op_codes.h", import.meta.url));
  const enums = new Map([...source.matchAll(/enum class (\w+) : unsigned \{([^}]*)\}/g)].map(([, name, list]) => [
    name,
    list.split(",").map((it) => it.trim()).filter((it) => it !== "" && it !== "count"),
  ]));
  assertEquals([...enums.keys()].sort(), Object.keys(opCodes).sort());
  for (const [name, codes] of Object.entries(opCodes)) {
    assertEquals(Object.entries(codes).sort((a, b) => a[1] - b[1]).map(([key]) => key), enums.get(name), name);
  }
});
