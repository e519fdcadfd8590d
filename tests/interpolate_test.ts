/** interpolate() against values recorded from PyTorch (`fixtures/record_interpolate.py`), and what the op table does not cover. */
import { assert, assertEquals } from "@std/assert";
import {
  channelsLast,
  type DType,
  DTypeError,
  gradcheck,
  interpolate,
  type InterpolateOptions,
  scope,
  ShapeError,
  type Tensor,
  tensor,
  upsample,
} from "../mod.ts";
import { frame } from "../ffi/frame.ts";
import { libraryOf } from "../ffi/library.ts";
import { assertThrows, device } from "./device.ts";
import { test } from "./leaks.ts";

type Case = [
  NonNullable<InterpolateOptions["mode"]>,
  number[],
  boolean | null,
  number | number[] | null,
  number | number[] | null,
  boolean | null,
  boolean,
  number[],
  number[],
  number[],
];
const cases: Case[] = JSON.parse(Deno.readTextFileSync(new URL("fixtures/interpolate.json", import.meta.url)));

function made(shape: readonly number[], a: number, b: number, m: number, scale: number, shift: number): Tensor {
  const count = shape.reduce((x, y) => x * y, 1);
  return tensor(Float64Array.from({ length: count }, (_, i) => ((i * a + b) % m) / scale - shift)).reshape(shape);
}

function input(shape: readonly number[], dtype: DType = "float64", requiresGrad = true): Tensor {
  const x = made(shape, 37, 11, 64, 16, 2).to(dtype).detach().clone();
  return requiresGrad ? x.requiresGrad_() : x;
}

function assertClose(actual: Tensor, expected: readonly number[], tolerance: number, what: string): void {
  const got = actual.to("float64").data();
  assertEquals(got.length, expected.length, what);
  for (let i = 0; i < got.length; i++) {
    const difference = Math.abs(Number(got[i]) - expected[i]);
    assert(
      difference <= tolerance * Math.max(1, Math.abs(expected[i])),
      `${what}: element ${i} is ${got[i]}, PyTorch gives ${expected[i]}`,
    );
  }
}

/**
 * Cases in which PyTorch's own gradient is not that of its forward, because one of the two copies where sizes are equal (or double) and the other
 * maps by the scale factor: nearest in 1 and 3 dimensions, bicubic, antialiased modes. Ours is the forward's (central differences below).
 */
function inconsistent([mode, spatial, , , scale, recompute, antialias, sizes]: Case): boolean {
  if (scale === null || recompute) return false;
  if (mode === "nearest") return spatial.length !== 2 && sizes.some((size, i) => size === spatial[i] || size === 2 * spatial[i]);
  if (antialias) return sizes.some((size, i) => size === spatial[i]);
  return mode === "bicubic" && sizes.every((size, i) => size === spatial[i]);
}

for (const mode of new Set(cases.map(([mode]) => mode))) {
  const own = cases.filter(([m]) => m === mode);
  for (const layout of ["row-major", "channels-last"]) {
    test(`interpolate() equals PyTorch, forward and gradient: ${mode}, ${layout} (${own.length} cases)`, () => {
      for (const [, spatial, alignCorners, size, scaleFactor, recomputeScaleFactor, antialias, sizes, output, gradient] of own) {
        scope(() => {
          const options = { mode, alignCorners, size, scaleFactor, recomputeScaleFactor, antialias };
          const what = `${JSON.stringify(options)} of ${spatial}`;
          const x = input([1, 2, ...spatial]);
          const y = interpolate(layout === "row-major" ? x : channelsLast(x), options);
          assertEquals(y.shape, [1, 2, ...sizes], what);
          assertClose(y, output, 1e-8, what);
          y.backward(made(y.shape, 53, 7, 32, 16, 1));
          const skip = inconsistent([mode, spatial, alignCorners, size, scaleFactor, recomputeScaleFactor, antialias, sizes, [], []]);
          if (!skip) assertClose(x.grad!, gradient, 1e-8, `gradient of ${what}`);
          x.grad!.dispose();
          if (layout === "channels-last" && sizes.length > 1) {
            assert(y.numel() === 2 || !y.isContiguous() || sizes.every((s) => s === 1), what);
          }
        });
      }
    });
  }

  test(`interpolate() computes half types in float: ${mode}`, () => {
    for (const [, spatial, alignCorners, size, scaleFactor, recomputeScaleFactor, antialias, , output] of own) {
      const options = { mode, alignCorners, size, scaleFactor, recomputeScaleFactor, antialias };
      for (const [dtype, tolerance] of [["float32", 2e-5], ["float16", 4e-3], ["bfloat16", 3e-2]] as const) {
        scope(() =>
          assertClose(
            interpolate(input([1, 2, ...spatial], dtype, false), options),
            output,
            tolerance,
            `${dtype} ${JSON.stringify(options)}`,
          )
        );
      }
    }
  });

  test(`interpolate() has exact derivatives, also of second order: ${mode}`, () => {
    for (const [, spatial, alignCorners, size, scaleFactor, recomputeScaleFactor, antialias] of own.filter((_, i) => i % 3 === 0)) {
      const options = { mode, alignCorners, size, scaleFactor, recomputeScaleFactor, antialias };
      scope(() => {
        const x = input([1, 2, ...spatial]);
        gradcheck((v: Tensor) => interpolate(v, options), [x]);
        const g = made(interpolate(x, options).shape, 53, 7, 32, 16, 1).detach().clone().requiresGrad_();
        gradcheck((v: Tensor, w: Tensor) => interpolate(v.mul(v), options).mul(w), [x, g]);
      });
    }
  });
}

test("interpolate() copies uint8 in the nearest modes", () => {
  const x = tensor([[[1, 250, 3]]], { dtype: "uint8" });
  for (const mode of ["nearest", "nearest-exact"] as const) {
    const y = interpolate(x, { scaleFactor: 2, mode });
    assertEquals([y.dtype, y.tolist()], ["uint8", [[[1, 1, 250, 250, 3, 3]]]]);
  }
  assertThrows(() => interpolate(x, { size: 2, mode: "linear" }), DTypeError, 'mode "linear" takes a floating point tensor, got uint8');
  assertThrows(() => interpolate(x.to("int32"), { size: 2 }), DTypeError, "takes a floating point tensor or uint8, got int32");
});

test("interpolate() takes any strides and an empty batch", () => {
  const x = input([3, 2, 4, 5], "float64", false);
  const view = x.permute([0, 1, 3, 2]).slice(2, 0, null, 2), same = view.contiguous();
  for (const mode of ["nearest", "bilinear", "bicubic", "area"] as const) {
    const want = interpolate(same, { size: [5, 3], mode });
    assertEquals(interpolate(view, { size: [5, 3], mode }).tolist(), want.tolist());
    assertEquals(interpolate(channelsLast(view), { size: [5, 3], mode }).tolist(), want.tolist());
    assertEquals(interpolate(x.slice(0, 0, 0), { size: [5, 3], mode }).shape, [0, 2, 5, 3]);
  }
  assertEquals(upsample(x, { scaleFactor: 2 }).shape, [3, 2, 8, 10]);
});

test("interpolate() refuses options that do not fit", () => {
  const x = input([1, 2, 4, 5], "float64", false), line = input([1, 2, 4], "float64", false);
  const range = (options: InterpolateOptions, message: string, of = x) => assertThrows(() => interpolate(of, options), RangeError, message);
  const shape = (options: InterpolateOptions, message: string, of = x) => assertThrows(() => interpolate(of, options), ShapeError, message);
  range({}, "expected exactly one of size and scaleFactor, got neither");
  range({ size: 2, scaleFactor: 2 }, "expected exactly one of size and scaleFactor, got both");
  range({ size: 2, recomputeScaleFactor: true }, "recomputeScaleFactor goes with scaleFactor");
  range({ size: 2, alignCorners: false }, 'alignCorners goes with linear and cubic modes, not with "nearest"');
  range({ size: 2, mode: "area", alignCorners: true }, "alignCorners goes with linear and cubic modes");
  range({ size: 2, antialias: true }, 'antialias goes with "bilinear" and "bicubic", not with "nearest"');
  range({ size: 2, mode: "cubic" as "bicubic" }, "mode must be one of");
  range({ size: 2, mode: "toString" as "bicubic" }, "mode must be one of");
  for (const scaleFactor of [0, -1, NaN, Infinity]) range({ scaleFactor }, "scaleFactor must be a number > 0");
  shape({ size: [2, 2, 2] }, "size must be a number or one per spatial axis (2), got [2, 2, 2]");
  shape({ scaleFactor: [2] }, "scaleFactor must be a number or one per spatial axis (2), got [2]");
  for (const size of [0, -3, 1.5, NaN]) shape({ size }, "spatial sizes must be whole numbers >= 1");
  shape({ scaleFactor: 0.1 }, "spatial sizes must be whole numbers >= 1, got [0, 0] from [4, 5]");
  shape({ size: 2, mode: "linear" }, 'mode "linear" takes 3 axes');
  shape({ size: 2, mode: "bicubic" }, 'mode "bicubic" takes 4 axes', line);
  shape({ size: 2, mode: "trilinear" }, 'mode "trilinear" takes 5 axes', line);
  shape({ size: 2 }, "takes 3, 4, 5 axes", input([4, 5], "float64", false));
  shape({ size: 2 }, "only the batch may be empty", input([1, 0, 4], "float64", false));
  assertThrows(() => interpolate([1] as unknown as Tensor, { size: 2 }), TypeError, "the input must be a tensor");
});

test("dg_interpolate and dg_pad refuse headers and arguments that do not fit", () => {
  const lib = libraryOf(device), x = input([1, 2, 4, 5], "float32", false), y = input([1, 2, 8, 3], "float32", false);
  const other = input([1, 3, 8, 3], "float32", false), double = input([1, 2, 8, 3], "float64", false), whole = y.to("int32");
  const flat = input([2, 4], "float32", false);
  type Call = (out: Tensor, of: Tensor, mode?: number, factor?: number) => number;
  const forward: Call = (out, of, mode = 2, factor = 0) =>
    lib.dg_interpolate(frame.begin(), frame.put(out), frame.put(of), mode, 0, 0, factor, factor);
  const back: Call = (out, of, mode = 2, factor = 0) =>
    lib.dg_interpolate_backward(frame.begin(), frame.put(out), frame.put(of), mode, 0, 0, factor, factor);
  for (const call of [forward, back]) {
    assertEquals(call(y, x), 0);
    assertEquals(call(y, x, 99), 6);
    for (const factor of [NaN, -1, Infinity]) assertEquals(call(y, x, 2, factor), 6);
    assertEquals(call(y, x, 2, 1e-300), 0);
    assertEquals(call(other, x), 1);
    assertEquals(call(flat, flat), 1);
    assertEquals(call(double, x), 2);
    assertEquals(call(whole, whole), 2);
  }
  assertEquals(forward(y, x, 4, 1e-300), 0);
  const pad = (mode: number, before: number) => lib.dg_pad(frame.begin(), frame.put(y), frame.put(y), mode, 0, before, 0);
  assertEquals([pad(0, 0), pad(9, 0), pad(0, 8), pad(1, 1), pad(2, 4294967295)], [0, 6, 1, 1, 1]);
});
