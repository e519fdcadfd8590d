/** Pooling beyond the op table: ties, the layers, native validation. */
import { assertEquals } from "@std/assert";
import {
  adaptiveAvgPool2d,
  adaptiveMaxPool2d,
  avgPool2d,
  gradcheck,
  interpolate,
  maxPool2d,
  maxUnpool2d,
  nn,
  ones,
  pad,
  pixelShuffle,
  ShapeError,
  type Tensor,
  tensor,
  unfold,
} from "../mod.ts";
import { frame } from "../ffi/frame.ts";
import { libraryOf } from "../ffi/library.ts";
import { assertThrows, device } from "./device.ts";
import { test } from "./leaks.ts";

/** Distinct elements without a pattern. */
function made(shape: readonly number[]): Tensor {
  const count = shape.reduce((a, b) => a * b, 1);
  return tensor(Float64Array.from({ length: count }, (_, i) => ((i * 7919) % 1009) / 256 - 2)).reshape(shape).detach().clone();
}

test("maxPool2d() gives the gradient to the first of equal maxima", () => {
  for (const last of [false, true]) {
    const x = tensor([[[[2, 2, 1], [2, 2, 1], [0, 1, 1]], [[5, 5, 5], [5, 5, 5], [5, 5, 5]]]]).requiresGrad_();
    const [y, indices] = maxPool2d(last ? x.channelsLast() : x, 2, { stride: 1, returnIndices: true });
    assertEquals(y.tolist(), [[[[2, 2], [2, 2]], [[5, 5], [5, 5]]]]);
    assertEquals(indices.to("int32").tolist(), [[[[0, 1], [3, 4]], [[0, 1], [3, 4]]]]);
    y.backward(tensor([[[[1, 2], [4, 8]], [[16, 32], [64, 128]]]]));
    assertEquals(x.grad!.tolist(), [[[[1, 2, 0], [4, 8, 0], [0, 0, 0]], [[16, 32, 0], [64, 128, 0], [0, 0, 0]]]]);
    x.grad!.dispose();
  }
});

test("pooling keeps a channels-last layout, forward and backward", () => {
  const x = made([2, 5, 8, 6]).channelsLast().detach().requiresGrad_();
  for (
    const f of [(v: Tensor) => maxPool2d(v, 2), (v: Tensor) => avgPool2d(v, 3, { padding: 1 }), (v: Tensor) => adaptiveMaxPool2d(v, 3)]
  ) {
    const y = f(x);
    assertEquals(y.strides[1], 1);
    y.sum().backward();
    assertEquals(x.grad!.strides, x.strides);
    x.grad!.dispose();
    x.grad = null;
  }
});

test("pooling gives the same bits in both layouts, whatever the number of channels", () => {
  const pools: ((x: Tensor) => Tensor)[] = [
    (x) => maxPool2d(x, 3, { stride: 2, padding: 1 }),
    (x) => maxPool2d(x, 2, { stride: 1, dilation: 2 }),
    (x) => avgPool2d(x, 3, { stride: 2, padding: 1 }),
    (x) => avgPool2d(x, 2, { stride: 3 }),
    (x) => adaptiveAvgPool2d(x, 1),
    (x) => adaptiveAvgPool2d(x, 3),
  ];
  for (const dtype of ["float32", "float64", "bfloat16"] as const) {
    for (const channels of [1, 15, 16, 17, 24, 63, 70, 530]) {
      const x = made([2, channels, 7, 8]).to(dtype);
      for (const f of pools) {
        const [rows, last] = [false, true].map((turned) => {
          const v = (turned ? x.channelsLast() : x).detach().requiresGrad_(), y = f(v);
          y.backward(made(y.shape).to(dtype));
          const bits = [y, v.grad!].map((it) => it.to("float64").contiguous().data());
          v.grad!.dispose();
          return bits;
        });
        assertEquals(last, rows);
      }
    }
  }
});

test("maxPool2d() differentiates twice, with small and large windows, in both layouts", () => {
  for (const [kernel, padding] of [[2, 1], [17, 4]]) {
    for (const last of [false, true]) {
      const x = made([1, 2, 18, 17]).requiresGrad_();
      const f = (v: Tensor) => maxPool2d(last ? v.channelsLast() : v, kernel, { stride: 7, padding });
      const g = made(f(x).shape).requiresGrad_();
      gradcheck((w: Tensor) => f(x.detach()).mul(w), [g]);
      gradcheck((v: Tensor, w: Tensor) => f(v.mul(v)).mul(w), [x, g]);
    }
  }
});

test("maxUnpool2d() lets the last of equal indices win, whatever the layout", () => {
  const x = tensor([[[[1, 2, 3]], [[4, 5, 6]]]]), indices = tensor([[[[1, 1, 0]], [[5, 3, 5]]]], { dtype: "int64" });
  for (const last of [false, true]) {
    const y = maxUnpool2d(last ? x.channelsLast() : x, last ? indices.channelsLast() : indices, { kernelSize: [1, 2] });
    assertEquals(y.tolist(), [[[[3, 2, 0, 0, 0, 0]], [[0, 0, 0, 5, 0, 6]]]]);
  }
});

test("layers of pooling, padding, shuffling and upsampling are the functions with their settings", () => {
  const x = made([2, 8, 6, 4]);
  const pairs: [nn.Module & { forward(x: Tensor): Tensor }, Tensor, string][] = [
    [new nn.MaxPool2d(2, { stride: 1, ceilMode: true }), maxPool2d(x, 2, { stride: 1 }), "kernelSize=2, stride=1, ceilMode=true"],
    [new nn.AvgPool2d([2, 1]), avgPool2d(x, [2, 1]), "kernelSize=[2, 1]"],
    [new nn.AdaptiveMaxPool2d([2, null]), adaptiveMaxPool2d(x, [2, null]), "outputSize=[2, ]"],
    [new nn.Upsample({ scaleFactor: 2 }), interpolate(x, { scaleFactor: 2 }), 'scaleFactor=2, mode="nearest"'],
    [new nn.UpsamplingNearest2d({ size: [3, 9] }), interpolate(x, { size: [3, 9] }), 'size=[3, 9], mode="nearest"'],
    [
      new nn.UpsamplingBilinear2d({ scaleFactor: 3 }),
      interpolate(x, { scaleFactor: 3, mode: "bilinear", alignCorners: true }),
      'scaleFactor=3, mode="bilinear", alignCorners=true',
    ],
    [new nn.PixelShuffle(2), pixelShuffle(x, 2), "upscaleFactor=2"],
    [new nn.ZeroPad2d(1), pad(x, [1, 1, 1, 1]), "padding=[1, 1, 1, 1]"],
    [new nn.ConstantPad2d([1, 0, 2, 0], 3), pad(x, [1, 0, 2, 0], { value: 3 }), "padding=[1, 0, 2, 0], value=3"],
    [new nn.ReflectionPad2d([1, 0, 2, 0]), pad(x, [1, 0, 2, 0], { mode: "reflect" }), "padding=[1, 0, 2, 0]"],
    [new nn.ReplicationPad2d(2), pad(x, [2, 2, 2, 2], { mode: "replicate" }), "padding=[2, 2, 2, 2]"],
    [new nn.CircularPad2d(2), pad(x, [2, 2, 2, 2], { mode: "circular" }), "padding=[2, 2, 2, 2]"],
    [new nn.Unfold(2, { stride: 2 }), unfold(x, 2, { stride: 2 }), ""],
  ];
  for (const [layer, want, text] of pairs) {
    const got = layer.call(x);
    assertEquals(got.tolist(), want.tolist(), layer.constructor.name);
    assertEquals(layer.extraRepr(), text, layer.constructor.name);
    assertEquals([...layer.parameters()].length, 0);
  }
  const shuffled = new nn.ChannelShuffle(4).call(x);
  assertEquals(new nn.ChannelShuffle(2).call(shuffled).tolist(), x.tolist());
  assertEquals(new nn.PixelUnshuffle(2).call(pixelShuffle(x, 2)).tolist(), x.tolist());
  assertEquals(new nn.Fold([6, 4], 2, { stride: 2 }).call(unfold(x, 2, { stride: 2 })).tolist(), x.tolist());
  const [y, indices] = new nn.MaxPool2d(2, { returnIndices: true }).call(x);
  const back = new nn.MaxUnpool2d(2).call(y, indices);
  assertEquals([back.shape, back.sum().item()], [x.shape, y.sum().item()]);
  assertEquals(new nn.AdaptiveAvgPool2d(1).call(x).shape, [2, 8, 1, 1]);
  assertThrows(() => new nn.ZeroPad2d([1, 2]), RangeError, "ZeroPad2d: padding must be a number or 4 of them, got [1, 2]");
  assertThrows(() => new nn.ChannelShuffle(3).call(x), ShapeError, "3 groups do not divide 8 channels");
});

test("layers of one and three dimensions", () => {
  const line = ones([2, 4, 8]), volume = ones([1, 2, 4, 6, 8]);
  assertEquals(new nn.MaxPool1d(2).call(line).shape, [2, 4, 4]);
  assertEquals(new nn.AvgPool1d(3, { padding: 1, countIncludePad: false }).call(line).tolist(), ones([2, 4, 3]).tolist());
  assertEquals(new nn.AdaptiveAvgPool1d(3).call(line).shape, [2, 4, 3]);
  assertEquals(new nn.AdaptiveMaxPool1d(3).call(line).shape, [2, 4, 3]);
  const [y1, i1] = new nn.MaxPool1d(2, { returnIndices: true }).call(line);
  assertEquals(new nn.MaxUnpool1d(2).call(y1, i1).sum().item(), 32);
  assertEquals(new nn.MaxPool3d(2).call(volume).shape, [1, 2, 2, 3, 4]);
  assertEquals(new nn.AvgPool3d(2).call(volume).shape, [1, 2, 2, 3, 4]);
  assertEquals(new nn.AdaptiveAvgPool3d([1, 2, null]).call(volume).shape, [1, 2, 1, 2, 8]);
  assertEquals(new nn.AdaptiveMaxPool3d(2).call(volume).shape, [1, 2, 2, 2, 2]);
  const [y3, i3] = new nn.MaxPool3d(2, { returnIndices: true }).call(volume);
  assertEquals(new nn.MaxUnpool3d(2).call(y3, i3, [4, 6, 8]).shape, volume.shape);
  for (const Layer of [nn.ZeroPad1d, nn.ReflectionPad1d, nn.ReplicationPad1d, nn.CircularPad1d]) {
    assertEquals(new Layer([1, 2]).call(line).shape, [2, 4, 11]);
  }
  for (const Layer of [nn.ZeroPad3d, nn.ReflectionPad3d, nn.ReplicationPad3d, nn.CircularPad3d]) {
    assertEquals(new Layer(1).call(volume).shape, [1, 2, 6, 8, 10]);
  }
  assertEquals(new nn.ConstantPad1d([0, 1], 5).call(line).sum().item(), 64 + 40);
  assertEquals(new nn.ConstantPad3d(1, 0).call(volume).shape, [1, 2, 6, 8, 10]);
});

test("native pooling refuses headers and arguments that do not fit", () => {
  const lib = libraryOf(device), x = made([2, 3, 8, 6]).to("float32"), y = made([2, 3, 4, 3]).to("float32");
  const other = made([2, 4, 4, 3]).to("float32"), double = made([2, 3, 4, 3]), whole = y.to("int32");
  const codes = y.to("uint8"), indices = y.to("int64"), flat = made([4]).to("float32");
  type Window = [number, number, number];
  const max = (out: Tensor, of: Tensor, k: Window, s: Window, p: Window, d: Window, i: Tensor | null = null, c: Tensor | null = null) =>
    lib.dg_max_pool(frame.begin(), frame.put(out), frame.put(i), frame.put(c), frame.put(of), ...k, ...s, ...p, ...d);
  const one: Window = [1, 1, 1], none: Window = [0, 0, 0], two: Window = [1, 2, 2];
  assertEquals(max(y, x, two, two, none, one, indices, codes), 0);
  assertEquals(max(y, x, two, [1, 0, 2], none, one), 6, "stride 0");
  assertEquals(max(y, x, two, two, none, [1, 0, 1]), 6, "dilation 0");
  assertEquals(max(y, x, two, two, [0, 2, 0], one), 6, "padding beyond half");
  assertEquals(max(y, x, [2, 2, 2], two, none, one), 6, "window over an axis that does not exist");
  assertEquals(max(y, x, [1, 4294967295, 2], two, none, one), 6, "huge window");
  assertEquals(max(y, x, [1, 3, 2], two, none, [1, 4294967295, 1]), 6, "huge dilation");
  assertEquals(max(x, x, two, two, none, one), 1, "wrong number of windows");
  assertEquals(max(other, x, two, two, none, one), 1, "channels");
  assertEquals(max(flat, flat, two, two, none, one), 1, "rank");
  assertEquals(max(double, x, two, two, none, one), 2, "dtype");
  assertEquals(max(whole, whole, one, one, none, one), 2, "integers");
  assertEquals(max(y, x, two, two, none, one, codes), 2, "indices of another dtype");
  assertEquals(max(y, x, two, two, none, one, null, whole), 0);
  assertEquals(max(y, x, two, two, none, one, null, indices), 2, "codes of another dtype");
  const back = (c: Tensor, k: Window) =>
    lib.dg_max_pool_backward(frame.begin(), frame.put(x), frame.put(y), frame.put(c), ...k, ...two, ...none, ...one);
  assertEquals([back(codes, two), back(other.to("uint8"), two), back(indices, two)], [0, 1, 2]);
  const scatter = (i: Tensor) =>
    // a GPU tells of bad indices when it is waited for
    lib.dg_unpool_scatter(frame.begin(), frame.put(x), frame.put(y), frame.put(i), 0) || lib.dg_synchronize(device.index);
  assertEquals([scatter(indices.mul(0)), scatter(indices.mul(0).sub(1)), scatter(indices.mul(0).add(48)), scatter(codes)], [0, 6, 6, 2]);
  const average = (k: Window, p: Window, divisor: number) =>
    lib.dg_avg_pool(frame.begin(), frame.put(y), frame.put(x), ...k, ...two, ...p, 1, divisor);
  assertEquals([average(two, none, 0), average(two, none, NaN), average(none, none, 0), average(two, [0, 2, 0], 0)], [0, 0, 0, 6]);
});
