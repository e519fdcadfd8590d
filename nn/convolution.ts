/**
 * Convolution layers.
 *
 * @module
 */
import * as ops from "../ops/mod.ts";
import { numelOf, textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { markTransient } from "./transient.ts";
import { calculateFan, kaimingUniform_, uniform_ } from "./init.ts";
import { checkSize, type Layer, Module } from "./module.ts";
import { Parameter, type Placement } from "./parameter.ts";

/** One size for all axes, or one per axis. */
export type Sizes = number | readonly number[];

/** How positions outside the input are filled. */
export type PaddingMode = "zeros" | "reflect" | "replicate" | "circular";

/** Settings of a convolution layer. */
export interface ConvOptions extends Placement {
  /** Step of the window. Default `1`. */
  stride?: Sizes;
  /** Positions added on both sides of each axis; `"same"` for an output of the input's size (stride 1 only), `"valid"` for none. Default `0`. */
  padding?: Sizes | "same" | "valid";
  /** Distance of the kernel's elements. Default `1`. */
  dilation?: Sizes;
  /** Groups of channels that do not mix. Default `1`. */
  groups?: number;
  /** Add a learnt bias. Default `true`. */
  bias?: boolean;
  /** What the added positions hold. Default `"zeros"`. */
  paddingMode?: PaddingMode;
}

/** Settings of a transposed convolution layer. */
export interface ConvTransposeOptions extends Placement {
  /** Step of the window in the output. Default `1`. */
  stride?: Sizes;
  /** Positions cut off on both sides of each axis of the output. Default `0`. */
  padding?: Sizes;
  /** Positions added at the end of each axis of the output. Default `0`. */
  outputPadding?: Sizes;
  /** Groups of channels that do not mix. Default `1`. */
  groups?: number;
  /** Add a learnt bias. Default `true`. */
  bias?: boolean;
  /** Distance of the kernel's elements. Default `1`. */
  dilation?: Sizes;
}

function perAxis(value: Sizes, axes: number, name: string, op: string, least: number): number[] {
  const sizes = typeof value === "number" ? new Array<number>(axes).fill(value) : [...value];
  if (sizes.length !== axes) throw new RangeError(`${op}: ${name} must be a number or ${axes} of them, got ${textOf(sizes)}`);
  for (const size of sizes) checkSize(size, name, op, least);
  return sizes;
}

/** What all convolution layers have in common. */
export abstract class Convolution extends Module {
  /** Channels of the input. */
  readonly inChannels: number;
  /** Channels of the output. */
  readonly outChannels: number;
  /** Sizes of the kernel. */
  readonly kernelSize: readonly number[];
  /** Steps of the window. */
  readonly stride: readonly number[];
  /** Padding of each axis. */
  readonly padding: readonly number[] | "same" | "valid";
  /** Distances of the kernel's elements. */
  readonly dilation: readonly number[];
  /** Groups of channels that do not mix. */
  readonly groups: number;
  /** The kernels. */
  weight: Parameter;
  /** `[outChannels]`, or `null`. */
  bias: Parameter | null;

  /** Checks the settings and makes the parameters. */
  protected constructor(
    op: string,
    axes: number,
    transposed: boolean,
    inChannels: number,
    outChannels: number,
    kernelSize: Sizes,
    options: ConvOptions | undefined,
  ) {
    super();
    const { stride = 1, padding = 0, dilation = 1, groups = 1, bias = true, dtype, device } = options ?? {};
    checkSize(inChannels, "inChannels", op);
    checkSize(outChannels, "outChannels", op);
    checkSize(groups, "groups", op);
    if (inChannels % groups !== 0 || outChannels % groups !== 0) {
      throw new RangeError(`${op}: ${groups} groups do not divide ${inChannels} input and ${outChannels} output channels`);
    }
    this.inChannels = inChannels;
    this.outChannels = outChannels;
    this.groups = groups;
    this.kernelSize = perAxis(kernelSize, axes, "kernelSize", op, 1);
    this.stride = perAxis(stride, axes, "stride", op, 1);
    this.dilation = perAxis(dilation, axes, "dilation", op, 1);
    if (typeof padding === "string") {
      if (padding !== "same" && padding !== "valid") {
        throw new RangeError(`${op}: padding must be numbers, "same" or "valid", got ${JSON.stringify(padding)}`);
      }
      if (padding === "same" && this.stride.some((s) => s !== 1)) {
        throw new RangeError(`${op}: padding "same" takes stride 1, got ${textOf(this.stride)}`);
      }
      this.padding = padding;
    } else this.padding = perAxis(padding, axes, "padding", op, 0);
    const shape = transposed ? [inChannels, outChannels / groups] : [outChannels, inChannels / groups];
    // Channels innermost, as the kernels read it.
    const memory = ops.empty([shape[0], ...this.kernelSize, shape[1]], { dtype, device });
    this.weight = Parameter.take(memory.movedim(-1, 1));
    memory.dispose();
    this.bias = bias ? Parameter.take(ops.empty([outChannels], { dtype, device })) : null;
    this.resetParameters();
  }
  /** Draws new initial values: uniform in `±1 / sqrt(weights of one output)`. */
  resetParameters(): void {
    kaimingUniform_(this.weight, { a: Math.sqrt(5) });
    const bound = 1 / Math.sqrt(calculateFan(this.weight).fanIn);
    if (this.bias !== null) uniform_(this.bias, -bound, bound);
  }
  /**
   * The layer, then the activation in the memory of its result, as one step of the graph. Used inside `Sequential` by itself; with hooks on this layer, or a
   * subclass's own `forward`, the steps are done one after the other.
   */
  fused(x: Tensor, options: ops.ActivationOptions): Tensor {
    if (!this.hasHooks && own.has(this.forward)) return this.run(x, options);
    return ops.activate((this as Layer).call(x), options);
  }
  /** The convolution of the input, then the activation. */
  protected abstract run(x: Tensor, options?: ops.ActivationOptions): Tensor;
  /** The settings, those of their default left out. */
  override extraRepr(): string {
    const { inChannels, outChannels, kernelSize, stride, padding, dilation, groups } = this;
    const parts = [`${inChannels}`, `${outChannels}`, `kernelSize=${textOf(kernelSize)}`, `stride=${textOf(stride)}`];
    if (typeof padding === "string") parts.push(`padding="${padding}"`);
    else if (padding.some((p) => p !== 0)) parts.push(`padding=${textOf(padding)}`);
    if (dilation.some((d) => d !== 1)) parts.push(`dilation=${textOf(dilation)}`);
    if (groups !== 1) parts.push(`groups=${groups}`);
    if (this.bias === null) parts.push("bias=false");
    return parts.join(", ");
  }
}

/** The convolution functions by number of axes. */
const convolutions = [ops.conv1d, ops.conv2d, ops.conv3d], transposed = [ops.convTranspose1d, ops.convTranspose2d, ops.convTranspose3d];

/** A convolution with zeros around the input, or with the input extended first. */
export abstract class PaddedConvolution extends Convolution {
  /** What the added positions hold. */
  readonly paddingMode: PaddingMode;

  /** Checks the settings and makes the parameters. */
  protected constructor(op: string, axes: number, inChannels: number, outChannels: number, kernelSize: Sizes, options?: ConvOptions) {
    super(op, axes, false, inChannels, outChannels, kernelSize, options);
    this.paddingMode = options?.paddingMode ?? "zeros";
    if (!["zeros", "reflect", "replicate", "circular"].includes(this.paddingMode)) {
      throw new RangeError(
        `${op}: paddingMode must be "zeros", "reflect", "replicate" or "circular", got ${JSON.stringify(this.paddingMode)}`,
      );
    }
  }
  /** The convolution of the input, then the activation. */
  protected override run(x: Tensor, options?: ops.ActivationOptions): Tensor {
    const conv = convolutions[this.kernelSize.length - 1];
    return this.#padded(x, (x, settings) => conv(x, this.weight, this.bias, { ...settings, ...options }));
  }
  /**
   * What `body` makes of the input, extended where zeros will not do, and of the settings of its convolution; `null` where that is not all that the layer
   * does: with hooks, in a subclass of its own ways, and without a batch axis.
   */
  plainly<T>(x: Tensor, body: (x: Tensor, settings: ops.ConvOptions) => T): T | null {
    if (this.hasHooks || !own.has(this.forward) || this.run !== PaddedConvolution.prototype.run) return null;
    return x instanceof Tensor && x.rank === this.kernelSize.length + 2 ? this.#padded(x, body) : null;
  }
  /** Gives `body` the input, extended where zeros will not do, and the settings of the convolution of it. */
  #padded<T>(x: Tensor, body: (x: Tensor, settings: ops.ConvOptions) => T): T {
    const { stride, dilation, groups, padding } = this;
    if (this.paddingMode === "zeros" || padding === "valid") return body(x, { stride, padding, dilation, groups });
    // Pairs from the last axis to the first, as `pad` takes them.
    const sides: number[] = [];
    for (let axis = this.kernelSize.length - 1; axis >= 0; axis--) {
      if (padding === "same") {
        const total = dilation[axis] * (this.kernelSize[axis] - 1), left = Math.floor(total / 2);
        sides.push(left, total - left);
      } else sides.push(padding[axis], padding[axis]);
    }
    using extended = ops.pad(x, sides, { mode: this.paddingMode as Exclude<PaddingMode, "zeros"> });
    return body(extended, { stride, padding: 0, dilation, groups });
  }
  /** The settings, those of their default left out. */
  override extraRepr(): string {
    return super.extraRepr() + (this.paddingMode === "zeros" ? "" : `, paddingMode="${this.paddingMode}"`);
  }
}

/**
 * Convolution over 1 axis (cross-correlation, as in PyTorch).
 *
 * Parameters: `weight` `[outChannels, inChannels / groups, ...kernelSize]` and `bias` `[outChannels]`, both uniform in `±1 / sqrt(n)` with `n` the number of
 * weights of one output.
 *
 * Shapes: `[N, C, L]`, or without `N`; each size becomes `floor((size + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1`.
 *
 * @example
 * ```ts
 * import { nn, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using conv = new nn.Conv1d(3, 8, 3, { stride: 2, padding: 1 });
 * assertEquals(conv.call(ones([1, 3, 6])).shape, [1, 8, 3]);
 * ```
 */
export class Conv1d extends PaddedConvolution {
  /**
   * Makes the module.
   *
   * @param inChannels Channels of the input.
   * @param outChannels Channels of the output.
   * @param kernelSize Size of the kernel, or one per axis.
   * @param options Stride, padding, dilation, groups, bias, padding mode.
   */
  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, options?: ConvOptions) {
    super("Conv1d", 1, inChannels, outChannels, kernelSize, options);
  }
  /** The convolution of the input. */
  override forward(x: Tensor): Tensor {
    return this.run(x);
  }
}

/**
 * Convolution over 2 axes (cross-correlation, as in PyTorch).
 *
 * Parameters: `weight` `[outChannels, inChannels / groups, ...kernelSize]` and `bias` `[outChannels]`, both uniform in `±1 / sqrt(n)` with `n` the number of
 * weights of one output.
 *
 * Shapes: `[N, C, H, W]`, or without `N`; each size becomes `floor((size + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1`.
 *
 * @example
 * ```ts
 * import { nn, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using conv = new nn.Conv2d(3, 8, 3, { stride: 2, padding: 1 });
 * assertEquals(conv.call(ones([1, 3, 6, 6])).shape, [1, 8, 3, 3]);
 * ```
 */
export class Conv2d extends PaddedConvolution {
  /**
   * Makes the module.
   *
   * @param inChannels Channels of the input.
   * @param outChannels Channels of the output.
   * @param kernelSize Size of the kernel, or one per axis.
   * @param options Stride, padding, dilation, groups, bias, padding mode.
   */
  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, options?: ConvOptions) {
    super("Conv2d", 2, inChannels, outChannels, kernelSize, options);
  }
  /** The convolution of the input. */
  override forward(x: Tensor): Tensor {
    return this.run(x);
  }
}

/**
 * Convolution over 3 axes (cross-correlation, as in PyTorch).
 *
 * Parameters: `weight` `[outChannels, inChannels / groups, ...kernelSize]` and `bias` `[outChannels]`, both uniform in `±1 / sqrt(n)` with `n` the number of
 * weights of one output.
 *
 * Shapes: `[N, C, D, H, W]`, or without `N`; each size becomes `floor((size + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1`.
 *
 * @example
 * ```ts
 * import { nn, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using conv = new nn.Conv3d(3, 8, 3, { stride: 2, padding: 1 });
 * assertEquals(conv.call(ones([1, 3, 6, 6, 6])).shape, [1, 8, 3, 3, 3]);
 * ```
 */
export class Conv3d extends PaddedConvolution {
  /**
   * Makes the module.
   *
   * @param inChannels Channels of the input.
   * @param outChannels Channels of the output.
   * @param kernelSize Size of the kernel, or one per axis.
   * @param options Stride, padding, dilation, groups, bias, padding mode.
   */
  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, options?: ConvOptions) {
    super("Conv3d", 3, inChannels, outChannels, kernelSize, options);
  }
  /** The convolution of the input. */
  override forward(x: Tensor): Tensor {
    return this.run(x);
  }
}

/** A transposed convolution: the derivative of a convolution with respect to its input. */
export abstract class TransposedConvolution extends Convolution {
  /** Positions added at the end of each axis of the output. */
  readonly outputPadding: readonly number[];

  /** Checks the settings and makes the parameters. */
  protected constructor(
    op: string,
    axes: number,
    inChannels: number,
    outChannels: number,
    kernelSize: Sizes,
    options?: ConvTransposeOptions,
  ) {
    if (typeof options?.padding === "string") throw new RangeError(`${op}: padding must be numbers, got "${options.padding}"`);
    super(op, axes, true, inChannels, outChannels, kernelSize, options);
    this.outputPadding = perAxis(options?.outputPadding ?? 0, axes, "outputPadding", op, 0);
  }
  /**
   * Padding at the end that gives an output of the wanted size.
   *
   * @throws {RangeError} If no padding less than the stride does.
   */
  protected outputPaddingFor(x: Tensor, outputSize: readonly number[] | undefined): readonly number[] {
    if (outputSize === undefined) return this.outputPadding;
    const axes = this.kernelSize.length, wanted = outputSize.slice(-axes), given = x.shape.slice(-axes);
    return wanted.map((size, i) => {
      const least = (given[i] - 1) * this.stride[i] - 2 * (this.padding as readonly number[])[i] +
        this.dilation[i] * (this.kernelSize[i] - 1) + 1;
      const greatest = least + Math.max(this.stride[i], this.dilation[i]) - 1;
      if (!(size >= least && size <= greatest)) {
        throw new RangeError(
          `${this.constructor.name}: outputSize ${textOf(wanted)} is out of reach, axis ${i} takes ${least} to ${greatest}`,
        );
      }
      return size - least;
    });
  }
  /** The transposed convolution of the input, then the activation. */
  protected override run(x: Tensor, options?: ops.ActivationOptions, outputSize?: readonly number[]): Tensor {
    const { stride, dilation, groups } = this, padding = this.padding as readonly number[];
    const settings = { stride, padding, dilation, groups, outputPadding: this.outputPaddingFor(x, outputSize), ...options };
    return transposed[this.kernelSize.length - 1](x, this.weight, this.bias, settings);
  }
  /** The settings, those of their default left out. */
  override extraRepr(): string {
    return super.extraRepr() + (numelOf(this.outputPadding.map((p) => p + 1)) === 1 ? "" : `, outputPadding=${textOf(this.outputPadding)}`);
  }
}

/**
 * Transposed convolution over 1 axis: the derivative of a convolution with respect to its input, used for upsampling.
 *
 * Parameters: `weight` `[inChannels, outChannels / groups, ...kernelSize]` and `bias` `[outChannels]`, both uniform in `±1 / sqrt(n)` with
 * `n = outChannels / groups * kernel elements`, as in PyTorch.
 *
 * Shapes: `[N, C, L]`, or without `N`; each size becomes `(size - 1) * stride - 2 * padding + dilation * (kernel - 1) + outputPadding + 1`.
 *
 * @example
 * ```ts
 * import { nn, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using up = new nn.ConvTranspose1d(8, 3, 2, { stride: 2 });
 * assertEquals(up.call(ones([1, 8, 3])).shape, [1, 3, 6]);
 * ```
 */
export class ConvTranspose1d extends TransposedConvolution {
  /**
   * Makes the module.
   *
   * @param inChannels Channels of the input.
   * @param outChannels Channels of the output.
   * @param kernelSize Size of the kernel, or one per axis.
   * @param options Stride, padding, output padding, groups, bias, dilation.
   */
  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, options?: ConvTransposeOptions) {
    super("ConvTranspose1d", 1, inChannels, outChannels, kernelSize, options);
  }
  /**
   * The transposed convolution of the input.
   *
   * @param outputSize Sizes wanted of the output, instead of `outputPadding`.
   */
  override forward(x: Tensor, outputSize?: readonly number[]): Tensor {
    return this.run(x, undefined, outputSize);
  }
}

/**
 * Transposed convolution over 2 axes: the derivative of a convolution with respect to its input, used for upsampling.
 *
 * Parameters: `weight` `[inChannels, outChannels / groups, ...kernelSize]` and `bias` `[outChannels]`, both uniform in `±1 / sqrt(n)` with
 * `n = outChannels / groups * kernel elements`, as in PyTorch.
 *
 * Shapes: `[N, C, H, W]`, or without `N`; each size becomes `(size - 1) * stride - 2 * padding + dilation * (kernel - 1) + outputPadding + 1`.
 *
 * @example
 * ```ts
 * import { nn, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using up = new nn.ConvTranspose2d(8, 3, 2, { stride: 2 });
 * assertEquals(up.call(ones([1, 8, 3, 3])).shape, [1, 3, 6, 6]);
 * ```
 */
export class ConvTranspose2d extends TransposedConvolution {
  /**
   * Makes the module.
   *
   * @param inChannels Channels of the input.
   * @param outChannels Channels of the output.
   * @param kernelSize Size of the kernel, or one per axis.
   * @param options Stride, padding, output padding, groups, bias, dilation.
   */
  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, options?: ConvTransposeOptions) {
    super("ConvTranspose2d", 2, inChannels, outChannels, kernelSize, options);
  }
  /**
   * The transposed convolution of the input.
   *
   * @param outputSize Sizes wanted of the output, instead of `outputPadding`.
   */
  override forward(x: Tensor, outputSize?: readonly number[]): Tensor {
    return this.run(x, undefined, outputSize);
  }
}

/**
 * Transposed convolution over 3 axes: the derivative of a convolution with respect to its input, used for upsampling.
 *
 * Parameters: `weight` `[inChannels, outChannels / groups, ...kernelSize]` and `bias` `[outChannels]`, both uniform in `±1 / sqrt(n)` with
 * `n = outChannels / groups * kernel elements`, as in PyTorch.
 *
 * Shapes: `[N, C, D, H, W]`, or without `N`; each size becomes `(size - 1) * stride - 2 * padding + dilation * (kernel - 1) + outputPadding + 1`.
 *
 * @example
 * ```ts
 * import { nn, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using up = new nn.ConvTranspose3d(8, 3, 2, { stride: 2 });
 * assertEquals(up.call(ones([1, 8, 3, 3, 3])).shape, [1, 3, 6, 6, 6]);
 * ```
 */
export class ConvTranspose3d extends TransposedConvolution {
  /**
   * Makes the module.
   *
   * @param inChannels Channels of the input.
   * @param outChannels Channels of the output.
   * @param kernelSize Size of the kernel, or one per axis.
   * @param options Stride, padding, output padding, groups, bias, dilation.
   */
  constructor(inChannels: number, outChannels: number, kernelSize: Sizes, options?: ConvTransposeOptions) {
    super("ConvTranspose3d", 3, inChannels, outChannels, kernelSize, options);
  }
  /**
   * The transposed convolution of the input.
   *
   * @param outputSize Sizes wanted of the output, instead of `outputPadding`.
   */
  override forward(x: Tensor, outputSize?: readonly number[]): Tensor {
    return this.run(x, undefined, outputSize);
  }
}

const layers = [Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d];
/** What their own `forward` does, `run` does. */
const own = new Set<Convolution["forward"]>(layers.map((layer) => layer.prototype.forward));
markTransient(...layers);
