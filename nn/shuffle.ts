/**
 * Modules that rearrange elements: between channels and space, between groups of channels, between images and columns.
 *
 * @module
 */
import * as ops from "../ops/mod.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { markTransient } from "./transient.ts";
import { Module } from "./module.ts";

/**
 * Channels to space, `[*, C * r * r, H, W]` to `[*, C, H * r, W * r]`: {@linkcode pixelShuffle}.
 *
 * @example
 * ```ts
 * import { nn, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(new nn.PixelShuffle(3).call(ones([1, 18, 4, 5])).shape, [1, 2, 12, 15]);
 * ```
 */
export class PixelShuffle extends Module {
  /** `r`. */
  readonly upscaleFactor: number;

  /**
   * Makes the layer.
   *
   * @param upscaleFactor `r`.
   */
  constructor(upscaleFactor: number) {
    super();
    this.upscaleFactor = upscaleFactor;
  }
  /** The rearranged input. */
  override forward(x: Tensor): Tensor {
    return ops.pixelShuffle(x, this.upscaleFactor);
  }
  /** The settings. */
  override extraRepr(): string {
    return `upscaleFactor=${this.upscaleFactor}`;
  }
}

/**
 * Space to channels, `[*, C, H * r, W * r]` to `[*, C * r * r, H, W]`: {@linkcode pixelUnshuffle}.
 */
export class PixelUnshuffle extends Module {
  /** `r`. */
  readonly downscaleFactor: number;

  /**
   * Makes the layer.
   *
   * @param downscaleFactor `r`.
   */
  constructor(downscaleFactor: number) {
    super();
    this.downscaleFactor = downscaleFactor;
  }
  /** The rearranged input. */
  override forward(x: Tensor): Tensor {
    return ops.pixelUnshuffle(x, this.downscaleFactor);
  }
  /** The settings. */
  override extraRepr(): string {
    return `downscaleFactor=${this.downscaleFactor}`;
  }
}

/**
 * Mixes the channels of `groups` groups of `[N, C, ...]`, as ShuffleNet does between grouped convolutions: {@linkcode channelShuffle}.
 */
export class ChannelShuffle extends Module {
  /** Number of groups; must divide the channels. */
  readonly groups: number;

  /**
   * Makes the layer.
   *
   * @param groups Number of groups; must divide the channels.
   */
  constructor(groups: number) {
    super();
    this.groups = groups;
  }
  /** The rearranged input. */
  override forward(x: Tensor): Tensor {
    return ops.channelShuffle(x, this.groups);
  }
  /** The settings. */
  override extraRepr(): string {
    return `groups=${this.groups}`;
  }
}

/** Sliding windows of `[N, C, H, W]` as columns `[N, C * kh * kw, L]`: {@linkcode unfold}. */
export class Unfold extends Module {
  /** Window. */
  readonly kernelSize: number | readonly number[];
  /** Dilation, padding, stride. */
  readonly options: ops.UnfoldOptions | undefined;

  /**
   * Makes the layer.
   *
   * @param kernelSize Window, one number or `[kh, kw]`.
   * @param options Dilation (default 1), padding (default 0), stride (default 1).
   */
  constructor(kernelSize: number | readonly number[], options?: ops.UnfoldOptions) {
    super();
    this.kernelSize = kernelSize;
    this.options = options;
  }
  /** The columns. */
  override forward(x: Tensor): Tensor {
    return ops.unfold(x, this.kernelSize, this.options);
  }
}

/** Columns `[N, C * kh * kw, L]` summed back into images `[N, C, ...outputSize]`: {@linkcode fold}. */
export class Fold extends Module {
  /** Sizes of the image, window, dilation, padding, stride. */
  readonly options: ops.FoldOptions;

  /**
   * Makes the layer.
   *
   * @param outputSize Sizes of the image, one number or `[H, W]`.
   * @param kernelSize Window, one number or `[kh, kw]`.
   * @param options Dilation (default 1), padding (default 0), stride (default 1).
   */
  constructor(outputSize: number | readonly number[], kernelSize: number | readonly number[], options?: ops.UnfoldOptions) {
    super();
    this.options = { ...options, outputSize, kernelSize };
  }
  /** The images. */
  override forward(x: Tensor): Tensor {
    return ops.fold(x, this.options);
  }
}

markTransient(PixelShuffle, PixelUnshuffle, ChannelShuffle, Unfold, Fold);
