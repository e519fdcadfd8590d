/**
 * Tables of learnt vectors.
 *
 * @module
 */
import * as ops from "../ops/mod.ts";
import { ShapeError } from "../ffi/errors.ts";
import { textOf } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { normal_, zeros_ } from "./init.ts";
import { noGrad } from "../autograd/functional.ts";
import { checkSize, Module } from "./module.ts";
import { Parameter, type Placement } from "./parameter.ts";

/** Settings of {@linkcode Embedding}. */
export interface EmbeddingLayerOptions extends Placement {
  /** Row that starts as zeros and takes no gradient (negative: from the end). Default: none. */
  paddingIdx?: number | null;
  /** Rows that are looked up and have a larger norm are scaled down to it. Default: none. */
  maxNorm?: number | null;
  /** Which norm `maxNorm` limits. Default `2`. */
  normType?: number;
  /** Divide each row's gradient by how often the row was looked up. Default `false`. */
  scaleGradByFreq?: boolean;
}

/** What both tables have in common. */
export abstract class EmbeddingTable extends Module {
  /** Number of rows. */
  readonly numEmbeddings: number;
  /** Length of a row. */
  readonly embeddingDim: number;
  /** Row that starts as zeros and takes no gradient, or `null`. */
  readonly paddingIdx: number | null;
  /** `[numEmbeddings, embeddingDim]`. */
  weight: Parameter;

  /** Checks the settings and makes the table. */
  protected constructor(op: string, numEmbeddings: number, embeddingDim: number, options?: Placement & { paddingIdx?: number | null }) {
    super();
    checkSize(numEmbeddings, "numEmbeddings", op);
    checkSize(embeddingDim, "embeddingDim", op);
    const { paddingIdx = null, dtype, device } = options ?? {};
    if (paddingIdx !== null && !(Number.isInteger(paddingIdx) && paddingIdx >= -numEmbeddings && paddingIdx < numEmbeddings)) {
      throw new RangeError(`${op}: paddingIdx ${paddingIdx} is outside ${numEmbeddings} rows`);
    }
    this.numEmbeddings = numEmbeddings;
    this.embeddingDim = embeddingDim;
    this.paddingIdx = paddingIdx !== null && paddingIdx < 0 ? paddingIdx + numEmbeddings : paddingIdx;
    this.weight = Parameter.take(ops.empty([numEmbeddings, embeddingDim], { dtype, device }));
    this.resetParameters();
  }
  /** Draws new initial values: standard normal, zeros in the padding row. */
  resetParameters(): void {
    normal_(this.weight);
    const { paddingIdx } = this;
    if (paddingIdx === null) return;
    noGrad(() => {
      using row = ops.select(this.weight, 0, paddingIdx);
      zeros_(row);
    });
  }
  /** The settings. */
  override extraRepr(): string {
    return `${this.numEmbeddings}, ${this.embeddingDim}` + (this.paddingIdx === null ? "" : `, paddingIdx=${this.paddingIdx}`);
  }
}

function ownTable<T extends EmbeddingTable>(table: T, weight: Tensor, freeze: boolean): T {
  noGrad(() => table.weight.copy_(weight));
  table.weight.requiresGrad_(!freeze);
  return table;
}

function checkTable(weight: Tensor, op: string): void {
  if (weight.rank !== 2) throw new ShapeError(`${op}: the table must have 2 axes, got ${textOf(weight.shape)}`);
}

/**
 * Looks rows up in a learnt table.
 *
 * Parameters: `weight` `[numEmbeddings, embeddingDim]`, standard normal.
 *
 * Shapes: integers of any shape `[...]` to `[..., embeddingDim]`.
 *
 * @example
 * ```ts
 * import { nn, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using words = new nn.Embedding(10, 3, { paddingIdx: 0 });
 * const y = words.call(tensor([[1, 2], [0, 5]], { dtype: "int64" }));
 * assertEquals(y.shape, [2, 2, 3]);
 * assertEquals(y.select(0, 1).select(0, 0).tolist(), [0, 0, 0]);
 * ```
 */
export class Embedding extends EmbeddingTable {
  readonly #options: EmbeddingLayerOptions;

  /**
   * Makes the module.
   *
   * @param numEmbeddings Number of rows.
   * @param embeddingDim Length of a row.
   * @param options Padding row, limit of the norms, scaling of gradients.
   */
  constructor(numEmbeddings: number, embeddingDim: number, options?: EmbeddingLayerOptions) {
    super("Embedding", numEmbeddings, embeddingDim, options);
    const { maxNorm = null, normType = 2, scaleGradByFreq = false } = options ?? {};
    this.#options = { paddingIdx: this.paddingIdx, maxNorm, normType, scaleGradByFreq };
  }
  /**
   * A layer that starts with the rows of `weight`, copied.
   *
   * @param options.freeze Do not learn. Default `true`.
   */
  static fromPretrained(weight: Tensor, options?: EmbeddingLayerOptions & { freeze?: boolean }): Embedding {
    checkTable(weight, "Embedding.fromPretrained");
    const table = new Embedding(weight.shape[0], weight.shape[1], { dtype: weight.dtype, device: weight.device, ...options });
    return ownTable(table, weight, options?.freeze ?? true);
  }
  /** The rows of the given numbers. */
  override forward(indices: Tensor): Tensor {
    return ops.embedding(this.weight, indices, this.#options);
  }
}

/** Settings of {@linkcode EmbeddingBag}. */
export interface EmbeddingBagLayerOptions extends Placement {
  /** How the rows of a bag are joined. Default `"mean"`. */
  mode?: "sum" | "mean" | "max";
  /** Row that takes no part (negative: from the end). Default: none. */
  paddingIdx?: number | null;
  /** The last of the offsets is the end of the last bag. Default `false`. */
  includeLastOffset?: boolean;
}

/**
 * Looks rows up in a learnt table and joins them bag by bag.
 *
 * Parameters: `weight` `[numEmbeddings, embeddingDim]`, standard normal.
 *
 * Shapes: integers `[B, N]`, or `[N]` with offsets `[B]`, to `[B, embeddingDim]`.
 */
export class EmbeddingBag extends EmbeddingTable {
  /** How the rows of a bag are joined. */
  readonly mode: "sum" | "mean" | "max";
  /** The last of the offsets is the end of the last bag. */
  readonly includeLastOffset: boolean;

  /**
   * Makes the module.
   *
   * @param numEmbeddings Number of rows.
   * @param embeddingDim Length of a row.
   * @param options Mode, padding row, meaning of the offsets.
   */
  constructor(numEmbeddings: number, embeddingDim: number, options?: EmbeddingBagLayerOptions) {
    super("EmbeddingBag", numEmbeddings, embeddingDim, options);
    const { mode = "mean", includeLastOffset = false } = options ?? {};
    if (mode !== "sum" && mode !== "mean" && mode !== "max") {
      throw new RangeError(`EmbeddingBag: mode must be "sum", "mean" or "max", got ${JSON.stringify(mode)}`);
    }
    this.mode = mode;
    this.includeLastOffset = includeLastOffset;
  }
  /**
   * The joined rows of each bag.
   *
   * @param offsets Where each bag starts, for indices of one axis.
   * @param perSampleWeights Factors of the rows, only for mode `"sum"`.
   */
  override forward(indices: Tensor, offsets: Tensor | null = null, perSampleWeights: Tensor | null = null): Tensor {
    const { mode, paddingIdx, includeLastOffset } = this;
    return ops.embeddingBag(this.weight, indices, { mode, paddingIdx, includeLastOffset, offsets, perSampleWeights });
  }
  /** The settings. */
  override extraRepr(): string {
    return `${super.extraRepr()}, mode="${this.mode}"`;
  }
}
