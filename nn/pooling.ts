/**
 * Pooling as modules. Each is the function of that name with its settings; see there for ties, borders and derivatives.
 *
 * @module
 */
import * as ops from "../ops/mod.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { markTransient } from "./transient.ts";
import { Module } from "./module.ts";

/** Settings as `name=value`, those that were given. */
function settings(values: Readonly<Record<string, unknown>>): string {
  const text = (value: unknown) => Array.isArray(value) ? `[${value.join(", ")}]` : String(value);
  return Object.entries(values).filter(([, value]) => value !== undefined).map(([name, value]) => `${name}=${text(value)}`).join(", ");
}

/**
 * Maxima over windows of the last axis: {@linkcode maxPool1d}. Takes `[N, C, L]` or `[C, L]`.
 */
export class MaxPool1d<const O extends ops.MaxPoolOptions = ops.MaxPoolOptions> extends Module {
  /** Window. */
  readonly kernelSize: ops.PoolSize;
  /** Stride (default: the window), padding, dilation, `ceilMode`, `returnIndices`. */
  readonly options: O | undefined;

  /**
   * Makes the layer.
   *
   * @param kernelSize Window.
   * @param options Stride (default: the window), padding, dilation, `ceilMode`, `returnIndices` (then `forward` gives `[values, indices]`).
   */
  constructor(kernelSize: ops.PoolSize, options?: O) {
    super();
    this.kernelSize = kernelSize;
    this.options = options;
  }
  /** The maxima, or `[maxima, indices]`. */
  override forward(x: Tensor): ops.Pooled<O> {
    return ops.maxPool1d(x, this.kernelSize, this.options) as ops.Pooled<O>;
  }
  /** The settings. */
  override extraRepr(): string {
    return settings({ kernelSize: this.kernelSize, ...this.options });
  }
}

/**
 * Maxima over windows of the last two axes: {@linkcode maxPool2d}. Takes `[N, C, H, W]` or `[C, H, W]`.
 *
 * @example
 * ```ts
 * import { nn, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(new nn.MaxPool2d(3, { stride: 2, padding: 1 }).call(ones([1, 4, 9, 9])).shape, [1, 4, 5, 5]);
 * ```
 */
export class MaxPool2d<const O extends ops.MaxPoolOptions = ops.MaxPoolOptions> extends Module {
  /** Window. */
  readonly kernelSize: ops.PoolSize;
  /** Stride (default: the window), padding, dilation, `ceilMode`, `returnIndices`. */
  readonly options: O | undefined;

  /**
   * Makes the layer.
   *
   * @param kernelSize Window, one size or one per axis.
   * @param options Stride (default: the window), padding, dilation, `ceilMode`, `returnIndices` (then `forward` gives `[values, indices]`).
   */
  constructor(kernelSize: ops.PoolSize, options?: O) {
    super();
    this.kernelSize = kernelSize;
    this.options = options;
  }
  /** The maxima, or `[maxima, indices]`. */
  override forward(x: Tensor): ops.Pooled<O> {
    return ops.maxPool2d(x, this.kernelSize, this.options) as ops.Pooled<O>;
  }
  /** The settings. */
  override extraRepr(): string {
    return settings({ kernelSize: this.kernelSize, ...this.options });
  }
}

/**
 * Maxima over windows of the last three axes: {@linkcode maxPool3d}. Takes `[N, C, D, H, W]` or `[C, D, H, W]`.
 */
export class MaxPool3d<const O extends ops.MaxPoolOptions = ops.MaxPoolOptions> extends Module {
  /** Window. */
  readonly kernelSize: ops.PoolSize;
  /** Stride (default: the window), padding, dilation, `ceilMode`, `returnIndices`. */
  readonly options: O | undefined;

  /**
   * Makes the layer.
   *
   * @param kernelSize Window, one size or one per axis.
   * @param options Stride (default: the window), padding, dilation, `ceilMode`, `returnIndices` (then `forward` gives `[values, indices]`).
   */
  constructor(kernelSize: ops.PoolSize, options?: O) {
    super();
    this.kernelSize = kernelSize;
    this.options = options;
  }
  /** The maxima, or `[maxima, indices]`. */
  override forward(x: Tensor): ops.Pooled<O> {
    return ops.maxPool3d(x, this.kernelSize, this.options) as ops.Pooled<O>;
  }
  /** The settings. */
  override extraRepr(): string {
    return settings({ kernelSize: this.kernelSize, ...this.options });
  }
}

/** The partial inverse of `MaxPool1d`: {@linkcode maxUnpool1d}. */
export class MaxUnpool1d extends Module {
  /** Window, stride (default: the window) and padding of the pooling. */
  readonly options: ops.MaxUnpoolOptions;

  /**
   * Makes the layer.
   *
   * @param kernelSize Window of the pooling.
   * @param options Its stride (default: the window) and padding.
   */
  constructor(kernelSize: ops.PoolSize, options?: Omit<ops.MaxUnpoolOptions, "kernelSize" | "outputSize">) {
    super();
    this.options = { ...options, kernelSize };
  }
  /** Maxima put back to their `indices`, zeros elsewhere; `outputSize` where several sizes pool to the input's. */
  override forward(x: Tensor, indices: Tensor, outputSize: Shape | null = null): Tensor {
    return ops.maxUnpool1d(x, indices, { ...this.options, outputSize });
  }
  /** The settings. */
  override extraRepr(): string {
    return settings({ ...this.options });
  }
}

/** The partial inverse of `MaxPool2d`: {@linkcode maxUnpool2d}. */
export class MaxUnpool2d extends Module {
  /** Window, stride (default: the window) and padding of the pooling. */
  readonly options: ops.MaxUnpoolOptions;

  /**
   * Makes the layer.
   *
   * @param kernelSize Window of the pooling.
   * @param options Its stride (default: the window) and padding.
   */
  constructor(kernelSize: ops.PoolSize, options?: Omit<ops.MaxUnpoolOptions, "kernelSize" | "outputSize">) {
    super();
    this.options = { ...options, kernelSize };
  }
  /** Maxima put back to their `indices`, zeros elsewhere; `outputSize` where several sizes pool to the input's. */
  override forward(x: Tensor, indices: Tensor, outputSize: Shape | null = null): Tensor {
    return ops.maxUnpool2d(x, indices, { ...this.options, outputSize });
  }
  /** The settings. */
  override extraRepr(): string {
    return settings({ ...this.options });
  }
}

/** The partial inverse of `MaxPool3d`: {@linkcode maxUnpool3d}. */
export class MaxUnpool3d extends Module {
  /** Window, stride (default: the window) and padding of the pooling. */
  readonly options: ops.MaxUnpoolOptions;

  /**
   * Makes the layer.
   *
   * @param kernelSize Window of the pooling.
   * @param options Its stride (default: the window) and padding.
   */
  constructor(kernelSize: ops.PoolSize, options?: Omit<ops.MaxUnpoolOptions, "kernelSize" | "outputSize">) {
    super();
    this.options = { ...options, kernelSize };
  }
  /** Maxima put back to their `indices`, zeros elsewhere; `outputSize` where several sizes pool to the input's. */
  override forward(x: Tensor, indices: Tensor, outputSize: Shape | null = null): Tensor {
    return ops.maxUnpool3d(x, indices, { ...this.options, outputSize });
  }
  /** The settings. */
  override extraRepr(): string {
    return settings({ ...this.options });
  }
}

/** Averages over windows of the last axis: {@linkcode avgPool1d}. Takes `[N, C, L]` or `[C, L]`. */
export class AvgPool1d extends Module {
  /** Window. */
  readonly kernelSize: ops.PoolSize;
  /** Stride (default: the window), padding, `ceilMode`, `countIncludePad`, `divisorOverride`. */
  readonly options: ops.AvgPoolOptions | undefined;

  /**
   * Makes the layer.
   *
   * @param kernelSize Window.
   * @param options Stride (default: the window), padding, `ceilMode`, `countIncludePad` (default `true`), `divisorOverride`.
   */
  constructor(kernelSize: ops.PoolSize, options?: ops.AvgPoolOptions) {
    super();
    this.kernelSize = kernelSize;
    this.options = options;
  }
  /** The averages. */
  override forward(x: Tensor): Tensor {
    return ops.avgPool1d(x, this.kernelSize, this.options);
  }
  /** The settings. */
  override extraRepr(): string {
    return settings({ kernelSize: this.kernelSize, ...this.options });
  }
}

/** Averages over windows of the last two axes: {@linkcode avgPool2d}. Takes `[N, C, H, W]` or `[C, H, W]`. */
export class AvgPool2d extends Module {
  /** Window. */
  readonly kernelSize: ops.PoolSize;
  /** Stride (default: the window), padding, `ceilMode`, `countIncludePad`, `divisorOverride`. */
  readonly options: ops.AvgPoolOptions | undefined;

  /**
   * Makes the layer.
   *
   * @param kernelSize Window, one size or one per axis.
   * @param options Stride (default: the window), padding, `ceilMode`, `countIncludePad` (default `true`), `divisorOverride`.
   */
  constructor(kernelSize: ops.PoolSize, options?: ops.AvgPoolOptions) {
    super();
    this.kernelSize = kernelSize;
    this.options = options;
  }
  /** The averages. */
  override forward(x: Tensor): Tensor {
    return ops.avgPool2d(x, this.kernelSize, this.options);
  }
  /** The settings. */
  override extraRepr(): string {
    return settings({ kernelSize: this.kernelSize, ...this.options });
  }
}

/** Averages over windows of the last three axes: {@linkcode avgPool3d}. Takes `[N, C, D, H, W]` or `[C, D, H, W]`. */
export class AvgPool3d extends Module {
  /** Window. */
  readonly kernelSize: ops.PoolSize;
  /** Stride (default: the window), padding, `ceilMode`, `countIncludePad`, `divisorOverride`. */
  readonly options: ops.AvgPoolOptions | undefined;

  /**
   * Makes the layer.
   *
   * @param kernelSize Window, one size or one per axis.
   * @param options Stride (default: the window), padding, `ceilMode`, `countIncludePad` (default `true`), `divisorOverride`.
   */
  constructor(kernelSize: ops.PoolSize, options?: ops.AvgPoolOptions) {
    super();
    this.kernelSize = kernelSize;
    this.options = options;
  }
  /** The averages. */
  override forward(x: Tensor): Tensor {
    return ops.avgPool3d(x, this.kernelSize, this.options);
  }
  /** The settings. */
  override extraRepr(): string {
    return settings({ kernelSize: this.kernelSize, ...this.options });
  }
}

/** Averages over windows chosen by the size of the result: {@linkcode adaptiveAvgPool1d}. */
export class AdaptiveAvgPool1d extends Module {
  /** Sizes of the result. */
  readonly outputSize: ops.AdaptiveSize;

  /**
   * Makes the layer.
   *
   * @param outputSize Sizes of the result; `null` keeps the input's.
   */
  constructor(outputSize: ops.AdaptiveSize) {
    super();
    this.outputSize = outputSize;
  }
  /** The averages. */
  override forward(x: Tensor): Tensor {
    return ops.adaptiveAvgPool1d(x, this.outputSize);
  }
  /** The settings. */
  override extraRepr(): string {
    return settings({ outputSize: this.outputSize });
  }
}

/** Averages over windows chosen by the size of the result: {@linkcode adaptiveAvgPool2d}. */
export class AdaptiveAvgPool2d extends Module {
  /** Sizes of the result. */
  readonly outputSize: ops.AdaptiveSize;

  /**
   * Makes the layer.
   *
   * @param outputSize Sizes of the result, one or one per axis; `null` keeps the input's.
   */
  constructor(outputSize: ops.AdaptiveSize) {
    super();
    this.outputSize = outputSize;
  }
  /** The averages. */
  override forward(x: Tensor): Tensor {
    return ops.adaptiveAvgPool2d(x, this.outputSize);
  }
  /** The settings. */
  override extraRepr(): string {
    return settings({ outputSize: this.outputSize });
  }
}

/** Averages over windows chosen by the size of the result: {@linkcode adaptiveAvgPool3d}. */
export class AdaptiveAvgPool3d extends Module {
  /** Sizes of the result. */
  readonly outputSize: ops.AdaptiveSize;

  /**
   * Makes the layer.
   *
   * @param outputSize Sizes of the result, one or one per axis; `null` keeps the input's.
   */
  constructor(outputSize: ops.AdaptiveSize) {
    super();
    this.outputSize = outputSize;
  }
  /** The averages. */
  override forward(x: Tensor): Tensor {
    return ops.adaptiveAvgPool3d(x, this.outputSize);
  }
  /** The settings. */
  override extraRepr(): string {
    return settings({ outputSize: this.outputSize });
  }
}

/** Maxima over windows chosen by the size of the result: {@linkcode adaptiveMaxPool1d}. */
export class AdaptiveMaxPool1d<const O extends ops.AdaptiveMaxPoolOptions = ops.AdaptiveMaxPoolOptions> extends Module {
  /** Sizes of the result. */
  readonly outputSize: ops.AdaptiveSize;
  /** `returnIndices`. */
  readonly options: O | undefined;

  /**
   * Makes the layer.
   *
   * @param outputSize Sizes of the result; `null` keeps the input's.
   * @param options `returnIndices`: `forward` gives `[values, indices]`. Default `false`.
   */
  constructor(outputSize: ops.AdaptiveSize, options?: O) {
    super();
    this.outputSize = outputSize;
    this.options = options;
  }
  /** The maxima, or `[maxima, indices]`. */
  override forward(x: Tensor): ops.Pooled<O> {
    return ops.adaptiveMaxPool1d(x, this.outputSize, this.options) as ops.Pooled<O>;
  }
  /** The settings. */
  override extraRepr(): string {
    return settings({ outputSize: this.outputSize, ...this.options });
  }
}

/** Maxima over windows chosen by the size of the result: {@linkcode adaptiveMaxPool2d}. */
export class AdaptiveMaxPool2d<const O extends ops.AdaptiveMaxPoolOptions = ops.AdaptiveMaxPoolOptions> extends Module {
  /** Sizes of the result. */
  readonly outputSize: ops.AdaptiveSize;
  /** `returnIndices`. */
  readonly options: O | undefined;

  /**
   * Makes the layer.
   *
   * @param outputSize Sizes of the result, one or one per axis; `null` keeps the input's.
   * @param options `returnIndices`: `forward` gives `[values, indices]`. Default `false`.
   */
  constructor(outputSize: ops.AdaptiveSize, options?: O) {
    super();
    this.outputSize = outputSize;
    this.options = options;
  }
  /** The maxima, or `[maxima, indices]`. */
  override forward(x: Tensor): ops.Pooled<O> {
    return ops.adaptiveMaxPool2d(x, this.outputSize, this.options) as ops.Pooled<O>;
  }
  /** The settings. */
  override extraRepr(): string {
    return settings({ outputSize: this.outputSize, ...this.options });
  }
}

/** Maxima over windows chosen by the size of the result: {@linkcode adaptiveMaxPool3d}. */
export class AdaptiveMaxPool3d<const O extends ops.AdaptiveMaxPoolOptions = ops.AdaptiveMaxPoolOptions> extends Module {
  /** Sizes of the result. */
  readonly outputSize: ops.AdaptiveSize;
  /** `returnIndices`. */
  readonly options: O | undefined;

  /**
   * Makes the layer.
   *
   * @param outputSize Sizes of the result, one or one per axis; `null` keeps the input's.
   * @param options `returnIndices`: `forward` gives `[values, indices]`. Default `false`.
   */
  constructor(outputSize: ops.AdaptiveSize, options?: O) {
    super();
    this.outputSize = outputSize;
    this.options = options;
  }
  /** The maxima, or `[maxima, indices]`. */
  override forward(x: Tensor): ops.Pooled<O> {
    return ops.adaptiveMaxPool3d(x, this.outputSize, this.options) as ops.Pooled<O>;
  }
  /** The settings. */
  override extraRepr(): string {
    return settings({ outputSize: this.outputSize, ...this.options });
  }
}

markTransient(
  MaxPool1d,
  MaxPool2d,
  MaxPool3d,
  MaxUnpool1d,
  MaxUnpool2d,
  MaxUnpool3d,
  AvgPool1d,
  AvgPool2d,
  AvgPool3d,
  AdaptiveAvgPool1d,
  AdaptiveAvgPool2d,
  AdaptiveAvgPool3d,
  AdaptiveMaxPool1d,
  AdaptiveMaxPool2d,
  AdaptiveMaxPool3d,
);
