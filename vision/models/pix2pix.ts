/**
 * The networks of pix2pix (Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks"), with the state-dict names of the
 * authors' PyTorch implementation, so that its checkpoints load.
 *
 * @module
 */
import { LeakyReLU, ReLU, Tanh } from "../../nn/activation.ts";
import { BatchNorm2d } from "../../nn/batch_norm.ts";
import { Sequential } from "../../nn/container.ts";
import { Conv2d, ConvTranspose2d } from "../../nn/convolution.ts";
import { Dropout } from "../../nn/dropout.ts";
import { normal_, zeros_ } from "../../nn/init.ts";
import { checkSize, type Layer, Module } from "../../nn/module.ts";
import { letGo, markTransientTree } from "../../nn/transient.ts";
import { ShapeError } from "../../ffi/errors.ts";
import * as ops from "../../ops/mod.ts";
import { textOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** The paper's initial values (section 6.2): weights from N(0, 0.02), factors of normalisations from N(1, 0.02), summands 0. */
function initialise(model: Module): void {
  for (const module of model.modules()) {
    if (module instanceof Conv2d || module instanceof ConvTranspose2d) normal_(module.weight, 0, 0.02);
    else if (module instanceof BatchNorm2d) normal_(module.weight!, 1, 0.02);
    else continue;
    if (module.bias !== null) zeros_(module.bias);
  }
}

/** One size of the generator: halves, runs what is inside, doubles, and (but for the outermost) joins its input to the result. */
class SkipBlock extends Module {
  readonly outermost: boolean;
  model: Sequential;

  constructor(outer: number, inner: number, inside: SkipBlock | null, ends: { from?: number; dropout?: boolean }) {
    super();
    const outermost = this.outermost = ends.from !== undefined;
    const down = new Conv2d(ends.from ?? outer, inner, 4, { stride: 2, padding: 1, bias: false });
    const up = new ConvTranspose2d(inside === null ? inner : inner * 2, outer, 4, { stride: 2, padding: 1, bias: outermost });
    const layers: Layer[] = outermost ? [down] : [new LeakyReLU(0.2), down];
    if (!outermost && inside !== null) layers.push(new BatchNorm2d(inner));
    if (inside !== null) layers.push(inside);
    layers.push(new ReLU(), up, outermost ? new Tanh() : new BatchNorm2d(outer));
    if (ends.dropout) layers.push(new Dropout(0.5));
    this.model = new Sequential(...layers);
  }
  override forward(x: Tensor): Tensor {
    const y = this.model.call(x);
    if (this.outermost) return y;
    const joined = ops.cat([x, y], 1);
    letGo(y, this.model, this.model);
    return joined;
  }
}

markTransientTree(SkipBlock);

/** Settings of {@linkcode Pix2PixGenerator}. */
export interface Pix2PixGeneratorOptions {
  /** Channels of the input. Default `3`. */
  inChannels?: number;
  /** Channels of the output. Default `3`. */
  outChannels?: number;
  /** How often the size is halved, at least 5. Default `8`: pictures of 256x256 down to 1x1. */
  depth?: number;
  /** Channels after the first halving; doubled up to three times. Default `64`. */
  baseChannels?: number;
  /** Drop half of the values of the inner blocks while training, the paper's noise. Default `true`. */
  dropout?: boolean;
}

/**
 * The generator of pix2pix, a U-Net of 4x4 convolutions of stride 2 and their transposes: `[N, inChannels, H, W]` to `[N, outChannels, H, W]` in
 * `[-1, 1]`.
 *
 * `H` and `W` are multiples of `2^depth`. Going down `LeakyReLU(0.2)`, going up `ReLU`; batch normalisation but in the first and the innermost
 * convolution. The innermost has two by two positions on the way up at the least, so that a batch of one picture trains.
 *
 * Initial values: weights from N(0, 0.02), factors of normalisations from N(1, 0.02), summands 0.
 *
 * @example
 * ```ts
 * import { noGrad, randn } from "@dinograd/dinograd";
 * import { Pix2PixGenerator } from "@dinograd/dinograd/vision";
 * import { assertEquals } from "@std/assert";
 * using model = new Pix2PixGenerator({ depth: 5, baseChannels: 4 });
 * assertEquals(noGrad(() => model.call(randn([1, 3, 32, 64]))).shape, [1, 3, 32, 64]);
 * ```
 */
export class Pix2PixGenerator extends Module {
  /** How often the size is halved. */
  readonly depth: number;
  /** The outermost block, which holds the others. */
  model: Module;

  /**
   * Makes the module.
   *
   * @param options Channels, depth, dropout.
   * @throws {RangeError} If the depth is below 5.
   */
  constructor(options?: Pix2PixGeneratorOptions) {
    super();
    const { inChannels = 3, outChannels = 3, depth = 8, baseChannels = 64, dropout = true } = options ?? {};
    checkSize(inChannels, "inChannels", "Pix2PixGenerator");
    checkSize(outChannels, "outChannels", "Pix2PixGenerator");
    checkSize(depth, "depth", "Pix2PixGenerator", 5);
    checkSize(baseChannels, "baseChannels", "Pix2PixGenerator");
    this.depth = depth;
    const deepest = baseChannels * 8;
    let block = new SkipBlock(deepest, deepest, null, {});
    for (let i = 5; i < depth; i++) block = new SkipBlock(deepest, deepest, block, { dropout });
    for (const width of [4, 2, 1]) block = new SkipBlock(baseChannels * width, baseChannels * width * 2, block, {});
    this.model = new SkipBlock(outChannels, baseChannels, block, { from: inChannels });
    initialise(this);
  }
  /** The pictures. @throws {ShapeError} If the sizes are not multiples of `2^depth` or there are other than 4 axes. */
  override forward(x: Tensor): Tensor {
    const factor = 2 ** this.depth;
    if (x.rank !== 4 || x.shape.slice(2).some((size) => size === 0 || size % factor !== 0)) {
      throw new ShapeError(`Pix2PixGenerator: takes [N, C, H, W] with H and W multiples of ${factor}, got ${textOf(x.shape)}`);
    }
    return (this.model as Layer).call(x);
  }
}

/** Settings of {@linkcode PatchGan}. */
export interface PatchGanOptions {
  /** Channels of the input: those of condition and picture together. Default `6`. */
  inChannels?: number;
  /** Channels of the first convolution; doubled in each of the next ones, up to three times. Default `64`. */
  baseChannels?: number;
  /** Convolutions of stride 2. Default `3`, which looks at patches of 70x70. */
  layers?: number;
}

/**
 * The discriminator of pix2pix: for each patch (70x70 with 3 layers) a score whether the picture is real, a logit.
 *
 * Shapes: `[N, inChannels, H, W]` to `[N, 1, H / 2^layers - 2, W / 2^layers - 2]`, rounded; 256x256 to 30x30. Condition and picture are joined along
 * the channels: `cat([condition, picture], 1)`.
 *
 * Initial values: weights from N(0, 0.02), factors of normalisations from N(1, 0.02), summands 0.
 *
 * @example
 * ```ts
 * import { noGrad, randn } from "@dinograd/dinograd";
 * import { PatchGan } from "@dinograd/dinograd/vision";
 * import { assertEquals } from "@std/assert";
 * using model = new PatchGan({ baseChannels: 8 });
 * assertEquals(noGrad(() => model.call(randn([1, 6, 256, 256]))).shape, [1, 1, 30, 30]);
 * ```
 */
export class PatchGan extends Module {
  /** Sizes below this leave no patch. */
  readonly leastSize: number;
  /** Convolutions, normalisations and activations. */
  model: Sequential;

  /**
   * Makes the module.
   *
   * @param options Channels and the number of convolutions of stride 2.
   */
  constructor(options?: PatchGanOptions) {
    super();
    const { inChannels = 6, baseChannels = 64, layers = 3 } = options ?? {};
    checkSize(inChannels, "inChannels", "PatchGan");
    checkSize(baseChannels, "baseChannels", "PatchGan");
    checkSize(layers, "layers", "PatchGan");
    this.leastSize = 3 * 2 ** layers;
    const width = (i: number) => baseChannels * Math.min(2 ** i, 8);
    const parts: Layer[] = [new Conv2d(inChannels, baseChannels, 4, { stride: 2, padding: 1 }), new LeakyReLU(0.2)];
    for (let i = 1; i <= layers; i++) {
      const stride = i < layers ? 2 : 1;
      parts.push(new Conv2d(width(i - 1), width(i), 4, { stride, padding: 1, bias: false }), new BatchNorm2d(width(i)), new LeakyReLU(0.2));
    }
    parts.push(new Conv2d(width(layers), 1, 4, { padding: 1 }));
    this.model = new Sequential(...parts);
    initialise(this);
  }
  /** A logit for each patch. @throws {ShapeError} If the input is smaller than `leastSize` or has other than 4 axes. */
  override forward(x: Tensor): Tensor {
    if (x.rank !== 4 || x.shape[2] < this.leastSize || x.shape[3] < this.leastSize) {
      throw new ShapeError(`PatchGan: takes [N, C, H, W] with H and W of at least ${this.leastSize}, got ${textOf(x.shape)}`);
    }
    return this.model.call(x);
  }
}
