/**
 * U-Net (Ronneberger et al. 2015) with batch normalisation.
 *
 * @module
 */
import { ReLU } from "../../nn/activation.ts";
import { BatchNorm2d } from "../../nn/batch_norm.ts";
import { ModuleList, Sequential } from "../../nn/container.ts";
import { Conv2d, ConvTranspose2d } from "../../nn/convolution.ts";
import { checkSize, Module } from "../../nn/module.ts";
import { letGo } from "../../nn/transient.ts";
import { ShapeError } from "../../ffi/errors.ts";
import * as ops from "../../ops/mod.ts";
import { textOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";

function doubleConv(inChannels: number, outChannels: number): Sequential {
  return new Sequential(
    new Conv2d(inChannels, outChannels, 3, { padding: 1, bias: false }),
    new BatchNorm2d(outChannels),
    new ReLU(),
    new Conv2d(outChannels, outChannels, 3, { padding: 1, bias: false }),
    new BatchNorm2d(outChannels),
    new ReLU(),
  );
}

/** Settings of {@linkcode UNet}. */
export interface UNetOptions {
  /** Channels of the input. Default `3`. */
  inChannels?: number;
  /** Channels (classes) of the output. Default `1`. */
  outChannels?: number;
  /** How often the size is halved. Default `4`. */
  depth?: number;
  /** Channels at full size; doubled at each halving. Default `64`. */
  baseChannels?: number;
  /** Upsample bilinearly with a 1x1 convolution, instead of by transposed convolutions. Default `false`. */
  bilinear?: boolean;
}

/**
 * U-Net: convolutions at ever smaller sizes, then back, each time joined with what was there on the way down.
 *
 * Shapes: `[N, inChannels, H, W]` to `[N, outChannels, H, W]`; `H` and `W` of at least `2^depth`, odd sizes too.
 *
 * @example
 * ```ts
 * import { randn } from "@dinograd/dinograd";
 * import { UNet } from "@dinograd/dinograd/vision";
 * import { assertEquals } from "@std/assert";
 * using model = new UNet({ depth: 2, baseChannels: 4, outChannels: 5 });
 * assertEquals(model.call(randn([2, 3, 16, 19])).shape, [2, 5, 16, 19]);
 * ```
 */
export class UNet extends Module {
  /** How often the size is halved. */
  readonly depth: number;
  /** Whether upsampling is bilinear. */
  readonly bilinear: boolean;
  /** Convolutions on the way down, one per size. */
  encoders: ModuleList<Sequential>;
  /** Convolutions at the smallest size. */
  bottleneck: Sequential;
  /** Upsampling, from the smallest size: transposed convolutions, or 1x1 convolutions behind bilinear interpolation. */
  ups: ModuleList<ConvTranspose2d | Conv2d>;
  /** Convolutions on the way up, from the smallest size. */
  decoders: ModuleList<Sequential>;
  /** The 1x1 convolution to the output channels. */
  head: Conv2d;

  /**
   * Makes the module.
   *
   * @param options Channels, depth and the kind of upsampling.
   */
  constructor(options?: UNetOptions) {
    super();
    const { inChannels = 3, outChannels = 1, depth = 4, baseChannels = 64, bilinear = false } = options ?? {};
    checkSize(inChannels, "inChannels", "UNet");
    checkSize(outChannels, "outChannels", "UNet");
    checkSize(depth, "depth", "UNet");
    checkSize(baseChannels, "baseChannels", "UNet");
    this.depth = depth;
    this.bilinear = bilinear;
    const widths = Array.from({ length: depth + 1 }, (_, i) => baseChannels * 2 ** i);
    this.encoders = new ModuleList(widths.slice(0, depth).map((width, i) => doubleConv(i === 0 ? inChannels : widths[i - 1], width)));
    this.bottleneck = doubleConv(widths[depth - 1], widths[depth]);
    const upwards = widths.slice(0, depth).reverse();
    this.ups = new ModuleList(
      upwards.map((width) => bilinear ? new Conv2d(width * 2, width, 1) : new ConvTranspose2d(width * 2, width, 2, { stride: 2 })),
    );
    this.decoders = new ModuleList(upwards.map((width) => doubleConv(width * 2, width)));
    this.head = new Conv2d(baseChannels, outChannels, 1);
  }
  /** The scores of every pixel. @throws {ShapeError} If the input is too small or has other than 4 axes. */
  override forward(x: Tensor): Tensor {
    const least = 2 ** this.depth;
    if (x.rank !== 4 || x.shape[2] < least || x.shape[3] < least) {
      throw new ShapeError(`UNet: takes [N, C, H, W] with H and W of at least ${least}, got ${textOf(x.shape)}`);
    }
    const skips: Tensor[] = [];
    let y = x;
    for (const encoder of this.encoders) {
      const skip = encoder.call(y);
      if (y !== x) letGo(y, encoder, encoder);
      skips.push(skip);
      y = ops.maxPool2d(skip, 2);
    }
    const deepest = this.bottleneck.call(y);
    letGo(y, this.bottleneck, this.bottleneck);
    y = deepest;
    for (let i = 0; i < this.depth; i++) {
      const at = this.depth - 1 - i, skip = skips[at], encoder = this.encoders.at(at), up = this.ups.at(i), decoder = this.decoders.at(i);
      const larger = this.#upsample(up, y, skip.shape.slice(2));
      letGo(y, i === 0 ? this.bottleneck : this.decoders.at(i - 1), up);
      const joined = ops.cat([skip, larger], 1);
      letGo(skip, encoder, encoder);
      letGo(larger, up, up);
      y = decoder.call(joined);
      letGo(joined, decoder, decoder);
    }
    const scores = this.head.call(y);
    letGo(y, this.decoders.at(-1), this.head);
    return scores;
  }
  #upsample(up: ConvTranspose2d | Conv2d, x: Tensor, size: readonly number[]): Tensor {
    if (up instanceof ConvTranspose2d) return up.call(x, size);
    using larger = ops.interpolate(x, { size, mode: "bilinear" });
    return up.call(larger);
  }
}

/** {@linkcode UNet} as a function. */
export function unet(options?: UNetOptions): UNet {
  return new UNet(options);
}
