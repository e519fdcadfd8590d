/**
 * Multi-head attention.
 *
 * @module
 */
import { ShapeError } from "../ffi/errors.ts";
import * as ops from "../ops/mod.ts";
import { checkTensor } from "../ops/native.ts";
import { scope } from "../tensor/scope.ts";
import { sameShape, type Shape, textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { xavierNormal_, xavierUniform_, zeros_ } from "./init.ts";
import { Linear } from "./linear.ts";
import { checkSize, Module } from "./module.ts";
import { Parameter, type Placement } from "./parameter.ts";

/** Settings of {@linkcode MultiheadAttention}. */
export interface MultiheadAttentionOptions extends Placement {
  /** Probability that a weight is dropped while training. Default `0`. */
  dropout?: number;
  /** Learn biases of the four products. Default `true`. */
  bias?: boolean;
  /** Append a learnt key and value to those of each sample. Default `false`. */
  addBiasKV?: boolean;
  /** Append a key and value of zeros to those of each sample. Default `false`. */
  addZeroAttn?: boolean;
  /** Features of the keys. Default `embedDim`. */
  kdim?: number | null;
  /** Features of the values. Default `embedDim`. */
  vdim?: number | null;
  /** Inputs are `[N, L, E]` instead of `[L, N, E]`. Default `false`. */
  batchFirst?: boolean;
}

/** What {@linkcode MultiheadAttention} takes besides queries, keys and values. */
export interface MultiheadAttentionInputs {
  /** Keys to leave out (bool: `true` is left out), or what is added to their scores (float): `[N, S]`, or `[S]` without samples. Default: none. */
  keyPaddingMask?: Tensor | null;
  /** Pairs to leave out (bool: `true` is left out), or what is added to their scores (float): `[L, S]` or `[N * heads, L, S]`. Default: none. */
  attnMask?: Tensor | null;
  /** Return the weights, which keeps them for backward; without, no matrix of all scores is kept. Default `true`. */
  needWeights?: boolean;
  /** Return the average of the weights over the heads. Default `true`. */
  averageAttnWeights?: boolean;
  /** Says that `attnMask`, which must be given, is the causal one, so that it need not be read. Default `false`. */
  isCausal?: boolean;
}

/** What {@linkcode MultiheadAttention} returns. */
export interface MultiheadAttentionOutput {
  /** Shape of the query. */
  readonly output: Tensor;
  /** `[N, L, S]`, or `[N, heads, L, S]` if not averaged; without `N` if the query has none. `null` if not asked for. */
  readonly weights: Tensor | null;
}

/**
 * Attention in several sub-spaces at once (Vaswani et al. 2017): queries, keys and values are mapped by a learnt product each, attended to head by head
 * ({@linkcode scaledDotProductAttention} in `nn.functional`), and the heads mapped back.
 *
 * Parameters: `inProjWeight` `[3 * embedDim, embedDim]`, or `qProjWeight`, `kProjWeight`, `vProjWeight` where keys or values have other sizes, Xavier
 * uniform; `inProjBias` `[3 * embedDim]` and `outProj.bias` of zeros; `outProj.weight` as `Linear`'s; `biasK`, `biasV` `[1, 1, embedDim]` Xavier normal.
 *
 * Shapes: query `[L, N, embedDim]`, keys `[S, N, kdim]`, values `[S, N, vdim]` (`N` first if `batchFirst`), or all without `N`.
 *
 * For one tensor in all three roles the three products are one. Masks are those of PyTorch: `true` leaves out, unlike in `scaledDotProductAttention`. A query
 * that sees no key gives the bias of `outProj`, where PyTorch gives NaN if weights are asked for.
 *
 * @example
 * ```ts
 * import { nn, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using attention = new nn.MultiheadAttention(8, 2, { batchFirst: true });
 * const x = ones([3, 5, 8]), { output, weights } = attention.call(x, x, x);
 * assertEquals([output.shape, weights!.shape], [[3, 5, 8], [3, 5, 5]]);
 * ```
 */
export class MultiheadAttention extends Module {
  /** Features of queries and output. */
  readonly embedDim: number;
  /** Number of heads. */
  readonly numHeads: number;
  /** Probability that a weight is dropped while training. */
  readonly dropout: number;
  /** Features of the keys. */
  readonly kdim: number;
  /** Features of the values. */
  readonly vdim: number;
  /** Inputs are `[N, L, E]`. */
  readonly batchFirst: boolean;
  /** Append a key and value of zeros. */
  readonly addZeroAttn: boolean;
  /** The products of queries, keys and values, one below the other; `null` if their inputs differ in size. */
  inProjWeight: Parameter | null = null;
  /** The product of the queries `[embedDim, embedDim]`, if sizes differ. */
  qProjWeight: Parameter | null = null;
  /** The product of the keys `[embedDim, kdim]`, if sizes differ. */
  kProjWeight: Parameter | null = null;
  /** The product of the values `[embedDim, vdim]`, if sizes differ. */
  vProjWeight: Parameter | null = null;
  /** Biases of queries, keys and values, or `null`. */
  inProjBias: Parameter | null;
  /** A learnt key, or `null`. */
  biasK: Parameter | null;
  /** A learnt value, or `null`. */
  biasV: Parameter | null;
  /** From the heads to the output. */
  outProj: Linear;

  /**
   * Makes the module.
   *
   * @param embedDim Features of queries and output.
   * @param numHeads Number of heads; divides `embedDim`.
   * @throws {RangeError} If the heads do not divide the features, or a setting is out of range.
   */
  constructor(embedDim: number, numHeads: number, options?: MultiheadAttentionOptions) {
    super();
    const { dropout = 0, bias = true, addBiasKV = false, addZeroAttn = false, batchFirst = false, dtype, device } = options ?? {};
    const op = "MultiheadAttention", kdim = options?.kdim ?? embedDim, vdim = options?.vdim ?? embedDim, at = { dtype, device };
    checkSize(embedDim, "embedDim", op, 1);
    checkSize(numHeads, "numHeads", op, 1);
    checkSize(kdim, "kdim", op, 1);
    checkSize(vdim, "vdim", op, 1);
    if (embedDim % numHeads !== 0) throw new RangeError(`${op}: ${numHeads} heads do not divide ${embedDim} features`);
    if (!(dropout >= 0 && dropout <= 1)) throw new RangeError(`${op}: dropout must be in [0, 1], got ${dropout}`);
    this.embedDim = embedDim;
    this.numHeads = numHeads;
    this.dropout = dropout;
    this.kdim = kdim;
    this.vdim = vdim;
    this.batchFirst = batchFirst;
    this.addZeroAttn = addZeroAttn;
    const make = (...shape: number[]) => Parameter.take(ops.empty(shape, at));
    if (kdim === embedDim && vdim === embedDim) {
      this.inProjWeight = make(3 * embedDim, embedDim);
    } else {
      this.qProjWeight = make(embedDim, embedDim);
      this.kProjWeight = make(embedDim, kdim);
      this.vProjWeight = make(embedDim, vdim);
    }
    this.inProjBias = bias ? make(3 * embedDim) : null;
    this.biasK = addBiasKV ? make(1, 1, embedDim) : null;
    this.biasV = addBiasKV ? make(1, 1, embedDim) : null;
    this.outProj = new Linear(embedDim, embedDim, { bias, ...at });
    this.resetParameters();
  }
  /** Draws new initial values (those of `outProj.weight` stay, as in PyTorch). */
  resetParameters(): void {
    for (const weight of [this.inProjWeight, this.qProjWeight, this.kProjWeight, this.vProjWeight]) {
      if (weight !== null) xavierUniform_(weight);
    }
    if (this.inProjBias !== null) zeros_(this.inProjBias);
    if (this.outProj.bias !== null) zeros_(this.outProj.bias);
    for (const row of [this.biasK, this.biasV]) if (row !== null) xavierNormal_(row);
  }
  /** Attends. @throws {ShapeError} If sizes do not fit. */
  override forward(query: Tensor, key: Tensor, value: Tensor, inputs: MultiheadAttentionInputs = {}): MultiheadAttentionOutput {
    const { needWeights = true, averageAttnWeights = true } = inputs;
    this.#check(query, key, value, inputs);
    return scope(() => {
      const single = query.rank === 2, axis = this.batchFirst ? 0 : 1;
      const batched = (x: Tensor) => single ? ops.unsqueeze(x, axis) : x;
      const q = batched(query), k = key === query ? q : batched(key), v = value === query ? q : value === key ? k : batched(value);
      const samples = q.shape[axis], length = q.shape[1 - axis];
      const p = this.training ? this.dropout : 0, extra = (this.biasK === null ? 0 : 1) + (this.addZeroAttn ? 1 : 0);
      const keys = k.shape[1 - axis], padded = (inputs.keyPaddingMask ?? null) !== null;
      const hint = (inputs.isCausal ?? false) && extra === 0 && !padded && !needWeights; // the kernel knows what the mask says
      const attnMask = hint ? null : mergedMask(inputs, samples, this.numHeads, length, keys, extra, q);
      let merged: Tensor, weights: Tensor | null = null;
      const fused = q === k && k === v && this.inProjWeight !== null && extra === 0 && p === 0 && !needWeights && q.numel() > 0 &&
        !(attnMask?.requiresGrad ?? false);
      if (fused) {
        const packed = ops.linear(q, this.inProjWeight!, this.inProjBias);
        merged = ops.packedAttention(packed, this.numHeads, { batchFirst: this.batchFirst, attnMask, isCausal: hint });
      } else {
        const [qh, kh, vh] = this.#project(q, k, v, samples);
        const options = { attnMask, isCausal: hint, dropoutP: p };
        let heads: Tensor;
        if (needWeights) ({ output: heads, weights } = ops.composedAttention(qh, kh, vh, options));
        else heads = ops.scaledDotProductAttention(qh, kh, vh, options);
        merged = ops.reshape(ops.permute(heads, this.batchFirst ? [0, 2, 1, 3] : [2, 0, 1, 3]), q.shape);
      }
      const y = this.outProj.call(merged);
      if (weights !== null && averageAttnWeights) weights = weights.mean(1);
      if (weights !== null && single) weights = ops.squeeze(weights, 0);
      const output = single ? ops.squeeze(y, axis) : y;
      return { output, weights };
    });
  }

  /** Queries, keys and values by head: `[N, heads, L or S, embedDim / heads]`. */
  #project(q: Tensor, k: Tensor, v: Tensor, samples: number): [Tensor, Tensor, Tensor] {
    const { embedDim, numHeads, batchFirst } = this, position = batchFirst ? 1 : 0;
    const part = (x: Parameter | null, i: number) => x && ops.narrow(x, 0, i * embedDim, embedDim);
    const own = [this.qProjWeight, this.kProjWeight, this.vProjWeight];
    const map = (x: Tensor, i: number) => ops.linear(x, part(this.inProjWeight, i) ?? own[i]!, part(this.inProjBias, i));
    const byHeads = (x: Tensor) => {
      const split = ops.reshape(x, [x.shape[0], x.shape[1], numHeads, embedDim / numHeads]);
      return ops.permute(split, batchFirst ? [0, 2, 1, 3] : [1, 2, 0, 3]);
    };
    const one = batchFirst ? [samples, 1, embedDim] : [1, samples, embedDim];
    const longer = (x: Tensor, row: Parameter | null) => {
      const parts = [x];
      if (row !== null) parts.push(ops.expand(row, one));
      if (this.addZeroAttn) parts.push(ops.zeros(one, { dtype: x.dtype, device: x.device }));
      return parts.length > 1 ? ops.cat(parts, position) : x;
    };
    return [byHeads(map(q, 0)), byHeads(longer(map(k, 1), this.biasK)), byHeads(longer(map(v, 2), this.biasV))];
  }

  #check(query: Tensor, key: Tensor, value: Tensor, inputs: MultiheadAttentionInputs): void {
    const op = "MultiheadAttention";
    checkTensor(query, op, "the query");
    checkTensor(key, op, "the key", query);
    checkTensor(value, op, "the value", query);
    const given = `query ${textOf(query.shape)}, key ${textOf(key.shape)}, value ${textOf(value.shape)}`;
    const rank = query.rank, sample = this.batchFirst ? 0 : 1, position = rank === 2 ? 0 : 1 - sample;
    if ((rank !== 2 && rank !== 3) || key.rank !== rank || value.rank !== rank) {
      throw new ShapeError(`${op}: query, key and value must all have 3 axes, or 2 without samples, got ${given}`);
    }
    if (query.shape[rank - 1] !== this.embedDim || key.shape[rank - 1] !== this.kdim || value.shape[rank - 1] !== this.vdim) {
      throw new ShapeError(`${op}: the last axes must be ${this.embedDim}, ${this.kdim} and ${this.vdim}, got ${given}`);
    }
    if (key.shape[position] !== value.shape[position]) throw new ShapeError(`${op}: key and value must have one length, got ${given}`);
    if (rank === 3 && (key.shape[sample] !== query.shape[sample] || value.shape[sample] !== query.shape[sample])) {
      throw new ShapeError(`${op}: query, key and value must have one number of samples, got ${given}`);
    }
    if ((inputs.isCausal ?? false) && (inputs.attnMask ?? null) === null) {
      throw new TypeError(`${op}: isCausal only says what attnMask is: give the mask, too`);
    }
    const samples = rank === 3 ? query.shape[sample] : 1, length = query.shape[position], keys = key.shape[position];
    const padding = rank === 3 ? [[samples, keys]] : [[keys], [1, keys]];
    checkMask(inputs.keyPaddingMask, query, padding, "keyPaddingMask");
    checkMask(inputs.attnMask, query, [[length, keys], [samples * this.numHeads, length, keys]], "attnMask");
  }
  /** The settings. */
  override extraRepr(): string {
    const { embedDim, numHeads, dropout, batchFirst } = this;
    return `embedDim=${embedDim}, numHeads=${numHeads}, dropout=${dropout}, batchFirst=${batchFirst}`;
  }
}

function checkMask(mask: Tensor | null | undefined, like: Tensor, shapes: readonly Shape[], what: string): void {
  if (mask === null || mask === undefined) return;
  checkTensor(mask, "MultiheadAttention", what, like);
  if (mask.dtype !== "bool" && !mask.isFloat) {
    throw new TypeError(`MultiheadAttention: ${what} must be bool or floating point, got ${mask.dtype}`);
  }
  if (!shapes.some((shape) => sameShape(shape, mask.shape))) {
    throw new ShapeError(`MultiheadAttention: ${what} must be ${shapes.map(textOf).join(" or ")}, got ${textOf(mask.shape)}`);
  }
}

/** Both masks as one for `scaledDotProductAttention`, with `extra` keys behind that every query sees. */
function mergedMask(
  { keyPaddingMask, attnMask }: MultiheadAttentionInputs,
  samples: number,
  heads: number,
  length: number,
  keys: number,
  extra: number,
  like: Tensor,
): Tensor | null {
  const masks: Tensor[] = [];
  if (keyPaddingMask) masks.push(ops.reshape(keyPaddingMask, [samples, 1, 1, keys]));
  if (attnMask) masks.push(attnMask.rank === 2 ? attnMask : ops.reshape(attnMask, [samples, heads, length, keys]));
  if (masks.length === 0) return null;
  let all: Tensor;
  if (masks.every((mask) => mask.dtype === "bool")) {
    all = (masks.length === 1 ? masks[0] : ops.logicalOr(masks[0], masks[1])).logicalNot();
  } else {
    const added = (x: Tensor) =>
      x.dtype === "bool" ? ops.zeros(x.shape, { dtype: like.dtype, device: like.device }).maskedFill(x, -Infinity) : x.to(like.dtype);
    all = masks.map(added).reduce((a, b) => a.add(b));
  }
  if (extra === 0) return all;
  const shape = all.shape.with(-1, extra), at = { dtype: all.dtype, device: all.device };
  return ops.cat([all, all.dtype === "bool" ? ops.ones(shape, at) : ops.zeros(shape, at)], -1);
}
