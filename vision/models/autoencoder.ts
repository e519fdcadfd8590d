/**
 * A convolutional auto-encoder.
 *
 * @module
 */
import { ReLU, Sigmoid } from "../../nn/activation.ts";
import { BatchNorm2d } from "../../nn/batch_norm.ts";
import { Sequential } from "../../nn/container.ts";
import { Conv2d, ConvTranspose2d } from "../../nn/convolution.ts";
import { checkSize, type Layer, Module } from "../../nn/module.ts";
import { letGo } from "../../nn/transient.ts";
import { ShapeError } from "../../ffi/errors.ts";
import { textOf } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** Settings of {@linkcode ConvAutoencoder}. */
export interface AutoencoderOptions {
  /** Channels of the images. Default `1`. */
  inChannels?: number;
  /** Channels after each halving of the size. Default `[16, 32]`. */
  channels?: readonly number[];
  /** Channels of the code. Default `4`. */
  codeChannels?: number;
}

/**
 * A convolutional auto-encoder: images in `[0, 1]` to a small code and back.
 *
 * Shapes: `[N, inChannels, H, W]` to the code `[N, codeChannels, H / s, W / s]` with `s = 2^channels.length`, and back.
 *
 * @example
 * ```ts
 * import { rand } from "@dinograd/dinograd";
 * import { ConvAutoencoder } from "@dinograd/dinograd/vision";
 * import { assertEquals } from "@std/assert";
 * using model = new ConvAutoencoder({ channels: [8, 16] });
 * const x = rand([2, 1, 28, 28]);
 * assertEquals(model.encode(x).shape, [2, 4, 7, 7]);
 * assertEquals(model.call(x).shape, [2, 1, 28, 28]);
 * ```
 */
export class ConvAutoencoder extends Module {
  /** What the sizes of the images must be multiples of. */
  readonly factor: number;
  /** From image to code. */
  encoder: Sequential;
  /** From code to image. */
  decoder: Sequential;

  /**
   * Makes the module.
   *
   * @param options Channels of the images, in between and of the code.
   */
  constructor(options?: AutoencoderOptions) {
    super();
    const { inChannels = 1, channels = [16, 32], codeChannels = 4 } = options ?? {};
    checkSize(codeChannels, "codeChannels", "ConvAutoencoder");
    if (channels.length === 0) throw new RangeError("ConvAutoencoder: channels must have at least one number");
    this.factor = 2 ** channels.length;
    const down: Layer[] = [], up: Layer[] = [];
    channels.forEach((width, i) => {
      const before = i === 0 ? inChannels : channels[i - 1];
      down.push(new Conv2d(before, width, 3, { stride: 2, padding: 1, bias: false }), new BatchNorm2d(width), new ReLU());
    });
    down.push(new Conv2d(channels.at(-1)!, codeChannels, 1));
    up.push(new Conv2d(codeChannels, channels.at(-1)!, 1, { bias: false }), new BatchNorm2d(channels.at(-1)!), new ReLU());
    for (let i = channels.length - 1; i > 0; i--) {
      up.push(
        new ConvTranspose2d(channels[i], channels[i - 1], 4, { stride: 2, padding: 1, bias: false }),
        new BatchNorm2d(channels[i - 1]),
        new ReLU(),
      );
    }
    up.push(new ConvTranspose2d(channels[0], inChannels, 4, { stride: 2, padding: 1 }), new Sigmoid());
    this.encoder = new Sequential(...down);
    this.decoder = new Sequential(...up);
  }
  /** The code of images. @throws {ShapeError} If their sizes are not multiples of the factor. */
  encode(x: Tensor): Tensor {
    if (x.rank !== 4 || x.shape[2] % this.factor !== 0 || x.shape[3] % this.factor !== 0) {
      throw new ShapeError(`ConvAutoencoder: takes [N, C, H, W] with H and W multiples of ${this.factor}, got ${textOf(x.shape)}`);
    }
    return this.encoder.call(x);
  }
  /** Images from codes. */
  decode(code: Tensor): Tensor {
    return this.decoder.call(code);
  }
  /** The images that come back. */
  override forward(x: Tensor): Tensor {
    const code = this.encode(x), y = this.decode(code);
    letGo(code, this.encoder, this.decoder);
    return y;
  }
}
