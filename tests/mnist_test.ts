import {
  DataLoader,
  FormatError,
  lineChart,
  makeGrid,
  memory,
  mnist,
  readImage,
  scope,
  ShapeError,
  tensor,
  writeImage,
} from "@dinograd/dinograd";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";

function idx(shape: number[], value: (i: number) => number): Uint8Array<ArrayBuffer> {
  const count = shape.reduce((a, b) => a * b, 1), out = new Uint8Array(4 + 4 * shape.length + count);
  out.set([0, 0, 8, shape.length]);
  shape.forEach((size, i) => new DataView(out.buffer).setUint32(4 + 4 * i, size));
  for (let i = 0; i < count; i++) out[4 + 4 * shape.length + i] = value(i);
  return out;
}

/** A folder with `train` and `test` tiny pictures: every pixel of picture `i` is `i`, its label `i % 10`. */
async function folder(train: number, test: number): Promise<string> {
  const path = await Deno.makeTempDir();
  for (const [part, count] of [["train", train], ["t10k", test]] as const) {
    await Deno.writeFile(`${path}/${part}-images-idx3-ubyte`, idx([count, 4, 4], (i) => Math.floor(i / 16)));
    await Deno.writeFile(`${path}/${part}-labels-idx1-ubyte`, idx([count], (i) => i % 10));
  }
  return path;
}

Deno.test("mnist() reads the four files", async () => {
  const before = memory.stats().tensors;
  const path = await folder(25, 5);
  const train = await mnist(path), test = await mnist(`${path}/`, { train: false });
  assertEquals([train.length, test.length], [25, 5]);
  assertEquals([train.tensors[0].shape, train.tensors[0].dtype, train.tensors[1].dtype], [[25, 1, 4, 4], "uint8", "int64"]);
  for await (const [x, y] of new DataLoader(train, { batchSize: 25, shuffle: true, seed: 1 })) {
    scope(() => assertEquals(x.flatten(1).select(1, 7).remainder(10).tolist(), y.tolist()));
    x.dispose();
    y.dispose();
  }
  for (const x of [...train.tensors, ...test.tensors]) x.dispose();
  assertEquals(memory.stats().tensors, before);
  await Deno.remove(path, { recursive: true });
});

Deno.test("mnist() says what is missing or damaged", async () => {
  const before = memory.stats().tensors;
  const path = await folder(5, 5);
  await assertRejects(() => mnist(`${path}/absent`), Deno.errors.NotFound, "train-images-idx3-ubyte");
  const images = `${path}/train-images-idx3-ubyte`;
  await Deno.truncate(images, 50);
  await assertRejects(() => mnist(path), FormatError, "truncated: 50 bytes, [5, 4, 4] of unsigned byte takes 96");
  await Deno.writeFile(images, idx([6, 4, 4], () => 0));
  await assertRejects(() => mnist(path), FormatError, "[6, 4, 4] of uint8 and [5] of uint8");
  await Deno.writeFile(images, idx([5, 16], () => 0));
  await assertRejects(() => mnist(path), FormatError, "[5, 16]");
  assertEquals(memory.stats().tensors, before);
  await Deno.remove(path, { recursive: true });
});

Deno.test("writeImage() writes what readImage() reads", async () => {
  const path = await Deno.makeTempFile({ suffix: ".png" });
  const data = Uint8Array.from({ length: 24 }, (_, i) => i * 10);
  for (const shape of [[4, 6], [1, 4, 6], [3, 4, 2], [4, 3, 2]]) {
    using x = scope(() => tensor(data).reshape(shape));
    await writeImage(path, x);
    using y = await readImage(path);
    assertEquals(y.flatten().tolist(), x.flatten().tolist());
    assertEquals(y.shape, shape.length === 2 ? [1, ...shape] : shape);
  }
  using wrong = scope(() => tensor(data).reshape([6, 2, 2]));
  await assertRejects(() => writeImage(path, wrong), ShapeError, "1 to 4 channels, got [6, 2, 2]");
  await assertRejects(() => writeImage(path, tensor([[1]])), Error, "uint8");
  await Deno.writeTextFile(path, "no picture at all");
  await assertRejects(() => readImage(path), FormatError, "not a PNG");
  await Deno.remove(path);
});

Deno.test("makeGrid() puts pictures side by side", () => {
  scope(() => {
    const grid = makeGrid(tensor([1, 2, 3]).reshape([3, 1, 1, 1]), { columns: 2, padding: 1, background: 9 });
    assertEquals(grid.tolist(), [[[9, 9, 9, 9, 9], [9, 1, 9, 2, 9], [9, 9, 9, 9, 9], [9, 3, 9, 9, 9], [9, 9, 9, 9, 9]]]);
    assertThrows(() => makeGrid(tensor([1])), ShapeError, "[N, C, H, W]");
    assertThrows(() => makeGrid(tensor([1]).reshape([1, 1, 1, 1]), { columns: 0 }), RangeError, "columns");
  });
});

Deno.test("lineChart() draws lines, gaps and labels", () => {
  const svg = lineChart({
    title: 'a < b & "c"',
    xLabel: "step",
    series: [
      { name: "one", x: [0, 1, 2, 3], y: [0, NaN, 1, 2] },
      { name: "right", x: [0, 3], y: [10, 11], axis: "right", markers: true },
    ],
  });
  assertStringIncludes(svg, "a &lt; b &amp; &quot;c&quot;");
  assertEquals(svg.match(/<circle/g)?.length, 2);
  const [, d] = /d="([^"]*)" stroke="#0072b2"/.exec(svg)!;
  assertEquals(d.replace(/[^ML]/g, ""), "MML");
  assert(!/NaN|Infinity|undefined/.test(svg));
  for (const series of [[], [{ x: [], y: [] }], [{ x: [1], y: [5] }], [{ x: [0, 1], y: [0, 0] }], [{ x: [0, 1e9], y: [1e-9, 2e-9] }]]) {
    assert(!/NaN|Infinity|undefined/.test(lineChart({ series })), JSON.stringify(series));
  }
  const place = (xRange?: [number, number]) =>
    /cx="([^"]*)"/.exec(lineChart({ xRange, series: [{ x: [1, 3], y: [0, 1], markers: true }] }))![1];
  assertEquals([place(), place([0, 2])], ["70.0", "422.5"]); // 70 to 775
  assertThrows(() => lineChart({ series: [{ name: "x", x: [1], y: [] }] }), RangeError, "1 positions and 0 values");
});
