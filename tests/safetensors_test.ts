import {
  arange,
  type DType,
  FormatError,
  loadSafetensors,
  memory,
  openSafetensors,
  saveSafetensors,
  scope,
  serializeSafetensors,
  type Tensor,
  tensor,
  zeros,
} from "@dinograd/dinograd";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { Random } from "../data/random.ts";

const fixture = new URL("fixtures/safetensors.safetensors", import.meta.url);
const dtypes: DType[] = ["float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool"];

/** A file with the given header text and number of data bytes. */
function file(header: string | Uint8Array, dataBytes: number, length?: bigint): Uint8Array {
  const json = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const out = new Uint8Array(8 + json.length + dataBytes);
  new DataView(out.buffer).setBigUint64(0, length ?? BigInt(json.length), true);
  out.set(json, 8);
  return out;
}

function entry(dtype: string, shape: unknown, offsets: unknown): string {
  return JSON.stringify({ dtype, shape, data_offsets: offsets });
}

/** The tensors of the fixture. */
function expected(): Record<string, Tensor> {
  const base = arange(6).reshape([2, 3]);
  return {
    "a.float32": base.float().div(3),
    "a.float64": base.double().div(3),
    "a.float16": base.half().div(3),
    "a.bfloat16": base.bfloat16().div(3),
    "a.int32": base.int().sub(3),
    "a.int64": base.mul(2 ** 40),
    "a.uint8": base.to("uint8").mul(50),
    "a.bool": base.remainder(2).eq(0),
    "scalar": tensor(7.5),
    "empty": zeros([2, 0, 3]),
    "ü ∀ 𝄞": tensor([1]),
  };
}

Deno.test("loadSafetensors() reads what the reference implementation wrote", async () => {
  const before = memory.stats().tensors;
  await scope(async () => {
    const loaded = await loadSafetensors(fixture), wanted = expected();
    assertEquals(Object.keys(loaded).sort(), Object.keys(wanted).sort());
    for (const [name, x] of Object.entries(wanted)) {
      assertEquals([loaded[name].dtype, loaded[name].shape], [x.dtype, x.shape], name);
      assertEquals(loaded[name].tolist(), x.tolist(), name);
    }
  });
  assertEquals(memory.stats().tensors, before);
});

Deno.test("serializeSafetensors() writes the bytes that the reference implementation writes", () => {
  const ours = scope(() => serializeSafetensors(expected(), { metadata: { format: "pt" } }));
  assertEquals(ours, Deno.readFileSync(fixture));
});

Deno.test("saveSafetensors() writes tensors of any layout row-major, in each dtype", async () => {
  const path = await Deno.makeTempFile();
  await scope(async () => {
    const base = arange(24).reshape([2, 3, 2, 2]);
    for (const dtype of dtypes) {
      const x = base.to(dtype);
      const views = new Map([
        ["channels-last", x.channelsLast()],
        ["transposed", x.transpose(0, 3)],
        ["steps", x.slice(1, 1, 3).slice(3, 0, null, 2)],
        ["expanded", x.select(0, 1).expand([4, 3, 2, 2])],
      ]);
      await saveSafetensors(path, views, { metadata: { step: "1", note: 'quote " and ü' } });
      const loaded = await loadSafetensors(path);
      for (const [name, view] of views) {
        assert(loaded[name].isContiguous());
        assertEquals(loaded[name].tolist(), view.tolist(), `${dtype} ${name}`);
      }
      using opened = openSafetensors(path);
      assertEquals(opened.metadata, { step: "1", note: 'quote " and ü' });
    }
  });
  await Deno.remove(path);
});

Deno.test("saveSafetensors() writes tensors larger than its buffer", async () => {
  const path = await Deno.makeTempFile();
  await scope(async () => {
    const x = arange(1_500_001).float();
    await saveSafetensors(path, { x: x.slice(0, 1), whole: x.reshape([1_500_001, 1]) });
    const { x: tail, whole } = await loadSafetensors(path);
    assertEquals(tail.shape, [1_500_000]);
    assertEquals(whole.squeeze(1).eq(x).float().sum().item(), 1_500_001);
    assertEquals(tail.data().at(-1), 1_500_000);
  });
  await Deno.remove(path);
});

Deno.test("saveSafetensors() leaves the old file and no temporary one when writing fails", async () => {
  const folder = await Deno.makeTempDir(), path = `${folder}/model.safetensors`;
  const x = zeros([3_000_000]);
  await saveSafetensors(path, { x });
  const before = await Deno.readFile(path);
  const write = Deno.FsFile.prototype.writeSync;
  let budget = 6_000_000;
  Deno.FsFile.prototype.writeSync = function (bytes: Uint8Array): number {
    budget -= bytes.length;
    if (budget < 0) throw new Error("No space left on device (os error 28)");
    return write.call(this, bytes);
  };
  try {
    const y = zeros([2_900_000]);
    await assertRejects(() => saveSafetensors(path, { y }), Error, "No space left");
    y.dispose();
  } finally {
    Deno.FsFile.prototype.writeSync = write;
  }
  assertEquals([...Deno.readDirSync(folder)].map((it) => it.name), ["model.safetensors"]);
  assertEquals(await Deno.readFile(path), before);

  await Deno.mkdir(`${folder}/taken`);
  await assertRejects(() => saveSafetensors(`${folder}/taken`, { x }));
  await assertRejects(() => saveSafetensors(`${folder}/absent/x`, { x }), Deno.errors.NotFound);
  assertEquals([...Deno.readDirSync(folder)].length, 2);
  x.dispose();
  await Deno.remove(folder, { recursive: true });
});

Deno.test("saveSafetensors() refuses what it cannot write", async () => {
  const path = await Deno.makeTempFile();
  const x = zeros([1]);
  await assertRejects(() => saveSafetensors(path, { x: [1] as unknown as Tensor }), TypeError, '"x" must be a tensor');
  await assertRejects(() => saveSafetensors(path, { __metadata__: x }), TypeError, "__metadata__");
  await assertRejects(() => saveSafetensors(path, { "\ud800": x }), TypeError, "not valid Unicode");
  await assertRejects(() => saveSafetensors(path, { x }, { metadata: { n: 1 as unknown as string } }), TypeError, 'metadata["n"]');
  x.dispose();
  await assertRejects(() => saveSafetensors(path, { x }), Error, "disposed");
  assertEquals(await Deno.readFile(path), new Uint8Array());
  await Deno.remove(path);
});

Deno.test("openSafetensors() reads tensors one by one", () => {
  using opened = openSafetensors(fixture);
  assertEquals(opened.has("a.int32"), true);
  const info = opened.tensors.get("a.bfloat16")!;
  assertEquals([info.type, info.dtype, info.shape, info.bytes], ["BF16", "bfloat16", [2, 3], 12]);
  using x = opened.get("a.int32");
  assertEquals(x.tolist(), [[-3, -2, -1], [0, 1, 2]]);
  assertEquals(opened.bytes("a.bool"), new Uint8Array([1, 0, 1, 0, 1, 0]));
  assertThrows(() => opened.get("b"), RangeError, 'no tensor "b", it has');
  opened.close();
  assertThrows(() => opened.get("a.int32"), TypeError, "closed");
});

Deno.test("openSafetensors() gives the bytes of dtypes that no tensor holds", async () => {
  const path = new URL("fixtures/safetensors_foreign.safetensors", import.meta.url);
  using opened = openSafetensors(path);
  assertEquals(opened.tensors.get("f8")!.dtype, null);
  assertEquals(opened.bytes("i8"), new Uint8Array([0, 1, 2, 3, 4, 5]));
  using x = opened.get("f32");
  assertEquals(x.tolist(), [[0, 1, 2], [3, 4, 5]]);
  const before = memory.stats().tensors;
  await assertRejects(() => loadSafetensors(path), FormatError, "F8_E4M3");
  assertEquals(memory.stats().tensors, before);
});

Deno.test("openSafetensors() names what is wrong with a header", async (t) => {
  const float = entry("F32", [1], [0, 4]);
  const cases: [string, Uint8Array, string][] = [
    ["too short", new Uint8Array(7), "too short"],
    ["too large", file("{}", 0, 100_000_001n), "exceeds the limit"],
    ["largest length", file("{}", 0, 2n ** 64n - 1n), "exceeds the limit"],
    ["past the end", file("{}", 0, 3n), "past the end"],
    ["no object", file("[]", 0), 'must begin with "{"'],
    ["empty", file("", 0), 'must begin with "{"'],
    ["a byte order mark", file("\ufeff{}", 0), 'must begin with "{"'],
    ["bad JSON", file('{"x":', 0), "not valid JSON"],
    ["nested deeply", file(`{"x":${"[".repeat(100_000)}`, 0), "not valid JSON"],
    ["bad UTF-8", file(new Uint8Array([0x7b, 0x22, 0xff, 0x22]), 0), "UTF-8"],
    ["a name twice", file(`{"x":${float},"x":${float}}`, 4), '"x" twice'],
    ["an escaped name twice", file(`{"x":${float},"\\u0078" :${float}}`, 4), '"x" twice'],
    ["a field twice", file('{"x":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4), '"dtype" twice'],
    ["a lone surrogate", file(`{"\\ud800":${float}}`, 4), "Unicode"],
    ["unknown dtype", file(`{"x":${entry("F31", [1], [0, 4])}}`, 4), 'unknown dtype "F31"'],
    ["inherited dtype", file(`{"x":${entry("toString", [1], [0, 4])}}`, 4), "unknown dtype"],
    ["no dtype", file('{"x":{"shape":[1],"data_offsets":[0,4]}}', 4), "unknown dtype nothing"],
    ["no tensor", file('{"x":3}', 0), "must be an object"],
    ["negative size", file(`{"x":${entry("F32", [-1], [0, 4])}}`, 4), "the shape"],
    ["fractional size", file(`{"x":${entry("F32", [0.5], [0, 2])}}`, 2), "the shape"],
    ["shape no array", file(`{"x":${entry("F32", 1, [0, 4])}}`, 4), "the shape"],
    ["overflowing shape", file(`{"x":${entry("F32", [2 ** 40, 2 ** 40], [0, 4])}}`, 4), "overflows"],
    ["negative offset", file(`{"x":${entry("F32", [1], [-4, 0])}}`, 4), "data_offsets"],
    ["reversed offsets", file(`{"x":${entry("F32", [1], [4, 0])}}`, 4), "data_offsets"],
    ["three offsets", file(`{"x":${entry("F32", [1], [0, 4, 8])}}`, 4), "data_offsets"],
    [
      "overflowing offset",
      file('{"x":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,18446744073709551616]}}', 4),
      "data_offsets",
    ],
    ["size mismatch", file(`{"x":${entry("F32", [2], [0, 4])}}`, 4), "takes 8 bytes, data_offsets span 4"],
    ["a hole at the start", file(`{"x":${entry("F32", [1], [4, 8])}}`, 8), "leaves a hole after the header"],
    ["a hole", file(`{"x":${float},"y":${entry("F32", [1], [8, 12])}}`, 12), 'leaves a hole after "x"'],
    ["overlap", file(`{"x":${float},"y":${entry("F32", [1], [2, 6])}}`, 6), 'overlaps "x"'],
    ["the same bytes", file(`{"x":${float},"y":${float}}`, 4), "overlaps"],
    ["truncated data", file(`{"x":${float}}`, 3), "the tensors end at byte"],
    ["bytes left", file(`{"x":${float}}`, 5), "the tensors end at byte"],
    ["half bytes", file(`{"x":${entry("F4", [3], [0, 1])}}`, 1), "whole bytes"],
    ["metadata no object", file('{"__metadata__":["x"]}', 0), "__metadata__"],
    ["metadata no text", file('{"__metadata__":{"x":1}}', 0), '__metadata__["x"]'],
  ];
  for (const [name, bytes, message] of cases) {
    await t.step(name, async () => {
      assertStringIncludes(assertThrows(() => openSafetensors(bytes), FormatError).message, message);
      const path = await Deno.makeTempFile();
      await Deno.writeFile(path, bytes);
      assertStringIncludes((await assertRejects(() => loadSafetensors(path), FormatError)).message, message);
      await Deno.remove(path);
    });
  }
});

Deno.test("openSafetensors() takes what the format allows", async () => {
  const float = entry("F32", [1], [0, 4]);
  assertEquals(await loadSafetensors(file("{}", 0)), {});
  using padded = openSafetensors(file(`{"x":${float}}      `, 4));
  assertEquals(padded.names(), ["x"]);
  using sorted = openSafetensors(file(`{"1":${entry("F32", [1], [4, 8])},"z":${float},"__proto__":${entry("F32", [0], [4, 4])}}`, 8));
  assertEquals(sorted.names(), ["z", "__proto__", "1"]);
  const many = file(`{"x":${entry("U8", [1, 1, 1, 1, 1, 1, 1, 1, 1], [0, 1])}}`, 1);
  assertThrows(() => openSafetensors(many).get("x"), FormatError, "9 axes");
  const bools = await loadSafetensors(file(`{"x":${entry("BOOL", [3], [0, 3])}}`, 3).map((it, i, all) => i > all.length - 3 ? 255 : it));
  assertEquals(bools.x.tolist(), [false, true, true]);
  assertEquals(bools.x.int().sum().item(), 2);
  bools.x.dispose();
});

Deno.test("Safetensors.get() notices a file that became shorter", async () => {
  const path = await Deno.makeTempFile();
  const x = zeros([100]);
  await saveSafetensors(path, { x });
  x.dispose();
  using opened = openSafetensors(path);
  await Deno.truncate(path, 200);
  const before = memory.stats().tensors;
  assertThrows(() => opened.get("x"), FormatError, "the file ends at byte 200");
  assertEquals(memory.stats().tensors, before);
  await Deno.remove(path);
});

Deno.test("openSafetensors() answers any damage with a FormatError or a valid result", () => {
  const original = Deno.readFileSync(fixture), random = new Random(7);
  const headerEnd = 8 + Number(new DataView(original.buffer).getBigUint64(0, true));
  const alphabet = new TextEncoder().encode('{}[]",:0123456789-eE.\\u F32I64BOLtrue');
  let valid = 0, refused = 0;
  for (let round = 0; round < 6000; round++) {
    let bytes = original.slice();
    for (let n = 1 + random.below(3); n > 0; n--) {
      const at = random.below(random.uniform() < 0.9 ? headerEnd : bytes.length);
      const kind = random.below(5);
      if (kind === 0) bytes[at] = random.below(256);
      else if (kind === 1) bytes[at] = alphabet[random.below(alphabet.length)];
      else if (kind === 2) bytes = bytes.slice(0, at);
      else if (kind === 3) bytes[at] ^= 1 << random.below(8);
      else bytes = new Uint8Array([...bytes.subarray(0, at), ...bytes.subarray(at + random.below(4))]);
      if (bytes.length === 0) break;
    }
    try {
      using opened = openSafetensors(bytes);
      for (const [name, info] of opened.tensors) {
        if (info.dtype === null) assertEquals(opened.bytes(name).length, info.bytes);
        else {
          using x = opened.get(name);
          assertEquals(x.shape, info.shape);
          x.tolist();
        }
      }
      valid++;
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      refused++;
    }
  }
  assert(valid > 50 && refused > 1000, `${valid} valid, ${refused} refused`);
});

Deno.test("saveSafetensors() and loadSafetensors() refuse what is no path", async () => {
  for (const path of [[-1, 3], null, 5]) {
    await assertRejects(() => saveSafetensors(path as never, {}), TypeError, "must be a string or a URL");
    await assertRejects(async () => await loadSafetensors(path as never), TypeError, "must be a string or a URL");
  }
});
