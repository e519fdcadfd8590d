/**
 * Batch normalisation.
 *
 * Forward and derivative are fused native passes over channels-last or row-major memory; when backward itself is recorded
 * (`createGraph`), the same derivative is composed of differentiable operations, which is also the kernels' oracle in the tests.
 *
 * @module
 */
import { once, record, recording } from "../autograd/tape.ts";
import { DTypeError, ShapeError } from "../ffi/errors.ts";
import { context } from "../tensor/context.ts";
import type { DType } from "../tensor/dtype.ts";
import { channelsLastStrides, contiguousStrides, isChannelsLast, type Shape, textOf } from "../tensor/shape.ts";
import { scope } from "../tensor/scope.ts";
import { Tensor } from "../tensor/tensor.ts";
import { copyInto } from "./copy.ts";
import { checkFloat, checkTensor, emptyTensor, native } from "./native.ts";
import { sum } from "./reduction.ts";
import { reshape } from "./view.ts";

/** What {@linkcode batchNorm} takes besides input and running statistics. */
export interface BatchNormOptions {
  /** Factor of each channel, shape `[C]`. Default: 1. */
  weight?: Tensor | null;
  /** Summand of each channel, shape `[C]`. Default: 0. */
  bias?: Tensor | null;
  /** Normalise with the statistics of the batch and update the running ones. Default `false`. */
  training?: boolean;
  /** Share of the batch in the new running statistics. Default `0.1`. */
  momentum?: number;
  /** Added to the variance. Default `1e-5`. */
  eps?: number;
  /** One int64 that counts the batches of training. Default: none. */
  numBatchesTracked?: Tensor | null;
  /** Applied to the result in the same pass. Default: none. */
  activation?: "relu" | null;
  /** Added before the activation in the same pass; shape of the input. Default: none. */
  residual?: Tensor | null;
}

/** The dtype that statistics and parameters of an input are computed in. */
export function statisticsDType(x: Tensor): DType {
  return x.dtype === "float64" ? "float64" : "float32";
}

/** A parameter or buffer in the dtype and order that the kernels take; `x` itself where it is so already. */
export function perChannel(x: Tensor | null, dtype: DType): Tensor | null {
  if (x === null || (x.dtype === dtype && x.isContiguous())) return x;
  return copyInto(emptyTensor(x.shape, dtype, x.device), x);
}

/** Checks a tensor with one value per channel. */
export function checkPerChannel(v: unknown, x: Tensor, channels: number, op: string, what: string): Tensor | null {
  if (v === null || v === undefined) return null;
  checkTensor(v, op, what, x);
  checkFloat(v, op);
  if (v.rank !== 1 || v.shape[0] !== channels) {
    throw new ShapeError(
      `${op}: ${what} must have shape [${channels}], one value per channel of ${textOf(x.shape)}, got ${textOf(v.shape)}`,
    );
  }
  return v;
}

/** The strides in which a batch norm of `x` runs: those of `x` if channels-last or row-major, else row-major. */
export function normStrides(x: Tensor): Shape {
  return isChannelsLast(x.shape, x.strides) ? channelsLastStrides(x.shape) : contiguousStrides(x.shape);
}

/** `x` in that memory order, copied if it has to be. */
export function ordered(x: Tensor, strides: Shape): Tensor {
  const fits = x.shape.every((size, i) => size === 1 || x.strides[i] === strides[i]);
  return fits ? x : copyInto(emptyTensor(x.shape, x.dtype, x.device, strides), x);
}

/** Statistics that a batch is normalised with. */
export interface Statistics {
  /** Mean of each channel. */
  readonly mean: Tensor;
  /** 1 / sqrt(variance + eps) of each channel. */
  readonly invstd: Tensor;
}

/** Makes mean, variance and `invstd` of a batch, and updates the running statistics where they are given; all in the statistics' dtype. */
export type StatisticsKernel = (
  mean: Tensor,
  variance: Tensor,
  invstd: Tensor,
  runningMean: Tensor | null,
  runningVar: Tensor | null,
  batches: Tensor | null,
) => void;

/** Statistics of the batch `x`, by which the running ones are updated in training mode. */
export function batchStatistics(x: Tensor, checked: BatchNormArguments, kernel: StatisticsKernel): Statistics {
  const channels = x.shape[1], dtype = statisticsDType(x), { training } = checked;
  const runningMean = training ? checked.means : null, runningVar = training ? checked.variances : null;
  const batches = training ? checked.batches : null;
  const [mean, variance, invstd] = [0, 1, 2].map(() => emptyTensor([channels], dtype, x.device));
  const means = perChannel(runningMean, dtype), variances = perChannel(runningVar, dtype);
  kernel(mean, variance, invstd, means, variances, batches);
  variance.dispose();
  if (batches !== null) batches.storage.version++;
  for (const [buffer, updated] of [[runningMean, means], [runningVar, variances]]) {
    if (buffer === null) continue;
    if (buffer !== updated) {
      copyInto(buffer, updated!);
      updated!.dispose();
    }
    buffer.storage.version++;
  }
  return { mean, invstd };
}

/** The kernel that reads `x`. */
function statisticsOf(x: Tensor, momentum: number, eps: number): StatisticsKernel {
  return (mean, variance, invstd, means, variances, batches) =>
    native(
      x.device,
      (lib, f) =>
        lib.dg_batch_norm_stats(
          f.pointer,
          f.put(mean),
          f.put(variance),
          f.put(invstd),
          f.put(means),
          f.put(variances),
          f.put(batches),
          f.put(x),
          momentum,
          eps,
        ),
    );
}

/** Refuses a batch of one value a channel, which has no variance. */
export function checkCount(x: Tensor): void {
  if (x.numel() === 0 || x.numel() !== x.shape[1]) return;
  throw new ShapeError(`batchNorm: expected more than 1 value per channel when training, got input size ${textOf(x.shape)}`);
}

/**
 * Batch normalisation (Ioffe and Szegedy 2015) of each channel over the batch and all positions.
 *
 * `y = (x - mean) / sqrt(var + eps) * weight + bias`, then `+ residual` and the activation where given.
 *
 * With `training`, or without running statistics, mean and (biased) variance are those of the batch. With `training`, running statistics
 * that are given are then changed in place, under `noGrad`, too: `(1 - momentum) * running + momentum * batch`, with the unbiased
 * variance. Else mean and variance are the running ones.
 *
 * Shapes: `N` batch, `C` channels, any number of axes of positions.
 *
 * @param x Shape `[N, C, ...]`, 2 to 8 axes, any float dtype, any strides; channels-last and row-major ones are not copied.
 * @param runningMean Shape `[C]`, or `null`.
 * @param runningVar Shape `[C]`, or `null`.
 * @param options.weight Shape `[C]`. Default: 1.
 * @param options.bias Shape `[C]`. Default: 0.
 * @param options.training Default `false`.
 * @param options.momentum Default `0.1`.
 * @param options.eps Default `1e-5`.
 * @param options.numBatchesTracked One `int64`, increased with the running statistics. Default: none.
 * @param options.activation `"relu"` or none (default).
 * @param options.residual Shape of `x`. Default: none.
 * @returns Shape, dtype and memory order of `x`.
 * @throws {ShapeError} If a shape does not fit, or there is only one value per channel when training.
 *
 * Derivative: of `x`, `weight`, `bias` and `residual`; through the statistics where they are those of the batch. That of relu at 0 is 0.
 *
 * @example A batch of two
 * ```ts
 * import { batchNorm, tensor, zeros, ones } from "@dinograd/dinograd";
 * import { assertAlmostEquals } from "@std/assert";
 * const mean = zeros([1]), variance = ones([1]);
 * const y = batchNorm(tensor([[1], [3]]), mean, variance, { training: true });
 * assertAlmostEquals(y.select(0, 1).item(), 1, 1e-4);
 * assertAlmostEquals(mean.item(), 0.2, 1e-6);
 * assertAlmostEquals(variance.item(), 0.9 + 0.1 * 2, 1e-6); // unbiased
 * ```
 */
export function batchNorm(x: Tensor, runningMean: Tensor | null, runningVar: Tensor | null, options?: BatchNormOptions): Tensor {
  const checked = checkArguments("batchNorm", x, runningMean, runningVar, options),
    { means, training, momentum, eps, batches } = checked;
  const channels = x.shape[1], fromBatch = training || means === null;
  if (fromBatch) checkCount(x);
  if (x.numel() === 0) {
    if (training && batches !== null) batches.add_(1);
    return emptyBatch(x, checked.weight, checked.bias, checked.residual);
  }

  const strides = normStrides(x), input = ordered(x, strides);
  const source = { fromBatch, count: x.numel() / channels, share: null };
  const y = fromBatch
    ? normaliseAndRecord(
      "batchNorm",
      x,
      input,
      batchStatistics(input, checked, statisticsOf(input, momentum, eps)),
      checked,
      source,
    )
    : normaliseByRunning(x, input, strides, checked, source);
  if (input !== x) input.dispose();
  return y;
}

/** What {@linkcode batchNorm} was given. */
export interface BatchNormArguments {
  /** Running mean. */
  readonly means: Tensor | null;
  /** Running variance. */
  readonly variances: Tensor | null;
  /** Factor of each channel. */
  readonly weight: Tensor | null;
  /** Summand of each channel. */
  readonly bias: Tensor | null;
  /** Added before the activation. */
  readonly residual: Tensor | null;
  /** Counts batches. */
  readonly batches: Tensor | null;
  /** Use the batch's statistics and update the running ones. */
  readonly training: boolean;
  /** Share of the batch in the running statistics. */
  readonly momentum: number;
  /** Added to the variance. */
  readonly eps: number;
  /** Apply a relu. */
  readonly relu: boolean;
}

/** Refuses what does not fit together. */
export function checkArguments(
  name: string,
  x: Tensor,
  runningMean: Tensor | null,
  runningVar: Tensor | null,
  options: BatchNormOptions | undefined,
): BatchNormArguments {
  const { training = false, momentum = 0.1, eps = 1e-5, activation = null } = options ?? {};
  checkTensor(x, name, "the input");
  checkFloat(x, name);
  if (x.rank < 2) throw new ShapeError(`${name}: takes an input [N, C, ...] of at least 2 axes, got ${textOf(x.shape)}`);
  const channels = x.shape[1];
  const means = checkPerChannel(runningMean, x, channels, name, "runningMean");
  const variances = checkPerChannel(runningVar, x, channels, name, "runningVar");
  const weight = checkPerChannel(options?.weight, x, channels, name, "weight");
  const bias = checkPerChannel(options?.bias, x, channels, name, "bias");
  if ((means === null) !== (variances === null)) throw new TypeError(`${name}: runningMean and runningVar must be given together`);
  if (typeof momentum !== "number" || Number.isNaN(momentum)) throw new RangeError(`${name}: momentum must be a number, got ${momentum}`);
  if (!(eps >= 0)) throw new RangeError(`${name}: eps must be >= 0, got ${eps}`);
  if (activation !== null && activation !== "relu") throw new RangeError(`${name}: activation must be "relu" or null, got ${activation}`);
  const residual = options?.residual ?? null;
  if (residual !== null) checkResidual(residual, x, name);
  const batches = options?.numBatchesTracked ?? null;
  if (batches !== null) {
    checkTensor(batches, name, "numBatchesTracked", x);
    if (batches.dtype !== "int64" || batches.numel() !== 1) {
      throw new DTypeError(`${name}: numBatchesTracked must be one int64, got ${batches.dtype} of shape ${textOf(batches.shape)}`);
    }
  }
  return { means, variances, weight, bias, residual, batches, training, momentum, eps, relu: activation === "relu" };
}

/** Whose statistics they are, and what backward makes of that. */
export interface StatisticsSource {
  /** They depend on the input. */
  readonly fromBatch: boolean;
  /** Values of each channel that they are of. */
  readonly count: number;
  /** Adds up the sums of backward over several processes; `null` for one. */
  readonly share: ((total: Tensor, correlation: Tensor) => readonly [Tensor, Tensor]) | null;
}

/** Normalises `input`, which is `x` in the order of {@linkcode normStrides}, and records the derivative. Takes over the statistics. */
export function normaliseAndRecord(
  name: string,
  x: Tensor,
  input: Tensor,
  statistics: Statistics,
  checked: BatchNormArguments,
  source: StatisticsSource,
): Tensor {
  const y = normalise(input, normStrides(x), { ...statistics, variance: null, kept: null }, checked);
  return recordNormalised(name, x, statistics, y, checked, source);
}

/** The same with running statistics, in one native call. */
function normaliseByRunning(x: Tensor, input: Tensor, strides: Shape, checked: BatchNormArguments, source: StatisticsSource): Tensor {
  const dtype = statisticsDType(x), mean = perChannel(checked.means, dtype)!, variance = perChannel(checked.variances, dtype)!;
  // A later batch in training mode may change the buffers before backward of this one runs.
  const kept = recording(x, checked.weight, checked.bias, checked.residual)
    ? { mean: emptyTensor(mean.shape, dtype, x.device), invstd: emptyTensor(mean.shape, dtype, x.device) }
    : null;
  const y = normalise(input, strides, { mean, invstd: null, variance, kept }, checked);
  if (mean !== checked.means) mean.dispose();
  if (variance !== checked.variances) variance.dispose();
  return kept === null ? y : recordNormalised("batchNorm", x, kept, y, checked, source);
}

/** Records the derivative of `y`. Takes over the statistics. */
function recordNormalised(
  name: string,
  x: Tensor,
  { mean, invstd }: Statistics,
  y: Tensor,
  { weight, bias, residual, relu, eps }: BatchNormArguments,
  source: StatisticsSource,
): Tensor {
  const inputs = [x, weight, bias, residual];
  // The output is needed only where the relu's mask cannot be computed again from the input.
  const saved = [x, mean, invstd, ...(weight ? [weight] : []), ...(bias ? [bias] : []), ...(relu && residual ? [y] : [])];
  record(name, inputs, y, saved, (grad, kept, needs) => {
    let at = 3;
    const state: State = {
      x: kept[0],
      mean: kept[1],
      invstd: kept[2],
      weight: weight ? kept[at++] : null,
      bias: bias ? kept[at++] : null,
      y: relu && residual ? kept[at++] : null,
      relu,
      residual: residual !== null,
      eps,
      ...source,
    };
    if (!context().grad) return fusedGradients(grad, state, needs);
    return source.share === null ? composedGradients(grad, state) : once(name, [grad, ...inputs], fusedGradients(grad, state, needs));
  });
  mean.dispose();
  invstd.dispose();
  return y;
}

function checkResidual(residual: unknown, x: Tensor, name: string): asserts residual is Tensor {
  checkTensor(residual, name, "residual", x);
  if (residual.rank !== x.rank || residual.shape.some((size, i) => size !== x.shape[i])) {
    throw new ShapeError(`${name}: residual must have the input's shape ${textOf(x.shape)}, got ${textOf(residual.shape)}`);
  }
  if (residual.dtype !== x.dtype) throw new DTypeError(`${name}: residual must have the input's dtype ${x.dtype}, got ${residual.dtype}`);
}

/** No values: nothing to normalise, gradients of 0 for what the channels share. */
function emptyBatch(x: Tensor, weight: Tensor | null, bias: Tensor | null, residual: Tensor | null): Tensor {
  const y = emptyTensor(x.shape, x.dtype, x.device);
  return record("batchNorm", [x, weight, bias, residual], y, [], (grad) => {
    const none = () => sum(grad.transpose(0, 1).reshape([x.shape[1], 0]), 1);
    return [grad, weight ? none() : null, bias ? none() : null, residual ? grad : null];
  });
}

/** What a batch is normalised with: a mean, and 1 / sqrt(variance + eps) or the variance, of which `kept` gets both. */
interface Given {
  readonly mean: Tensor;
  readonly invstd: Tensor | null;
  readonly variance: Tensor | null;
  readonly kept: Statistics | null;
}

function normalise(
  x: Tensor,
  strides: Shape,
  { mean, invstd, variance, kept }: Given,
  { weight, bias, residual, relu, eps }: BatchNormArguments,
): Tensor {
  const y = emptyTensor(x.shape, x.dtype, x.device, strides);
  const [w, b] = [perChannel(weight, mean.dtype), perChannel(bias, mean.dtype)], r = residual && ordered(residual, strides);
  native(x.device, (lib, f) =>
    lib.dg_batch_norm_apply(
      f.pointer,
      f.put(y),
      f.put(kept && kept.mean),
      f.put(kept && kept.invstd),
      f.put(x),
      f.put(mean),
      f.put(invstd),
      f.put(variance),
      f.put(w),
      f.put(b),
      f.put(r),
      eps,
      relu ? 1 : 0,
    ));
  if (w !== weight) w!.dispose();
  if (b !== bias) b!.dispose();
  if (r !== residual) r!.dispose();
  return y;
}

/** What backward has to work with. */
interface State extends StatisticsSource {
  readonly x: Tensor;
  readonly mean: Tensor;
  readonly invstd: Tensor;
  readonly weight: Tensor | null;
  readonly bias: Tensor | null;
  readonly y: Tensor | null;
  readonly relu: boolean;
  readonly residual: boolean;
  readonly eps: number;
}

function fusedGradients(grad: Tensor, state: State, needs: readonly boolean[]): (Tensor | null)[] {
  const { mean, invstd, relu, fromBatch } = state, strides = normStrides(state.x);
  const x = ordered(state.x, strides), dy = ordered(grad, strides), { device } = x;
  const weight = perChannel(state.weight, mean.dtype), bias = perChannel(state.bias, mean.dtype);
  // With a residual its gradient is the masked dy; without one the mask is computed again in each pass.
  const masked = relu && state.residual ? emptyTensor(x.shape, x.dtype, device, strides) : null;
  const [total, correlation] = [0, 1].map(() => emptyTensor(mean.shape, mean.dtype, device));
  native(device, (lib, f) =>
    lib.dg_batch_norm_reduce(
      f.pointer,
      f.put(total),
      f.put(correlation),
      f.put(masked),
      f.put(dy),
      f.put(x),
      f.put(state.y),
      f.put(mean),
      f.put(invstd),
      f.put(weight),
      f.put(bias),
      relu ? 1 : 0,
    ));
  let dx: Tensor | null = null;
  if (needs[0]) {
    const [allTotal, allCorrelation] = state.share === null ? [total, correlation] : state.share(total, correlation);
    dx = emptyTensor(x.shape, x.dtype, device, strides);
    native(device, (lib, f) =>
      lib.dg_batch_norm_backward(
        f.pointer,
        f.put(dx),
        f.put(masked ?? dy),
        f.put(x),
        f.put(mean),
        f.put(invstd),
        f.put(weight),
        f.put(bias),
        f.put(fromBatch ? allTotal : null),
        f.put(fromBatch ? allCorrelation : null),
        state.count,
        relu && masked === null ? 1 : 0,
      ));
  }
  return [dx, correlation, total, masked ?? grad];
}

/** The same of differentiable operations. */
function composedGradients(grad: Tensor, state: State): (Tensor | null)[] {
  const { x, weight, bias, fromBatch } = state, channels = x.shape[1];
  const spread = (v: Tensor) => reshape(v, x.shape.map((_, i) => i === 1 ? channels : 1)).to(x.dtype);
  const axes = x.shape.map((_, i) => i).filter((i) => i !== 1), count = x.numel() / channels;
  const mean = (v: Tensor) => sum(v, axes, { keepdim: true }).mul(1 / count);
  const centred = x.sub(fromBatch ? mean(x) : spread(state.mean));
  const invstd = fromBatch ? mean(centred.mul(centred)).add(state.eps).rsqrt() : spread(state.invstd);
  const xhat = centred.mul(invstd), slope = weight ? invstd.mul(spread(weight)) : invstd;
  let dy = grad;
  if (state.relu) {
    const scaled = weight ? xhat.mul(spread(weight)) : xhat;
    const y = state.y ?? (bias ? scaled.add(spread(bias)) : scaled);
    dy = grad.mul(y.detach().gt(0).to(grad.dtype));
  }
  const product = dy.mul(xhat);
  const dx = fromBatch ? slope.mul(dy.sub(mean(dy)).sub(xhat.mul(mean(product)))) : slope.mul(dy);
  return [dx, weight && sum(product, axes), bias && sum(dy, axes), state.residual ? dy : null];
}

/** {@linkcode batchNorm} of differentiable operations only: the oracle of the fused kernels. Leaves running statistics as they are. */
export function composedBatchNorm(
  x: Tensor,
  runningMean: Tensor | null,
  runningVar: Tensor | null,
  options?: BatchNormOptions,
): Tensor {
  const { weight, bias, training = false, eps = 1e-5, residual, activation } = options ?? {};
  const spread = (v: Tensor) => reshape(v, x.shape.map((_, i) => i === 1 ? x.shape[1] : 1));
  const axes = x.shape.map((_, i) => i).filter((i) => i !== 1), count = x.numel() / x.shape[1];
  const mean = (v: Tensor) => sum(v, axes, { keepdim: true }).mul(1 / count);
  const fromBatch = training || runningMean === null;
  return scope(() => {
    const centred = x.sub(fromBatch ? mean(x) : spread(runningMean!));
    const variance = fromBatch ? mean(centred.mul(centred)) : spread(runningVar!);
    let y = centred.mul(variance.add(eps).rsqrt());
    if (weight) y = y.mul(spread(weight));
    if (bias) y = y.add(spread(bias));
    if (residual) y = y.add(residual);
    return activation === "relu" ? y.relu() : y;
  });
}
