import {
  arange,
  Compose,
  DTypeError,
  memory,
  Normalize,
  ones,
  RandomCrop,
  RandomErasing,
  RandomHorizontalFlip,
  scope,
  ShapeError,
  type Tensor,
  tensor,
  ToFloat,
} from "@dinograd/dinograd";
import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertStrictEquals } from "@std/assert";
import { assertThrows } from "./device.ts";

/** Runs a test and checks that it leaves no tensor behind. */
function test(name: string, fn: () => void): void {
  Deno.test(name, () => {
    const before = memory.stats().tensors;
    scope(fn);
    assertEquals(memory.stats().tensors, before);
  });
}

const batch = (n: number, c: number, h: number, w: number): Tensor => arange(n * c * h * w).reshape([n, c, h, w]).float();

test("ToFloat() and Normalize() scale", () => {
  const x = tensor(new Uint8Array([0, 51, 255, 102])).reshape([2, 1, 2]);
  const y = new Compose([new ToFloat(), new Normalize([0.5, 0.25], [0.5, 0.25])]).call(x);
  assertEquals(y.dtype, "float32");
  (y.flatten().tolist() as number[]).forEach((value, i) => assertAlmostEquals(value, [-1, -0.6, 3, 0.6][i], 1e-6));
  assertEquals(new Normalize(1, 2).call(tensor([[[3]]])).item(), 1);
  assertThrows(() => new Normalize(0.5, 0.5).call(x), DTypeError, "uint8");
  assertThrows(() => new Normalize([1, 2, 3], [1, 1, 1]).call(x.float()), ShapeError, "3 means for the 2 channels");
  assertThrows(() => new Normalize([1], [1, 1]), ShapeError, "1 means and 2 deviations");
  assertThrows(() => new Normalize(0, 0), RangeError, "above 0");
  assertThrows(() => new Normalize(0, 1).call(tensor([1])), ShapeError, "[N, C, H, W]");
});

test("RandomHorizontalFlip() flips each picture by itself", () => {
  const x = batch(200, 1, 1, 3);
  assertEquals(new RandomHorizontalFlip(1).call(x).select(0, 1).flatten().tolist(), [5, 4, 3]);
  assertStrictEquals(new RandomHorizontalFlip(0).call(x), x);
  assertEquals(new RandomHorizontalFlip(1).call(x.select(0, 0)).flatten().tolist(), [2, 1, 0]);
  const y = new RandomHorizontalFlip(0.5, { seed: 1 }).call(x).flatten(1).tolist() as number[][];
  const flipped = y.filter(([a, , c]) => a > c).length;
  y.forEach((row, i) => assertEquals([...row].sort((a, b) => a - b), [3 * i, 3 * i + 1, 3 * i + 2]));
  assert(flipped > 70 && flipped < 130, `${flipped} of 200`);
  assertEquals(new RandomHorizontalFlip(0.5, { seed: 1 }).call(x).flatten(1).tolist(), y);
  assertThrows(() => new RandomHorizontalFlip(1.5), RangeError, "from 0 to 1, got 1.5");
});

test("RandomCrop() takes a part at each possible position", () => {
  const x = batch(300, 1, 2, 2).add(1);
  const crop = new RandomCrop(2, { padding: 1, fill: -1, seed: 4 });
  const seen = new Map<string, number>();
  const y = crop.call(x).flatten(1).tolist() as number[][];
  y.forEach((row, i) => {
    const key = row.map((value) => value < 0 ? "." : String(value - 4 * i)).join("");
    seen.set(key, (seen.get(key) ?? 0) + 1);
  });
  // The picture 12/34 shifted by -1, 0 or 1 along each axis.
  assertEquals([...seen.keys()].sort(), ["...1", "..12", "..2.", ".1.3", ".3..", "1234", "2.4.", "34..", "4..."].sort());
  for (const count of seen.values()) assert(count > 12 && count < 60, `${count}`);
  assertEquals(new RandomCrop([1, 2], { seed: 1 }).call(x.select(0, 0)).shape, [1, 1, 2]);
  assertEquals(new RandomCrop(2).call(x).tolist(), x.tolist());
  assertThrows(() => new RandomCrop(5, { padding: 1 }).call(x), ShapeError, "5 x 5 does not fit into 2 x 2 with a border of 1");
  assertThrows(() => new RandomCrop(0), RangeError, "size");
  assertThrows(() => new RandomCrop(1, { padding: 0.5 }), RangeError, "padding");
});

test("RandomErasing() erases a rectangle of the drawn area and ratio", () => {
  const x = ones([400, 2, 20, 30]);
  const erasing = new RandomErasing({ p: 0.5, area: [0.1, 0.2], ratio: [0.5, 2], seed: 3 });
  const holes = erasing.call(x).eq(0).float().sum([1, 2, 3]).div(2).tolist() as number[];
  const erased = holes.filter((area) => area > 0);
  assert(erased.length > 160 && erased.length < 240, `${erased.length} of 400`);
  for (const area of erased) assert(area >= 600 * 0.1 - 15 && area <= 600 * 0.2 + 15, `${area}`);
  assertEquals(x.float().sum().item(), x.numel());

  const one = new RandomErasing({ p: 1, value: [3, 4], seed: 1 }).call(x.select(0, 0));
  const [a, b] = one.flatten(1).tolist() as number[][];
  a.forEach((value, i) => assertEquals([value, b[i]], value === 1 ? [1, 1] : [3, 4]));
  const rows = one.select(0, 0).eq(3).float();
  const height = rows.sum(1).gt(0).float().sum().item(), width = rows.sum(0).gt(0).float().sum().item();
  assertEquals(rows.sum().item(), height * width);

  const noise = new RandomErasing({ p: 1, value: "random", area: [0.3, 0.3], seed: 2 }).call(x);
  const drawn = Array.from(noise.data() as Float32Array).filter((value) => value !== 1);
  const mean = drawn.reduce((s, v) => s + v, 0) / drawn.length;
  assertAlmostEquals(mean, 0, 0.02);
  assertAlmostEquals(drawn.reduce((s, v) => s + v * v, 0) / drawn.length, 1, 0.03);
  assertStrictEquals(new RandomErasing({ p: 0 }).call(x), x);
  assertThrows(() => new RandomErasing({ p: 2 }), RangeError, "probability");
  assertThrows(() => new RandomErasing({ area: [0.5, 0.2] }), RangeError, "area");
  assertThrows(() => new RandomErasing({ ratio: [0, 1] }), RangeError, "ratio");
  assertThrows(() => new RandomErasing({ p: 1, value: [1, 2, 3] }).call(x), ShapeError, "3 values for the 2 channels");
  assertThrows(() => new RandomErasing({ p: 1, value: "random" }).call(x.to("uint8")), DTypeError);
});

test("random transforms depend on their seed only", () => {
  const x = batch(20, 1, 6, 6);
  const make = (seed: number) => new Compose([new RandomCrop(6, { padding: 2, seed }), new RandomErasing({ seed })]);
  const a = make(1), b = make(1), first = a.call(x).tolist();
  assertEquals(b.call(x).tolist(), first);
  assertNotEquals(a.call(x).tolist(), first);
  assertNotEquals(make(2).call(x).tolist(), first);
});
