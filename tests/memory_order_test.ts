/** What keeps the order of the axes in memory, and the copies between orders. */
import { assert, assertEquals } from "@std/assert";
import { arange, cat, channelShuffle, expand, type Tensor } from "../mod.ts";
import { isChannelsLast } from "../tensor/shape.ts";
import { ShuffleUnit } from "../vision/mod.ts";
import { numbers } from "./convolution_data.ts";
import "./device.ts";
import { test } from "./leaks.ts";

test("cat() keeps the memory order of a slice", () => {
  const x = numbers([2, 6, 3, 4], 1).channelsLast(), a = x.narrow(1, 0, 4), b = x.narrow(1, 4, 2), y = cat([a, b], 1);
  assertEquals(y.strides, x.strides);
  assertEquals(y.data(), x.data());
  // Repeated elements have no order to keep.
  const wide = expand(numbers([2, 1, 3], 2), [2, 4, 3]);
  assertEquals(cat([wide, wide], 1).strides, [24, 3, 1]);
});

test("slices, selections and diagonals give gradients in the memory order of their input", () => {
  const x = numbers([2, 5, 3, 4], 1).channelsLast().detach().requiresGrad_();
  const views: ((x: Tensor) => Tensor)[] = [
    (x) => x.narrow(1, 1, 3),
    (x) => x.select(2, 1),
    (x) => x.slice(3, 0, null, 2),
    (x) => x.diagonal(0, 2, 3),
  ];
  for (const view of views) {
    const y = view(x);
    y.backward(numbers(y.shape, 3));
    assertEquals(x.grad!.strides, x.strides);
    assertEquals(view(x.grad!).data(), numbers(y.shape, 3).data());
    assertEquals(x.grad!.abs().sum().item(), numbers(y.shape, 3).abs().sum().item());
    x.grad!.dispose();
    x.grad = null;
  }
});

test("copies interleave runs and take them apart, whatever their number and dtype", () => {
  for (const dtype of ["uint8", "float16", "int32", "float64"] as const) {
    for (const few of [2, 3, 4, 5]) {
      for (const count of [15, 16, 17, 4099]) {
        const x = arange(0, 2 * few * count).remainder(251).to(dtype).reshape([2, few, count]), turned = x.transpose(1, 2).contiguous();
        const from = x.to("float64").data(), to = turned.to("float64").data();
        for (let n = 0; n < 2; n++) {
          for (let c = 0; c < few; c++) {
            for (let i = 0; i < count; i += count > 4000 ? 97 : 1) {
              assertEquals(to[(n * count + i) * few + c], from[(n * few + c) * count + i]);
            }
          }
        }
        assertEquals(turned.transpose(1, 2).contiguous().to("float64").data(), from);
      }
    }
  }
});

test("channelShuffle() of channels-last pictures is that of row-major ones", () => {
  for (const groups of [2, 3, 4, 29]) {
    const x = numbers([2, 29 * 12, 2, 3], 1), y = channelShuffle(x, groups), last = channelShuffle(x.channelsLast(), groups);
    assertEquals(last.strides, x.channelsLast().strides);
    assertEquals(last.data(), y.data());
  }
});

test("ShuffleUnit changes no memory order, forward and backward", () => {
  for (const stride of [1, 2]) {
    using unit = new ShuffleUnit(12, 12, stride);
    const x = numbers([2, 12, 6, 4], 1, "float32").channelsLast().detach().requiresGrad_(), y = unit.call(x);
    assert(!y.isContiguous() && isChannelsLast(y.shape, y.strides));
    y.backward(numbers(y.shape, 2, "float32").channelsLast());
    assertEquals(x.grad!.strides, x.strides);
    x.grad!.dispose();
  }
});
