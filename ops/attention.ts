/**
 * Scaled dot-product attention.
 *
 * Forward and derivative are one blocked native call each, which keeps no matrix of all scores; the same map composed of differentiable operations is
 * the oracle of the kernels, and what runs where there is none: dropout, masks that learn, tensors without elements, and backward that is recorded.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { DTypeError, ShapeError } from "../ffi/errors.ts";
import type { Operand } from "../ffi/frame.ts";
import { context } from "../tensor/context.ts";
import { scope } from "../tensor/scope.ts";
import { broadcastShapes, expandedStrides, sameShape, type Shape, textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { eq, where } from "./binary.ts";
import { ones } from "./creation.ts";
import { tril } from "./arrange.ts";
import { matmul } from "./matmul.ts";
import { checkFloat, checkTensor, emptyTensor, native } from "./native.ts";
import { dropout } from "./dropout.ts";
import { amax, sum } from "./reduction.ts";
import { softmax } from "./softmax.ts";
import { expand, permute, reshape, select, stack, transpose, unsqueeze } from "./view.ts";

/** What {@linkcode scaledDotProductAttention} takes besides queries, keys and values. */
export interface AttentionOptions {
  /** Which keys a query sees (bool: `true` takes part), or what is added to the scores (float); expands to `[..., L, S]`. Default: none. */
  attnMask?: Tensor | null;
  /** Probability that a weight is dropped, the others being scaled by `1 / (1 - p)`. Default `0`. */
  dropoutP?: number;
  /** Query `i` sees the keys up to `i` (also where `L` and `S` differ). Not together with a mask. Default `false`. */
  isCausal?: boolean;
  /** Factor of the scores. Default `1 / sqrt(E)`. */
  scale?: number | null;
  /** Let several neighbouring heads of queries use one head of keys and values (Ainslie et al. 2023). Default `false`. */
  enableGqa?: boolean;
}

/** Checked sizes: the leading axes of the output, of which the last has the heads if there are `groups` of them. */
interface Plan {
  readonly lead: Shape;
  /** Heads of queries that use one head of keys; 1 without `enableGqa`. */
  readonly share: number;
  readonly scale: number;
  readonly causal: boolean;
  readonly dropout: number;
}

const name = "scaledDotProductAttention";

function checked(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Plan {
  checkTensor(q, name, "the query");
  checkTensor(k, name, "the key", q);
  checkTensor(v, name, "the value", q);
  checkFloat(q, name);
  if (k.dtype !== q.dtype || v.dtype !== q.dtype) {
    throw new DTypeError(`${name}: query, key and value must have one dtype, got ${q.dtype}, ${k.dtype} and ${v.dtype}`);
  }
  const { attnMask: mask = null, dropoutP = 0, isCausal = false, enableGqa = false } = options;
  const shapes = `query ${textOf(q.shape)}, key ${textOf(k.shape)}, value ${textOf(v.shape)}`;
  for (const x of [q, k, v]) {
    if (x.rank < 2) throw new ShapeError(`${name}: each of query, key and value must have at least 2 axes, got ${shapes}`);
  }
  if (k.shape[k.rank - 1] !== q.shape[q.rank - 1]) {
    throw new ShapeError(`${name}: the last axes of query and key must be equal, got ${shapes}`);
  }
  if (k.shape[k.rank - 2] !== v.shape[v.rank - 2]) throw new ShapeError(`${name}: key and value must have one length, got ${shapes}`);
  let own = k.shape.slice(0, -2), values = v.shape.slice(0, -2), share = 1;
  if (enableGqa) {
    const heads = q.shape[q.rank - 3], groups = own[own.length - 1];
    if (
      q.rank < 3 || groups === undefined || groups !== values[values.length - 1] ||
      (heads !== groups && !(groups > 0 && heads % groups === 0))
    ) {
      throw new ShapeError(`${name}: with enableGqa the heads of key and value must be equal and divide those of the query, got ${shapes}`);
    }
    share = groups === 0 ? 1 : heads / groups;
    own = own.with(-1, heads), values = values.with(-1, heads);
  }
  const lead = broadcastShapes(broadcastShapes(q.shape.slice(0, -2), own, name), values, name);
  if (!(dropoutP >= 0 && dropoutP <= 1)) throw new RangeError(`${name}: dropoutP must be in [0, 1], got ${dropoutP}`);
  if (mask !== null) {
    checkTensor(mask, name, "the mask", q);
    if (isCausal) throw new TypeError(`${name}: attnMask and isCausal cannot both be given`);
    if (mask.dtype !== "bool" && mask.dtype !== "float32" && mask.dtype !== q.dtype) {
      throw new DTypeError(`${name}: the mask must be bool, float32 or ${q.dtype} as the query, got ${mask.dtype}`);
    }
    const full = [...lead, q.shape[q.rank - 2], k.shape[k.rank - 2]];
    if (!sameShape(broadcastShapes(mask.shape, full, name), full)) {
      throw new ShapeError(`${name}: the mask ${textOf(mask.shape)} does not expand to ${textOf(full)}`);
    }
  }
  const scale = options.scale ?? 1 / Math.sqrt(q.shape[q.rank - 1]);
  if (typeof scale !== "number") throw new TypeError(`${name}: scale must be a number, got ${typeof scale}`);
  return { lead, share, scale, causal: isCausal, dropout: dropoutP };
}

/** The header of `x` expanded to the leading axes `lead` (at least one), of which the last has `heads`. */
function header(x: Tensor | null, lead: Shape, heads: number, last: number): Operand | null {
  if (x === null) return null;
  const shape = [...(lead.length === 0 ? [1] : lead.with(-1, heads)), ...x.shape.slice(-last)];
  const strides = expandedStrides(x.shape, x.strides, shape);
  return { storage: x.storage, shape, strides, offset: x.offset, dtypeCode: x.dtypeCode, disposed: x.disposed };
}

/** The header of a mask, of which only the last two axes may have to be expanded besides. */
function maskHeader(mask: Tensor | null, q: Operand, keys: number): Operand | null {
  if (mask === null) return null;
  const shape = [...q.shape.slice(0, -1), keys];
  const strides = expandedStrides(mask.shape, mask.strides, shape);
  return { storage: mask.storage, shape, strides, offset: mask.offset, dtypeCode: mask.dtypeCode, disposed: mask.disposed };
}

/** A tensor of `shape` whose axes but the last lie in memory as those of `like` (broadcast axes as in row-major order). */
function emptyInOrderOf(like: Tensor, shape: Shape): Tensor {
  const extra = shape.length - like.rank;
  const reach = (i: number) => i < extra ? Infinity : like.strides[i - extra] === 0 ? Infinity : like.strides[i - extra];
  const axes = shape.slice(0, -1).map((_, i) => i).sort((a, b) => reach(a) === reach(b) ? a - b : reach(b) - reach(a));
  const strides = shape.map(() => 1);
  let step = shape[shape.length - 1];
  for (const axis of axes.reverse()) {
    strides[axis] = step;
    step *= shape[axis];
  }
  return emptyTensor(shape, like.dtype, like.device, strides);
}

const headsOf = (plan: Plan) => plan.lead.length === 0 ? 1 : plan.lead[plan.lead.length - 1];

/** Headers of what both calls read or write. */
function headers([q, k, v, out, logSum]: readonly Tensor[], mask: Tensor | null, plan: Plan) {
  const { lead, share } = plan, heads = headsOf(plan);
  const ofQueries = (x: Tensor | null) => header(x, lead, heads, 2), ofKeys = (x: Tensor | null) => header(x, lead, heads / share, 2);
  const queries = ofQueries(q)!;
  return {
    ofQueries,
    ofKeys,
    q: queries,
    k: ofKeys(k),
    v: ofKeys(v),
    out: ofQueries(out),
    logSum: header(logSum, lead, heads, 1),
    mask: maskHeader(mask, queries, k.shape[k.rank - 2]),
  };
}

/** Writes `out` and returns the logarithms of the sums of the exponentials of each row, `[..., L]`. */
function forwardCall(out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | null, plan: Plan): Tensor {
  const logSum = emptyTensor([...plan.lead, q.shape[q.rank - 2]], q.dtype === "float64" ? "float64" : "float32", q.device);
  const of = headers([q, k, v, out, logSum], mask, plan), causal = plan.causal ? 1 : 0;
  native(q.device, (lib, f) => {
    const results = [f.put(of.out), f.put(of.logSum)] as const, operands = [f.put(of.q), f.put(of.k), f.put(of.v), f.put(of.mask)] as const;
    return lib.dg_attention(f.pointer, ...results, ...operands, causal, plan.scale);
  });
  return logSum;
}

/** Gradients into `into`, of the expanded shapes; `null` where none is wanted. */
function backwardCall(grad: Tensor, saved: readonly Tensor[], mask: Tensor | null, plan: Plan, into: readonly (Tensor | null)[]): void {
  const of = headers(saved, mask, plan), causal = plan.causal ? 1 : 0;
  native(grad.device, (lib, f) => {
    const results = [f.put(of.ofQueries(into[0])), f.put(of.ofKeys(into[1])), f.put(of.ofKeys(into[2]))] as const;
    const forward = [f.put(of.ofQueries(grad)), f.put(of.out), f.put(of.logSum)] as const;
    const operands = [f.put(of.q), f.put(of.k), f.put(of.v), f.put(of.mask)] as const;
    return lib.dg_attention_backward(f.pointer, ...results, ...forward, ...operands, causal, plan.scale);
  });
}

/** Keys or values with every head repeated for the heads of queries that use it. */
function repeated(x: Tensor, share: number): Tensor {
  if (share === 1) return x;
  const axis = x.rank - 3, shape = [...x.shape.slice(0, axis + 1), share, ...x.shape.slice(axis + 1)];
  return reshape(expand(unsqueeze(x, axis + 1), shape), x.shape.with(axis, x.shape[axis] * share));
}

/** The sum over the heads of queries that use a head of keys or values. */
function gathered(x: Tensor, share: number): Tensor {
  if (share === 1) return x;
  const axis = x.rank - 3, groups = x.shape[axis] / share;
  return sum(reshape(x, [...x.shape.slice(0, axis), groups, share, ...x.shape.slice(axis + 1)]), axis + 1);
}

/** Weights `[..., L, S]` before dropout; 0 in rows that see no key. */
function composedWeights(q: Tensor, k: Tensor, mask: Tensor | null, plan: Plan): Tensor {
  let scores = matmul(q.mul(plan.scale), transpose(repeated(k, plan.share), -1, -2));
  if (plan.causal) {
    const seen = tril(ones(scores.shape.slice(-2), { dtype: "bool", device: q.device }));
    scores = where(seen, scores, -Infinity);
  }
  if (mask !== null) scores = mask.dtype === "bool" ? where(mask, scores, -Infinity) : scores.add(mask.to(q.dtype));
  if (scores.numel() === 0) return scores;
  const blind = eq(amax(scores.detach(), -1, { keepdim: true }), -Infinity);
  return where(blind, 0, softmax(where(blind, 0, scores), -1));
}

/** {@linkcode scaledDotProductAttention} of differentiable operations only, with its weights after dropout. */
export function composedAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions = {},
): { output: Tensor; weights: Tensor } {
  const plan = checked(q, k, v, options);
  return scope(() => {
    const weights = composedWeights(q, k, options.attnMask ?? null, plan);
    const kept = plan.dropout > 0 ? dropout(weights, plan.dropout) : weights;
    return { output: matmul(kept, repeated(v, plan.share)), weights: kept };
  });
}

function composedGradients(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | null, plan: Plan): Tensor[] {
  const p = composedWeights(q, k, mask, plan), dp = matmul(grad, transpose(repeated(v, plan.share), -1, -2));
  const ds = p.mul(dp.sub(sum(p.mul(dp), -1, { keepdim: true }))).mul(plan.scale);
  return [
    matmul(ds, repeated(k, plan.share)),
    gathered(matmul(transpose(ds, -1, -2), q), plan.share),
    gathered(matmul(transpose(p, -1, -2), grad), plan.share),
  ];
}

/**
 * Scaled dot-product attention (Vaswani et al. 2017), as PyTorch's: each query gets the average of the values, weighted by how well it fits their keys.
 *
 * `y = softmax(scale * q @ k^T + mask) @ v`
 *
 * Shapes: `L` queries, `S` keys and values, `E` and `Ev` their sizes; leading axes broadcast.
 *
 * Memory grows with `L + S`, not with `L * S`: scores are made in blocks, and again in backward. With dropout or a mask that wants a gradient they are
 * kept. Half types are computed and summed in float32. A query that sees no key gives 0 and passes no gradient on.
 *
 * @param query Shape `[..., L, E]`, any float dtype, any strides.
 * @param key Shape `[..., S, E]`, the dtype of the query.
 * @param value Shape `[..., S, Ev]`, the dtype of the query.
 * @param options Mask, dropout, causality, scale and shared heads.
 * @returns Shape `[..., L, Ev]`; its axes lie in memory as those of the query.
 * @throws {ShapeError} If sizes do not fit.
 * @throws {DTypeError} If dtypes differ, or the mask is neither bool, float32 nor of the query's dtype.
 * @throws {TypeError} If a mask is given together with `isCausal`.
 * @throws {RangeError} If `dropoutP` is outside `[0, 1]`.
 *
 * Source: Dao, Fu, Ermon, Rudra and Ré 2022, "FlashAttention".
 *
 * @example
 * ```ts
 * import { nn, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const q = tensor([[0, 0], [100, 0]]), k = tensor([[0, 5], [5, 0]]), v = tensor([[2], [4]]);
 * assertEquals(nn.functional.scaledDotProductAttention(q, k, v).tolist(), [[3], [4]]);
 * assertEquals(nn.functional.scaledDotProductAttention(q, k, v, { isCausal: true }).tolist(), [[2], [4]]);
 * ```
 */
export function scaledDotProductAttention(query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions = {}): Tensor {
  const plan = checked(query, key, value, options), mask = options.attnMask ?? null;
  const empty = query.numel() === 0 || key.numel() === 0 || value.numel() === 0 || plan.lead.includes(0);
  if (plan.dropout > 0 || empty || (mask !== null && mask.requiresGrad && context().grad)) {
    return scope(() => composedAttention(query, key, value, options).output);
  }
  const out = emptyInOrderOf(query, [...plan.lead, query.shape[query.rank - 2], value.shape[value.rank - 1]]);
  const logSum = forwardCall(out, query, key, value, mask, plan);
  record(name, [query, key, value], out, [query, key, value, out, logSum, ...(mask === null ? [] : [mask])], (grad, saved, needs) => {
    const [q, k, v] = saved, held = mask === null ? null : saved[5];
    if (context().grad) return composedGradients(grad, q, k, v, held, plan);
    const own = plan.lead.length === 0 ? [] : plan.lead.with(-1, headsOf(plan) / plan.share);
    const into = [q, k, v].map((x, i) => needs[i] ? emptyInOrderOf(x, [...(i === 0 ? plan.lead : own), ...x.shape.slice(-2)]) : null);
    backwardCall(grad, saved, held, plan, into);
    return into;
  });
  logSum.dispose();
  return out;
}

/**
 * Attention of queries, keys and values that one product made: what `nn.MultiheadAttention` runs on for one input.
 *
 * @param packed Shape `[A, B, 3 * heads * E]`: queries, keys and values of all heads, one behind the other.
 * @param heads Number of heads.
 * @param options.batchFirst `A` counts samples and `B` positions; else the other way round.
 * @param options.attnMask As {@linkcode scaledDotProductAttention}'s, expanding to `[samples, heads, L, L]`; takes no gradient.
 * @returns Shape `[A, B, heads * E]`.
 */
export function packedAttention(
  packed: Tensor,
  heads: number,
  options: { batchFirst: boolean; attnMask?: Tensor | null; isCausal?: boolean },
): Tensor {
  const { batchFirst, attnMask: mask = null, isCausal = false } = options;
  const [a, b, all] = packed.shape, size = all / 3 / heads, shape = [a, b, heads * size];
  // [samples, heads, positions, E] of [A, B, heads, E], and back.
  const byHeads = (x: Tensor) => permute(x, batchFirst ? [0, 2, 1, 3] : [1, 2, 0, 3]);
  const joined = (x: Tensor) => permute(x, batchFirst ? [0, 2, 1, 3] : [2, 0, 1, 3]);
  const parts = (x: Tensor) => [0, 1, 2].map((i) => byHeads(select(reshape(x, [a, b, 3, heads, size]), 2, i)));
  const whole = (x: Tensor) => byHeads(reshape(x, [a, b, heads, size]));
  return scope(() => {
    const [q, k, v] = parts(packed.detach()), plan = checked(q, k, v, { attnMask: mask, isCausal });
    const y = emptyTensor(shape, packed.dtype, packed.device), logSum = forwardCall(whole(y), q, k, v, mask, plan);
    return record("packedAttention", [packed], y, [packed, y, logSum, ...(mask === null ? [] : [mask])], (grad, saved) => {
      const held = mask === null ? null : saved[3], [q, k, v] = parts(saved[0]);
      if (context().grad) {
        const gradients = composedGradients(whole(grad), q, k, v, held, plan);
        return [reshape(stack(gradients.map(joined), 2), packed.shape)];
      }
      const dx = emptyTensor(packed.shape, packed.dtype, packed.device);
      backwardCall(whole(grad), [q, k, v, whole(saved[1]), saved[2]], held, plan, parts(dx));
      return [dx];
    });
  });
}
