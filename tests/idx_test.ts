import { FormatError, readIdx } from "@dinograd/dinograd";
import { assertEquals, assertRejects } from "@std/assert";

/** An IDX file of a type code, sizes and element bytes. */
function idx(code: number, shape: number[], data: number[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(4 + 4 * shape.length + data.length), view = new DataView(out.buffer);
  out.set([0, 0, code, shape.length]);
  shape.forEach((size, i) => view.setUint32(4 + 4 * i, size));
  out.set(data, 4 + 4 * shape.length);
  return out;
}

async function gzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

Deno.test("readIdx() reads each type", async () => {
  const doubles = new Uint8Array(16), view = new DataView(doubles.buffer);
  view.setFloat64(0, Math.PI);
  view.setFloat64(8, -1e300);
  const cases: [number, number[], number[], string, number[]][] = [
    [0x08, [3], [0, 128, 255], "uint8", [0, 128, 255]],
    [0x09, [3], [0, 128, 255], "int32", [0, -128, -1]],
    [0x0b, [2], [1, 2, 255, 254], "int32", [258, -2]],
    [0x0c, [2], [0, 1, 0, 0, 255, 255, 255, 255], "int32", [65536, -1]],
    [0x0d, [1], [0x3f, 0xc0, 0, 0], "float32", [1.5]],
    [0x0e, [2], [...doubles], "float64", [Math.PI, -1e300]],
    [0x08, [0], [], "uint8", []],
  ];
  for (const [code, shape, data, dtype, values] of cases) {
    using x = await readIdx(idx(code, shape, data));
    assertEquals([x.dtype, x.tolist()], [dtype as typeof x.dtype, values]);
  }
});

Deno.test("readIdx() reads files, plain and compressed, of several axes", async () => {
  const path = await Deno.makeTempFile();
  const bytes = idx(0x08, [2, 2, 3], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  for (const content of [bytes, await gzip(bytes)]) {
    await Deno.writeFile(path, content);
    using x = await readIdx(path);
    assertEquals(x.tolist(), [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]);
  }
  await Deno.remove(path);
  await assertRejects(() => readIdx(path), Deno.errors.NotFound);
});

Deno.test("readIdx() says what is wrong with a file", async () => {
  const good = idx(0x08, [2, 3], [1, 2, 3, 4, 5, 6]), packed = await gzip(idx(0x08, [1000], new Array(1000).fill(3)));
  const cases: [Uint8Array, string][] = [
    [new Uint8Array(), "0 bytes, at least 4"],
    [good.slice(0, 3), "3 bytes, at least 4"],
    [good.slice(0, 10), "truncated: 10 bytes, the header of 2 axes takes 12"],
    [good.slice(0, 17), "truncated: 17 bytes, [2, 3] of unsigned byte takes 18"],
    [new Uint8Array([...good, 0]), "too long: 19 bytes, [2, 3] of unsigned byte takes 18"],
    [new Uint8Array([1, ...good.slice(1)]), "begins with 1, 0"],
    [idx(0x0a, [1], [1]), "unknown IDX type code 0x0a"],
    [idx(0x08, [], [1]), "0 axes, expected 1 to 8"],
    [idx(0x08, new Array(9).fill(1), [1]), "9 axes"],
    [idx(0x0e, new Array(8).fill(2 ** 32 - 1), [1]), "truncated: 37 bytes"],
    [new TextEncoder().encode("<!DOCTYPE html>"), "not an IDX file"],
    [packed.slice(0, packed.length - 9), "gzip"],
    [new Uint8Array([...packed.slice(0, 10), 255, 255, 255, 255]), "gzip"],
    [await gzip(good.slice(0, 15)), "truncated: 15 bytes"],
  ];
  for (const [bytes, message] of cases) await assertRejects(() => readIdx(bytes), FormatError, message);
});
