/**
 * Encoders of attention and feed-forward blocks.
 *
 * @module
 */
import * as ops from "../ops/mod.ts";
import { scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { MultiheadAttention } from "./attention.ts";
import { ModuleList } from "./container.ts";
import { Dropout } from "./dropout.ts";
import { Linear } from "./linear.ts";
import { checkSize, Module } from "./module.ts";
import { LayerNorm } from "./normalization.ts";
import type { Placement } from "./parameter.ts";

/** The function between the two products of a feed-forward block. */
export type TransformerActivation = "relu" | "gelu" | ((x: Tensor) => Tensor);

/** Settings of {@linkcode TransformerEncoderLayer}. */
export interface TransformerEncoderLayerOptions extends Placement {
  /** Features between the two products. Default `2048`. */
  dimFeedforward?: number;
  /** Probability that a value is dropped while training. Default `0.1`. */
  dropout?: number;
  /** Default `"relu"`. */
  activation?: TransformerActivation;
  /** Added to the variances. Default `1e-5`. */
  layerNormEps?: number;
  /** Inputs are `[N, L, E]` instead of `[L, N, E]`. Default `false`. */
  batchFirst?: boolean;
  /** Normalise before the blocks and not behind the sums (Xiong et al. 2020). Default `false`. */
  normFirst?: boolean;
  /** Learn biases of products and norms. Default `true`. */
  bias?: boolean;
}

/** What encoders take besides the input. */
export interface TransformerEncoderInputs {
  /** As `attnMask` of {@linkcode MultiheadAttention}. Default: none. */
  mask?: Tensor | null;
  /** As `keyPaddingMask` of {@linkcode MultiheadAttention}. Default: none. */
  srcKeyPaddingMask?: Tensor | null;
  /** The mask is the causal one. Default `false`. */
  isCausal?: boolean;
}

const activations: Readonly<Record<string, (x: Tensor) => Tensor>> = { relu: ops.relu, gelu: (x) => ops.gelu(x) };

/**
 * Self-attention and a feed-forward block, each added to its input and normalised (Vaswani et al. 2017).
 *
 * `x = norm1(x + dropout1(selfAttn(x)))`, `x = norm2(x + dropout2(linear2(dropout(activation(linear1(x))))))`; with `normFirst`
 * `x = x + dropout1(selfAttn(norm1(x)))` and so on.
 *
 * Parameters: those of `selfAttn`, `linear1` `[dimFeedforward, dModel]`, `linear2`, `norm1` and `norm2`, each initialised as its class says.
 *
 * Shapes: `[L, N, dModel]`, `[N, L, dModel]` if `batchFirst`, or `[L, dModel]`; the output has the shape of the input.
 *
 * @example
 * ```ts
 * import { nn, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using layer = new nn.TransformerEncoderLayer(8, 2, { dimFeedforward: 16, batchFirst: true });
 * assertEquals(layer.call(ones([3, 5, 8])).shape, [3, 5, 8]);
 * ```
 */
export class TransformerEncoderLayer extends Module {
  readonly #settings: readonly [number, number, TransformerEncoderLayerOptions | undefined];
  readonly #activation: (x: Tensor) => Tensor;
  /** Normalise before the blocks. */
  readonly normFirst: boolean;
  /** Attention of the sequence to itself. */
  selfAttn: MultiheadAttention;
  /** Into the feed-forward block. */
  linear1: Linear;
  /** Inside the feed-forward block. */
  dropout: Dropout;
  /** Out of the feed-forward block. */
  linear2: Linear;
  /** Around attention. */
  norm1: LayerNorm;
  /** Around the feed-forward block. */
  norm2: LayerNorm;
  /** Behind attention. */
  dropout1: Dropout;
  /** Behind the feed-forward block. */
  dropout2: Dropout;

  /**
   * Makes the module.
   *
   * @param dModel Features of input and output.
   * @param nhead Number of heads; divides `dModel`.
   * @throws {RangeError} If a setting is out of range.
   */
  constructor(dModel: number, nhead: number, options?: TransformerEncoderLayerOptions) {
    super();
    const { dimFeedforward = 2048, dropout = 0.1, activation = "relu", layerNormEps: eps = 1e-5, batchFirst = false, normFirst = false } =
      options ?? {};
    const { bias = true, dtype, device } = options ?? {}, at = { dtype, device };
    const chosen = typeof activation === "function" ? activation : activations[activation];
    if (chosen === undefined) {
      throw new RangeError(`TransformerEncoderLayer: activation must be "relu", "gelu" or a function, got ${JSON.stringify(activation)}`);
    }
    this.#settings = [dModel, nhead, options];
    this.#activation = chosen;
    this.normFirst = normFirst;
    this.selfAttn = new MultiheadAttention(dModel, nhead, { dropout, bias, batchFirst, ...at });
    this.linear1 = new Linear(dModel, dimFeedforward, { bias, ...at });
    this.dropout = new Dropout(dropout);
    this.linear2 = new Linear(dimFeedforward, dModel, { bias, ...at });
    this.norm1 = new LayerNorm(dModel, { eps, bias, ...at });
    this.norm2 = new LayerNorm(dModel, { eps, bias, ...at });
    this.dropout1 = new Dropout(dropout);
    this.dropout2 = new Dropout(dropout);
  }
  /** Another layer with the same settings and values; a subclass with a constructor of its own overrides it. */
  copy(): TransformerEncoderLayer {
    const [dModel, nhead, options] = this.#settings, [first] = this.parameters();
    const Class = this.constructor as typeof TransformerEncoderLayer;
    const made = new Class(dModel, nhead, { ...options, dtype: first.dtype, device: first.device });
    made.loadStateDict(this.stateDict());
    return made.train(this.training);
  }
  #attend(x: Tensor, inputs: TransformerEncoderInputs): Tensor {
    const { mask: attnMask, srcKeyPaddingMask: keyPaddingMask, isCausal } = inputs;
    return this.dropout1.call(this.selfAttn.call(x, x, x, { attnMask, keyPaddingMask, isCausal, needWeights: false }).output);
  }
  #feed(x: Tensor): Tensor {
    const hidden = this.#activation === ops.relu ? this.linear1.fused(x, { activation: "relu" }) : this.#activation(this.linear1.call(x));
    return this.dropout2.call(this.linear2.call(this.dropout.call(hidden)));
  }
  /** Attends and feeds forward. @throws {ShapeError} If sizes do not fit. */
  override forward(x: Tensor, inputs: TransformerEncoderInputs = {}): Tensor {
    return scope(() => {
      if (this.normFirst) {
        const y = ops.add(x, this.#attend(this.norm1.call(x), inputs));
        return ops.add(y, this.#feed(this.norm2.call(y)));
      }
      const y = this.norm1.call(ops.add(x, this.#attend(x, inputs)));
      return this.norm2.call(ops.add(y, this.#feed(y)));
    });
  }
  /** The settings. */
  override extraRepr(): string {
    return `normFirst=${this.normFirst}`;
  }
}

/**
 * Encoder layers one behind the other.
 *
 * The layers are copies of the one given, with its values, as in PyTorch; the given one stays the caller's.
 *
 * @example
 * ```ts
 * import { nn, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using layer = new nn.TransformerEncoderLayer(8, 2, { dimFeedforward: 16 });
 * using encoder = new nn.TransformerEncoder(layer, 3);
 * assertEquals(encoder.call(ones([5, 8])).shape, [5, 8]);
 * ```
 */
export class TransformerEncoder extends Module {
  /** The layers. */
  layers: ModuleList<TransformerEncoderLayer>;
  /** Behind the last layer, or `null`. */
  norm: Module & { forward(x: Tensor): Tensor } | null;

  /**
   * Makes the module.
   *
   * @param layer What is copied.
   * @param numLayers Number of copies.
   * @param options.norm Behind the last layer. Default: none.
   */
  constructor(layer: TransformerEncoderLayer, numLayers: number, options?: { norm?: Module & { forward(x: Tensor): Tensor } | null }) {
    super();
    if (!(layer instanceof TransformerEncoderLayer)) {
      throw new TypeError("TransformerEncoder: the first argument must be a TransformerEncoderLayer");
    }
    checkSize(numLayers, "numLayers", "TransformerEncoder", 1);
    this.layers = new ModuleList(Array.from({ length: numLayers }, () => layer.copy()));
    this.norm = options?.norm ?? null;
  }
  /** Runs the layers. @throws {ShapeError} If sizes do not fit. */
  override forward(x: Tensor, inputs: TransformerEncoderInputs = {}): Tensor {
    return scope(() => {
      let y = x;
      for (const layer of this.layers) y = layer.call(y, inputs);
      return this.norm === null ? y : this.norm.call(y);
    });
  }
}
