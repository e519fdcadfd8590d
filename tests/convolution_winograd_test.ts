import { assert, assertEquals, assertThrows } from "@std/assert";
import { cpu } from "../ffi/device.ts";
import { check, libraryOf } from "../ffi/library.ts";
import { backends, channelsLast, conv2d, getThreads, grad, scope, setThreads, type Tensor } from "../mod.ts";
import { textOf } from "../tensor/shape.ts";
import { numbers, relativeError, rootMeanSquare, trio } from "./convolution_data.ts";
import { device } from "./device.ts";

/** N, C, O, H, W, padding, then stride and kernel. */
const winogradShapes: [number, number, number, number, number, number | number[], number?, (number | number[])?][] = [
  [1, 16, 16, 4, 4, 1],
  [2, 17, 33, 5, 7, 1],
  [1, 33, 17, 9, 3, 1],
  [3, 32, 16, 8, 8, 0],
  [2, 16, 48, 6, 9, 2],
  [1, 65, 16, 7, 4, 3],
  [1, 16, 31, 13, 12, 1],
  [33, 40, 24, 4, 4, 1],
  [2, 20, 100, 5, 6, 1], // not many tiles, many filters
  [1, 40, 50, 4, 4, 1], // one tile, channels in two parts
  [1, 70, 33, 8, 3, 1], // two tiles
  [5, 40, 66, 3, 4, 1], // five tiles in groups of two and three
  [3, 130, 140, 8, 8, 1], // twelve tiles
  [5, 17, 33, 32, 32, 1], // tiles in several slices
  [9, 72, 72, 24, 24, 1], // tiles in several segments
  [2, 512, 64, 8, 8, 1], // long sums: errors grow with their root
  [1, 16, 16, 8, 8, 1, 2],
  [2, 17, 33, 7, 15, 1, 2],
  [3, 33, 17, 17, 9, 0, 2],
  [2, 16, 48, 12, 13, 2, 2],
  [1, 20, 140, 11, 12, 3, 2], // few tiles, many filters
  [20, 20, 24, 21, 32, 1, 2], // many tiles
  [1, 40, 50, 7, 8, 1, 2], // one tile, channels in two parts
  [2, 70, 33, 14, 7, 1, 2], // four tiles
  [3, 33, 140, 13, 16, 2, 2], // twelve tiles
  [1, 16, 16, 7, 7, 1, 1, 4],
  [2, 17, 33, 9, 10, 0, 1, 4],
  [1, 33, 140, 12, 8, 2, 1, 4],
  [12, 24, 20, 31, 22, 1, 1, 4],
  [9, 72, 72, 22, 25, 3, 1, 4],
  [1, 16, 16, 8, 8, 1, 2, 4],
  [2, 17, 33, 9, 16, 0, 2, 4],
  [2, 33, 17, 12, 19, 2, 2, 4],
  [1, 16, 150, 18, 15, 3, 2, 4],
  [16, 24, 20, 30, 22, 1, 2, 4],
  [2, 16, 32, 15, 17, [1, 1], 2, [3, 4]],
  [2, 32, 16, 17, 14, [0, 2], 2, [4, 3]],
];

/** Runs `fn` with Winograd's products never used (0), where they are expected to be faster (1) or wherever there are any (2). */
function withWinograd<T>(mode: number, fn: () => T): T {
  const library = libraryOf(cpu);
  check(library.dg_conv_set_winograd(mode), library);
  try {
    return fn();
  } finally {
    library.dg_conv_set_winograd(1);
  }
}

Deno.test("conv2d() by Winograd agrees with float64 and the direct products", () => {
  for (const [N, C, O, H, W, padding, stride = 1, kernel = 3] of winogradShapes) {
    // A GPU has no such products; its direct ones are exact to 1e-6 where the sums are short.
    if (device.type !== "cpu" && (kernel !== 3 || stride !== 1 || N * C * O * H * W > 3e6)) continue;
    scope(() => {
      const run = (dtype: "float32" | "float64") => trio(dtype, N, C, O, H, W, { padding, stride }, kernel);
      const exact = run("float64").map((v) => v.data() as Float64Array);
      const fast = withWinograd(2, () => run("float32")), plain = withWinograd(0, () => run("float32"));
      const shape = textOf([N, C, O, H, W, padding, stride, kernel].flat());
      ["y", "dx", "dw", "db"].forEach((name, i) => {
        const [a, b] = [relativeError(fast[i], exact[i]), relativeError(plain[i], exact[i])], limit = C > 256 ? 3e-5 : 1e-5;
        assert(a < limit, `${name} of ${shape} by Winograd: ${a}`);
        assert(rootMeanSquare(fast[i], exact[i]) < 1e-5, `${name} of ${shape} by Winograd`);
        assert(b < 1e-6, `${name} of ${shape} directly: ${b}`);
        if (i < 3 && device.type === "cpu") assert(a !== b, `${name} of ${shape} was not computed by Winograd`);
      });
    });
  }
});

Deno.test("conv2d() by Winograd gives the same bits for every number of threads and memory order of weight and picture", () => {
  // N, C, O, H, W and the stride: few tiles, more, many; few with a stride, more.
  const shapes = [
    [1, 40, 50, 4, 4, 1],
    [1, 70, 33, 8, 3, 1],
    [5, 70, 66, 3, 4, 1],
    [3, 130, 140, 8, 8, 1],
    [2, 20, 100, 5, 6, 1],
    [9, 40, 24, 9, 8, 1],
    [2, 70, 33, 14, 7, 2],
    [9, 40, 24, 9, 8, 2],
  ];
  const threads = getThreads();
  try {
    for (const [N, C, O, H, W, stride] of shapes) {
      scope(() => {
        const [x, w, b, dy] = [[N, C, H, W], [O, C, 3, 3], [O], [N, O, Math.ceil(H / stride), Math.ceil(W / stride)]].map((shape, i) =>
          numbers(shape, i + 1, "float32")
        );
        const run = (x: Tensor, w: Tensor) => {
          x = x.detach().requiresGrad_(), w = w.detach().requiresGrad_();
          const y = conv2d(x, w, b, { padding: 1, stride });
          return [y.detach(), ...grad([y], [x, w], { gradOutputs: [dy] })].map((v) => v.contiguous().data());
        };
        withWinograd(2, () => {
          setThreads(1);
          const expected = run(x, w);
          setThreads(threads);
          for (
            const [picture, weight] of [[x, w], [channelsLast(x), channelsLast(w)], [x, w.transpose(0, 1).contiguous().transpose(0, 1)]]
          ) {
            assertEquals(run(picture, weight), expected);
          }
        });
      });
    }
  } finally {
    setThreads(threads);
  }
});

/** N, C, O, size, kernel, stride; the faster way of y, dx and dw by a factor of 1.3 or more with AVX-512 and AVX2: Winograd or direct, or neither clearly. */
const clear: [number[], string][] = [
  [[1, 24, 48, 16, 3, 1], "www"],
  [[1, 64, 128, 10, 3, 1], "www"],
  [[32, 32, 32, 6, 3, 1], "www"],
  [[1, 64, 64, 8, 3, 1], "ww-"],
  [[1, 256, 256, 4, 3, 1], "ww-"],
  [[1, 128, 128, 3, 3, 1], "dd-"],
  [[4, 256, 256, 2, 3, 1], "dd-"],
  [[8, 64, 64, 7, 4, 1], "www"],
  [[1, 16, 64, 56, 4, 1], "www"],
  [[8, 16, 16, 64, 3, 2], "www"],
  [[32, 64, 16, 8, 3, 2], "www"],
  [[8, 64, 64, 14, 4, 2], "www"],
  [[1, 24, 48, 32, 4, 2], "www"],
  [[1, 64, 128, 16, 3, 2], "w--"],
  [[3, 256, 256, 8, 3, 2], "w--"],
  [[1, 128, 128, 6, 3, 2], "d--"],
  [[32, 32, 256, 4, 3, 2], "ddd"],
  [[32, 64, 16, 10, 3, 2], "ddd"],
  [[8, 64, 128, 10, 3, 2], "ddd"],
  [[32, 64, 128, 5, 3, 2], "-d-"],
  [[32, 32, 32, 4, 4, 2], "dd-"],
  [[32, 128, 128, 4, 4, 2], "dd-"],
];

Deno.test({
  name: "conv2d() chooses Winograd or the direct products for each pass as measured",
  ignore: device.type !== "cpu",
  fn() {
    for (const [[N, C, O, size, kernel, stride], expected] of clear) {
      scope(() => {
        const run = (dtype: "float32" | "float64" = "float32") => trio(dtype, N, C, O, size, size, { padding: 1, stride }, kernel);
        const [direct, chosen, fast] = [0, 1, 2].map((mode) => withWinograd(mode, () => run()));
        const exact = run("float64").map((v) => v.data() as Float64Array),
          same = (a: Tensor, b: Tensor) => relativeError(a, b.data() as Float32Array) === 0;
        ["y", "dx", "dw"].forEach((name, i) => {
          const text = `${name} of ${textOf([N, C, O, size, kernel, stride])}`,
            way = same(chosen[i], fast[i]) ? "w" : same(chosen[i], direct[i]) ? "d" : "?";
          assert(!same(direct[i], fast[i]), text);
          assert(relativeError(chosen[i], exact[i]) < (way === "w" ? 1e-5 : 1e-6), text);
          if (expected[i] !== "-") assertEquals(way, expected[i], text);
        });
      });
    }
  },
});

Deno.test("backends.cpu.winograd is false where Winograd is never used", () => {
  for (const mode of [1, 2]) withWinograd(mode, () => assert(backends.cpu.winograd));
  assertThrows(() => withWinograd(3, () => {}), RangeError, "conv_set_winograd: takes 0, 1 or 2, got 3");
  withWinograd(1, () => {
    backends.cpu.winograd = false;
    assertEquals(libraryOf(cpu).dg_conv_get_winograd(), 0);
    assert(!backends.cpu.winograd);
    backends.cpu.winograd = true;
    assertEquals(libraryOf(cpu).dg_conv_get_winograd(), 1);
  });
});
