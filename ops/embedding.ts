/**
 * Rows of a table looked up by number, one by one or added up in bags.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { ShapeError } from "../ffi/errors.ts";
import { withContext } from "../tensor/context.ts";
import { scope } from "../tensor/scope.ts";
import { sameShape, textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { div, eq, mul, ne, pow, rdiv, where } from "./binary.ts";
import { to } from "./copy.ts";
import { arange, full, onesLike, tensor, zeros } from "./creation.ts";
import { checkIndex, Plan, readRows, spreadRows } from "./index_plan.ts";
import { gather, maskedFill, scatterAdd, scatterReduce } from "./indexing.ts";
import { indexAdd, indexPut_ } from "./index_rows.ts";
import { checkFloat, checkTensor } from "./native.ts";
import { sum } from "./reduction.ts";
import { reshape, select, unsqueeze } from "./view.ts";

/** Options of {@linkcode embedding}. */
export interface EmbeddingOptions {
  /** Row whose gradient stays 0 (negative: from the end). Default: none. */
  paddingIdx?: number | null;
  /** Rows that are looked up and have a larger norm are scaled down to it, in `weight` itself. Default: none. */
  maxNorm?: number | null;
  /** Which norm `maxNorm` limits. Default `2`. */
  normType?: number;
  /** Divide each row's gradient by how often the row was looked up. Default `false`. */
  scaleGradByFreq?: boolean;
}

function checkTable(weight: Tensor, indices: Tensor, op: string, paddingIdx: number | null | undefined): number | null {
  checkTensor(weight, op, "the weight");
  checkFloat(weight, op);
  if (weight.rank !== 2) throw new ShapeError(`${op}: the weight must be [rows, columns], got ${textOf(weight.shape)}`);
  checkIndex(indices, op, weight);
  if (paddingIdx === null || paddingIdx === undefined) return null;
  const rows = weight.shape[0];
  if (!Number.isInteger(paddingIdx) || paddingIdx < -rows || paddingIdx >= rows) {
    throw new RangeError(`${op}: paddingIdx ${paddingIdx} is outside the ${rows} rows of the weight`);
  }
  return paddingIdx < 0 ? paddingIdx + rows : paddingIdx;
}

/**
 * Rows of a table: `y[..., :] = weight[indices[...], :]`.
 *
 * Shapes: `V` rows, `D` columns.
 *
 * Derivative: each row of the weight receives the sum of the gradients of its copies, in the order of the indices, on any number of threads.
 *
 * @param weight `[V, D]`, a float dtype.
 * @param indices Row numbers, int64 or int32, any shape.
 * @returns `[...indices, D]`.
 * @throws {RangeError} For a row number outside `0 .. V - 1`.
 *
 * @example
 * ```ts
 * import { embedding, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const weight = tensor([[1, 2], [3, 4]], { requiresGrad: true });
 * const y = embedding(weight, tensor([1, 1, 0], { dtype: "int64" }));
 * assertEquals(y.tolist(), [[3, 4], [3, 4], [1, 2]]);
 * y.sum().backward();
 * assertEquals(weight.grad!.tolist(), [[1, 1], [2, 2]]);
 * ```
 */
export function embedding(weight: Tensor, indices: Tensor, options?: EmbeddingOptions): Tensor {
  const padding = checkTable(weight, indices, "embedding", options?.paddingIdx);
  if (options?.maxNorm !== null && options?.maxNorm !== undefined) limitNorms(weight, indices, options.maxNorm, options.normType ?? 2);
  return lookup(weight, Plan.axis("embedding", 2, 0, indices), padding, options?.scaleGradByFreq ?? false);
}

/** {@linkcode readRows} with the derivative of an embedding: no gradient for the padding row, others divided by their frequency. */
function lookup(weight: Tensor, plan: Plan, padding: number | null, byFrequency: boolean): Tensor {
  if (padding === null && !byFrequency) return readRows(weight, plan);
  const shape = weight.shape;
  return record("embedding", [weight], readRows(weight.detach(), plan), plan.tensors, (grad, saved) => {
    const again = plan.with(saved), [indices] = saved;
    let weighted = grad;
    if (byFrequency) {
      const flat = reshape(indices, [-1]);
      const counts = scatterAdd(zeros([shape[0]], { dtype: "int64", device: grad.device }), 0, flat, onesLike(to(flat, "int64")));
      const mine = reshape(gather(counts, 0, flat), [...indices.shape, 1]);
      weighted = div(weighted, to(mine, grad.dtype));
    }
    if (padding !== null) weighted = maskedFill(weighted, unsqueeze(eq(indices, padding), -1), 0);
    return [spreadRows(weighted, again, shape)];
  });
}

function limitNorms(weight: Tensor, indices: Tensor, maxNorm: number, normType: number): void {
  if (!(maxNorm > 0)) throw new RangeError(`embedding: maxNorm must be positive, got ${maxNorm}`);
  if (!(normType > 0)) throw new RangeError(`embedding: normType must be positive, got ${normType}`);
  withContext({ grad: false }, () =>
    scope(() => {
      const at = reshape(indices, [-1]), rows = readRows(weight, Plan.axis("embedding", 2, 0, at));
      const norms = normType === 2
        ? sum(mul(rows, rows), 1, { keepdim: true }).sqrt()
        : pow(sum(pow(rows.abs(), normType), 1, { keepdim: true }), 1 / normType);
      const scale = where(norms.gt(maxNorm), rdiv(norms.add(1e-7), maxNorm), 1);
      indexPut_(weight, [at], mul(rows, scale));
    }));
}

/** Options of {@linkcode embeddingBag}. */
export interface EmbeddingBagOptions {
  /** Where each bag starts in `indices` of one axis, int64 or int32, ascending from 0. Not for two axes: there each row is a bag. */
  offsets?: Tensor | null;
  /** How the rows of a bag are joined. Default `"mean"`. */
  mode?: "sum" | "mean" | "max";
  /** Factors of the rows, the shape of `indices`; only for `"sum"`. */
  perSampleWeights?: Tensor | null;
  /** Row that takes no part. Default: none. */
  paddingIdx?: number | null;
  /** The last of `offsets` is the end of the last bag. Default `false`. */
  includeLastOffset?: boolean;
}

/**
 * Rows of a table, joined bag by bag: the sum, mean or maximum of `weight[indices]` over each bag. An empty bag gives 0.
 *
 * Derivative: for `"max"` all of it goes to the first row that has the maximum.
 *
 * @param weight `[V, D]`, a float dtype.
 * @param indices Row numbers: `[B, N]` for B bags of N, or `[N]` with `offsets`.
 * @returns `[B, D]`.
 * @throws {RangeError} For a row number or offset out of range, or offsets that do not start at 0 and ascend.
 */
export function embeddingBag(weight: Tensor, indices: Tensor, options?: EmbeddingBagOptions): Tensor {
  const op = "embeddingBag", mode = options?.mode ?? "mean";
  const padding = checkTable(weight, indices, op, options?.paddingIdx);
  if (mode !== "sum" && mode !== "mean" && mode !== "max") {
    throw new RangeError(`${op}: mode must be "sum", "mean" or "max", got ${JSON.stringify(mode)}`);
  }
  const factors = options?.perSampleWeights ?? null;
  if (factors !== null) {
    checkTensor(factors, op, "perSampleWeights", weight);
    if (mode !== "sum") throw new RangeError(`${op}: perSampleWeights need mode "sum", got "${mode}"`);
    if (!sameShape(factors.shape, indices.shape)) {
      throw new ShapeError(
        `${op}: perSampleWeights must have the shape of the indices ${textOf(indices.shape)}, got ${textOf(factors.shape)}`,
      );
    }
  }
  const { bags, count } = bagsOf(indices, options?.offsets ?? null, options?.includeLastOffset ?? false);
  let flat = reshape(indices, [-1]), bag = bags, scale = factors === null ? null : reshape(factors, [-1, 1]);
  if (padding !== null) {
    const kept = reshape(nonzeroFlat(ne(flat, padding)), [-1]);
    flat = gather(flat, 0, kept);
    bag = gather(bag, 0, kept);
    if (scale !== null) scale = readRows(scale, Plan.axis(op, 2, 0, kept));
  }
  const rows = readRows(weight, Plan.axis(op, 2, 0, flat)), columns = weight.shape[1];
  const none = zeros([count, columns], { dtype: weight.dtype, device: weight.device });
  if (mode !== "max") {
    const total = indexAdd(none, 0, bag, scale === null ? rows : mul(rows, scale));
    if (mode === "sum") return total;
    const sizes = scatterAdd(zeros([count], { dtype: weight.dtype, device: weight.device }), 0, bag, onesLike(to(bag, weight.dtype)));
    return div(total, unsqueeze(sizes.clamp(1), 1));
  }
  // The first row of each bag with the maximum, column by column.
  const spread = unsqueeze(bag, 1).expand(rows.shape), plain = rows.detach(), n = rows.shape[0];
  const best = scatterReduce(none, 0, spread, plain, "amax", { includeSelf: false });
  const place = unsqueeze(arange(0, n, 1, { dtype: "int64", device: weight.device }), 1).expand(rows.shape);
  const isBest = eq(plain, gather(best, 0, spread)).logicalOr(plain.isnan());
  const last = full([count, columns], n, { dtype: "int64", device: weight.device });
  const first = scatterReduce(last, 0, spread, where(isBest, place, n), "amin");
  const empty = first.ge(n);
  if (n === 0) return none;
  return maskedFill(gather(rows, 0, where(empty, 0, first)), empty, 0);
}

function nonzeroFlat(mask: Tensor): Tensor {
  return select(mask.nonzero(), 1, 0);
}

/** The bag of each index, and how many bags there are. */
function bagsOf(indices: Tensor, offsets: Tensor | null, includeLast: boolean): { bags: Tensor; count: number } {
  const op = "embeddingBag", device = indices.device;
  if (indices.rank === 2) {
    if (offsets !== null) throw new ShapeError(`${op}: offsets are for indices of one axis, got ${textOf(indices.shape)}`);
    const [count, length] = indices.shape;
    return { bags: reshape(unsqueeze(arange(0, count, 1, { dtype: "int64", device }), 1).expand([count, length]), [-1]), count };
  }
  if (indices.rank !== 1) throw new ShapeError(`${op}: indices must have 1 or 2 axes, got ${textOf(indices.shape)}`);
  if (offsets === null) throw new TypeError(`${op}: indices of one axis need offsets`);
  checkIndex(offsets, op, indices);
  if (offsets.rank !== 1) throw new ShapeError(`${op}: offsets must have one axis, got ${textOf(offsets.shape)}`);
  const starts = Array.from(offsets.data(), Number), n = indices.shape[0];
  if (includeLast && starts.length === 0) throw new RangeError(`${op}: includeLastOffset needs at least one offset`);
  if (starts.length > 0 && starts[0] !== 0) throw new RangeError(`${op}: the first offset must be 0, got ${starts[0]}`);
  const count = starts.length - (includeLast ? 1 : 0), bags = new BigInt64Array(n);
  starts.forEach((start, i) => {
    const end = starts[i + 1] ?? n;
    if (start > end || start > n) throw new RangeError(`${op}: offset ${start} at position ${i} comes after ${Math.min(end, n)}`);
    if (i < count) bags.fill(BigInt(i), start, end);
  });
  if (includeLast && starts[count] !== n) {
    throw new RangeError(`${op}: the last offset must be the number of indices ${n}, got ${starts[count]}`);
  }
  if (count === 0 && n > 0) throw new RangeError(`${op}: ${n} indices but no bag`);
  return { bags: tensor(bags, { dtype: "int64", device }), count };
}
