/**
 * Normalisation over the axes of a sample: layer, group, instance, root mean square, local response, and to unit length.
 *
 * Forward and derivative of the first four are fused native passes over row-major memory; when backward itself is recorded (`createGraph`), the
 * same derivative is composed of differentiable operations. Batch normalisation is in `batch_norm.ts`.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { ShapeError } from "../ffi/errors.ts";
import { context } from "../tensor/context.ts";
import { scope } from "../tensor/scope.ts";
import { axisOf, numelOf, type Shape, textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { batchNorm, checkPerChannel, perChannel, statisticsDType } from "./batch_norm.ts";
import { clone, contiguous, copyInto } from "./copy.ts";
import { zeros } from "./creation.ts";
import { checkFloat, checkTensor, emptyTensor, native } from "./native.ts";
import { mean as meanOf, norm, sum } from "./reduction.ts";
import { cat, narrow, repeat, reshape } from "./view.ts";

/** Parameters of the affine map after a normalisation. */
export interface AffineOptions {
  /** Factors. Default: 1. */
  weight?: Tensor | null;
  /** Summands. Default: 0. */
  bias?: Tensor | null;
  /** Added to the variance. Default `1e-5`. */
  eps?: number;
}

/** How the rows of a fused normalisation lie in the input, for its native calls and for the composed form. */
interface Plan {
  readonly name: string;
  /** Rows share the native layer norm (values of a row have a parameter each) or group norm (channels have). */
  readonly kind: "layer" | "group";
  /** Values of a row, or groups. */
  readonly size: number;
  readonly rows: number;
  /** The mean is subtracted. */
  readonly centre: boolean;
  readonly eps: number;
  /** The input reshaped, its axes that a row consists of, and the parameters reshaped to broadcast with it. */
  readonly shape: Shape;
  readonly rowAxes: readonly number[];
  readonly parameterShape: Shape;
}

function normalised(x: Tensor, weight: Tensor | null, bias: Tensor | null, plan: Plan): Tensor {
  const { name, rows, size, centre, eps } = plan, dtype = statisticsDType(x);
  if (x.numel() === 0) {
    return record(name, [x, weight, bias], emptyTensor(x.shape, x.dtype, x.device), [], (grad) => [
      grad,
      weight && zeros(weight.shape, { dtype: weight.dtype, device: x.device }),
      bias && zeros(bias.shape, { dtype: bias.dtype, device: x.device }),
    ]);
  }
  const input = contiguousCopy(x), y = emptyTensor(x.shape, x.dtype, x.device);
  const mean = centre ? emptyTensor([rows], dtype, x.device) : null, invstd = emptyTensor([rows], dtype, x.device);
  const w = perChannel(weight, dtype), b = perChannel(bias, dtype);
  native(x.device, (lib, f) => {
    const call = plan.kind === "layer" ? lib.dg_layer_norm : lib.dg_group_norm;
    return call(f.pointer, f.put(y), f.put(mean), f.put(invstd), f.put(input), f.put(w), f.put(b), size, eps);
  });
  if (w !== weight) w!.dispose();
  if (b !== bias) b!.dispose();
  const saved = [x, invstd, ...(mean ? [mean] : []), ...(weight ? [weight] : [])];
  record(name, [x, weight, bias], y, saved, (grad, kept, needs) => {
    const means = mean ? kept[2] : null, factors = weight ? kept[mean ? 3 : 2] : null;
    if (context().grad) return composedGradients(grad, kept[0], factors, bias, plan);
    return fusedGradients(grad, kept[0], means, kept[1], factors, bias, plan, needs);
  });
  if (input !== x) input.dispose();
  mean?.dispose();
  invstd.dispose();
  return y;
}

function contiguousCopy(x: Tensor): Tensor {
  return x.isContiguous() ? x : copyInto(emptyTensor(x.shape, x.dtype, x.device), x);
}

function fusedGradients(
  grad: Tensor,
  x: Tensor,
  mean: Tensor | null,
  invstd: Tensor,
  weight: Tensor | null,
  bias: Tensor | null,
  plan: Plan,
  needs: readonly boolean[],
): (Tensor | null)[] {
  const dy = contiguousCopy(grad), input = contiguousCopy(x), w = perChannel(weight, invstd.dtype), { device } = x;
  const dx = needs[0] ? emptyTensor(x.shape, x.dtype, device) : null;
  const dweight = weight && needs[1] ? emptyTensor(weight.shape, invstd.dtype, device) : null;
  const dbias = bias && needs[2] ? emptyTensor(bias.shape, invstd.dtype, device) : null;
  native(device, (lib, f) => {
    const call = plan.kind === "layer" ? lib.dg_layer_norm_backward : lib.dg_group_norm_backward;
    return call(
      f.pointer,
      f.put(dx),
      f.put(dweight),
      f.put(dbias),
      f.put(dy),
      f.put(input),
      f.put(mean),
      f.put(invstd),
      f.put(w),
      plan.size,
    );
  });
  return [dx, dweight, dbias];
}

function standardised(x: Tensor, { shape, rowAxes, centre, eps }: Plan): { xhat: Tensor; invstd: Tensor } {
  const rows = reshape(x, shape);
  const centred = centre ? rows.sub(meanOf(rows, rowAxes, { keepdim: true })) : rows;
  const invstd = meanOf(centred.mul(centred), rowAxes, { keepdim: true }).add(eps).rsqrt();
  return { xhat: centred.mul(invstd), invstd };
}

function composedGradients(grad: Tensor, x: Tensor, weight: Tensor | null, bias: Tensor | null, plan: Plan): (Tensor | null)[] {
  const { xhat, invstd } = standardised(x, plan), dy = reshape(grad, plan.shape);
  const g = weight ? dy.mul(reshape(weight, plan.parameterShape).to(x.dtype)) : dy;
  const rowMean = (v: Tensor) => meanOf(v, plan.rowAxes, { keepdim: true });
  const inner = (plan.centre ? g.sub(rowMean(g)) : g).sub(xhat.mul(rowMean(g.mul(xhat))));
  const lead = plan.shape.length - plan.parameterShape.length;
  const shared = plan.shape.map((_, i) => i).filter((i) => i < lead || plan.parameterShape[i - lead] !== plan.shape[i]);
  const collect = (v: Tensor, like: Tensor) => reshape(shared.length > 0 ? sum(v, shared) : v, like.shape);
  return [
    reshape(inner.mul(invstd), x.shape),
    weight && collect(dy.mul(xhat), weight),
    bias && collect(dy, bias),
  ];
}

/** The composed form of a plan: oracle of the kernels. */
function composed(x: Tensor, weight: Tensor | null, bias: Tensor | null, plan: Plan): Tensor {
  return scope(() => {
    let y = standardised(x, plan).xhat;
    if (weight) y = y.mul(reshape(weight, plan.parameterShape));
    if (bias) y = y.add(reshape(bias, plan.parameterShape));
    return reshape(y, x.shape);
  });
}

function checkEps(eps: number, name: string): void {
  if (!(eps >= 0)) throw new RangeError(`${name}: eps must be >= 0, got ${eps}`);
}

/** Checks a parameter of the normalised shape. */
function checkParameter(v: unknown, x: Tensor, shape: Shape, name: string, what: string): Tensor | null {
  if (v === null || v === undefined) return null;
  checkTensor(v, name, what, x);
  checkFloat(v, name);
  if (v.rank !== shape.length || v.shape.some((size, i) => size !== shape[i])) {
    throw new ShapeError(`${name}: ${what} must have the normalised shape ${textOf(shape)}, got ${textOf(v.shape)}`);
  }
  return v;
}

function layerPlan(x: unknown, normalizedShape: Shape | number, name: string, centre: boolean, eps: number): Plan & { of: Shape } {
  checkTensor(x, name, "the input");
  checkFloat(x, name);
  checkEps(eps, name);
  const of = typeof normalizedShape === "number" ? [normalizedShape] : [...normalizedShape];
  const lead = x.rank - of.length;
  if (of.length === 0 || lead < 0 || of.some((size, i) => size !== x.shape[lead + i])) {
    throw new ShapeError(`${name}: the last axes of the input must be ${textOf(of)}, got an input of ${textOf(x.shape)}`);
  }
  const size = numelOf(of), rows = numelOf(x.shape.slice(0, lead));
  return { name, kind: "layer", size, rows, centre, eps, shape: [rows, size], rowAxes: [1], parameterShape: [size], of };
}

/**
 * Layer normalisation (Ba, Kiros and Hinton 2016) over the last axes.
 *
 * `y = (x - mean) / sqrt(var + eps) * weight + bias`, mean and biased variance over the last axes.
 *
 * @param x Any float dtype, any strides.
 * @param normalizedShape Sizes of the last axes, or the size of the last.
 * @param options.weight Shape `normalizedShape`. Default: 1.
 * @param options.bias Shape `normalizedShape`. Default: 0.
 * @param options.eps Default `1e-5`.
 * @returns Shape and dtype of `x`.
 * @throws {ShapeError} If the input does not end in these sizes.
 *
 * @example
 * ```ts
 * import { layerNorm, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(layerNorm(tensor([[1, 3], [-5, 5]]), 2, { eps: 0 }).tolist(), [[-1, 1], [-1, 1]]);
 * ```
 */
export function layerNorm(x: Tensor, normalizedShape: Shape | number, options?: AffineOptions): Tensor {
  const plan = layerPlan(x, normalizedShape, "layerNorm", true, options?.eps ?? 1e-5);
  const weight = checkParameter(options?.weight, x, plan.of, plan.name, "weight");
  return normalised(x, weight, checkParameter(options?.bias, x, plan.of, plan.name, "bias"), plan);
}

/** {@linkcode layerNorm} of differentiable operations only: the oracle of the fused kernels. */
export function composedLayerNorm(x: Tensor, normalizedShape: Shape | number, options?: AffineOptions): Tensor {
  return composed(
    x,
    options?.weight ?? null,
    options?.bias ?? null,
    layerPlan(x, normalizedShape, "layerNorm", true, options?.eps ?? 1e-5),
  );
}

const smallestStep: Readonly<Record<string, number>> = { float32: 2 ** -23, float64: 2 ** -52, float16: 2 ** -23, bfloat16: 2 ** -23 };

/**
 * Root mean square normalisation (Zhang and Sennrich 2019) over the last axes.
 *
 * `y = x / sqrt(mean(x^2) + eps) * weight`
 *
 * @param x Any float dtype, any strides.
 * @param normalizedShape Sizes of the last axes, or the size of the last.
 * @param options.weight Shape `normalizedShape`. Default: 1.
 * @param options.eps Default: the step from 1 to the next number of the dtype it is computed in.
 * @returns Shape and dtype of `x`.
 * @throws {ShapeError} If the input does not end in these sizes.
 *
 * @example
 * ```ts
 * import { rmsNorm, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(rmsNorm(tensor([2, -2]), 2, { eps: 0 }).tolist(), [1, -1]);
 * ```
 */
export function rmsNorm(x: Tensor, normalizedShape: Shape | number, options?: { weight?: Tensor | null; eps?: number }): Tensor {
  const plan = layerPlan(x, normalizedShape, "rmsNorm", false, options?.eps ?? smallestStep[x?.dtype] ?? 0);
  return normalised(x, checkParameter(options?.weight, x, plan.of, plan.name, "weight"), null, plan);
}

function groupPlan(x: unknown, groups: number, name: string, eps: number): Plan {
  checkTensor(x, name, "the input");
  checkFloat(x, name);
  checkEps(eps, name);
  if (x.rank < 2) throw new ShapeError(`${name}: takes an input [N, C, ...] of at least 2 axes, got ${textOf(x.shape)}`);
  const [samples, channels] = x.shape;
  if (!Number.isSafeInteger(groups) || groups < 1 || channels % groups !== 0) {
    throw new ShapeError(`${name}: the number of channels must be divisible by the groups, got ${channels} channels and ${groups} groups`);
  }
  const per = channels / groups, inner = numelOf(x.shape.slice(2));
  return {
    name,
    kind: "group",
    size: groups,
    rows: samples * groups,
    centre: true,
    eps,
    shape: [samples, groups, per, inner],
    rowAxes: [2, 3],
    parameterShape: [1, groups, per, 1],
  };
}

/**
 * Group normalisation (Wu and He 2018): each group of channels of each sample by itself.
 *
 * @param x Shape `[N, C, ...]`, any float dtype, any strides.
 * @param groups Divides `C`.
 * @param options.weight Shape `[C]`. Default: 1.
 * @param options.bias Shape `[C]`. Default: 0.
 * @param options.eps Default `1e-5`.
 * @returns Shape and dtype of `x`, row-major.
 * @throws {ShapeError} If the groups do not divide the channels.
 *
 * @example
 * ```ts
 * import { groupNorm, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(groupNorm(tensor([[1, 3, -5, 5]]), 2, { eps: 0 }).tolist(), [[-1, 1, -1, 1]]);
 * ```
 */
export function groupNorm(x: Tensor, groups: number, options?: AffineOptions): Tensor {
  const plan = groupPlan(x, groups, "groupNorm", options?.eps ?? 1e-5);
  const weight = checkPerChannel(options?.weight, x, x.shape[1], plan.name, "weight");
  return normalised(x, weight, checkPerChannel(options?.bias, x, x.shape[1], plan.name, "bias"), plan);
}

/** {@linkcode groupNorm} of differentiable operations only: the oracle of the fused kernels. */
export function composedGroupNorm(x: Tensor, groups: number, options?: AffineOptions): Tensor {
  return composed(x, options?.weight ?? null, options?.bias ?? null, groupPlan(x, groups, "groupNorm", options?.eps ?? 1e-5));
}

/** What {@linkcode instanceNorm} takes besides the input. */
export interface InstanceNormOptions extends AffineOptions {
  /** Shape `[C]`, changed in place when `useInputStats`. Default: none. */
  runningMean?: Tensor | null;
  /** Shape `[C]`, changed in place when `useInputStats`. Default: none. */
  runningVar?: Tensor | null;
  /** Normalise with the statistics of each sample, else with the running ones. Default `true`. */
  useInputStats?: boolean;
  /** Share of the batch in the new running statistics. Default `0.1`. */
  momentum?: number;
}

/**
 * Instance normalisation (Ulyanov, Vedaldi and Lempitsky 2016): each channel of each sample by itself.
 *
 * Running statistics that are given become `(1 - momentum) * running + momentum * mean over samples`, of means and of unbiased variances.
 *
 * @param x Shape `[N, C, ...]` with at least one axis of positions.
 * @returns Shape and dtype of `x`.
 * @throws {ShapeError} If there is only one position per channel, or a shape does not fit.
 */
export function instanceNorm(x: Tensor, options?: InstanceNormOptions): Tensor {
  const name = "instanceNorm", { useInputStats = true, momentum = 0.1, eps = 1e-5 } = options ?? {};
  const plan = groupPlan(x, Math.max(x?.shape?.[1] ?? 1, 1), name, eps);
  if (x.rank < 3) throw new ShapeError(`${name}: takes an input [N, C, ...] of at least 3 axes, got ${textOf(x.shape)}`);
  const [samples, channels] = x.shape;
  const weight = checkPerChannel(options?.weight, x, channels, name, "weight");
  const bias = checkPerChannel(options?.bias, x, channels, name, "bias");
  const runningMean = checkPerChannel(options?.runningMean, x, channels, name, "runningMean");
  const runningVar = checkPerChannel(options?.runningVar, x, channels, name, "runningVar");
  if ((runningMean === null) !== (runningVar === null)) throw new TypeError(`${name}: runningMean and runningVar must be given together`);
  if (!useInputStats) {
    if (runningMean === null) throw new TypeError(`${name}: without useInputStats, runningMean and runningVar must be given`);
    return batchNorm(x, runningMean, runningVar, { weight, bias, eps });
  }
  if (x.numel() > 0 && x.numel() === samples * channels) {
    throw new ShapeError(`${name}: expected more than 1 spatial element when training, got input size ${textOf(x.shape)}`);
  }
  if (runningMean === null || x.numel() === 0) return normalised(x, weight, bias, plan);
  return scope(() => {
    // The samples as channels of one: their statistics, each added to a copy of the running ones, then averaged.
    const spread = (v: Tensor) => repeat(v, [samples]);
    const means = clone(spread(runningMean.detach())), variances = clone(spread(runningVar!.detach()));
    const joined = reshape(contiguous(x), [1, samples * channels, ...x.shape.slice(2)]);
    const y = batchNorm(joined, means, variances, {
      weight: weight && spread(weight),
      bias: bias && spread(bias),
      training: true,
      momentum,
      eps,
    });
    for (const [running, parts] of [[runningMean, means], [runningVar!, variances]]) {
      copyInto(running, meanOf(reshape(parts, [samples, channels]), 0));
      running.storage.version++;
    }
    return reshape(y, x.shape);
  });
}

/**
 * Local response normalisation (Krizhevsky, Sutskever and Hinton 2012) over neighbouring channels.
 *
 * `y = x / (k + alpha * mean of x^2 over size channels)^beta`, channels outside counting as 0.
 *
 * @param x Shape `[N, C, ...]`.
 * @param size Channels in the window; it begins `floor(size / 2)` before.
 * @param options.alpha Default `1e-4`.
 * @param options.beta Default `0.75`.
 * @param options.k Default `1`.
 * @throws {RangeError} If `size` is not a whole number `>= 1`.
 */
export function localResponseNorm(x: Tensor, size: number, options?: { alpha?: number; beta?: number; k?: number }): Tensor {
  const name = "localResponseNorm", { alpha = 1e-4, beta = 0.75, k = 1 } = options ?? {};
  checkTensor(x, name, "the input");
  checkFloat(x, name);
  if (!Number.isSafeInteger(size) || size < 1) throw new RangeError(`${name}: size must be a whole number >= 1, got ${size}`);
  if (x.rank < 3) throw new ShapeError(`${name}: takes an input [N, C, ...] of at least 3 axes, got ${textOf(x.shape)}`);
  return scope(() => {
    const channels = x.shape[1], pad = (count: number) => zeros(x.shape.with(1, count), { dtype: x.dtype, device: x.device });
    const padded = cat([pad(Math.floor(size / 2)), x.mul(x), pad(Math.floor((size - 1) / 2))], 1);
    let window = narrow(padded, 1, 0, channels);
    for (let i = 1; i < size; i++) window = window.add(narrow(padded, 1, i, channels));
    return x.div(window.mul(alpha / size).add(k).pow(beta));
  });
}

/**
 * Vectors along an axis scaled to length 1: `y = x / max(norm_p(x), eps)`.
 *
 * @param options.p Exponent of the norm. Default `2`.
 * @param options.dim Default `1`.
 * @param options.eps Smallest divisor. Default `1e-12`.
 *
 * @example
 * ```ts
 * import { normalize, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(normalize(tensor([[3, 4]]), { p: 1 }).mul(7).tolist(), [[3, 4]]);
 * ```
 */
export function normalize(x: Tensor, options?: { p?: number; dim?: number; eps?: number }): Tensor {
  const { p = 2, dim = 1, eps = 1e-12 } = options ?? {};
  checkTensor(x, "normalize", "the input");
  checkFloat(x, "normalize");
  checkEps(eps, "normalize");
  const axis = axisOf(dim, x.rank, "normalize");
  return scope(() => x.div(norm(x, p, axis, { keepdim: true }).clamp(eps)));
}
