/**
 * Losses of predictions and targets of one shape.
 *
 * Each derivative is one fused kernel; when backward itself is recorded (`createGraph`), the same derivative is composed of
 * differentiable operations, which is also the kernel's oracle in the tests.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { ShapeError } from "../ffi/errors.ts";
import { LossOp } from "../ffi/op_codes.ts";
import { context } from "../tensor/context.ts";
import { resultType } from "../tensor/dtype.ts";
import { scope } from "../tensor/scope.ts";
import { broadcastShapes, sameShape, textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { logSigmoid, sigmoid } from "./activation.ts";
import { add, div, eq, le, lt, mul, rsub, sub, where } from "./binary.ts";
import { to } from "./copy.ts";
import { checkFloat, checkTensor, emptyLike, emptyTensor, native, spread } from "./native.ts";
import { mean, sum } from "./reduction.ts";
import { abs, clamp, exp, log, neg, sign } from "./unary.ts";
import { broadcastTo } from "./view.ts";

/** How the losses of the elements become one. */
export type LossReduction = "mean" | "sum" | "none";

/** Option of every loss. */
export interface Reducing {
  /** `"mean"` over all losses, their `"sum"`, or `"none"`: the losses themselves. Default `"mean"`. */
  reduction?: LossReduction;
}

const codes = { none: 0, mean: 1, sum: 2 } as const;

/** Refuses what is not a reduction. */
export function checkReduction(reduction: unknown, op: string): asserts reduction is LossReduction {
  if (typeof reduction !== "string" || !Object.hasOwn(codes, reduction)) {
    throw new RangeError(`${op}: reduction must be "mean", "sum" or "none", got ${JSON.stringify(reduction)}`);
  }
}

/** The mean or sum of losses, or they themselves. */
export function reduceLoss(losses: Tensor, reduction: LossReduction): Tensor {
  return reduction === "mean" ? mean(losses) : reduction === "sum" ? sum(losses) : losses;
}

function checkPair(x: Tensor, target: Tensor, op: string): void {
  checkTensor(x, op, "the input");
  checkTensor(target, op, "the target", x);
  checkFloat(x, op);
  checkFloat(target, op);
}

interface Formula {
  readonly name: string;
  readonly op: keyof typeof LossOp;
  readonly parameter: number;
  /** Derivative by the prediction, composed. */
  readonly slope: (x: Tensor, target: Tensor) => Tensor;
  /** Derivative by the target; absent: minus that by the prediction. */
  readonly targetSlope?: (x: Tensor, target: Tensor) => Tensor;
}

/** The loss of operands of one shape and dtype. */
function fused(x: Tensor, target: Tensor, reduction: LossReduction, formula: Formula): Tensor {
  const { name, parameter, slope, targetSlope } = formula, op = LossOp[formula.op];
  const out = reduction === "none" ? emptyLike(x) : emptyTensor([], x.dtype, x.device);
  native(x.device, (lib, f) => lib.dg_loss(f.pointer, f.put(out), f.put(x), f.put(target), op, parameter, codes[reduction]));
  const scale = reduction === "mean" ? 1 / x.numel() : 1;
  return record(name, [x, target], out, [x, target], (grad, [p, q], [forX, forTarget]) => {
    if (context().grad) {
      const flow = scale === 1 ? grad : mul(grad, scale), d = mul(flow, slope(p, q));
      return [forX ? d : null, !forTarget ? null : targetSlope === undefined ? neg(d) : mul(flow, targetSlope(p, q))];
    }
    let dx: Tensor | null = null;
    if (forX || targetSlope === undefined) {
      const d = dx = emptyLike(p);
      native(
        p.device,
        (lib, f) => lib.dg_loss_backward(f.pointer, f.put(d), f.put(spread(grad, p.shape)), f.put(p), f.put(q), op, parameter, scale),
      );
    }
    if (!forTarget) return [dx, null];
    return [dx, targetSlope === undefined ? neg(dx!) : mul(mul(grad, scale), targetSlope(p, q))];
  });
}

/** A loss of the difference of two tensors that broadcast. */
function difference(x: Tensor, target: Tensor, options: Reducing | undefined, formula: Formula): Tensor {
  const { name } = formula, reduction = options?.reduction ?? "mean";
  checkPair(x, target, name);
  checkReduction(reduction, name);
  if (x.dtype === target.dtype && sameShape(x.shape, target.shape)) return fused(x, target, reduction, formula);
  const dtype = resultType(x, target), shape = broadcastShapes(x.shape, target.shape, name);
  return scope(() => fused(broadcastTo(to(x, dtype), shape), broadcastTo(to(target, dtype), shape), reduction, formula));
}

/**
 * Mean squared error: `l = (x - target)^2`.
 *
 * @param x Prediction, floating-point.
 * @param target Its shape, or one that broadcasts with it.
 * @param options.reduction `"mean"` (default), `"sum"` or `"none"`.
 *
 * Derivative: `2 * (x - target)`, times one over the number of elements for the mean; the target gets its negative.
 *
 * @example
 * ```ts
 * import { mseLoss, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(mseLoss(tensor([1, 2]), tensor([1, 4])).item(), 2);
 * ```
 */
export function mseLoss(x: Tensor, target: Tensor, options?: Reducing): Tensor {
  return difference(x, target, options, { name: "mseLoss", op: "mse", parameter: 0, slope: (p, q) => mul(sub(p, q), 2) });
}

/** Mean absolute error: `l = |x - target|`; the derivative where they are equal is 0. Options and shapes as {@linkcode mseLoss}. */
export function l1Loss(x: Tensor, target: Tensor, options?: Reducing): Tensor {
  return difference(x, target, options, { name: "l1Loss", op: "l1", parameter: 0, slope: (p, q) => sign(sub(p, q)) });
}

/**
 * Squared near 0, absolute beyond `beta`: `l = 0.5 * d^2 / beta` where `|d| < beta`, else `|d| - 0.5 * beta`, with `d = x - target`.
 *
 * @param options.beta Where it changes; 0 gives {@linkcode l1Loss}. Default 1.
 * @throws {RangeError} If `beta` is negative.
 */
export function smoothL1Loss(x: Tensor, target: Tensor, options?: Reducing & { beta?: number }): Tensor {
  const beta = options?.beta ?? 1;
  if (!(beta >= 0)) throw new RangeError(`smoothL1Loss: beta must be >= 0, got ${beta}`);
  if (beta === 0) return l1Loss(x, target, options);
  return difference(x, target, options, {
    name: "smoothL1Loss",
    op: "smooth_l1",
    parameter: beta,
    slope: (p, q) => {
      const d = sub(p, q);
      return where(lt(abs(d), beta), div(d, beta), sign(d));
    },
  });
}

/**
 * Squared near 0, linear beyond `delta`: `l = 0.5 * d^2` where `|d| <= delta`, else `delta * (|d| - 0.5 * delta)`, with `d = x - target`.
 *
 * @param options.delta Where it changes. Default 1.
 * @throws {RangeError} If `delta` is not positive.
 */
export function huberLoss(x: Tensor, target: Tensor, options?: Reducing & { delta?: number }): Tensor {
  const delta = options?.delta ?? 1;
  if (!(delta > 0)) throw new RangeError(`huberLoss: delta must be > 0, got ${delta}`);
  return difference(x, target, options, {
    name: "huberLoss",
    op: "huber",
    parameter: delta,
    slope: (p, q) => {
      const d = sub(p, q);
      return where(le(abs(d), delta), d, mul(sign(d), delta));
    },
  });
}

/** Options of the binary cross entropies. */
export interface BinaryCrossEntropyOptions extends Reducing {
  /** Factor of each loss; broadcasts. Default: none. */
  weight?: Tensor | null;
}

function checkSame(x: Tensor, target: Tensor, op: string): void {
  checkPair(x, target, op);
  if (!sameShape(x.shape, target.shape)) {
    throw new ShapeError(`${op}: the target must have the shape ${textOf(x.shape)} of the input, got ${textOf(target.shape)}`);
  }
}

/** Losses without a weight in one kernel, with one in two steps. */
function binaryLoss(x: Tensor, target: Tensor, options: BinaryCrossEntropyOptions | undefined, formula: Formula): Tensor {
  const reduction = options?.reduction ?? "mean", weight = options?.weight ?? null;
  checkReduction(reduction, formula.name);
  if (weight === null && target.dtype === x.dtype) return fused(x, target, reduction, formula);
  if (weight !== null) checkTensor(weight, formula.name, "the weight", x);
  return scope(() => {
    const dtype = resultType(x, target);
    const losses = fused(to(x, dtype), to(target, dtype), weight === null ? reduction : "none", formula);
    return weight === null ? losses : reduceLoss(mul(losses, weight), reduction);
  });
}

/**
 * Binary cross entropy of probabilities: `l = -w * (t * log(x) + (1 - t) * log(1 - x))`, each logarithm limited to at least -100.
 *
 * @param x Probabilities, 0 to 1, floating-point.
 * @param target Of the shape of `x`, usually 0 or 1.
 * @param options.weight Factor of each loss; broadcasts. Default: none.
 * @param options.reduction `"mean"` (default), `"sum"` or `"none"`.
 * @throws {RangeError} If an element of `x` is outside 0 .. 1 or NaN.
 * @throws {ShapeError} If the shapes differ.
 *
 * Derivative: `w * (x - t) / max(x * (1 - x), 1e-12)`.
 *
 * @example
 * ```ts
 * import { binaryCrossEntropy, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(binaryCrossEntropy(tensor([0, 1]), tensor([1, 1]), { reduction: "none" }).tolist(), [100, 0]);
 * ```
 */
export function binaryCrossEntropy(x: Tensor, target: Tensor, options?: BinaryCrossEntropyOptions): Tensor {
  checkSame(x, target, "binaryCrossEntropy");
  return binaryLoss(x, target, options, {
    name: "binaryCrossEntropy",
    op: "bce",
    parameter: 0,
    slope: (p, q) => div(sub(p, q), clamp(mul(rsub(p, 1), p), 1e-12)),
    targetSlope: (p) => sub(clamp(log(rsub(p, 1)), -100), clamp(log(p), -100)),
  });
}

/**
 * Binary cross entropy of scores, without overflow: {@linkcode binaryCrossEntropy} of `sigmoid(x)`.
 *
 * `l = w * ((1 - t) * x + (1 + (p - 1) * t) * log(1 + e^-x))`
 *
 * @param x Scores (logits), floating-point.
 * @param target Of the shape of `x`, usually 0 or 1.
 * @param options.weight Factor `w` of each loss; broadcasts. Default: none.
 * @param options.posWeight Factor `p` of the positive part; broadcasts. Default 1.
 * @param options.reduction `"mean"` (default), `"sum"` or `"none"`.
 * @throws {ShapeError} If the shapes differ.
 *
 * Derivative: `w * (sigmoid(x) - t)` for `p = 1`.
 *
 * @example
 * ```ts
 * import { binaryCrossEntropyWithLogits, tensor } from "@dinograd/dinograd";
 * import { assertAlmostEquals } from "@std/assert";
 * assertAlmostEquals(binaryCrossEntropyWithLogits(tensor([0, 0]), tensor([0, 1])).item(), Math.log(2), 1e-6);
 * ```
 */
export function binaryCrossEntropyWithLogits(
  x: Tensor,
  target: Tensor,
  options?: BinaryCrossEntropyOptions & { posWeight?: Tensor | null },
): Tensor {
  const name = "binaryCrossEntropyWithLogits", posWeight = options?.posWeight ?? null;
  checkSame(x, target, name);
  if (posWeight === null) {
    return binaryLoss(x, target, options, {
      name,
      op: "bce_with_logits",
      parameter: 0,
      slope: (p, q) => sub(sigmoid(p), q),
      targetSlope: (p) => neg(p),
    });
  }
  const reduction = options?.reduction ?? "mean", weight = options?.weight ?? null;
  checkReduction(reduction, name);
  checkTensor(posWeight, name, "posWeight", x);
  if (weight !== null) checkTensor(weight, name, "the weight", x);
  return scope(() => {
    const factor = add(mul(sub(posWeight, 1), target), 1);
    const losses = sub(mul(rsub(target, 1), x), mul(factor, logSigmoid(x)));
    return reduceLoss(weight === null ? losses : mul(losses, weight), reduction);
  });
}

/**
 * Kullback-Leibler divergence of `target` from a prediction in logarithms: `l = t * (log(t) - x)`, 0 where `t` is 0.
 *
 * @param x Log-probabilities, floating-point.
 * @param target Probabilities, or their logarithms with `logTarget`; broadcasts with `x`.
 * @param options.reduction `"mean"` over elements (default), `"batchmean"`: the sum over the size of axis 0, `"sum"` or `"none"`.
 * @param options.logTarget The target holds logarithms: `l = e^t * (t - x)`. Default `false`.
 *
 * @example
 * ```ts
 * import { klDiv, tensor } from "@dinograd/dinograd";
 * import { assertAlmostEquals } from "@std/assert";
 * const x = tensor([[Math.log(0.5), Math.log(0.5)]]);
 * assertAlmostEquals(klDiv(x, tensor([[1, 0]]), { reduction: "batchmean" }).item(), Math.log(2), 1e-6);
 * ```
 */
export function klDiv(x: Tensor, target: Tensor, options?: { reduction?: LossReduction | "batchmean"; logTarget?: boolean }): Tensor {
  checkPair(x, target, "klDiv");
  const reduction = options?.reduction ?? "mean";
  if (reduction !== "batchmean") checkReduction(reduction, "klDiv");
  return scope(() => {
    let losses: Tensor;
    if (options?.logTarget) {
      losses = mul(exp(target), sub(target, x));
    } else {
      const zero = eq(target, 0);
      losses = sub(where(zero, 0, mul(target, log(where(zero, 1, target)))), mul(target, x));
    }
    if (reduction !== "batchmean") return reduceLoss(losses, reduction);
    if (x.rank === 0) throw new ShapeError('klDiv: reduction "batchmean" needs an axis for the batch, got []');
    return div(sum(losses), x.shape[0]);
  });
}
