/**
 * Matrix products.
 *
 * All of them end in one native product that takes operands of any strides, so that a transposed matrix is never copied; its derivatives
 * are products again, so that every order of derivative is available.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { DTypeError, ShapeError } from "../ffi/errors.ts";
import type { Operand } from "../ffi/frame.ts";
import { broadcastShapes, numelOf, sameShape, type Shape, textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { add, mul } from "./binary.ts";
import { type ActivationOptions, type Finish, finish, finished, finishOf, gradientBefore, inPlace } from "./fused_activation.ts";
import { checkFloat, checkTensor, emptyTensor, native, spread } from "./native.ts";
import { sum } from "./reduction.ts";
import { expand, reshape } from "./view.ts";

/** The header of `x` with its last two axes exchanged. */
function flipped(x: Tensor): Operand {
  const { shape, strides, rank } = x, batch = rank - 2;
  return {
    storage: x.storage,
    shape: batch === 0 ? [shape[1], shape[0]] : [shape[0], shape[2], shape[1]],
    strides: batch === 0 ? [strides[1], strides[0]] : [strides[0], strides[2], strides[1]],
    offset: x.offset,
    dtypeCode: x.dtypeCode,
    disposed: x.disposed,
  };
}

/**
 * `op(a) @ op(b) + bias` for two matrices or two batches of them, where `op` transposes if its flag is set, and an activation of that in place.
 * Sizes and dtypes are checked by the caller. The derivatives are products of the same kind.
 */
function product(
  a: Tensor,
  b: Tensor,
  flipA: boolean,
  flipB: boolean,
  bias: Tensor | null = null,
  activation: Finish | null = null,
): Tensor {
  const rank = a.rank, m = a.shape[flipA ? rank - 1 : rank - 2], n = b.shape[flipB ? rank - 2 : rank - 1];
  const shape = rank === 2 ? [m, n] : [a.shape[0], m, n];
  const out = emptyTensor(shape, a.dtype, a.device);
  native(
    a.device,
    (lib, f) =>
      lib.dg_matmul(
        f.pointer,
        f.put(out),
        f.put(flipA ? flipped(a) : a),
        f.put(flipB ? flipped(b) : b),
        f.put(bias === null ? null : spread(bias, shape)),
      ),
  );
  if (activation !== null) finish(out, activation);
  // A bias of one number per column gets their sums, without the reshaping that the engine would do.
  const columns = bias !== null && rank === 2 && bias.rank === 1 && bias.shape[0] === n;
  // Each operand is held only if the other one wants a gradient.
  const saved = b.requiresGrad ? a.requiresGrad ? [a, b] : [a] : a.requiresGrad ? [b] : [], factors = saved.length;
  if (activation !== null) saved.push(out);
  return record("matmul", bias === null ? [a, b] : [a, b, bias], out, saved, (given, held, needs) => {
    const p = held[0], q = held[factors - 1], grad = activation === null ? given : gradientBefore(given, held[factors], activation);
    return [
      !needs[0] ? null : flipA ? product(q, grad, flipB, true) : product(grad, q, false, !flipB),
      !needs[1] ? null : flipB ? product(grad, p, true, flipA) : product(p, grad, !flipA, false),
      !needs[2] ? null : columns ? sum(grad, 0) : grad,
    ];
  });
}

function checkOperands(a: Tensor, b: Tensor, op: string): void {
  checkTensor(a, op, "the first operand");
  checkTensor(b, op, "the second operand", a);
  if (a.dtype !== b.dtype) {
    throw new DTypeError(`${op}: operands must have one dtype, got ${a.dtype} and ${b.dtype}: convert one with to()`);
  }
  if (a.dtype === "bool") throw new DTypeError(`${op}: takes a numeric dtype, got bool`);
}

function checkRank(x: Tensor, rank: number, op: string, what: string): void {
  if (x.rank !== rank) throw new ShapeError(`${op}: ${what} must have ${rank} axes, got ${textOf(x.shape)}`);
}

function checkInner(a: Tensor, b: Tensor, op: string): void {
  const inner = b.rank === 1 ? b.shape[0] : b.shape[b.rank - 2];
  if (a.shape[a.rank - 1] !== inner) throw new ShapeError(`${op}: inner sizes differ: ${textOf(a.shape)} @ ${textOf(b.shape)}`);
}

/** A disposable step on the way to a result: frees `x` unless it is one of the `given` tensors. */
function release(x: Tensor, ...given: readonly (Tensor | null)[]): void {
  if (!given.includes(x)) x.dispose();
}

/** `x` reshaped; `x` itself if it has that shape. */
function shaped(x: Tensor, shape: Shape): Tensor {
  return sameShape(x.shape, shape) ? x : reshape(x, shape);
}

/** `x` of `[..., r, c]` with its leading axes broadcast to `batch` and merged: `[numel(batch), r, c]`. */
function merged(x: Tensor, batch: Shape): Tensor {
  const matrix = x.shape.slice(-2), own = x.shape.slice(0, -2);
  if (numelOf(own) === 1) {
    const single = shaped(x, [1, ...matrix]);
    const y = expand(single, [numelOf(batch), ...matrix]);
    release(single, x);
    return y;
  }
  const full = sameShape(own, batch) ? x : expand(x, [...batch, ...matrix]);
  const y = shaped(full, [numelOf(batch), ...matrix]);
  if (y !== full) release(full, x);
  return y;
}

/**
 * Matrix product, as `torch.matmul`.
 *
 * `y[..., i, j] = sum over p of a[..., i, p] * b[..., p, j]`
 *
 * Two vectors give their dot product; a vector on the left counts as a row, on the right as a column, and its axis is dropped from the
 * result; leading axes broadcast. Half precision is summed in float32; integers wrap around as in C.
 *
 * @param a Shape `[k]` or `[..., m, k]`, any numeric dtype, any strides.
 * @param b Shape `[k]` or `[..., k, n]`, the dtype of `a`.
 * @returns Shape `[..., m, n]` without the axes of vectors.
 * @throws {ShapeError} If inner sizes differ, leading axes do not broadcast, or an operand has no axes.
 * @throws {DTypeError} If dtypes differ or are bool.
 *
 * Derivative: `da = dy @ b^T`, `db = a^T @ dy`, summed over broadcast axes.
 *
 * @example Matrix times matrix and vector
 * ```ts
 * import { matmul, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const a = tensor([[1, 2], [3, 4]]);
 * assertEquals(matmul(a, tensor([[0, 1], [1, 0]])).tolist(), [[2, 1], [4, 3]]);
 * assertEquals(matmul(a, tensor([1, -1])).tolist(), [-1, -1]);
 * ```
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  checkOperands(a, b, "matmul");
  if (a.rank === 0 || b.rank === 0) {
    throw new ShapeError(`matmul: both operands must have axes: ${textOf(a.shape)} @ ${textOf(b.shape)}; use mul() for numbers`);
  }
  checkInner(a, b, "matmul");
  if (a.rank === 2 && b.rank === 2) return product(a, b, false, false);
  if (a.rank === 3 && b.rank === 3 && a.shape[0] === b.shape[0]) return product(a, b, false, false);
  const left = a.rank === 1 ? reshape(a, [1, a.shape[0]]) : a, right = b.rank === 1 ? reshape(b, [b.shape[0], 1]) : b;
  const rows = left.shape.slice(0, -1), n = right.shape[right.rank - 1];
  let batch: Shape, out: Tensor;
  if (right.rank === 2) { // every row of every matrix meets the same matrix
    batch = left.shape.slice(0, -2);
    const flat = shaped(left, [numelOf(rows), left.shape[left.rank - 1]]);
    out = product(flat, right, false, false);
    release(flat, a, left);
  } else {
    batch = broadcastShapes(left.shape.slice(0, -2), right.shape.slice(0, -2), "matmul");
    const p = merged(left, batch), q = merged(right, batch);
    out = product(p, q, false, false);
    release(p, a, left);
    release(q, b, right);
  }
  const shape = [...batch, ...(a.rank === 1 ? [] : [rows[rows.length - 1]]), ...(b.rank === 1 ? [] : [n])];
  const y = shaped(out, shape);
  release(out, y);
  release(left, a);
  release(right, b);
  return y;
}

/** Product of two matrices, `[m, k] @ [k, n]`. @throws {ShapeError} If they are not matrices that fit. */
export function mm(a: Tensor, b: Tensor): Tensor {
  checkOperands(a, b, "mm");
  checkRank(a, 2, "mm", "the first operand");
  checkRank(b, 2, "mm", "the second operand");
  checkInner(a, b, "mm");
  return product(a, b, false, false);
}

/** Products of two batches of matrices, `[s, m, k] @ [s, k, n]`, without broadcasting. @throws {ShapeError} If they do not fit. */
export function bmm(a: Tensor, b: Tensor): Tensor {
  checkOperands(a, b, "bmm");
  checkRank(a, 3, "bmm", "the first operand");
  checkRank(b, 3, "bmm", "the second operand");
  if (a.shape[0] !== b.shape[0]) throw new ShapeError(`bmm: batch sizes differ: ${textOf(a.shape)} @ ${textOf(b.shape)}`);
  checkInner(a, b, "bmm");
  return product(a, b, false, false);
}

/** Matrix times vector, `[m, k] @ [k]`. @throws {ShapeError} If they do not fit. */
export function mv(a: Tensor, x: Tensor): Tensor {
  checkOperands(a, x, "mv");
  checkRank(a, 2, "mv", "the matrix");
  checkRank(x, 1, "mv", "the vector");
  checkInner(a, x, "mv");
  return matmul(a, x);
}

/** Dot product of two vectors. @throws {ShapeError} If they are not vectors of one size. */
export function dot(a: Tensor, b: Tensor): Tensor {
  checkOperands(a, b, "dot");
  checkRank(a, 1, "dot", "the first operand");
  checkRank(b, 1, "dot", "the second operand");
  checkInner(a, b, "dot");
  return matmul(a, b);
}

/** Every product of an element of `a` and one of `b`: `y[i, j] = a[i] * b[j]`. @throws {ShapeError} If they are not vectors. */
export function outer(a: Tensor, b: Tensor): Tensor {
  checkTensor(a, "outer", "the first operand");
  checkTensor(b, "outer", "the second operand", a);
  checkRank(a, 1, "outer", "the first operand");
  checkRank(b, 1, "outer", "the second operand");
  const column = reshape(a, [a.shape[0], 1]);
  const y = mul(column, b);
  column.dispose();
  return y;
}

/**
 * Affine map of the last axis.
 *
 * `y = x @ weight^T + bias`, then the activation where one is given.
 *
 * @param x Shape `[..., in]`, floating-point or integer.
 * @param weight Shape `[out, in]`, or `[in]` for one output without an axis; the dtype of `x`.
 * @param bias Shape `[out]` (or none of its axes for a weight `[in]`). Default: none.
 * @param options.activation `"relu"`, `"leakyRelu"`, `"sigmoid"`, `"tanh"` or none (default), in the memory of the product. Backward then needs the result: as with any
 * tensor that is kept, changing it in place makes backward throw.
 * @param options.negativeSlope Slope of `"leakyRelu"` below 0. Default `0.01`.
 * @returns Shape `[..., out]`.
 * @throws {ShapeError} If sizes do not fit.
 * @throws {DTypeError} If dtypes differ, or an activation is given and they are not floating-point.
 *
 * Derivative: `dx = dy @ weight`, `dweight = dy^T @ x`, `dbias` the sum of `dy` over all but the last axis. That of relu at 0 is 0, that of leakyRelu
 * its slope.
 *
 * @example
 * ```ts
 * import { linear, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const y = linear(tensor([[1, 2]]), tensor([[1, 1], [0, -1], [2, 0]]), tensor([0, 0, 1]));
 * assertEquals(y.tolist(), [[3, -2, 3]]);
 * ```
 */
export function linear(x: Tensor, weight: Tensor, bias: Tensor | null = null, options?: ActivationOptions): Tensor {
  const activation = finishOf("linear", options);
  if (activation !== null && !inPlace(activation)) return finished(linear(x, weight, bias), activation);
  checkOperands(x, weight, "linear");
  if (x.rank === 0 || weight.rank === 0 || weight.rank > 2 || x.shape[x.rank - 1] !== weight.shape[weight.rank - 1]) {
    throw new ShapeError(`linear: the last axis of ${textOf(x.shape)} must be that of the weight [out, in], got ${textOf(weight.shape)}`);
  }
  const out = weight.shape.slice(0, -1);
  if (bias !== null) {
    checkTensor(bias, "linear", "the bias", x);
    if (bias.dtype !== x.dtype) throw new DTypeError(`linear: the bias must be ${x.dtype} as the input, got ${bias.dtype}`);
    if (!sameShape(bias.shape, out)) throw new ShapeError(`linear: the bias must be ${textOf(out)}, got ${textOf(bias.shape)}`);
  }
  if (activation !== null) checkFloat(x, "linear");
  if (x.rank === 2 && weight.rank === 2) return product(x, weight, false, true, bias, activation);
  const flat = shaped(x, [numelOf(x.shape.slice(0, -1)), x.shape[x.rank - 1]]);
  const matrix = shaped(weight, [numelOf(out), weight.shape[weight.rank - 1]]);
  const rows = product(flat, matrix, false, true, bias, activation);
  const y = shaped(rows, [...x.shape.slice(0, -1), ...out]);
  release(rows, y);
  release(flat, x);
  release(matrix, weight);
  return y;
}

/** Factors of {@linkcode addmm} and {@linkcode baddbmm}. */
export interface AddProductOptions {
  /** Factor of the first argument; at 0 its values are ignored. Default 1. */
  beta?: number;
  /** Factor of the product. Default 1. */
  alpha?: number;
}

function addProduct(op: string, input: Tensor, a: Tensor, b: Tensor, rank: number, options?: AddProductOptions): Tensor {
  const { beta = 1, alpha = 1 } = options ?? {};
  checkOperands(a, b, op);
  checkTensor(input, op, "the input", a);
  checkRank(a, rank, op, "the first operand");
  checkRank(b, rank, op, "the second operand");
  checkInner(a, b, op);
  if (rank === 3 && a.shape[0] !== b.shape[0]) throw new ShapeError(`${op}: batch sizes differ: ${textOf(a.shape)} @ ${textOf(b.shape)}`);
  if (input.dtype !== a.dtype) throw new DTypeError(`${op}: the input must be ${a.dtype} as the operands, got ${input.dtype}`);
  const shape = [...a.shape.slice(0, -1), b.shape[rank - 1]];
  if (!sameShape(broadcastShapes(input.shape, shape, op), shape)) {
    throw new ShapeError(`${op}: the input ${textOf(input.shape)} does not expand to ${textOf(shape)}`);
  }
  if (alpha === 1 && beta === 1) return product(a, b, false, false, input);
  const c = product(a, b, false, false);
  const scaled = alpha === 1 ? c : mul(c, alpha);
  release(c, scaled);
  if (beta === 0) return scaled;
  const start = beta === 1 ? input : mul(input, beta);
  const y = add(scaled, start);
  scaled.dispose();
  release(start, input);
  return y;
}

/** `beta * input + alpha * (a @ b)` for matrices; `input` expands to `[m, n]`. @throws {ShapeError} If sizes do not fit. */
export function addmm(input: Tensor, a: Tensor, b: Tensor, options?: AddProductOptions): Tensor {
  return addProduct("addmm", input, a, b, 2, options);
}

/** `beta * input + alpha * (a @ b)` for batches of matrices; `input` expands to `[s, m, n]`. @throws {ShapeError} If sizes do not fit. */
export function baddbmm(input: Tensor, a: Tensor, b: Tensor, options?: AddProductOptions): Tensor {
  return addProduct("baddbmm", input, a, b, 3, options);
}
