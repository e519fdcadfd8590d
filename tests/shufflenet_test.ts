// ShuffleNet V2: values recorded from torchvision's, parameters, bad input.
import { noGrad, randn, ShapeError } from "@dinograd/dinograd";
import { ShuffleNetV2, shufflenetV2X0_5, shufflenetV2X1_0, ShuffleUnit } from "@dinograd/dinograd/vision";
import { assertEquals } from "@std/assert";
import { assertThrows } from "./device.ts";
import { test } from "./leaks.ts";
import { checkRecorded } from "./recorded_network.ts";

test("shufflenetV2X0_5() has torchvision's keys, values and gradients", () => {
  using model = shufflenetV2X0_5({ numClasses: 10 });
  checkRecorded("shufflenet_v2_x0_5", model);
});

test("shufflenetV2X1_0() has torchvision's keys, values and gradients at odd sizes", () => {
  using model = shufflenetV2X1_0({ numClasses: 7 });
  checkRecorded("shufflenet_v2_x1_0", model);
});

test("ShuffleNet V2 has the published number of parameters", () => {
  for (const [make, count] of [[shufflenetV2X0_5, 1366792], [shufflenetV2X1_0, 2278604]] as const) {
    using model = make();
    assertEquals([...model.parameters()].reduce((sum, it) => sum + it.numel(), 0), count);
  }
});

test("ShuffleNetV2 takes other channels, an input of one pixel and an empty batch", () => {
  using model = new ShuffleNetV2([1, 2, 1], [4, 6, 8, 10, 12], { inChannels: 2, numClasses: 5 });
  model.eval();
  noGrad(() => {
    assertEquals(model.call(randn([3, 2, 1, 1])).shape, [3, 5]);
    assertEquals(model.call(randn([0, 2, 40, 33])).shape, [0, 5]);
  });
  assertEquals(model.features(randn([1, 2, 40, 33])).shape, [1, 12]);
});

test("ShuffleUnit keeps or halves the size", () => {
  using same = new ShuffleUnit(6, 6), half = new ShuffleUnit(5, 8, 2);
  assertEquals(same.call(randn([2, 6, 5, 4])).shape, [2, 6, 5, 4]);
  assertEquals(half.call(randn([2, 5, 5, 4])).shape, [2, 8, 3, 2]);
  same.eval();
  // Channels that pass through come out at the even places.
  const x = randn([1, 6, 2, 2]), y = same.call(x);
  for (let c = 0; c < 3; c++) assertEquals(y.select(1, 2 * c).tolist(), x.select(1, c).tolist());
});

test("ShuffleNet V2 refuses what does not fit", () => {
  assertThrows(() => new ShuffleUnit(4, 6), RangeError, "ShuffleUnit: with stride 1 outChannels must be inChannels 4, got 6");
  assertThrows(() => new ShuffleUnit(4, 7, 2), RangeError, "ShuffleUnit: outChannels must be even, got 7");
  assertThrows(() => new ShuffleUnit(4, 4, 3), RangeError, "ShuffleUnit: stride must be 1 or 2, got 3");
  assertThrows(() => new ShuffleUnit(4, 2.5, 2), RangeError, "outChannels");
  assertThrows(() => new ShuffleNetV2([1, 1], [4, 4, 4, 4, 4]), RangeError, "repeats must be three numbers, got 2");
  assertThrows(() => new ShuffleNetV2([1, 1, 1], [4, 4, 4, 4]), RangeError, "channels must be five numbers, got 4");
  assertThrows(() => new ShuffleNetV2([1, 0, 1], [4, 4, 4, 4, 4]), RangeError, "repeats");
  assertThrows(() => shufflenetV2X0_5({ numClasses: 0 }), RangeError, "numClasses");
  assertThrows(() => shufflenetV2X0_5({ inChannels: -1 }), RangeError, "inChannels");
  using model = new ShuffleNetV2([1, 1, 1], [4, 4, 4, 4, 4]);
  assertThrows(() => model.call(randn([3, 8, 8])), ShapeError, "ShuffleNetV2: takes [N, C, H, W], got [3, 8, 8]");
  assertThrows(() => model.call(randn([1, 4, 8, 8])), ShapeError, "4");
  using unit = new ShuffleUnit(4, 4);
  assertThrows(() => unit.call(randn([1, 6, 8, 8])), ShapeError, "ShuffleUnit: takes [N, 4, H, W], got [1, 6, 8, 8]");
  assertThrows(() => unit.call(randn([4])), ShapeError, "ShuffleUnit: takes [N, 4, H, W], got [4]");
});
