/**
 * Upsampling as modules: {@linkcode interpolate} with its settings.
 *
 * @module
 */
import * as ops from "../ops/mod.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { markTransient } from "./transient.ts";
import { Module } from "./module.ts";

/** Options of {@linkcode Upsample}: exactly one of `size` and `scaleFactor`. */
export type UpsampleOptions = Omit<ops.InterpolateOptions, "antialias">;

/** `size` or `scaleFactor` of a layer whose mode is fixed. */
export type UpsampleTarget = Pick<ops.InterpolateOptions, "size" | "scaleFactor">;

/**
 * Resizes the spatial axes of `[N, C, L]`, `[N, C, H, W]` or `[N, C, D, H, W]` by `size` or `scaleFactor`: see {@linkcode interpolate}.
 *
 * @example
 * ```ts
 * import { nn, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const up = new nn.Upsample({ scaleFactor: 2, mode: "linear", alignCorners: true });
 * assertEquals(up.call(tensor([[[0, 3]]])).tolist(), [[[0, 1, 2, 3]]]);
 * ```
 */
export class Upsample extends Module {
  /** The settings. */
  readonly options: UpsampleOptions;

  /**
   * Makes the layer.
   *
   * @param options `size` or `scaleFactor`; `mode` (default `"nearest"`: also `"nearest-exact"`, `"linear"`, `"bilinear"`, `"bicubic"`, `"trilinear"`,
   * `"area"`), `alignCorners` (default `false`), `recomputeScaleFactor` (default `false`).
   */
  constructor(options: UpsampleOptions) {
    super();
    this.options = options;
  }
  /** The resized input. */
  override forward(x: Tensor): Tensor {
    return ops.interpolate(x, this.options);
  }
  /** The settings. */
  override extraRepr(): string {
    const text = (value: unknown) => Array.isArray(value) ? `[${(value as Shape).join(", ")}]` : JSON.stringify(value);
    const given = Object.entries({ ...this.options, mode: this.options.mode ?? "nearest" }).filter(([, value]) => value !== undefined);
    return given.map(([name, value]) => `${name}=${text(value)}`).join(", ");
  }
}

/** Nearest-neighbour upsampling of `[N, C, H, W]`. */
export class UpsamplingNearest2d extends Upsample {
  /**
   * Makes the layer.
   *
   * @param target `size` or `scaleFactor`.
   */
  constructor(target: UpsampleTarget) {
    super({ ...target, mode: "nearest" });
  }
}

/** Bilinear upsampling of `[N, C, H, W]` with `alignCorners: true`. */
export class UpsamplingBilinear2d extends Upsample {
  /**
   * Makes the layer.
   *
   * @param target `size` or `scaleFactor`.
   */
  constructor(target: UpsampleTarget) {
    super({ ...target, mode: "bilinear", alignCorners: true });
  }
}

markTransient(Upsample, UpsamplingNearest2d, UpsamplingBilinear2d);
