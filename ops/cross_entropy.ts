/**
 * Classification losses: cross entropy and negative log-likelihood.
 *
 * Class labels take one fused kernel each way; when backward itself is recorded, the same derivative is composed of differentiable
 * operations, which is also the kernel's oracle in the tests.
 *
 * @module
 */
import { record, recording } from "../autograd/tape.ts";
import { AutogradError, DTypeError, ShapeError } from "../ffi/errors.ts";
import { context } from "../tensor/context.ts";
import { scope } from "../tensor/scope.ts";
import { numelOf, sameShape, textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { add, div, eq, logicalAnd, mul, ne, sub } from "./binary.ts";
import { channelsLast, to } from "./copy.ts";
import { arange, onesLike } from "./creation.ts";
import { checkReduction, reduceLoss, type Reducing } from "./loss.ts";
import { checkFloat, checkTensor, emptyLike, emptyTensor, native, spread } from "./native.ts";
import { sum } from "./reduction.ts";
import { logSoftmax, softmax } from "./softmax.ts";
import { neg } from "./unary.ts";
import { reshape, unsqueeze } from "./view.ts";

/** Options of {@linkcode nllLoss}. */
export interface NllLossOptions extends Reducing {
  /** Weight of each class, shape `[C]`, the dtype of the input. Default: all 1. */
  weight?: Tensor | null;
  /** Label whose positions count for nothing. Default -100. */
  ignoreIndex?: number;
}

/** Options of {@linkcode crossEntropy}. */
export interface CrossEntropyOptions extends NllLossOptions {
  /** Share of the target that is spread evenly over all classes, 0 to 1. Default 0. */
  labelSmoothing?: number;
}

interface Settings {
  readonly name: string;
  readonly weight: Tensor | null;
  readonly ignore: number;
  readonly smoothing: number;
  readonly reduction: number;
  readonly logits: boolean;
}

const codes = { none: 0, mean: 1, sum: 2 } as const;

function settings(name: string, x: Tensor, options: CrossEntropyOptions | undefined, classes: number, logits: boolean): Settings {
  const { weight = null, ignoreIndex = -100, labelSmoothing = 0, reduction = "mean" } = options ?? {};
  checkReduction(reduction, name);
  if (!Number.isSafeInteger(ignoreIndex)) throw new RangeError(`${name}: ignoreIndex must be a whole number, got ${ignoreIndex}`);
  if (!(labelSmoothing >= 0 && labelSmoothing <= 1)) throw new RangeError(`${name}: labelSmoothing must be 0 to 1, got ${labelSmoothing}`);
  if (weight !== null) {
    checkTensor(weight, name, "the weight", x);
    if (weight.dtype !== x.dtype) throw new DTypeError(`${name}: the weight must be ${x.dtype} as the input, got ${weight.dtype}`);
    if (!sameShape(weight.shape, [classes])) {
      throw new ShapeError(`${name}: the weight must have one element a class, [${classes}], got ${textOf(weight.shape)}`);
    }
    if (recording(weight)) throw new AutogradError(`${name}: the weight has no derivative: detach() it`);
  }
  return { name, weight, ignore: ignoreIndex, smoothing: labelSmoothing, reduction: codes[reduction], logits };
}

/** The derivative from differentiable operations: `g * (p * a - b)`, see `kernels/cpu/cross_entropy.cpp`. */
function composedDerivative(grad: Tensor, x: Tensor, labels: Tensor, total: Tensor, it: Settings): Tensor {
  const classes = x.shape[1], column = [1, classes, ...new Array<number>(x.rank - 2).fill(1)];
  const position = unsqueeze(labels, 1);
  const valid = to(ne(position, it.ignore), x.dtype);
  const indices = reshape(arange(0, classes, 1, { dtype: "int64", device: x.device }), column);
  const hot = to(logicalAnd(eq(position, indices), ne(position, it.ignore)), x.dtype);
  const weight = it.weight === null ? onesLike(sum(hot.detach(), hot.shape.map((_, i) => i).filter((i) => i !== 1))) : it.weight;
  const weights = reshape(weight, column), spreadOut = it.smoothing / classes;
  const hit = mul(mul(hot, weights), 1 - it.smoothing);
  const b = add(hit, mul(mul(valid, weights), spreadOut));
  const each = it.reduction === codes.mean ? div(grad, to(total, grad.dtype)) : grad;
  const g = it.reduction === codes.none ? unsqueeze(each, 1) : each;
  if (!it.logits) return mul(neg(b), g);
  const a = add(sum(hit, 1, { keepdim: true }), mul(mul(valid, sum(weights)), spreadOut));
  return mul(sub(mul(softmax(x, 1), a), b), g);
}

/** The loss of labels `[N, d...]` under scores `[N, C, d...]`. */
function labelLoss(x: Tensor, labels: Tensor, it: Settings): Tensor {
  const computed = x.dtype === "float64" ? "float64" : "float32", count = labels.numel();
  const out = emptyTensor(it.reduction === codes.none ? labels.shape : [], x.dtype, x.device);
  const stats = emptyTensor([2, count], computed, x.device), total = emptyTensor([], computed, x.device);
  const { weight, ignore, smoothing, reduction } = it, logits = it.logits ? 1 : 0;
  native(x.device, (lib, f) => {
    const pointer = f.pointer,
      y = f.put(out),
      s = f.put(stats),
      n = f.put(total),
      input = f.put(x),
      target = f.put(labels),
      w = f.put(weight);
    return lib.dg_cross_entropy(pointer, y, s, n, input, target, w, ignore, smoothing, reduction, logits);
  });
  const saved = weight === null ? [x, labels, stats, total] : [x, labels, stats, total, weight];
  const result = record(it.name, [x], out, saved, (grad, [x, labels, stats, total, weight = null]) => {
    if (context().grad) return [composedDerivative(grad, x, labels, total, { ...it, weight })];
    const dx = emptyLike(x);
    native(x.device, (lib, f) => {
      const pointer = f.pointer, o = f.put(dx), g = f.put(spread(grad, labels.shape)), s = f.put(stats), n = f.put(total);
      const input = f.put(x), target = f.put(labels), w = f.put(weight);
      return lib.dg_cross_entropy_backward(pointer, o, g, s, n, input, target, w, ignore, smoothing, reduction, logits);
    });
    return [dx];
  });
  stats.dispose();
  total.dispose();
  return result;
}

/** Checks and arranges the operands of {@linkcode labelLoss}. */
function withLabels(name: string, x: Tensor, labels: Tensor, options: CrossEntropyOptions | undefined, logits: boolean): Tensor {
  checkTensor(x, name, "the input");
  checkTensor(labels, name, "the target", x);
  checkFloat(x, name);
  if (labels.isFloat || labels.dtype === "bool") {
    throw new DTypeError(`${name}: labels must be integers, got ${labels.dtype}: convert them with .to("int64")`);
  }
  const expected = x.rank === 1 ? [] : [x.shape[0], ...x.shape.slice(2)];
  if (x.rank === 0 || !sameShape(labels.shape, expected)) {
    throw new ShapeError(`${name}: ${textOf(x.shape)} ([N, C, ...]) takes labels of ${textOf(expected)}, got ${textOf(labels.shape)}`);
  }
  const it = settings(name, x, options, x.shape[x.rank === 1 ? 0 : 1], logits);
  if (x.rank === 2 && labels.dtype === "int64") return labelLoss(x, labels, it);
  return scope(() => {
    const whole = to(labels, "int64");
    if (x.rank === 1) {
      const y = labelLoss(reshape(x, [1, x.shape[0]]), reshape(whole, [1]), it);
      return it.reduction === codes.none ? reshape(y, []) : y;
    }
    // Classes next to each other in memory, unless they are so few that the CPU's kernel brings them together by itself.
    const asItIs = x.device.type === "cpu" && logits && x.shape[1] <= 16;
    return labelLoss(asItIs ? x : channelsLast(x), whole, it);
  });
}

/**
 * Cross entropy between scores and classes: {@linkcode logSoftmax} over axis 1 followed by {@linkcode nllLoss}, fused.
 *
 * `l[n] = -(1 - s) * w[t[n]] * lp[n, t[n]] - s / C * sum over c of w[c] * lp[n, c]`, with `lp` the log-softmax of `x`, `s` the label smoothing and
 * `w` the weight. The mean divides by the sum of `w[t[n]]` over the labels that are not ignored (NaN if there is none). With probabilities
 * `l[n] = -sum over c of w[c] * t[n, c] * lp[n, c]`, `t` smoothed, and the mean divides by the number of positions.
 *
 * @param x Scores (logits), shape `[N, C, d...]` or `[C]`, floating-point, any strides.
 * @param target Class labels of an integer dtype, shape `[N, d...]` or `[]`, each `0` to `C - 1` or `ignoreIndex`; or probabilities of the shape of `x`.
 * @param options.weight Weight of each class, shape `[C]`. Default: all 1.
 * @param options.ignoreIndex Label whose positions count for nothing. Default -100.
 * @param options.reduction `"mean"` (default), `"sum"`, or `"none"` for the losses of the positions.
 * @param options.labelSmoothing Share of the target that is spread evenly over all classes. Default 0.
 * @throws {RangeError} If a label is outside, naming the label and the number of classes.
 * @throws {ShapeError} If shapes do not fit.
 *
 * @example
 * ```ts
 * import { crossEntropy, tensor } from "@dinograd/dinograd";
 * import { assertAlmostEquals, assertEquals } from "@std/assert";
 * const x = tensor([[0, 0], [0, Math.log(3)]], { requiresGrad: true });
 * const loss = crossEntropy(x, tensor([0, 1], { dtype: "int64" }), { reduction: "sum" });
 * assertAlmostEquals(loss.item(), Math.log(2) + Math.log(4 / 3), 1e-6);
 * loss.backward();
 * assertEquals(x.grad!.mul(4).round().tolist(), [[-2, 2], [1, -1]]);
 * ```
 */
export function crossEntropy(x: Tensor, target: Tensor, options?: CrossEntropyOptions): Tensor {
  checkTensor(x, "crossEntropy", "the input");
  checkTensor(target, "crossEntropy", "the target", x);
  if (!target.isFloat) return withLabels("crossEntropy", x, target, options, true);
  checkFloat(x, "crossEntropy");
  if (x.rank === 0 || !sameShape(x.shape, target.shape)) {
    throw new ShapeError(`crossEntropy: probabilities must have the shape ${textOf(x.shape)} of the input, got ${textOf(target.shape)}`);
  }
  const axis = x.rank === 1 ? 0 : 1, classes = x.shape[axis];
  const { weight, smoothing } = settings("crossEntropy", x, options, classes, true);
  return scope(() => {
    const smoothed = smoothing > 0 ? add(mul(target, 1 - smoothing), smoothing / classes) : target;
    const column = x.shape.map((_, i) => i === axis ? classes : 1);
    const shares = weight === null ? smoothed : mul(smoothed, reshape(weight, column));
    const losses = neg(sum(mul(logSoftmax(x, axis), shares), axis));
    const reduction = options?.reduction ?? "mean";
    if (reduction !== "mean") return reduceLoss(losses, reduction);
    return div(sum(losses), numelOf(losses.shape));
  });
}

/**
 * Negative log-likelihood of classes: `l[n] = -w[t[n]] * x[n, t[n]]`.
 *
 * @param x Log-probabilities, shape `[N, C, d...]` or `[C]`, floating-point.
 * @param target Class labels of an integer dtype, shape `[N, d...]` or `[]`, each `0` to `C - 1` or `ignoreIndex`.
 * @param options.weight Weight of each class, shape `[C]`. Default: all 1.
 * @param options.ignoreIndex Label whose positions count for nothing. Default -100.
 * @param options.reduction `"mean"` (default; divides by the sum of the weights, NaN if every label is ignored), `"sum"` or `"none"`.
 * @throws {RangeError} If a label is outside, naming the label and the number of classes.
 *
 * @example
 * ```ts
 * import { nllLoss, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const x = tensor([[-1, -2], [-3, -4]]);
 * assertEquals(nllLoss(x, tensor([1, 0], { dtype: "int64" })).item(), 2.5);
 * ```
 */
export function nllLoss(x: Tensor, target: Tensor, options?: NllLossOptions): Tensor {
  return withLabels("nllLoss", x, target, options === undefined ? undefined : { ...options, labelSmoothing: 0 }, false);
}
