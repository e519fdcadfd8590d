/** What the tests of convolutions share: numbers, results with their gradients, and how far they are from others. */
import { assertEquals } from "@std/assert";
import { conv2d, type ConvOptions, fromArray, grad, type Tensor } from "../mod.ts";
import { device } from "./device.ts";

/** Repeatable numbers in [-1, 1). */
export function numbers(shape: readonly number[], seed: number, dtype: "float32" | "float64" = "float64"): Tensor {
  const count = shape.reduce((a, b) => a * b, 1), data = new Float64Array(count);
  let state = seed * 2654435761 >>> 0 || 1;
  for (let i = 0; i < count; i++) {
    state ^= state << 13, state ^= state >>> 17, state ^= state << 5;
    data[i] = (state >>> 0) / 2 ** 31 - 1;
  }
  return fromArray(data, shape).to({ dtype, device });
}

/** Largest difference over the largest expected magnitude. */
export function relativeError(actual: Tensor, expected: ArrayLike<number>): number {
  const data = actual.data() as Float64Array;
  assertEquals(data.length, expected.length);
  let worst = 0, scale = 1e-30;
  for (let i = 0; i < data.length; i++) {
    worst = Math.max(worst, Math.abs(data[i] - expected[i]));
    scale = Math.max(scale, Math.abs(expected[i]));
  }
  return worst / scale;
}

/** Root mean square of the differences over that of the expected numbers. */
export function rootMeanSquare(actual: Tensor, expected: ArrayLike<number>): number {
  const data = actual.data() as Float64Array;
  let error = 0, scale = 1e-60;
  for (let i = 0; i < data.length; i++) {
    error += (data[i] - expected[i]) ** 2;
    scale += expected[i] ** 2;
  }
  return Math.sqrt(error / scale);
}

/** Output and the gradients of input, weight and bias of a convolution, in one dtype. */
export function trio(
  dtype: "float32" | "float64",
  N: number,
  C: number,
  O: number,
  H: number,
  W: number,
  options: ConvOptions,
  k: number | number[] = 3,
): Tensor[] {
  const kernel = typeof k === "number" ? [k, k] : k;
  const x = numbers([N, C, H, W], 1).to(dtype).requiresGrad_(),
    w = numbers([O, C / (options.groups ?? 1), ...kernel], 2).to(dtype).requiresGrad_();
  const b = numbers([O], 3).to(dtype).requiresGrad_(), y = conv2d(x, w, b, options);
  return [y.detach(), ...grad([y], [x, w, b], { gradOutputs: [numbers(y.shape, 4).to(dtype)] })];
}
