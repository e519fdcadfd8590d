/**
 * Batch normalisation of a batch that several processes have parts of.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { ShapeError } from "../ffi/errors.ts";
import { noGrad } from "../autograd/functional.ts";
import type { Tensor } from "../tensor/tensor.ts";
import {
  type BatchNormArguments,
  type BatchNormOptions,
  checkArguments,
  normaliseAndRecord,
  normStrides,
  ordered,
  perChannel,
  type Statistics,
  statisticsDType,
} from "./batch_norm.ts";
import { copyInto, to } from "./copy.ts";
import { fromArray, zeros } from "./creation.ts";
import { emptyTensor, native } from "./native.ts";
import { cat } from "./view.ts";

/** What {@linkcode syncBatchNorm} needs of a process group. */
export interface StatisticsGroup {
  /** Number of processes. */
  readonly size: number;
  /** Starts to write the `x` of all processes to `out`. */
  allGather(out: Tensor, x: Tensor): { wait(): void };
  /** Starts to replace `x` by the sum of all processes. */
  allReduce(x: Tensor): { wait(): void };
}

/** Mean and variance of the whole batch, from those of its parts. */
interface Whole {
  readonly mean: Float64Array<ArrayBuffer>;
  readonly variance: Float64Array<ArrayBuffer>;
  readonly count: number;
}

/** Mean, biased variance and number of values a channel of the part here: zeros for a part without values. */
function ownStatistics(x: Tensor, eps: number): Float64Array<ArrayBuffer> {
  const channels = x.shape[1], numbers = new Float64Array(2 * channels + 1), dtype = statisticsDType(x);
  if (x.numel() === 0) return numbers;
  const [mean, variance, invstd] = [0, 1, 2].map(() => emptyTensor([channels], dtype, x.device));
  native(
    x.device,
    (lib, f) =>
      lib.dg_batch_norm_stats(
        f.pointer,
        f.put(mean),
        f.put(variance),
        f.put(invstd),
        f.put(null),
        f.put(null),
        f.put(null),
        f.put(x),
        0,
        eps,
      ),
  );
  numbers.set(mean.data() as Float32Array);
  numbers.set(variance.data() as Float32Array, channels);
  numbers[2 * channels] = x.numel() / channels;
  for (const it of [mean, variance, invstd]) it.dispose();
  return numbers;
}

/** Combines the statistics of all parts in double precision (Chan, Golub and LeVeque 1979). */
function combine(parts: Float64Array, size: number, channels: number): Whole {
  const row = 2 * channels + 1, mean = new Float64Array(channels), variance = new Float64Array(channels);
  let count = 0;
  for (let part = 0; part < size; part++) count += parts[part * row + 2 * channels];
  for (let part = 0; part < size; part++) {
    const share = count === 0 ? 0 : parts[part * row + 2 * channels] / count;
    for (let c = 0; c < channels; c++) mean[c] += share * parts[part * row + c];
  }
  for (let part = 0; part < size; part++) {
    const share = count === 0 ? 0 : parts[part * row + 2 * channels] / count;
    for (let c = 0; c < channels; c++) {
      const apart = parts[part * row + c] - mean[c];
      variance[c] += share * (parts[part * row + channels + c] + apart * apart);
    }
  }
  return { mean, variance, count };
}

function wholeStatistics(x: Tensor, eps: number, group: StatisticsGroup): Whole {
  return noGrad(() => {
    const channels = x.shape[1], numbers = fromArray(ownStatistics(x, eps)), own = to(numbers, x.device);
    using all = emptyTensor([group.size, 2 * channels + 1], "float64", x.device);
    group.allGather(all, own).wait();
    if (own !== numbers) own.dispose();
    numbers.dispose();
    return combine(all.data() as Float64Array, group.size, channels);
  });
}

/** Writes mean and 1 / sqrt(variance + eps) to tensors, and the running statistics. */
function settle(x: Tensor, whole: Whole, { means, variances, batches, momentum, eps }: BatchNormArguments): Statistics {
  return noGrad(() => {
    const dtype = statisticsDType(x), channels = x.shape[1];
    const place = (values: Float64Array<ArrayBuffer>) => {
      using numbers = fromArray(values);
      return copyInto(emptyTensor([channels], dtype, x.device), numbers.to(x.device));
    };
    const mean = place(whole.mean), variance = place(whole.variance), invstd = emptyTensor([channels], dtype, x.device);
    const running = [perChannel(means, dtype), perChannel(variances, dtype)];
    native(
      x.device,
      (lib, f) =>
        lib.dg_batch_norm_update(
          f.pointer,
          f.put(invstd),
          f.put(mean),
          f.put(variance),
          f.put(running[0]),
          f.put(running[1]),
          f.put(batches),
          whole.count,
          momentum,
          eps,
        ),
    );
    variance.dispose();
    if (batches !== null) batches.storage.version++;
    [means, variances].forEach((buffer, i) => {
      if (buffer === null) return;
      if (buffer !== running[i]) {
        copyInto(buffer, running[i]!);
        running[i]!.dispose();
      }
      buffer.storage.version++;
    });
    return { mean, invstd };
  });
}

/**
 * Batch normalisation in training mode of a batch whose parts are in several processes: statistics, running statistics and gradients of `x` are those of
 * the joined batch. Gradients of `weight` and `bias` are of the part here. All processes must call it; parts may differ in size and be empty.
 *
 * @param x The part here, shape `[N, C, ...]`, as for `batchNorm`.
 * @param runningMean Shape `[C]`, or `null`.
 * @param runningVar Shape `[C]`, or `null`.
 * @param group The processes.
 * @param options As for `batchNorm`; `training` is taken to be true.
 * @returns Shape, dtype and memory order of `x`.
 * @throws {ShapeError} On all processes if there is only one value per channel in all of them together.
 *
 * Derivative: as that of `batchNorm`, once; backward adds up two sums a channel over the processes, in which all must take part.
 */
export function syncBatchNorm(
  x: Tensor,
  runningMean: Tensor | null,
  runningVar: Tensor | null,
  group: StatisticsGroup,
  options?: Omit<BatchNormOptions, "training">,
): Tensor {
  const name = "syncBatchNorm", checked = checkArguments(name, x, runningMean, runningVar, { ...options, training: true });
  const channels = x.shape[1], input = ordered(x, normStrides(x)), whole = wholeStatistics(input, checked.eps, group), { count } = whole;
  if (count === 1) throw new ShapeError(`${name}: expected more than 1 value per channel when training, all processes have 1 together`);
  const share = (total: Tensor, correlation: Tensor) => {
    const both = noGrad(() => cat([total, correlation]));
    group.allReduce(both).wait();
    return [both.narrow(0, 0, channels), both.narrow(0, channels, channels)] as const;
  };
  if (count === 0) checked.batches?.add_(1);
  const statistics = count === 0 ? null : settle(input, whole, checked);
  if (x.numel() > 0) {
    const y = normaliseAndRecord(name, x, input, statistics!, checked, { fromBatch: true, count, share });
    if (input !== x) input.dispose();
    return y;
  }
  statistics?.mean.dispose();
  statistics?.invstd.dispose();
  const { weight, bias, residual } = checked, y = emptyTensor(x.shape, x.dtype, x.device), dtype = statisticsDType(x);
  return record(name, [x, weight, bias, residual], y, [], (grad, _, needs) => {
    const none = () => zeros([channels], { dtype, device: x.device });
    if (needs[0] && count > 0) share(none(), none());
    return [grad, none(), none(), grad];
  });
}
