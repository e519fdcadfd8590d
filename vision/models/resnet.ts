/**
 * Residual networks (He et al. 2015), with torchvision's state-dict names, so that its checkpoints load.
 *
 * @module
 */
import { BatchNorm2d } from "../../nn/batch_norm.ts";
import { Sequential } from "../../nn/container.ts";
import { Conv2d } from "../../nn/convolution.ts";
import { kaimingNormal_, zeros_ } from "../../nn/init.ts";
import { Linear } from "../../nn/linear.ts";
import { checkSize, type Layer, Module } from "../../nn/module.ts";
import { letGo, markTransientTree } from "../../nn/transient.ts";
import * as ops from "../../ops/mod.ts";
import type { Tensor } from "../../tensor/tensor.ts";

function conv3x3(inChannels: number, outChannels: number, stride = 1): Conv2d {
  return new Conv2d(inChannels, outChannels, 3, { stride, padding: 1, bias: false });
}

function conv1x1(inChannels: number, outChannels: number, stride = 1): Conv2d {
  return new Conv2d(inChannels, outChannels, 1, { stride, bias: false });
}

/** The shortcut where a block changes the shape. */
function projection(inChannels: number, outChannels: number, stride: number): Sequential | null {
  if (stride === 1 && inChannels === outChannels) return null;
  return new Sequential(conv1x1(inChannels, outChannels, stride), new BatchNorm2d(outChannels));
}

/** Convolution, normalisation and ReLU, with the residual added before the ReLU if there is one. */
function convNormRelu(x: Tensor, conv: Conv2d, norm: BatchNorm2d, residual: Tensor | null = null): Tensor {
  return norm.after(conv, x, { activation: "relu", residual });
}

/** Two 3x3 convolutions and a shortcut: the block of ResNet-18 and 34. */
export class BasicBlock extends Module {
  /** Output channels per `channels`. */
  static readonly expansion = 1;
  /** First convolution, with the stride. */
  conv1: Conv2d;
  /** Its normalisation. */
  bn1: BatchNorm2d;
  /** Second convolution. */
  conv2: Conv2d;
  /** Its normalisation. */
  bn2: BatchNorm2d;
  /** The shortcut where the shape changes, else `null`. */
  downsample: Sequential | null;

  /**
   * Makes the module.
   *
   * @param inChannels Channels of the input.
   * @param channels Channels of the output.
   * @param stride Stride of the first convolution. Default `1`.
   */
  constructor(inChannels: number, channels: number, stride = 1) {
    super();
    this.conv1 = conv3x3(inChannels, channels, stride);
    this.bn1 = new BatchNorm2d(channels);
    this.conv2 = conv3x3(channels, channels);
    this.bn2 = new BatchNorm2d(channels);
    this.downsample = projection(inChannels, channels, stride);
  }
  /** The block of `[N, C, H, W]`. */
  override forward(x: Tensor): Tensor {
    const shortcut = this.downsample === null ? x : this.downsample.call(x);
    const inner = convNormRelu(x, this.conv1, this.bn1);
    const y = convNormRelu(inner, this.conv2, this.bn2, shortcut);
    letGo(inner, this.bn1, this.conv2);
    if (this.downsample !== null) letGo(shortcut, this.downsample, this.bn2);
    return y;
  }
}

/** A 1x1, a 3x3 and a 1x1 convolution and a shortcut: the block of ResNet-50 and deeper. */
export class Bottleneck extends Module {
  /** Output channels per `channels`. */
  static readonly expansion = 4;
  /** Convolution to fewer channels. */
  conv1: Conv2d;
  /** Its normalisation. */
  bn1: BatchNorm2d;
  /** Convolution with the stride. */
  conv2: Conv2d;
  /** Its normalisation. */
  bn2: BatchNorm2d;
  /** Convolution to more channels. */
  conv3: Conv2d;
  /** Its normalisation. */
  bn3: BatchNorm2d;
  /** The shortcut where the shape changes, else `null`. */
  downsample: Sequential | null;

  /**
   * Makes the module.
   *
   * @param inChannels Channels of the input.
   * @param channels Channels of the 3x3 convolution, a quarter of the output's.
   * @param stride Stride of the 3x3 convolution. Default `1`.
   */
  constructor(inChannels: number, channels: number, stride = 1) {
    super();
    this.conv1 = conv1x1(inChannels, channels);
    this.bn1 = new BatchNorm2d(channels);
    this.conv2 = conv3x3(channels, channels, stride);
    this.bn2 = new BatchNorm2d(channels);
    this.conv3 = conv1x1(channels, channels * 4);
    this.bn3 = new BatchNorm2d(channels * 4);
    this.downsample = projection(inChannels, channels * 4, stride);
  }
  /** The block of `[N, C, H, W]`. */
  override forward(x: Tensor): Tensor {
    const shortcut = this.downsample === null ? x : this.downsample.call(x);
    const first = convNormRelu(x, this.conv1, this.bn1);
    const second = convNormRelu(first, this.conv2, this.bn2);
    letGo(first, this.bn1, this.conv2);
    const y = convNormRelu(second, this.conv3, this.bn3, shortcut);
    letGo(second, this.bn2, this.conv3);
    if (this.downsample !== null) letGo(shortcut, this.downsample, this.bn3);
    return y;
  }
}

markTransientTree(BasicBlock, Bottleneck);

/** A block's class. */
export interface BlockClass {
  /** Makes a block. */
  new (inChannels: number, channels: number, stride?: number): Layer;
  /** Output channels per `channels`. */
  readonly expansion: number;
}

/** Settings of a residual network. */
export interface ResNetOptions {
  /** Size of the output. Default `1000`. */
  numClasses?: number;
  /** Channels of the input. Default `3`. */
  inChannels?: number;
  /** For small images (CIFAR): a 3x3 stem of stride 1 and no max pooling. Default `false`. */
  cifar?: boolean;
  /** Start each block as the identity: its last normalisation's factors are 0. Default `false`. */
  zeroInitResidual?: boolean;
}

/**
 * A residual network: `[N, inChannels, H, W]` to scores `[N, numClasses]`.
 *
 * Convolutions start as Kaiming-normal (fan out), normalisations as the identity.
 */
export class ResNet extends Module {
  /** Whether the stem is that for small images. */
  readonly cifar: boolean;
  /** First convolution. */
  conv1: Conv2d;
  /** Its normalisation. */
  bn1: BatchNorm2d;
  /** Blocks of 64 channels. */
  layer1: Sequential;
  /** Blocks of 128 channels. */
  layer2: Sequential;
  /** Blocks of 256 channels. */
  layer3: Sequential;
  /** Blocks of 512 channels. */
  layer4: Sequential;
  /** The classifier. */
  fc: Linear;

  /**
   * Makes the module.
   *
   * @param block Class of the blocks.
   * @param counts Number of blocks in each of the four layers.
   * @param options Classes, input channels, stem, initial values.
   * @throws {RangeError} If there are not four counts of at least 1.
   */
  constructor(block: BlockClass, counts: readonly number[], options?: ResNetOptions) {
    super();
    const { numClasses = 1000, inChannels = 3, cifar = false, zeroInitResidual = false } = options ?? {};
    if (counts.length !== 4) throw new RangeError(`ResNet: counts must be four numbers, got ${counts.length}`);
    for (const count of counts) checkSize(count, "counts", "ResNet");
    checkSize(numClasses, "numClasses", "ResNet");
    this.cifar = cifar;
    this.conv1 = cifar ? conv3x3(inChannels, 64) : new Conv2d(inChannels, 64, 7, { stride: 2, padding: 3, bias: false });
    this.bn1 = new BatchNorm2d(64);
    let channels = 64;
    const layer = (width: number, count: number, stride: number): Sequential => {
      const blocks: Layer[] = [];
      for (let i = 0; i < count; i++) {
        blocks.push(new block(channels, width, i === 0 ? stride : 1));
        channels = width * block.expansion;
      }
      return new Sequential(...blocks);
    };
    this.layer1 = layer(64, counts[0], 1);
    this.layer2 = layer(128, counts[1], 2);
    this.layer3 = layer(256, counts[2], 2);
    this.layer4 = layer(512, counts[3], 2);
    this.fc = new Linear(channels, numClasses);
    for (const module of this.modules()) {
      if (module instanceof Conv2d) kaimingNormal_(module.weight, { mode: "fanOut", nonlinearity: "relu" });
      else if (!zeroInitResidual) continue;
      else if (module instanceof BasicBlock) zeros_(module.bn2.weight!);
      else if (module instanceof Bottleneck) zeros_(module.bn3.weight!);
    }
  }
  /** The image features before the classifier, `[N, C]`. */
  features(x: Tensor): Tensor {
    let y = convNormRelu(x, this.conv1, this.bn1);
    if (!this.cifar) {
      const pooled = ops.maxPool2d(y, 3, { stride: 2, padding: 1 });
      letGo(y, this.bn1, this.bn1);
      y = pooled;
    }
    const layers = [this.layer1, this.layer2, this.layer3, this.layer4];
    layers.forEach((layer, i) => {
      const next = layer.call(y);
      letGo(y, i === 0 ? this.bn1 : layers[i - 1], layer);
      y = next;
    });
    using pooled = ops.adaptiveAvgPool2d(y, 1);
    letGo(y, this.layer4, this.layer4);
    return ops.flatten(pooled, 1);
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
 * ResNet-18: 11.7 million parameters with 1000 classes.
 *
 * @example For CIFAR-10
 * ```ts
 * import { randn } from "@dinograd/dinograd";
 * import { resnet18 } from "@dinograd/dinograd/vision";
 * import { assertEquals } from "@std/assert";
 * using model = resnet18({ numClasses: 10, cifar: true });
 * assertEquals(model.eval().call(randn([1, 3, 32, 32])).shape, [1, 10]);
 * ```
 */
export function resnet18(options?: ResNetOptions): ResNet {
  return new ResNet(BasicBlock, [2, 2, 2, 2], options);
}

/** ResNet-34: 21.8 million parameters with 1000 classes. */
export function resnet34(options?: ResNetOptions): ResNet {
  return new ResNet(BasicBlock, [3, 4, 6, 3], options);
}

/** ResNet-50: 25.6 million parameters with 1000 classes. */
export function resnet50(options?: ResNetOptions): ResNet {
  return new ResNet(Bottleneck, [3, 4, 6, 3], options);
}
