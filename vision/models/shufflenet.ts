/**
 * ShuffleNet V2 (Ma et al. 2018, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design"), with torchvision's state-dict names, so
 * that its checkpoints load.
 *
 * @module
 */
import { ReLU } from "../../nn/activation.ts";
import { BatchNorm2d } from "../../nn/batch_norm.ts";
import { Sequential } from "../../nn/container.ts";
import { Conv2d } from "../../nn/convolution.ts";
import { Linear } from "../../nn/linear.ts";
import { checkSize, Module } from "../../nn/module.ts";
import { letGo, markTransientTree } from "../../nn/transient.ts";
import { MaxPool2d } from "../../nn/pooling.ts";
import { ShapeError } from "../../ffi/errors.ts";
import * as ops from "../../ops/mod.ts";
import { textOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";

function pointwise(inChannels: number, outChannels: number): [Conv2d, BatchNorm2d, ReLU] {
  return [new Conv2d(inChannels, outChannels, 1, { bias: false }), new BatchNorm2d(outChannels), new ReLU()];
}

function depthwise(channels: number, stride: number): [Conv2d, BatchNorm2d] {
  return [new Conv2d(channels, channels, 3, { stride, padding: 1, groups: channels, bias: false }), new BatchNorm2d(channels)];
}

/**
 * The block of ShuffleNet V2. With stride 1 one half of the channels passes through and the other goes through `branch2`; with stride 2 the input goes
 * through both branches. The halves are joined and their channels mixed.
 *
 * Shapes: `[N, inChannels, H, W]` to `[N, outChannels, ceil(H / stride), ceil(W / stride)]`.
 */
export class ShuffleUnit extends Module {
  /** Channels of the input. */
  readonly inChannels: number;
  /** Halves the size if 2. */
  readonly stride: number;
  /** Depthwise 3x3 and 1x1 convolution of the input if the stride is 2, else `null`. */
  branch1: Sequential | null;
  /** 1x1, depthwise 3x3 and 1x1 convolution. */
  branch2: Sequential;

  /**
   * Makes the module.
   *
   * @param inChannels Channels of the input.
   * @param outChannels Channels of the output, an even number.
   * @param stride `1` or `2`. Default `1`.
   * @throws {RangeError} For another stride, odd `outChannels`, or stride 1 and other channels than those of the input.
   */
  constructor(inChannels: number, outChannels: number, stride = 1) {
    super();
    checkSize(inChannels, "inChannels", "ShuffleUnit");
    this.inChannels = inChannels;
    checkSize(outChannels, "outChannels", "ShuffleUnit");
    if (stride !== 1 && stride !== 2) throw new RangeError(`ShuffleUnit: stride must be 1 or 2, got ${stride}`);
    if (outChannels % 2 !== 0) throw new RangeError(`ShuffleUnit: outChannels must be even, got ${outChannels}`);
    if (stride === 1 && inChannels !== outChannels) {
      throw new RangeError(`ShuffleUnit: with stride 1 outChannels must be inChannels ${inChannels}, got ${outChannels}`);
    }
    const half = outChannels / 2;
    this.stride = stride;
    this.branch1 = stride === 1 ? null : new Sequential(...depthwise(inChannels, 2), ...pointwise(inChannels, half));
    this.branch2 = new Sequential(
      ...pointwise(stride === 1 ? half : inChannels, half),
      ...depthwise(half, stride),
      ...pointwise(half, half),
    );
  }
  /** The block of `[N, C, H, W]`. @throws {ShapeError} For other channels or other than 4 axes. */
  override forward(x: Tensor): Tensor {
    if (x.rank !== 4 || x.shape[1] !== this.inChannels) {
      throw new ShapeError(`ShuffleUnit: takes [N, ${this.inChannels}, H, W], got ${textOf(x.shape)}`);
    }
    const { branch1, branch2 } = this;
    if (branch1 !== null) {
      const first = branch1.call(x), second = branch2.call(x);
      const y = mixed(first, second);
      letGo(first, branch1, branch1);
      letGo(second, branch2, branch2);
      return y;
    }
    const half = x.shape[1] / 2;
    using kept = ops.narrow(x, 1, 0, half);
    const given = ops.narrow(x, 1, half, half), second = branch2.call(given);
    letGo(given, branch2, branch2);
    const y = mixed(kept, second);
    letGo(second, branch2, branch2);
    return y;
  }
}

function mixed(a: Tensor, b: Tensor): Tensor {
  using joined = ops.cat([a, b], 1);
  return ops.channelShuffle(joined, 2);
}

markTransientTree(ShuffleUnit);

/** Settings of {@linkcode ShuffleNetV2}. */
export interface ShuffleNetOptions {
  /** Size of the output. Default `1000`. */
  numClasses?: number;
  /** Channels of the input. Default `3`. */
  inChannels?: number;
}

/**
 * ShuffleNet V2: `[N, inChannels, H, W]` to scores `[N, numClasses]`; the size is halved five times, so that any `H` and `W` from 1 will do.
 *
 * Parameters start as PyTorch's layers do.
 */
export class ShuffleNetV2 extends Module {
  /** 3x3 convolution of stride 2. */
  conv1: Sequential;
  /** Max pooling, 3x3 of stride 2. */
  maxpool: MaxPool2d;
  /** Blocks at an eighth of the size. */
  stage2: Sequential;
  /** Blocks at a sixteenth of the size. */
  stage3: Sequential;
  /** Blocks at a 32nd of the size. */
  stage4: Sequential;
  /** 1x1 convolution to the features. */
  conv5: Sequential;
  /** The classifier. */
  fc: Linear;

  /**
   * Makes the module.
   *
   * @param repeats Number of blocks in each of the three stages.
   * @param channels Channels of `conv1`, the three stages (even numbers) and `conv5`.
   * @param options Classes and input channels.
   * @throws {RangeError} If there are not three counts of at least 1 and five numbers of channels.
   */
  constructor(repeats: readonly number[], channels: readonly number[], options?: ShuffleNetOptions) {
    super();
    const { numClasses = 1000, inChannels = 3 } = options ?? {};
    if (repeats.length !== 3) throw new RangeError(`ShuffleNetV2: repeats must be three numbers, got ${repeats.length}`);
    if (channels.length !== 5) throw new RangeError(`ShuffleNetV2: channels must be five numbers, got ${channels.length}`);
    for (const count of repeats) checkSize(count, "repeats", "ShuffleNetV2");
    for (const width of channels) checkSize(width, "channels", "ShuffleNetV2");
    checkSize(numClasses, "numClasses", "ShuffleNetV2");
    checkSize(inChannels, "inChannels", "ShuffleNetV2");
    const stage = (i: number): Sequential =>
      new Sequential(
        ...Array.from({ length: repeats[i] }, (_, j) => new ShuffleUnit(channels[j === 0 ? i : i + 1], channels[i + 1], j === 0 ? 2 : 1)),
      );
    this.conv1 = new Sequential(
      new Conv2d(inChannels, channels[0], 3, { stride: 2, padding: 1, bias: false }),
      new BatchNorm2d(channels[0]),
      new ReLU(),
    );
    this.maxpool = new MaxPool2d(3, { stride: 2, padding: 1 });
    this.stage2 = stage(0);
    this.stage3 = stage(1);
    this.stage4 = stage(2);
    this.conv5 = new Sequential(...pointwise(channels[3], channels[4]));
    this.fc = new Linear(channels[4], numClasses);
  }
  /** The image features before the classifier, `[N, C]`. @throws {ShapeError} For other than 4 axes. */
  features(x: Tensor): Tensor {
    if (x.rank !== 4) throw new ShapeError(`ShuffleNetV2: takes [N, C, H, W], got ${textOf(x.shape)}`);
    const parts = [this.conv1, this.maxpool, this.stage2, this.stage3, this.stage4, this.conv5];
    let y = x;
    parts.forEach((part, i) => {
      const next = part.call(y);
      if (i > 0) letGo(y, parts[i - 1], part);
      y = next;
    });
    const features = ops.mean(y, [2, 3]);
    letGo(y, this.conv5, this.conv5);
    return features;
  }
  /** Scores of the classes. */
  override forward(x: Tensor): Tensor {
    const features = this.features(x);
    const y = this.fc.call(features);
    letGo(features, this.fc, this.fc);
    return y;
  }
}

/**
 * ShuffleNet V2 with half the channels: 1.37 million parameters with 1000 classes.
 *
 * @example
 * ```ts
 * import { randn } from "@dinograd/dinograd";
 * import { shufflenetV2X0_5 } from "@dinograd/dinograd/vision";
 * import { assertEquals } from "@std/assert";
 * using model = shufflenetV2X0_5({ numClasses: 10 });
 * assertEquals(model.eval().call(randn([1, 3, 64, 64])).shape, [1, 10]);
 * ```
 */
export function shufflenetV2X0_5(options?: ShuffleNetOptions): ShuffleNetV2 {
  return new ShuffleNetV2([4, 8, 4], [24, 48, 96, 192, 1024], options);
}

/** ShuffleNet V2: 2.28 million parameters with 1000 classes. */
export function shufflenetV2X1_0(options?: ShuffleNetOptions): ShuffleNetV2 {
  return new ShuffleNetV2([4, 8, 4], [24, 116, 232, 464, 1024], options);
}
