/**
 * BERT, with the parameter names of Hugging Face's `transformers`, so that its checkpoints load.
 *
 * @module
 */
import { ShapeError } from "../../ffi/errors.ts";
import * as nn from "../../nn/mod.ts";
import * as ops from "../../ops/mod.ts";
import { checkTensor } from "../../ops/native.ts";
import { scope } from "../../tensor/scope.ts";
import { textOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** BertSettings of a {@linkcode BertModel}: the keys of Hugging Face's `config.json` in camelCase. */
export interface BertConfig extends nn.Placement {
  /** Number of words. Default `30522`. */
  vocabSize?: number;
  /** Features of a position. Default `768`. */
  hiddenSize?: number;
  /** Default `12`. */
  numHiddenLayers?: number;
  /** Divides `hiddenSize`. Default `12`. */
  numAttentionHeads?: number;
  /** Features between the two products of a layer. Default `3072`. */
  intermediateSize?: number;
  /** Function between them. Default `"gelu"`. */
  hiddenAct?: "gelu" | "gelu_new" | "relu" | "silu";
  /** Probability that a value is dropped while training. Default `0.1`. */
  hiddenDropoutProb?: number;
  /** Probability that an attention weight is dropped while training. Default `0.1`. */
  attentionProbsDropoutProb?: number;
  /** Longest sequence. Default `512`. */
  maxPositionEmbeddings?: number;
  /** Number of segments. Default `2`. */
  typeVocabSize?: number;
  /** Standard deviation of the initial weights. Default `0.02`. */
  initializerRange?: number;
  /** Added to variances. Default `1e-12`. */
  layerNormEps?: number;
  /** The word that fills up short sequences: its embedding starts as zeros and takes no gradient. Default `0`. */
  padTokenId?: number | null;
  /** Positions added to the words, or scores of the distance between them: of the query, or of query and key (Shaw et al. 2018; Huang et al. 2020). */
  positionEmbeddingType?: "absolute" | "relative_key" | "relative_key_query";
}

/** All settings of a {@linkcode BertModel}. */
export type BertSettings = Required<Omit<BertConfig, "dtype" | "device">> & nn.Placement;

const defaults = {
  vocabSize: 30522,
  hiddenSize: 768,
  numHiddenLayers: 12,
  numAttentionHeads: 12,
  intermediateSize: 3072,
  hiddenAct: "gelu",
  hiddenDropoutProb: 0.1,
  attentionProbsDropoutProb: 0.1,
  maxPositionEmbeddings: 512,
  typeVocabSize: 2,
  initializerRange: 0.02,
  layerNormEps: 1e-12,
  padTokenId: 0,
  positionEmbeddingType: "absolute",
} as const;

const activations: Readonly<Record<string, (x: Tensor) => Tensor>> = {
  gelu: (x) => ops.gelu(x),
  gelu_new: (x) => ops.gelu(x, { approximate: "tanh" }),
  relu: ops.relu,
  silu: ops.silu,
};

function settingsOf(config: BertConfig): BertSettings {
  const given = Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
  const settings: BertSettings = { ...defaults, ...given };
  for (const key of ["vocabSize", "hiddenSize", "numHiddenLayers", "numAttentionHeads", "intermediateSize", "typeVocabSize"] as const) {
    if (!Number.isSafeInteger(settings[key]) || settings[key] < 1) {
      throw new RangeError(`BertModel: ${key} must be a whole number >= 1, got ${settings[key]}`);
    }
  }
  if (settings.hiddenSize % settings.numAttentionHeads !== 0) {
    throw new RangeError(`BertModel: ${settings.numAttentionHeads} heads do not divide ${settings.hiddenSize} features`);
  }
  if (!Object.hasOwn(activations, settings.hiddenAct)) {
    throw new RangeError(`BertModel: hiddenAct must be one of ${Object.keys(activations).join(", ")}, got ${settings.hiddenAct}`);
  }
  if (!["absolute", "relative_key", "relative_key_query"].includes(settings.positionEmbeddingType)) {
    throw new RangeError(
      `BertModel: positionEmbeddingType must be absolute, relative_key or relative_key_query, got ${settings.positionEmbeddingType}`,
    );
  }
  return settings;
}

/**
 * The settings in a parsed Hugging Face `config.json`; keys that no {@linkcode BertConfig} has are left out.
 *
 * @example
 * ```ts
 * import { bertConfig } from "@dinograd/dinograd/text";
 * import { assertEquals } from "@std/assert";
 * assertEquals(bertConfig({ hidden_size: 128, model_type: "bert" }), { hiddenSize: 128 });
 * ```
 */
export function bertConfig(json: Readonly<Record<string, unknown>>): BertConfig {
  const camel = (key: string) => key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(json).map(([key, value]) => [camel(key), value] as const).filter(([key]) => key in defaults));
}

/**
 * The tensors of a {@linkcode BertModel} among those of a Hugging Face checkpoint, by its names: without the prefix `bert.`, the heads of pre-training and
 * the list of positions, and with the present names of old ones (`gamma`, `beta`).
 */
export function bertStateDict(checkpoint: Readonly<Record<string, Tensor>>): Record<string, Tensor> {
  const prefixed = Object.keys(checkpoint).some((key) => key.startsWith("bert."));
  return Object.fromEntries(
    Object.entries(checkpoint)
      .filter(([key]) => (!prefixed || key.startsWith("bert.")) && !key.endsWith("position_ids"))
      .map(([key, value]) => [key.replace(/^bert\./, "").replace(/\.gamma$/, ".weight").replace(/\.beta$/, ".bias"), value]),
  );
}

const norm = (s: BertSettings) => new nn.LayerNorm(s.hiddenSize, { eps: s.layerNormEps, dtype: s.dtype, device: s.device });
const linear = (s: BertSettings, from: number, to: number) => new nn.Linear(from, to, { dtype: s.dtype, device: s.device });

/** Words, positions and segments as vectors, added up and normalised. */
export class BertEmbeddings extends nn.Module {
  readonly #absolute: boolean;
  /** `[vocabSize, hiddenSize]`. */
  wordEmbeddings: nn.Embedding;
  /** `[maxPositionEmbeddings, hiddenSize]`. */
  positionEmbeddings: nn.Embedding;
  /** `[typeVocabSize, hiddenSize]`. */
  tokenTypeEmbeddings: nn.Embedding;
  /** Of the sum. */
  LayerNorm: nn.LayerNorm;
  /** Behind the norm. */
  dropout: nn.Dropout;

  /** Makes the module. */
  constructor(config: BertConfig = {}) {
    super();
    const s = settingsOf(config), at = { dtype: s.dtype, device: s.device };
    this.#absolute = s.positionEmbeddingType === "absolute";
    this.wordEmbeddings = new nn.Embedding(s.vocabSize, s.hiddenSize, { paddingIdx: s.padTokenId, ...at });
    this.positionEmbeddings = new nn.Embedding(s.maxPositionEmbeddings, s.hiddenSize, at);
    this.tokenTypeEmbeddings = new nn.Embedding(s.typeVocabSize, s.hiddenSize, at);
    this.LayerNorm = norm(s);
    this.dropout = new nn.Dropout(s.hiddenDropoutProb);
  }
  /** Vectors `[N, L, hiddenSize]` of words `[N, L]`; by default all of segment 0, at the positions 0, 1, ... */
  override forward(inputIds: Tensor, tokenTypeIds: Tensor | null = null, positionIds: Tensor | null = null): Tensor {
    return scope(() => {
      const segments = tokenTypeIds === null
        ? ops.select(this.tokenTypeEmbeddings.weight, 0, 0)
        : this.tokenTypeEmbeddings.call(tokenTypeIds);
      let extra = segments;
      if (this.#absolute) {
        const positions = positionIds === null
          ? ops.narrow(this.positionEmbeddings.weight, 0, 0, inputIds.shape[1])
          : this.positionEmbeddings.call(positionIds);
        extra = ops.add(segments, positions);
      }
      return this.dropout.call(this.LayerNorm.call(ops.add(this.wordEmbeddings.call(inputIds), extra)));
    });
  }
}

/** Attention of a sequence to itself, head by head. */
export class BertSelfAttention extends nn.Module {
  readonly #heads: number;
  readonly #dropout: number;
  readonly #positions: number;
  readonly #type: BertSettings["positionEmbeddingType"];
  /** To the queries. */
  query: nn.Linear;
  /** To the keys. */
  key: nn.Linear;
  /** To the values. */
  value: nn.Linear;
  /** Vectors of the distances from `1 - maxPositionEmbeddings` on, or `null` without relative positions. */
  distanceEmbedding: nn.Embedding | null;

  /** Makes the module. */
  constructor(config: BertConfig = {}) {
    super();
    const s = settingsOf(config), size = s.hiddenSize;
    this.#heads = s.numAttentionHeads;
    this.#dropout = s.attentionProbsDropoutProb;
    this.#positions = s.maxPositionEmbeddings;
    this.#type = s.positionEmbeddingType;
    this.query = linear(s, size, size);
    this.key = linear(s, size, size);
    this.value = linear(s, size, size);
    const at = { dtype: s.dtype, device: s.device };
    this.distanceEmbedding = s.positionEmbeddingType === "absolute"
      ? null
      : new nn.Embedding(2 * this.#positions - 1, size / this.#heads, at);
  }
  /** Scores of the distances, `[N, heads, L, L]`. */
  #distances(q: Tensor, k: Tensor, embedding: nn.Embedding): Tensor {
    const length = q.shape[2], positions = ops.arange(0, length, 1, { dtype: "int64", device: q.device });
    const distance = ops.sub(ops.unsqueeze(positions, 1), positions).add(this.#positions - 1);
    const vectors = embedding.call(distance); // [L, L, E]
    const ofQueries = ops.einsum("bhld,lrd->bhlr", q, vectors);
    const scores = this.#type === "relative_key" ? ofQueries : ofQueries.add(ops.einsum("bhrd,lrd->bhlr", k, vectors));
    return scores.mul(1 / Math.sqrt(q.shape[3]));
  }
  /** Shape `[N, L, hiddenSize]`; the mask as that of `scaledDotProductAttention`. */
  override forward(x: Tensor, mask: Tensor | null = null): Tensor {
    return scope(() => {
      const [samples, length, size] = x.shape, shape = [samples, length, this.#heads, size / this.#heads];
      const [q, k, v] = [this.query, this.key, this.value].map((map) => ops.transpose(ops.reshape(map.call(x), shape), 1, 2));
      let attnMask = mask;
      if (this.distanceEmbedding !== null) {
        const scores = this.#distances(q, k, this.distanceEmbedding);
        attnMask = mask === null ? scores : mask.dtype === "bool" ? ops.where(mask, scores, -Infinity) : scores.add(mask);
      }
      const y = ops.scaledDotProductAttention(q, k, v, { attnMask, dropoutP: this.training ? this.#dropout : 0 });
      return ops.reshape(ops.transpose(y, 1, 2), x.shape);
    });
  }
}

/** A product, dropout, the sum with the block's input, and its norm. */
export class BertSelfOutput extends nn.Module {
  /** `[hiddenSize, hiddenSize]`. */
  dense: nn.Linear;
  /** Of the sum. */
  LayerNorm: nn.LayerNorm;
  /** Behind the product. */
  dropout: nn.Dropout;

  /** Makes the module; `from` is the size of what comes in. */
  constructor(config: BertConfig = {}, from?: number) {
    super();
    const s = settingsOf(config);
    this.dense = linear(s, from ?? s.hiddenSize, s.hiddenSize);
    this.LayerNorm = norm(s);
    this.dropout = new nn.Dropout(s.hiddenDropoutProb);
  }
  /** `norm(dropout(dense(x)) + input)`. */
  override forward(x: Tensor, input: Tensor): Tensor {
    return scope(() => this.LayerNorm.call(ops.add(this.dropout.call(this.dense.call(x)), input)));
  }
}

/** Attention and what follows it up to the norm. */
export class BertAttention extends nn.Module {
  /** Attention itself. */
  self: BertSelfAttention;
  /** What follows. */
  output: BertSelfOutput;

  /** Makes the module. */
  constructor(config: BertConfig = {}) {
    super();
    this.self = new BertSelfAttention(config);
    this.output = new BertSelfOutput(config);
  }
  /** Shape `[N, L, hiddenSize]`. */
  override forward(x: Tensor, mask: Tensor | null = null): Tensor {
    return scope(() => this.output.call(this.self.call(x, mask), x));
  }
}

/** The first product of the feed-forward block and its activation. */
export class BertIntermediate extends nn.Module {
  readonly #activation: (x: Tensor) => Tensor;
  /** `[intermediateSize, hiddenSize]`. */
  dense: nn.Linear;

  /** Makes the module. */
  constructor(config: BertConfig = {}) {
    super();
    const s = settingsOf(config);
    this.#activation = activations[s.hiddenAct];
    this.dense = linear(s, s.hiddenSize, s.intermediateSize);
  }
  /** `activation(dense(x))`. */
  override forward(x: Tensor): Tensor {
    return scope(() => this.#activation(this.dense.call(x)));
  }
}

/** The second product of the feed-forward block, added to the block's input and normalised. */
export class BertOutput extends BertSelfOutput {
  /** Makes the module. */
  constructor(config: BertConfig = {}) {
    super(config, settingsOf(config).intermediateSize);
  }
}

/** A layer of the encoder. */
export class BertLayer extends nn.Module {
  /** Attention. */
  attention: BertAttention;
  /** Into the feed-forward block. */
  intermediate: BertIntermediate;
  /** Out of the feed-forward block. */
  output: BertOutput;

  /** Makes the module. */
  constructor(config: BertConfig = {}) {
    super();
    this.attention = new BertAttention(config);
    this.intermediate = new BertIntermediate(config);
    this.output = new BertOutput(config);
  }
  /** Shape `[N, L, hiddenSize]`. */
  override forward(x: Tensor, mask: Tensor | null = null): Tensor {
    return scope(() => {
      const y = this.attention.call(x, mask);
      return this.output.call(this.intermediate.call(y), y);
    });
  }
}

/** The layers, one behind the other. */
export class BertEncoder extends nn.Module {
  /** The layers. */
  layer: nn.ModuleList<BertLayer>;

  /** Makes the module. */
  constructor(config: BertConfig = {}) {
    super();
    this.layer = new nn.ModuleList(Array.from({ length: settingsOf(config).numHiddenLayers }, () => new BertLayer(config)));
  }
  /** Shape `[N, L, hiddenSize]`. */
  override forward(x: Tensor, mask: Tensor | null = null): Tensor {
    return scope(() => [...this.layer].reduce((y, layer) => layer.call(y, mask), x));
  }
}

/** A product and tanh of the first position. */
export class BertPooler extends nn.Module {
  /** `[hiddenSize, hiddenSize]`. */
  dense: nn.Linear;

  /** Makes the module. */
  constructor(config: BertConfig = {}) {
    super();
    const s = settingsOf(config);
    this.dense = linear(s, s.hiddenSize, s.hiddenSize);
  }
  /** Shape `[N, hiddenSize]` of `[N, L, hiddenSize]`. */
  override forward(x: Tensor): Tensor {
    return scope(() => this.dense.call(ops.select(x, 1, 0)).tanh());
  }
}

/** What a {@linkcode BertModel} takes besides the words. */
export interface BertInputs {
  /** `[N, L]`, or `[N, L, L]` for pairs: 0 or `false` where a word is not to be seen. Default: all are seen. */
  attentionMask?: Tensor | null;
  /** Segment of each word, `[N, L]`. Default: 0. */
  tokenTypeIds?: Tensor | null;
  /** Position of each word, `[N, L]` or `[1, L]`. Default: 0, 1, ... */
  positionIds?: Tensor | null;
}

/** What a {@linkcode BertModel} returns. */
export interface BertOutputs {
  /** `[N, L, hiddenSize]`. */
  readonly lastHiddenState: Tensor;
  /** `[N, hiddenSize]`, or `null` without a pooler. */
  readonly poolerOutput: Tensor | null;
}

/**
 * BERT (Devlin et al. 2019): an encoder of words in both directions.
 *
 * Initial values: products and embeddings normal with the standard deviation `initializerRange`, biases 0, norms 1 and 0.
 *
 * @example
 * ```ts
 * import { tensor } from "@dinograd/dinograd";
 * import { BertModel } from "@dinograd/dinograd/text";
 * import { assertEquals } from "@std/assert";
 * using bert = new BertModel({ vocabSize: 20, hiddenSize: 8, numHiddenLayers: 2, numAttentionHeads: 2, intermediateSize: 16 });
 * const { lastHiddenState, poolerOutput } = bert.call(tensor([[5, 7, 2]], { dtype: "int64" }));
 * assertEquals([lastHiddenState.shape, poolerOutput!.shape], [[1, 3, 8], [1, 8]]);
 * ```
 */
export class BertModel extends nn.Module {
  readonly #longest: number;
  /** The settings, with defaults. */
  readonly config: Readonly<BertSettings>;
  /** Words to vectors. */
  embeddings: BertEmbeddings;
  /** The layers. */
  encoder: BertEncoder;
  /** From the first position, or `null`. */
  pooler: BertPooler | null;

  /**
   * Makes the module.
   *
   * @param options.addPoolingLayer Have a pooler. Default `true`.
   * @throws {RangeError} If a setting is out of range.
   */
  constructor(config: BertConfig = {}, options?: { addPoolingLayer?: boolean }) {
    super();
    this.config = settingsOf(config);
    this.#longest = this.config.maxPositionEmbeddings;
    this.embeddings = new BertEmbeddings(config);
    this.encoder = new BertEncoder(config);
    this.pooler = options?.addPoolingLayer ?? true ? new BertPooler(config) : null;
    this.resetParameters();
  }
  /** Draws new initial values. */
  resetParameters(): void {
    const std = this.config.initializerRange;
    for (const module of this.modules()) {
      if (module instanceof nn.Linear) {
        nn.init.normal_(module.weight, 0, std);
        if (module.bias !== null) nn.init.zeros_(module.bias);
      } else if (module instanceof nn.Embedding) {
        nn.init.normal_(module.weight, 0, std);
        if (module.paddingIdx !== null) nn.init.zeros_(ops.select(module.weight.detach(), 0, module.paddingIdx));
      }
    }
  }
  /**
   * Encodes words.
   *
   * @param inputIds Word numbers, `[N, L]`, int64 or int32.
   * @throws {ShapeError} If the words are not `[N, L]`, are more than `maxPositionEmbeddings`, or a mask does not fit.
   */
  override forward(inputIds: Tensor, inputs: BertInputs = {}): BertOutputs {
    checkTensor(inputIds, "BertModel", "inputIds");
    const { attentionMask = null, tokenTypeIds = null, positionIds = null } = inputs, [samples, length] = inputIds.shape;
    if (inputIds.rank !== 2 || length > this.#longest || length < 1) {
      throw new ShapeError(`BertModel: inputIds must be [N, L] with L from 1 to ${this.#longest}, got ${textOf(inputIds.shape)}`);
    }
    return scope(() => {
      let mask: Tensor | null = null;
      if (attentionMask !== null) {
        checkTensor(attentionMask, "BertModel", "attentionMask", inputIds);
        const axes = attentionMask.rank === 3 ? [samples, 1, length, length] : [samples, 1, 1, length];
        if (attentionMask.numel() !== samples * length * axes[2] || attentionMask.rank < 2 || attentionMask.rank > 3) {
          throw new ShapeError(`BertModel: attentionMask must be [N, L] or [N, L, L] as the words, got ${textOf(attentionMask.shape)}`);
        }
        mask = ops.ne(ops.reshape(attentionMask, axes), 0);
      }
      const lastHiddenState = this.encoder.call(this.embeddings.call(inputIds, tokenTypeIds, positionIds), mask);
      return { lastHiddenState, poolerOutput: this.pooler && this.pooler.call(lastHiddenState) };
    });
  }
}
