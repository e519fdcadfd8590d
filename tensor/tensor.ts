/**
 * The tensor: shape, strides and dtype over a storage, and its place in the autograd graph. Its methods are the functions of `ops/`.
 *
 * @module
 */
import type { GradHook, Node, PostAccumulateGradHook } from "../autograd/tape.ts";
import type { Device, DeviceLike } from "../ffi/device.ts";
import { AutogradError, DisposedError, ShapeError } from "../ffi/errors.ts";
import { transferred } from "../ffi/frame.ts";
import type { Storage } from "../ffi/storage.ts";
import type * as Ops from "../ops/mod.ts";
import { context } from "./context.ts";
import { codeOf, type DType } from "./dtype.ts";
import { recorder } from "./recorder.ts";
import { isContiguous, isDense, numelOf, type Shape, textOf } from "./shape.ts";

/** Nested arrays of numbers or booleans. */
export type NestedArray = number | boolean | bigint | readonly NestedArray[];

/** Typed arrays that a tensor can be read into or made from. */
export type TypedArray =
  | Float32Array<ArrayBuffer>
  | Float64Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | BigInt64Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>;

let ops: typeof Ops;

/** Gives the methods their implementations; `ops/mod.ts` calls it once. */
export function bindOps(implementations: typeof Ops): void {
  ops = implementations;
}

/**
 * A multi-dimensional array on a device, with define-by-run differentiation.
 *
 * Make one with `tensor`, `zeros`, `randn` and the other creation functions. Its memory is freed by `dispose()` (or `using`), at the end of the
 * `scope()` that made it, or some time after nothing refers to it any more.
 *
 * @example A gradient
 * ```ts
 * import { tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const x = tensor([1, 2, 3], { requiresGrad: true });
 * x.mul(x).sum().backward();
 * assertEquals(x.grad!.tolist(), [2, 4, 6]);
 * ```
 */
export class Tensor implements Disposable {
  /** Memory that the elements live in, shared with views. */
  readonly storage: Storage;
  /** Sizes of the axes, outermost first. */
  readonly shape: Shape;
  /** Elements to step in memory for a step along each axis. */
  readonly strides: Shape;
  /** Position of the first element in the storage. */
  readonly offset: number;
  /** Element type. */
  readonly dtype: DType;
  /** Native code of the dtype. */
  readonly dtypeCode: number;
  /** True once disposed. */
  disposed = false;
  /** Never freed by a scope: parameters, buffers, gradients, optimiser state and what `keep()` named. */
  kept = false;
  /** The recorded operation that made it; `null` for a leaf. */
  node: Node | null = null;
  /** Which output of that operation it is. */
  outputIndex = 0;
  /** `storage.graphVersion` when the graph node was taken. */
  graphVersion: number;
  /** The tensor that this one is a view of; never itself a view. */
  viewOf: Tensor | null = null;
  /** Hooks of a leaf; those of other tensors are with their node. */
  hooks: Set<GradHook> | null = null;
  /** Hooks of a leaf that see its whole gradient. */
  accumulateHooks: Set<PostAccumulateGradHook> | null = null;
  #grad: Tensor | null = null;
  #requiresGrad = false;
  #dense: boolean | undefined;

  /** Use the creation functions instead. */
  constructor(storage: Storage, shape: Shape, strides: Shape, offset: number, dtype: DType, owned = true) {
    this.storage = storage;
    this.shape = shape;
    this.strides = strides;
    this.offset = offset;
    this.dtype = dtype;
    this.dtypeCode = codeOf(dtype);
    this.graphVersion = storage.graphVersion;
    if (owned) {
      storage.retain();
      context().scope?.track(this);
    }
  }

  /** Another handle on the same elements and graph node that owns no memory, for what holds the storage by itself. */
  static unowned(x: Tensor, withGraph: boolean): Tensor {
    const alias = new Tensor(x.storage, x.shape, x.strides, x.offset, x.dtype, false);
    if (withGraph) {
      alias.node = x.node;
      alias.outputIndex = x.outputIndex;
      alias.#requiresGrad = x.#requiresGrad;
      alias.graphVersion = x.graphVersion;
    }
    return alias;
  }

  /** {@linkcode Tensor.unowned} that stands for output `index` of `node`. */
  static output(x: Tensor, node: Node, index: number): Tensor {
    const alias = Tensor.unowned(x, false);
    alias.node = node;
    alias.outputIndex = index;
    return alias;
  }

  /** Another handle on the same elements and graph node. */
  alias(): Tensor {
    const alias = new Tensor(this.storage, this.shape, this.strides, this.offset, this.dtype);
    alias.node = this.node;
    alias.outputIndex = this.outputIndex;
    alias.#requiresGrad = this.#requiresGrad;
    alias.graphVersion = this.graphVersion;
    return alias;
  }

  /** Frees the tensor's hold on its memory; views and saved tensors keep theirs. A second call does nothing. */
  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.storage.release();
  }

  /** The same as {@linkcode Tensor.dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Where the tensor lives. */
  get device(): Device {
    return this.storage.device;
  }
  /** Number of axes. */
  get rank(): number {
    return this.shape.length;
  }
  /** Number of axes (PyTorch's name). */
  get ndim(): number {
    return this.shape.length;
  }
  /** True for float32, float64, float16 and bfloat16. */
  get isFloat(): boolean {
    return this.dtypeCode < 4;
  }
  /** True when no recorded operation made it. */
  get isLeaf(): boolean {
    return this.node === null;
  }
  /** Counts in-place writes to the storage. */
  get version(): number {
    return this.storage.version;
  }
  /** True when the elements fill their memory without gaps, in some order of the axes. */
  get isDense(): boolean {
    return this.#dense ??= isDense(this.shape, this.strides);
  }

  /** Number of elements. */
  numel(): number {
    return numelOf(this.shape);
  }
  /** The sizes, or the size of one axis. */
  size(): Shape;
  /** The size of axis `dim`; negative ones count from the end. */
  size(dim: number): number;
  size(dim?: number): Shape | number {
    if (dim === undefined) return this.shape;
    const size = this.shape.at(dim);
    if (size === undefined) throw new RangeError(`size: dim ${dim} does not exist in ${textOf(this.shape)}`);
    return size;
  }
  /** True for row-major memory without gaps. */
  isContiguous(): boolean {
    return isContiguous(this.shape, this.strides);
  }

  /** True when operations on it are recorded: a leaf that asked for it, or a result of one. */
  get requiresGrad(): boolean {
    return this.#requiresGrad || this.node !== null;
  }
  set requiresGrad(value: boolean) {
    this.requiresGrad_(value);
  }
  /**
   * Starts or stops recording operations on this leaf.
   *
   * @throws {AutogradError} For a tensor that is not a leaf or not floating-point.
   */
  requiresGrad_(value = true): this {
    if (value && !this.isFloat) {
      throw new AutogradError(`requiresGrad: only floating point tensors have gradients, this one is ${this.dtype}`);
    }
    if (this.node !== null) {
      if (value) return this;
      throw new AutogradError(`requiresGrad: made by ${this.node.name}, only a leaf can stop requiring a gradient: detach() it`);
    }
    if (value !== this.#requiresGrad) this.storage.changes++;
    this.#requiresGrad = value;
    return this;
  }

  /**
   * Puts the elements of `x` in the place of this leaf's own, with their shape, dtype and device (PyTorch's `this.data = x`); both share the
   * memory then. Whoever holds this tensor, as an optimiser does, goes on with the new elements. `grad` stays as it is.
   *
   * @throws {AutogradError} If this tensor is not a leaf.
   */
  setData(x: Tensor): this {
    this.checkAlive("setData");
    x.checkAlive("setData");
    if (this.node !== null) throw new AutogradError(`setData: made by ${this.node.name}, only a leaf can be given other elements`);
    if (this.#requiresGrad && !x.isFloat) {
      throw new AutogradError(`setData: ${x.dtype} cannot hold the elements of a tensor with gradients`);
    }
    const self = this as { -readonly [K in keyof Tensor]: Tensor[K] };
    const before = this.storage;
    x.storage.retain();
    self.storage = x.storage;
    self.shape = x.shape;
    self.strides = x.strides;
    self.offset = x.offset;
    self.dtype = x.dtype;
    self.dtypeCode = x.dtypeCode;
    this.graphVersion = x.storage.graphVersion;
    this.viewOf = null;
    this.#dense = undefined;
    // Backward through operations that saved the old elements would mix them with the new: it is refused.
    if (before !== x.storage) before.version++;
    before.changes++;
    before.release();
    return this;
  }

  /**
   * Makes this handle stand for `x`, elements and graph node, until the returned function is called: what runs in between and names this tensor works
   * with `x`. For library code that runs a module with other parameters.
   */
  standFor(x: Tensor): () => void {
    const self = this as { -readonly [K in keyof Tensor]: Tensor[K] };
    const { storage, shape, strides, offset, node, outputIndex, graphVersion, grad } = this;
    const set = (s: typeof storage, sh: Shape, st: Shape, o: number, n: Node | null, i: number, v: number) => {
      self.storage = s;
      self.shape = sh;
      self.strides = st;
      self.offset = o;
      this.node = n;
      this.outputIndex = i;
      this.graphVersion = v;
      this.#dense = undefined;
    };
    set(x.storage, x.shape, x.strides, x.offset, x.node, x.outputIndex, x.graphVersion);
    this.grad = null;
    return () => {
      set(storage, shape, strides, offset, node, outputIndex, graphVersion);
      this.grad = grad;
    };
  }

  /** Refuses a tensor that was disposed. */
  checkAlive(op: string): void {
    if (this.disposed || this.storage.id === 0) {
      throw new DisposedError(`${op}: a tensor of shape ${textOf(this.shape)} was used after it was disposed`);
    }
    if (this.storage.detached) throw transferred();
  }

  // ---- autograd

  /** Gradient accumulated by `backward()`; `null` before. */
  get grad(): Tensor | null {
    if (recorder !== null) recorder.gradient(this, this.#grad);
    return this.#grad;
  }
  set grad(value: Tensor | null) {
    if (recorder !== null) recorder.gradient(this, this.#grad);
    this.#grad = value;
  }

  /**
   * Differentiates this tensor with respect to the leaves it was made from and adds the results to their `grad`.
   *
   * @param gradient Gradient of some scalar with respect to this tensor, its shape. Default 1 for a tensor with one element.
   * @param options.retainGraph Keep what backward needs, for a second call. Default: `createGraph`.
   * @param options.createGraph Record backward itself, for higher derivatives. Default `false`.
   * @throws {AutogradError} If it was not recorded, or the graph has been freed.
   */
  backward(gradient?: Tensor | null, options?: { retainGraph?: boolean; createGraph?: boolean }): void {
    ops.backward([this], gradient ? [gradient] : null, options);
  }
  /** The same elements, taking no part in the graph. */
  detach(): Tensor {
    return ops.detach(this);
  }
  /** Makes a result that is not a leaf keep its gradient in `grad`. */
  retainGrad(): void {
    ops.retainGrad(this);
  }
  /**
   * Calls `hook` with the gradient of this tensor whenever backward computes it; what it returns, if a tensor, takes its place.
   *
   * @returns A handle that removes the hook.
   */
  registerHook(hook: GradHook): { remove(): void } {
    return ops.registerHook(this, hook);
  }
  /**
   * Calls `hook` with this leaf whenever a backward pass has added all of its gradient to `grad`: once a pass, however often the leaf was used.
   *
   * @returns A handle that removes the hook.
   * @throws {AutogradError} If this tensor is not a leaf, or requires no gradient.
   *
   * @example
   * ```ts
   * import { tensor } from "@dinograd/dinograd";
   * import { assertEquals } from "@std/assert";
   * const x = tensor([1, 2], { requiresGrad: true }), seen: unknown[] = [];
   * x.registerPostAccumulateGradHook((leaf) => void seen.push(leaf.grad!.tolist()));
   * x.mul(x).sum().backward();
   * assertEquals(seen, [[2, 4]]);
   * ```
   */
  registerPostAccumulateGradHook(hook: PostAccumulateGradHook): { remove(): void } {
    return ops.registerPostAccumulateGradHook(this, hook);
  }

  // ---- reading

  /** The elements in row-major order, copied into a typed array. float16 and bfloat16 are read as float32, bool as `Uint8Array`. */
  data():
    | Float32Array<ArrayBuffer>
    | Float64Array<ArrayBuffer>
    | Int32Array<ArrayBuffer>
    | BigInt64Array<ArrayBuffer>
    | Uint8Array<ArrayBuffer> {
    return ops.data(this);
  }
  /** The elements as nested arrays; numbers, or booleans for dtype bool. */
  tolist(): NestedArray {
    return ops.tolist(this);
  }
  /** The one element, as a number (0 or 1 for bool). @throws {ShapeError} If there are more or none. */
  item(): number {
    return ops.item(this);
  }
  /** Readable form, abbreviated past 1000 elements. */
  toString(): string {
    return ops.format(this);
  }
  /** What `console.log` shows. */
  [Symbol.for("Deno.customInspect")](): string {
    return ops.format(this);
  }
  /** Iterates over axis 0. @throws {ShapeError} For a tensor without axes. */
  *[Symbol.iterator](): IterableIterator<Tensor> {
    if (this.rank === 0) throw new ShapeError("iteration over a tensor without axes");
    for (let i = 0; i < this.shape[0]; i++) yield this.select(0, i);
  }

  // ---- copies and conversion: ops/copy.ts

  /** A copy with memory of its own; differentiable. */
  clone(): Tensor {
    return ops.clone(this);
  }
  /** This tensor if it is row-major without gaps, else a copy that is. */
  contiguous(): Tensor {
    return ops.contiguous(this);
  }
  /** This tensor if axis 1 is innermost in memory, else a copy that is (PyTorch's `memory_format=torch.channels_last`). */
  channelsLast(): Tensor {
    return ops.channelsLast(this);
  }
  /** Converted to another dtype or device; this tensor itself when nothing changes. `nonBlocking`: do not wait for a copy from page-locked memory. */
  to(target: DType | DeviceLike | { dtype?: DType; device?: DeviceLike }, options?: { nonBlocking?: boolean }): Tensor {
    return ops.to(this, target, options);
  }
  /** As float32. */
  float(): Tensor {
    return ops.to(this, "float32");
  }
  /** As float64. */
  double(): Tensor {
    return ops.to(this, "float64");
  }
  /** As float16. */
  half(): Tensor {
    return ops.to(this, "float16");
  }
  /** As bfloat16. */
  bfloat16(): Tensor {
    return ops.to(this, "bfloat16");
  }
  /** As int32. */
  int(): Tensor {
    return ops.to(this, "int32");
  }
  /** As int64. */
  long(): Tensor {
    return ops.to(this, "int64");
  }
  /** As bool: true where not 0. */
  bool(): Tensor {
    return ops.to(this, "bool");
  }
  /** On the CPU. */
  cpu(): Tensor {
    return ops.to(this, "cpu");
  }
  /** On a GPU, the first by default. */
  cuda(index = 0): Tensor {
    return ops.to(this, `cuda:${index}`);
  }
  /** A copy in page-locked memory of the CPU, from which GPUs copy faster; this tensor itself if it is there already. */
  pinMemory(): Tensor {
    return ops.pinMemory(this);
  }
  /** True for page-locked memory. */
  get isPinned(): boolean {
    return ops.isPinned(this);
  }

  // ---- views: ops/view.ts

  /** The same elements in another shape; one size may be -1. A view where strides allow, else a copy. */
  reshape(shape: Shape): Tensor {
    return ops.reshape(this, shape);
  }
  /** The same memory in another shape. @throws {ShapeError} If the strides do not allow it. */
  view(shape: Shape): Tensor {
    return ops.view(this, shape);
  }
  /** Axes `startDim` to `endDim` merged into one. */
  flatten(startDim = 0, endDim = -1): Tensor {
    return ops.flatten(this, startDim, endDim);
  }
  /** Axis `dim` split into axes of `sizes`. */
  unflatten(dim: number, sizes: Shape): Tensor {
    return ops.unflatten(this, dim, sizes);
  }
  /** Axes in another order. */
  permute(dims: Shape): Tensor {
    return ops.permute(this, dims);
  }
  /** Two axes exchanged. */
  transpose(dim0: number, dim1: number): Tensor {
    return ops.transpose(this, dim0, dim1);
  }
  /** The transpose of a matrix. */
  get T(): Tensor {
    return ops.transpose(this, -2, -1);
  }
  /** An axis moved to another place. */
  movedim(source: number, destination: number): Tensor {
    return ops.movedim(this, source, destination);
  }
  /** Without the axes of size 1, or without those named that have size 1. */
  squeeze(dim?: number | readonly number[]): Tensor {
    return ops.squeeze(this, dim);
  }
  /** With an axis of size 1 before axis `dim`. */
  unsqueeze(dim: number): Tensor {
    return ops.unsqueeze(this, dim);
  }
  /** Axes of size 1 repeated without copying (stride 0); -1 keeps a size. */
  expand(shape: Shape): Tensor {
    return ops.expand(this, shape);
  }
  /** {@linkcode Tensor.expand} to the shape of another tensor. */
  expandAs(other: Tensor): Tensor {
    return ops.expand(this, other.shape);
  }
  /** {@linkcode Tensor.view} in the shape of another tensor. */
  viewAs(other: Tensor): Tensor {
    return ops.view(this, other.shape);
  }
  /** Elements `start` to `end` (exclusive) of axis `dim` in steps of `step`; negative positions count from the end. */
  slice(dim: number, start?: number | null, end?: number | null, step?: number): Tensor {
    return ops.slice(this, dim, start, end, step);
  }
  /** `length` elements of axis `dim` from `start`. */
  narrow(dim: number, start: number, length: number): Tensor {
    return ops.narrow(this, dim, start, length);
  }
  /** Position `index` of axis `dim`, without that axis. */
  select(dim: number, index: number): Tensor {
    return ops.select(this, dim, index);
  }
  /** The positions of axis `dim`, each without that axis. */
  unbind(dim = 0): Tensor[] {
    return ops.unbind(this, dim);
  }
  /** Pieces of `size` along `dim` (the last may be smaller), or of the sizes given. */
  split(size: number | readonly number[], dim = 0): Tensor[] {
    return ops.split(this, size, dim);
  }
  /** At most `chunks` pieces of equal size along `dim`. */
  chunk(chunks: number, dim = 0): Tensor[] {
    return ops.chunk(this, chunks, dim);
  }
  /** The diagonal of two axes, as the last axis of a view. */
  diagonal(offset = 0, dim1 = 0, dim2 = 1): Tensor {
    return ops.diagonal(this, offset, dim1, dim2);
  }
  /** The whole tensor repeated along each axis (a copy). */
  repeat(times: readonly number[]): Tensor {
    return ops.repeat(this, times);
  }

  // ---- unary functions: ops/unary.ts
  /** Sign changed. */ neg(): Tensor {
    return ops.neg(this);
  }
  /** Absolute value. */ abs(): Tensor {
    return ops.abs(this);
  }
  /** -1, 0 or 1. */ sign(): Tensor {
    return ops.sign(this);
  }
  /** `x * x`. */ square(): Tensor {
    return ops.square(this);
  }
  /** Square root. */ sqrt(): Tensor {
    return ops.sqrt(this);
  }
  /** `1 / sqrt(x)`. */ rsqrt(): Tensor {
    return ops.rsqrt(this);
  }
  /** `1 / x`. */ reciprocal(): Tensor {
    return ops.reciprocal(this);
  }
  /** `e^x`. */ exp(): Tensor {
    return ops.exp(this);
  }
  /** `2^x`. */ exp2(): Tensor {
    return ops.exp2(this);
  }
  /** `e^x - 1`, exact near 0. */ expm1(): Tensor {
    return ops.expm1(this);
  }
  /** Natural logarithm. */ log(): Tensor {
    return ops.log(this);
  }
  /** Logarithm to base 2. */ log2(): Tensor {
    return ops.log2(this);
  }
  /** Logarithm to base 10. */ log10(): Tensor {
    return ops.log10(this);
  }
  /** `log(1 + x)`, exact near 0. */ log1p(): Tensor {
    return ops.log1p(this);
  }
  /** Sine. */ sin(): Tensor {
    return ops.sin(this);
  }
  /** Cosine. */ cos(): Tensor {
    return ops.cos(this);
  }
  /** Tangent. */ tan(): Tensor {
    return ops.tan(this);
  }
  /** Inverse sine. */ asin(): Tensor {
    return ops.asin(this);
  }
  /** Inverse cosine. */ acos(): Tensor {
    return ops.acos(this);
  }
  /** Inverse tangent. */ atan(): Tensor {
    return ops.atan(this);
  }
  /** Hyperbolic sine. */ sinh(): Tensor {
    return ops.sinh(this);
  }
  /** Hyperbolic cosine. */ cosh(): Tensor {
    return ops.cosh(this);
  }
  /** Hyperbolic tangent. */ tanh(): Tensor {
    return ops.tanh(this);
  }
  /** Inverse hyperbolic sine. */ asinh(): Tensor {
    return ops.asinh(this);
  }
  /** Inverse hyperbolic cosine. */ acosh(): Tensor {
    return ops.acosh(this);
  }
  /** Inverse hyperbolic tangent. */ atanh(): Tensor {
    return ops.atanh(this);
  }
  /** Error function. */ erf(): Tensor {
    return ops.erf(this);
  }
  /** `1 - erf(x)`. */ erfc(): Tensor {
    return ops.erfc(this);
  }
  /** Rounded up. */ ceil(): Tensor {
    return ops.ceil(this);
  }
  /** Rounded down. */ floor(): Tensor {
    return ops.floor(this);
  }
  /** Rounded to nearest, halves to even. */ round(): Tensor {
    return ops.round(this);
  }
  /** Rounded towards 0. */ trunc(): Tensor {
    return ops.trunc(this);
  }
  /** `x - trunc(x)`. */ frac(): Tensor {
    return ops.frac(this);
  }
  /** Bits inverted; not, for bool. */ bitwiseNot(): Tensor {
    return ops.bitwiseNot(this);
  }
  /** True where NaN. */ isnan(): Tensor {
    return ops.isnan(this);
  }
  /** True where infinite. */ isinf(): Tensor {
    return ops.isinf(this);
  }
  /** True where neither NaN nor infinite. */ isfinite(): Tensor {
    return ops.isfinite(this);
  }
  /** True where 0. */ logicalNot(): Tensor {
    return ops.logicalNot(this);
  }
  /** Limited to `[min, max]`; NaN stays NaN. */ clamp(min: number | null, max?: number | null): Tensor {
    return ops.clamp(this, min, max);
  }

  // ---- activations: ops/activation.ts
  /** `max(x, 0)`. */ relu(): Tensor {
    return ops.relu(this);
  }
  /** `1 / (1 + e^-x)`. */ sigmoid(): Tensor {
    return ops.sigmoid(this);
  }

  // ---- binary functions: ops/binary.ts
  /** `this + alpha * other`. */ add(other: Tensor | number, options?: { alpha?: number }): Tensor {
    return ops.add(this, other, options);
  }
  /** `this - alpha * other`. */ sub(other: Tensor | number, options?: { alpha?: number }): Tensor {
    return ops.sub(this, other, options);
  }
  /** Product, element by element. */ mul(other: Tensor | number): Tensor {
    return ops.mul(this, other);
  }
  /** Quotient; of integers, too, a floating-point one unless `rounding` is given. */
  div(other: Tensor | number, options?: { rounding?: "trunc" | "floor" | null }): Tensor {
    return ops.div(this, other, options);
  }
  /** Power. */ pow(exponent: Tensor | number): Tensor {
    return ops.pow(this, exponent);
  }
  /** Quotient rounded down. */ floorDivide(other: Tensor | number): Tensor {
    return ops.floorDivide(this, other);
  }
  /** Remainder with the divisor's sign. */ remainder(other: Tensor | number): Tensor {
    return ops.remainder(this, other);
  }
  /** Remainder with the dividend's sign. */ fmod(other: Tensor | number): Tensor {
    return ops.fmod(this, other);
  }
  /** Angle of the point (`other`, `this`). */ atan2(other: Tensor): Tensor {
    return ops.atan2(this, other);
  }
  /** The larger, element by element; NaN where either is. */ maximum(other: Tensor): Tensor {
    return ops.maximum(this, other);
  }
  /** The smaller, element by element; NaN where either is. */ minimum(other: Tensor): Tensor {
    return ops.minimum(this, other);
  }
  /** Bits set in both. */ bitwiseAnd(other: Tensor | number): Tensor {
    return ops.bitwiseAnd(this, other);
  }
  /** Bits set in either. */ bitwiseOr(other: Tensor | number): Tensor {
    return ops.bitwiseOr(this, other);
  }
  /** Bits set in one of the two. */ bitwiseXor(other: Tensor | number): Tensor {
    return ops.bitwiseXor(this, other);
  }
  /** Bits moved up. */ bitwiseLeftShift(other: Tensor | number): Tensor {
    return ops.bitwiseLeftShift(this, other);
  }
  /** Bits moved down, the sign kept. */ bitwiseRightShift(other: Tensor | number): Tensor {
    return ops.bitwiseRightShift(this, other);
  }
  /** True where equal. */ eq(other: Tensor | number): Tensor {
    return ops.eq(this, other);
  }
  /** True where not equal. */ ne(other: Tensor | number): Tensor {
    return ops.ne(this, other);
  }
  /** True where less. */ lt(other: Tensor | number): Tensor {
    return ops.lt(this, other);
  }
  /** True where less or equal. */ le(other: Tensor | number): Tensor {
    return ops.le(this, other);
  }
  /** True where greater. */ gt(other: Tensor | number): Tensor {
    return ops.gt(this, other);
  }
  /** True where greater or equal. */ ge(other: Tensor | number): Tensor {
    return ops.ge(this, other);
  }
  /** True where both are not 0. */ logicalAnd(other: Tensor | number): Tensor {
    return ops.logicalAnd(this, other);
  }
  /** True where either is not 0. */ logicalOr(other: Tensor | number): Tensor {
    return ops.logicalOr(this, other);
  }
  /** True where one of the two is not 0. */ logicalXor(other: Tensor | number): Tensor {
    return ops.logicalXor(this, other);
  }
  /** `this` where `condition`, else `other`. */ where(condition: Tensor, other: Tensor | number): Tensor {
    return ops.where(condition, this, other);
  }
  /** True when shapes and all elements are equal. */ equal(other: Tensor): boolean {
    return ops.equal(this, other);
  }

  // ---- in place: ops/inplace.ts
  /** Adds `alpha * other` to this tensor. */ add_(other: Tensor | number, options?: { alpha?: number }): this {
    return ops.add_(this, other, options);
  }
  /** Subtracts `alpha * other` from this tensor. */ sub_(other: Tensor | number, options?: { alpha?: number }): this {
    return ops.sub_(this, other, options);
  }
  /** Multiplies this tensor by `other`. */ mul_(other: Tensor | number): this {
    return ops.mul_(this, other);
  }
  /** Divides this tensor by `other`. */ div_(other: Tensor | number): this {
    return ops.div_(this, other);
  }
  /** Overwrites with `source`, broadcast and converted, from any device. */ copy_(
    source: Tensor,
    options?: { nonBlocking?: boolean },
  ): this {
    return ops.copy_(this, source, options);
  }
  /** Overwrites with a number. */ fill_(value: number): this {
    return ops.fill_(this, value);
  }
  /** Overwrites with 0. */ zero_(): this {
    return ops.fill_(this, 0);
  }
  /** Limits to `[min, max]`. */ clamp_(min: number | null, max?: number | null): this {
    return ops.clamp_(this, min, max);
  }
  /** {@linkcode Tensor.relu} in place. */ relu_(): this {
    return ops.relu_(this);
  }
  /** {@linkcode Tensor.exp} in place. */ exp_(): this {
    return ops.exp_(this);
  }
  /** {@linkcode Tensor.sqrt} in place. */ sqrt_(): this {
    return ops.sqrt_(this);
  }
  /** {@linkcode Tensor.neg} in place. */ neg_(): this {
    return ops.neg_(this);
  }

  // ---- reductions: ops/reduction.ts, ops/scan.ts

  /** Sum over axes, all by default; integers and bool as int64. */
  sum(dim: number | readonly number[] | null = null, options?: { keepdim?: boolean; dtype?: DType }): Tensor {
    return ops.sum(this, dim, options);
  }
  /** Mean over axes, all by default. */
  mean(dim: number | readonly number[] | null = null, options?: { keepdim?: boolean; dtype?: DType }): Tensor {
    return ops.mean(this, dim, options);
  }
  /** Sum over axes that takes NaN for 0. */
  nansum(dim: number | readonly number[] | null = null, options?: { keepdim?: boolean }): Tensor {
    return ops.nansum(this, dim, options);
  }
  /** Product over axes, all by default. */
  prod(dim: number | readonly number[] | null = null, options?: { keepdim?: boolean }): Tensor {
    return ops.prod(this, dim, options);
  }
  /** Largest element over axes, all by default; equal ones share the gradient. */
  amax(dim: number | readonly number[] | null = null, options?: { keepdim?: boolean }): Tensor {
    return ops.amax(this, dim, options);
  }
  /** Smallest element over axes, all by default; equal ones share the gradient. */
  amin(dim: number | readonly number[] | null = null, options?: { keepdim?: boolean }): Tensor {
    return ops.amin(this, dim, options);
  }
  /** Largest element of the whole tensor. */
  max(): Tensor;
  /** Largest elements along an axis and their positions. */
  max(dim: number, options?: { keepdim?: boolean }): { values: Tensor; indices: Tensor };
  max(dim?: number, options?: { keepdim?: boolean }): Tensor | { values: Tensor; indices: Tensor } {
    return dim === undefined ? ops.max(this) : ops.max(this, dim, options);
  }
  /** Smallest element of the whole tensor. */
  min(): Tensor;
  /** Smallest elements along an axis and their positions. */
  min(dim: number, options?: { keepdim?: boolean }): { values: Tensor; indices: Tensor };
  min(dim?: number, options?: { keepdim?: boolean }): Tensor | { values: Tensor; indices: Tensor } {
    return dim === undefined ? ops.min(this) : ops.min(this, dim, options);
  }
  /** Position of the first largest element along an axis, or in the whole tensor. */
  argmax(dim: number | null = null, options?: { keepdim?: boolean }): Tensor {
    return ops.argmax(this, dim, options);
  }
  /** Position of the first smallest element along an axis, or in the whole tensor. */
  argmin(dim: number | null = null, options?: { keepdim?: boolean }): Tensor {
    return ops.argmin(this, dim, options);
  }
  /** Variance over axes, all by default; unbiased unless `correction` says otherwise. */
  var(dim: number | readonly number[] | null = null, options?: { correction?: number; keepdim?: boolean }): Tensor {
    return ops.variance(this, dim, options);
  }
  /** Standard deviation over axes, all by default. */
  std(dim: number | readonly number[] | null = null, options?: { correction?: number; keepdim?: boolean }): Tensor {
    return ops.std(this, dim, options);
  }
  /** Vector norm of order `p` over axes, all by default. */
  norm(p = 2, dim: number | readonly number[] | null = null, options?: { keepdim?: boolean }): Tensor {
    return ops.norm(this, p, dim, options);
  }
  /** True where any element is not 0, over axes, all by default. */
  any(dim: number | readonly number[] | null = null, options?: { keepdim?: boolean }): Tensor {
    return ops.any(this, dim, options);
  }
  /** True where all elements are not 0, over axes, all by default. */
  all(dim: number | readonly number[] | null = null, options?: { keepdim?: boolean }): Tensor {
    return ops.all(this, dim, options);
  }
  /** How many elements are not 0, over axes, all by default. */
  countNonzero(dim: number | readonly number[] | null = null, options?: { keepdim?: boolean }): Tensor {
    return ops.countNonzero(this, dim, options);
  }
  /** Running sum along an axis. */
  cumsum(dim: number): Tensor {
    return ops.cumsum(this, dim);
  }
  /** Running product along an axis. */
  cumprod(dim: number): Tensor {
    return ops.cumprod(this, dim);
  }

  // ---- softmax: ops/softmax.ts
  /** `exp(x) / sum(exp(x))` along an axis, the last by default. */ softmax(dim = -1): Tensor {
    return ops.softmax(this, dim);
  }
  /** Logarithm of {@linkcode Tensor.softmax}. */ logSoftmax(dim = -1): Tensor {
    return ops.logSoftmax(this, dim);
  }
  /** `log(sum(exp(x)))` over axes, all by default. */
  logsumexp(dim: number | readonly number[] | null = null, options?: { keepdim?: boolean }): Tensor {
    return ops.logsumexp(this, dim, options);
  }

  // ---- sorting: ops/sort.ts

  /** Elements in order along an axis, and their positions; stable, NaN last. */
  sort(dim = -1, options?: { descending?: boolean; stable?: boolean }): { values: Tensor; indices: Tensor } {
    return ops.sort(this, dim, options);
  }
  /** Positions that put the elements along an axis in order. */
  argsort(dim = -1, options?: { descending?: boolean; stable?: boolean }): Tensor {
    return ops.argsort(this, dim, options);
  }
  /** The `k` largest elements along an axis and their positions. */
  topk(k: number, dim = -1, options?: { largest?: boolean; sorted?: boolean }): { values: Tensor; indices: Tensor } {
    return ops.topk(this, k, dim, options);
  }
  /** Element number `k` (from 1) of the ascending order along an axis, and its position. */
  kthvalue(k: number, dim = -1, options?: { keepdim?: boolean }): { values: Tensor; indices: Tensor } {
    return ops.kthvalue(this, k, dim, options);
  }
  /** Median of all elements, of two the lower. */
  median(): Tensor;
  /** Medians along an axis and their positions. */
  median(dim: number, options?: { keepdim?: boolean }): { values: Tensor; indices: Tensor };
  median(dim?: number, options?: { keepdim?: boolean }): Tensor | { values: Tensor; indices: Tensor } {
    return dim === undefined ? ops.median(this) : ops.median(this, dim, options);
  }
  /** The distinct elements, ascending, with their counts and the place of each element. */
  unique(): { values: Tensor; inverse: Tensor; counts: Tensor } {
    return ops.unique(this);
  }

  // ---- indexing: ops/indexing.ts, ops/index_rows.ts, ops/arrange.ts
  /** Elements picked along an axis: `y[i][j] = x[i][index[i][j]]` for `dim = 1`. */ gather(dim: number, index: Tensor): Tensor {
    return ops.gather(this, dim, index);
  }
  /** A copy with elements overwritten along an axis. */ scatter(dim: number, index: Tensor, source: Tensor | number): Tensor {
    return ops.scatter(this, dim, index, source);
  }
  /** {@linkcode Tensor.scatter} in place. */ scatter_(dim: number, index: Tensor, source: Tensor | number): this {
    return ops.scatter_(this, dim, index, source);
  }
  /** A copy with numbers added along an axis. */ scatterAdd(dim: number, index: Tensor, source: Tensor): Tensor {
    return ops.scatterAdd(this, dim, index, source);
  }
  /** {@linkcode Tensor.scatterAdd} in place. */ scatterAdd_(dim: number, index: Tensor, source: Tensor): this {
    return ops.scatterAdd_(this, dim, index, source);
  }
  /** A copy with elements joined with those of `source` along an axis. */
  scatterReduce(
    dim: number,
    index: Tensor,
    source: Tensor,
    reduce: "sum" | "prod" | "mean" | "amax" | "amin",
    options?: { includeSelf?: boolean },
  ): Tensor {
    return ops.scatterReduce(this, dim, index, source, reduce, options);
  }
  /** Whole positions of an axis, in the order of `index`. */ indexSelect(dim: number, index: Tensor): Tensor {
    return ops.indexSelect(this, dim, index);
  }
  /** A copy with `alpha * source` added to positions of an axis. */
  indexAdd(dim: number, index: Tensor, source: Tensor, options?: { alpha?: number }): Tensor {
    return ops.indexAdd(this, dim, index, source, options);
  }
  /** {@linkcode Tensor.indexAdd} in place. */ indexAdd_(dim: number, index: Tensor, source: Tensor, options?: { alpha?: number }): this {
    return ops.indexAdd_(this, dim, index, source, options);
  }
  /** A copy with positions of an axis overwritten. */ indexCopy(dim: number, index: Tensor, source: Tensor): Tensor {
    return ops.indexCopy(this, dim, index, source);
  }
  /** {@linkcode Tensor.indexCopy} in place. */ indexCopy_(dim: number, index: Tensor, source: Tensor): this {
    return ops.indexCopy_(this, dim, index, source);
  }
  /** A copy with positions of an axis set to a value. */ indexFill(dim: number, index: Tensor, value: Tensor | number): Tensor {
    return ops.indexFill(this, dim, index, value);
  }
  /** {@linkcode Tensor.indexFill} in place. */ indexFill_(dim: number, index: Tensor, value: Tensor | number): this {
    return ops.indexFill_(this, dim, index, value);
  }
  /** PyTorch's `x[a, :, b]`, written `x.index([a, null, b])`: numbers, index tensors, masks, `null` for a whole axis, `"..."`. */
  index(items: readonly (number | Tensor | null | "...")[]): Tensor {
    return ops.index(this, items);
  }
  /** A copy with values at the places that {@linkcode Tensor.index} would read. */
  indexPut(items: readonly (number | Tensor | null | "...")[], values: Tensor | number, options?: { accumulate?: boolean }): Tensor {
    return ops.indexPut(this, items, values, options);
  }
  /** {@linkcode Tensor.indexPut} in place. */
  indexPut_(items: readonly (number | Tensor | null | "...")[], values: Tensor | number, options?: { accumulate?: boolean }): this {
    return ops.indexPut_(this, items, values, options);
  }
  /** Elements of the flattened tensor. */ take(index: Tensor): Tensor {
    return ops.take(this, index);
  }
  /** A copy with elements of the flattened tensor overwritten. */
  put(index: Tensor, source: Tensor, options?: { accumulate?: boolean }): Tensor {
    return ops.put(this, index, source, options);
  }
  /** {@linkcode Tensor.gather} with the index broadcast in the other axes. */ takeAlongDim(
    index: Tensor,
    dim: number | null = null,
  ): Tensor {
    return ops.takeAlongDim(this, index, dim);
  }
  /** The elements where `mask` is true, as one axis. */ maskedSelect(mask: Tensor): Tensor {
    return ops.maskedSelect(this, mask);
  }
  /** A copy with `value` where `mask` is true. */ maskedFill(mask: Tensor, value: Tensor | number): Tensor {
    return ops.maskedFill(this, mask, value);
  }
  /** {@linkcode Tensor.maskedFill} in place. */ maskedFill_(mask: Tensor, value: Tensor | number): this {
    return ops.maskedFill_(this, mask, value);
  }
  /** A copy with elements of `source`, one after the other, where `mask` is true. */ maskedScatter(mask: Tensor, source: Tensor): Tensor {
    return ops.maskedScatter(this, mask, source);
  }
  /** Positions of the elements that are not 0, `[n, rank]`, int64. */ nonzero(): Tensor {
    return ops.nonzero(this);
  }
  /** The same as {@linkcode Tensor.nonzero}. */ argwhere(): Tensor {
    return ops.argwhere(this);
  }
  /** Axes reversed (a copy). */ flip(dims: number | readonly number[]): Tensor {
    return ops.flip(this, dims);
  }
  /** Elements moved along axes, coming back at the start. */
  roll(shifts: number | readonly number[], dims: number | readonly number[] | null = null): Tensor {
    return ops.roll(this, shifts, dims);
  }
  /** Turned by `k` quarter turns in the plane of two axes. */ rot90(k = 1, dims: readonly [number, number] = [0, 1]): Tensor {
    return ops.rot90(this, k, dims);
  }
  /** Matrices with 0 above a diagonal. */ tril(diagonal = 0): Tensor {
    return ops.tril(this, diagonal);
  }
  /** Matrices with 0 below a diagonal. */ triu(diagonal = 0): Tensor {
    return ops.triu(this, diagonal);
  }
  /** A vector on the diagonal of a new matrix, or a copy of the diagonal of a matrix. */ diag(offset = 0): Tensor {
    return ops.diag(this, offset);
  }
  /** The last axis spread over the diagonal of two new axes. */ diagEmbed(offset = 0, dim1 = -2, dim2 = -1): Tensor {
    return ops.diagEmbed(this, offset, dim1, dim2);
  }

  // ---- random: ops/random.ts
  /** Overwrites with numbers uniform in `[low, high)`. */ uniform_(low = 0, high = 1, options?: { generator?: Ops.Generator }): this {
    return ops.uniform_(this, low, high, options);
  }
  /** Overwrites with normal numbers. */ normal_(mean = 0, std = 1, options?: { generator?: Ops.Generator }): this {
    return ops.normal_(this, mean, std, options);
  }
  /** Overwrites with 1 with probability `p`, else 0. */ bernoulli_(p = 0.5, options?: { generator?: Ops.Generator }): this {
    return ops.bernoulli_(this, p, options);
  }
  /** Overwrites with exponential numbers of a rate. */ exponential_(rate = 1, options?: { generator?: Ops.Generator }): this {
    return ops.exponential_(this, rate, options);
  }
  /** Overwrites with whole numbers from `low` to `high` (excluded). */
  random_(low: number, high: number, options?: { generator?: Ops.Generator }): this {
    return ops.random_(this, low, high, options);
  }
  /** Draws category numbers in proportion to weights. */
  multinomial(draws: number, options?: { replacement?: boolean; generator?: Ops.Generator }): Tensor {
    return ops.multinomial(this, draws, options);
  }
  /** 1 with the probability that each element says, else 0. */ bernoulli(options?: { generator?: Ops.Generator }): Tensor {
    return ops.bernoulli(this, options);
  }

  // ---- matrix products: ops/matmul.ts
  /** Matrix product; leading axes broadcast. */ matmul(other: Tensor): Tensor {
    return ops.matmul(this, other);
  }
  /** Product of two matrices. */ mm(other: Tensor): Tensor {
    return ops.mm(this, other);
  }
  /** Products of two batches of matrices. */ bmm(other: Tensor): Tensor {
    return ops.bmm(this, other);
  }
  /** Matrix times vector. */ mv(vector: Tensor): Tensor {
    return ops.mv(this, vector);
  }
  /** Dot product of two vectors. */ dot(other: Tensor): Tensor {
    return ops.dot(this, other);
  }
}
