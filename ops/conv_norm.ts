/**
 * A convolution with the batch normalisation behind it: in evaluation mode it normalises its results where it writes them, in training mode it
 * makes their statistics. The composed form, a convolution and {@linkcode batchNorm}, is the oracle, and what everything else takes.
 *
 * @module
 */
import { channelsLastStrides } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import {
  type BatchNormArguments,
  batchStatistics,
  checkCount,
  normaliseAndRecord,
  ordered,
  perChannel,
  statisticsDType,
} from "./batch_norm.ts";
import type { Statistics } from "./batch_norm.ts";
import { type ConvKernel, convolveBy, type ConvOptions } from "./convolution.ts";
import { native } from "./native.ts";

/** Checks a result that is about to be written and tells how it is normalised. */
export type Checks = (y: Tensor) => BatchNormArguments;

/** The convolution of an input with a batch axis, normalised by running statistics, in one pass. Records nothing. */
export function normalisedConvolution(x: Tensor, w: Tensor, b: Tensor | null, options: ConvOptions, checks: Checks): Tensor {
  const kernel: ConvKernel = (y, x, w, b, p) => {
    const checked = checks(y), dtype = statisticsDType(y), { residual, eps, relu } = checked;
    const mean = perChannel(checked.means, dtype), variance = perChannel(checked.variances, dtype);
    const weight = perChannel(checked.weight, dtype), shift = perChannel(checked.bias, dtype);
    const r = residual && ordered(residual, channelsLastStrides(y.shape));
    native(x.device, (lib, f) =>
      lib.dg_conv_norm(
        f.pointer,
        f.put(y),
        f.put(x),
        f.put(w),
        f.put(b),
        f.put(mean),
        f.put(variance),
        f.put(weight),
        f.put(shift),
        f.put(r),
        eps,
        relu ? 1 : 0,
        ...p,
      ));
    if (mean !== checked.means) mean!.dispose();
    if (variance !== checked.variances) variance!.dispose();
    if (weight !== checked.weight) weight!.dispose();
    if (shift !== checked.bias) shift!.dispose();
    if (r !== residual) r!.dispose();
  };
  return convolveBy(kernel, x, w, b, options);
}

/** The convolution of an input with a batch axis, and the same normalised by the statistics of the batch; both are recorded. */
export function convolutionAndNorm(
  x: Tensor,
  w: Tensor,
  b: Tensor | null,
  options: ConvOptions,
  checks: Checks,
): readonly [Tensor, Tensor] {
  let checked: BatchNormArguments, statistics: Statistics;
  const kernel: ConvKernel = (y, x, w, b, p) => {
    checked = checks(y);
    checkCount(y);
    const { momentum, eps } = checked;
    statistics = batchStatistics(
      y,
      checked,
      (mean, variance, invstd, means, variances, batches) =>
        native(x.device, (lib, f) =>
          lib.dg_conv_stats(
            f.pointer,
            f.put(y),
            f.put(x),
            f.put(w),
            f.put(b),
            f.put(mean),
            f.put(variance),
            f.put(invstd),
            f.put(means),
            f.put(variances),
            f.put(batches),
            momentum,
            eps,
            ...p,
          )),
    );
  };
  const y = convolveBy(kernel, x, w, b, options), source = { fromBatch: true, count: y.numel() / y.shape[1], share: null };
  return [y, normaliseAndRecord("batchNorm", y, y, statistics!, checked!, source)];
}
