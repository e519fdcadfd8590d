// Initial values: bounds, moments, and exact values where there are any.
import { empty, manualSeed, nn, ones, ShapeError, zeros } from "@dinograd/dinograd";
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { assertThrows } from "./device.ts";
import { test as leavesNothing } from "./leaks.ts";

const test = (name: string, fn: () => void) =>
  leavesNothing(name, () => {
    manualSeed(7);
    fn();
  });

const { init } = nn;

/** A test that ends with the live tensors it began with. */
function moments(values: Iterable<number | bigint>): { mean: number; std: number; min: number; max: number } {
  const all = Array.from(values, Number), mean = all.reduce((a, b) => a + b, 0) / all.length;
  const std = Math.sqrt(all.reduce((a, b) => a + (b - mean) ** 2, 0) / all.length);
  return { mean, std, min: all.reduce((a, b) => Math.min(a, b)), max: all.reduce((a, b) => Math.max(a, b)) };
}

test("uniform_() and normal_() have the bounds and moments asked for", () => {
  const flat = moments(init.uniform_(empty([20000]), -3, 1).data());
  assert(flat.min >= -3 && flat.max < 1 && flat.min < -2.99 && flat.max > 0.99);
  assertAlmostEquals(flat.mean, -1, 0.05);
  const bell = moments(init.normal_(empty([20000]), 2, 3).data());
  assertAlmostEquals(bell.mean, 2, 0.1);
  assertAlmostEquals(bell.std, 3, 0.1);
});

test("xavier and kaiming initialisations scale with the fans", () => {
  const shape = [64, 32, 3, 3], fanIn = 288, fanOut = 576;
  assertEquals(init.calculateFan(empty(shape)), { fanIn, fanOut });
  const deviation = (std: number, actual: { mean: number; std: number }) => {
    assertAlmostEquals(actual.mean, 0, std * 0.05);
    assertAlmostEquals(actual.std, std, std * 0.02);
  };
  deviation(2 * Math.sqrt(2 / (fanIn + fanOut)), moments(init.xavierUniform_(empty(shape), { gain: 2 }).data()));
  deviation(Math.sqrt(2 / (fanIn + fanOut)), moments(init.xavierNormal_(empty(shape)).data()));
  const bound = Math.sqrt(6 / (1 + 5) / fanIn), uniform = moments(init.kaimingUniform_(empty(shape), { a: Math.sqrt(5) }).data());
  assert(uniform.max <= bound && uniform.max > bound * 0.999);
  deviation(bound / Math.sqrt(3), uniform);
  deviation(Math.sqrt(2 / fanOut), moments(init.kaimingNormal_(empty(shape), { mode: "fanOut", nonlinearity: "relu" }).data()));
});

test("calculateGain() knows the usual functions", () => {
  assertEquals(init.calculateGain("linear"), 1);
  assertEquals(init.calculateGain("tanh"), 5 / 3);
  assertEquals(init.calculateGain("relu"), Math.SQRT2);
  assertAlmostEquals(init.calculateGain("leakyRelu", 0.2), Math.sqrt(2 / 1.04), 1e-12);
  assertEquals(init.calculateGain("selu"), 0.75);
  assertThrows(() => init.calculateGain("gelu" as "relu"), RangeError, 'unknown function "gelu"');
});

test("truncNormal_() stays inside its bounds", () => {
  const cut = moments(init.truncNormal_(empty([20000]), { mean: 1, std: 2, a: 0, b: 2 }).data());
  assert(cut.min >= 0 && cut.max <= 2);
  assertAlmostEquals(cut.mean, 1, 0.02);
  assertAlmostEquals(cut.std, 0.5658, 0.02);
  assertThrows(() => init.truncNormal_(empty([2]), { a: 1, b: 1 }), RangeError);
});

test("orthogonal_() has orthonormal rows or columns", () => {
  for (const shape of [[5, 9], [9, 5], [6, 2, 3]]) {
    const w = init.orthogonal_(empty(shape, { dtype: "float64" }), { gain: 2 }).reshape([shape[0], -1]);
    const [rows, columns] = w.shape, values = w.data(), few = Math.min(rows, columns), many = Math.max(rows, columns);
    const at = (i: number, k: number) => Number(values[rows <= columns ? i * columns + k : k * columns + i]);
    for (let i = 0; i < few; i++) {
      for (let j = 0; j < few; j++) {
        let dot = 0;
        for (let k = 0; k < many; k++) dot += at(i, k) * at(j, k);
        assertAlmostEquals(dot, i === j ? 4 : 0, 1e-12);
      }
    }
  }
});

test("eye_(), dirac_(), ones_() and zeros_() write exact values", () => {
  assertEquals(init.eye_(ones([2, 3])).tolist(), [[1, 0, 0], [0, 1, 0]]);
  assertEquals(init.dirac_(ones([2, 2, 3])).tolist(), [[[0, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 0]]]);
  assertEquals(init.dirac_(ones([2, 1, 3]), 2).tolist(), [[[0, 1, 0]], [[0, 1, 0]]]);
  assertEquals(init.ones_(zeros([2])).tolist(), [1, 1]);
  assertEquals(init.constant_(zeros([2]), 3).tolist(), [3, 3]);
});

test("initialisations refuse shapes they have no meaning for", () => {
  assertThrows(() => init.xavierUniform_(empty([3])), ShapeError, "xavierUniform_: takes a tensor with at least 2 axes, got [3]");
  assertThrows(() => init.eye_(empty([3])), ShapeError, "eye_: takes a matrix, got [3]");
  assertThrows(() => init.dirac_(empty([3, 3])), ShapeError, "3, 4 or 5 axes");
  assertThrows(() => init.dirac_(empty([3, 3, 3]), 2), ShapeError, "2 groups do not divide 3");
  assertThrows(() => init.kaimingNormal_(empty([3, 3]), { mode: "fan" as "fanIn" }), RangeError, 'mode must be "fanIn" or "fanOut"');
});
