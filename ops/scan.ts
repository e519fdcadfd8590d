/**
 * Running sums and products.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { ScanOp } from "../ffi/op_codes.ts";
import { axisOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { div, eq, logicalAnd, mul, where } from "./binary.ts";
import { to } from "./copy.ts";
import { checkTensor, emptyLike, native } from "./native.ts";
import { sum } from "./reduction.ts";

function scanKernel(x: Tensor, axis: number, op: keyof typeof ScanOp, reversed: boolean): Tensor {
  const out = emptyLike(x);
  native(x.device, (lib, f) => lib.dg_scan(f.pointer, f.put(out), f.put(x), axis, ScanOp[op], reversed ? 1 : 0));
  return out;
}

/** Integers and bool as int64, and a tensor without axes as it is. */
function prepare(x: Tensor, dim: number, op: string): [Tensor, number] {
  checkTensor(x, op, "the input");
  return [x.isFloat ? x : to(x, "int64"), axisOf(dim, x.rank, op)];
}

function running(x: Tensor, axis: number, reversed: boolean): Tensor {
  if (x.rank === 0) return x.clone();
  return record("cumsum", [x], scanKernel(x, axis, "cumsum", reversed), [], (grad) => [running(grad, axis, !reversed)]);
}

/**
 * Running sum along `dim`: `y[i] = x[0] + ... + x[i]`. Integers and bool are added as int64; float32 accumulates in float64.
 *
 * @example
 * ```ts
 * import { cumsum, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(cumsum(tensor([1, 2, 3]), 0).tolist(), [1, 3, 6]);
 * ```
 */
export function cumsum(x: Tensor, dim: number): Tensor {
  const [input, axis] = prepare(x, dim, "cumsum");
  return running(input, axis, false);
}

/**
 * Running product along `dim`: `y[i] = x[0] * ... * x[i]`. Integers and bool are multiplied as int64.
 *
 * Derivative: `sum over j >= i of grad[j] * y[j] / x[i]`, also right where elements are 0.
 */
export function cumprod(x: Tensor, dim: number): Tensor {
  const [input, axis] = prepare(x, dim, "cumprod");
  if (input.rank === 0) return input.clone();
  const y = scanKernel(input, axis, "cumprod", false);
  return record("cumprod", [input], y, [input], (grad, [p]) => {
    // Before the first zero the quotient rule holds; at it the products skip it; after it everything is 0.
    const zero = eq(p, 0), zeros = cumsum(zero, axis);
    const first = logicalAnd(zero, eq(zeros, 1)), before = eq(zeros, 0);
    const quotients = div(running(mul(grad, cumprod(p, axis)), axis, true), where(before, p, 1));
    const skipping = where(before, 0, mul(grad, cumprod(where(first, 1, p), axis)));
    return [where(before, quotients, where(first, sum(skipping, axis, { keepdim: true }), 0))];
  });
}
