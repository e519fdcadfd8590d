import { BatchSampler, RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler } from "@dinograd/dinograd";
import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { Random } from "../data/random.ts";

const source = { length: 10 };
const sorted = (values: Iterable<number>): number[] => [...values].sort((a, b) => a - b);

Deno.test("SequentialSampler() visits all in order", () => {
  assertEquals([...new SequentialSampler({ length: 4 })], [0, 1, 2, 3]);
});

Deno.test("RandomSampler() permutes by seed and epoch", () => {
  const a = new RandomSampler(source, { seed: 1 }), b = new RandomSampler(source, { seed: 1 });
  const first = [...a], second = [...a];
  assertEquals(sorted(first), [...new SequentialSampler(source)]);
  assertNotEquals(first, second);
  b.setEpoch(1);
  assertEquals([...b], second);
  assertEquals([...new RandomSampler(source, { seed: 1, numSamples: 3 })], first.slice(0, 3));
  assertThrows(() => new RandomSampler(source, { numSamples: 11 }), RangeError, "exceeds the 10 samples");
  assertThrows(() => new RandomSampler(source, { seed: 0.1 }), RangeError, "seed");
  assertThrows(() => a.setEpoch(-1), RangeError);
});

Deno.test("RandomSampler() with replacement draws each equally often", () => {
  const counts = new Array(10).fill(0);
  for (const i of new RandomSampler(source, { seed: 3, replacement: true, numSamples: 20_000 })) counts[i]++;
  for (const count of counts) assertAlmostEquals(count, 2000, 200);
});

Deno.test("SubsetRandomSampler() permutes its positions", () => {
  const sampler = new SubsetRandomSampler([3, 5, 9], { seed: 1 });
  assertEquals(sorted(sampler), [3, 5, 9]);
  assertEquals(sampler.length, 3);
});

Deno.test("WeightedRandomSampler() draws by weight", () => {
  const counts = [0, 0, 0, 0];
  for (const i of new WeightedRandomSampler([0, 1, 3, 0], 40_000, { seed: 2 })) counts[i]++;
  assertEquals([counts[0], counts[3]], [0, 0]);
  assertAlmostEquals(counts[2] / counts[1], 3, 0.15);
  const without = new WeightedRandomSampler([5, 0, 1, 1], 3, { seed: 2, replacement: false });
  assertEquals(sorted(without), [0, 2, 3]);
  let firsts = 0;
  const one = new WeightedRandomSampler([6, 1, 1], 1, { seed: 4, replacement: false });
  for (let n = 0; n < 4000; n++) firsts += [...one][0] === 0 ? 1 : 0;
  assertAlmostEquals(firsts / 4000, 0.75, 0.03);
  assertThrows(() => new WeightedRandomSampler([1, -1], 1), RangeError, "weight 1 is -1");
  assertThrows(() => new WeightedRandomSampler([NaN], 1), RangeError, "weight 0 is NaN");
  assertThrows(() => new WeightedRandomSampler([0, 0], 1), RangeError, "0 weights are above 0, 1 needed");
  assertThrows(() => new WeightedRandomSampler([1, 0], 2, { replacement: false }), RangeError, "2 needed");
});

Deno.test("BatchSampler() groups", () => {
  const sampler = new SequentialSampler({ length: 5 });
  assertEquals([...new BatchSampler(sampler, 2)], [[0, 1], [2, 3], [4]]);
  assertEquals([...new BatchSampler(sampler, 2, true)], [[0, 1], [2, 3]]);
  assertEquals([new BatchSampler(sampler, 2).length, new BatchSampler(sampler, 2, true).length], [3, 2]);
  assertThrows(() => new BatchSampler(sampler, 0), RangeError, "batchSize");
});

Deno.test("Random() is uniform, unbiased and seeded", () => {
  const random = new Random(1, 2);
  let sum = 0, squares = 0, normal = 0, normal2 = 0;
  const counts = new Array(7).fill(0);
  for (let n = 0; n < 70_000; n++) {
    const u = random.uniform(), g = random.normal();
    assert(u >= 0 && u < 1);
    sum += u;
    squares += u * u;
    normal += g;
    normal2 += g * g;
    counts[random.below(7)]++;
  }
  assertAlmostEquals(sum / 70_000, 0.5, 0.01);
  assertAlmostEquals(squares / 70_000, 1 / 3, 0.01);
  assertAlmostEquals(normal / 70_000, 0, 0.02);
  assertAlmostEquals(normal2 / 70_000, 1, 0.03);
  for (const count of counts) assertAlmostEquals(count, 10_000, 500);
  assertEquals(new Random(5).bits(), new Random(5).bits());
  assertNotEquals(new Random(5, 0).bits(), new Random(5, 1).bits());
  assertNotEquals(new Random(2 ** 40).bits(), new Random(0).bits());
});
