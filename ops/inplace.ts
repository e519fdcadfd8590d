/**
 * Operations that overwrite their first operand. Each counts up the storage's version, so that backward notices a saved tensor that has changed.
 *
 * @module
 */
import { edgeTo, Node, once, recording, type Rule } from "../autograd/tape.ts";
import { AutogradError, DTypeError, ShapeError } from "../ffi/errors.ts";
import { context } from "../tensor/context.ts";
import { isFloat, resultType } from "../tensor/dtype.ts";
import { broadcastShapes, sameShape, textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { activationKernel } from "./activation.ts";
import { binaryKernel, gt, logicalAnd, lt, scalarKernel, where } from "./binary.ts";
import { clone, copyAcross, copyInto, to, type TransferOptions } from "./copy.ts";
import { zeros } from "./creation.ts";
import { checkTensor, emptyTensor, native } from "./native.ts";
import { unaryKernel } from "./unary.ts";
import { broadcastTo } from "./view.ts";

/**
 * Overwrites `x`: `write` runs the kernel, and if a gradient may be asked for, `x` becomes the output of a new graph node.
 *
 * @param name Name of the operation, as errors show it.
 * @param x The tensor to overwrite.
 * @param others Further differentiable inputs.
 * @param write Changes the elements of `x`.
 * @param saved Tensors that the rule needs, taken after `write` (so `x` stands for the new value).
 * @param rule Derivative: gradients of the old `x` and of `others`.
 */
export function overwrite<T extends Tensor>(
  name: string,
  x: T,
  others: readonly Tensor[],
  write: () => void,
  saved: readonly Tensor[],
  rule: Rule,
): T {
  checkWritable(x, name);
  const record = recording(x, ...others);
  if (record && !x.isFloat) throw new DTypeError(`${name}: ${x.dtype} cannot hold a value that needs a gradient`);
  const base = x.viewOf;
  const edges = record ? [edgeTo(base ?? x), ...others.map(edgeTo)] : [];
  write();
  x.storage.version++;
  if (!record) return x;
  x.storage.graphVersion++;
  if (base === null) {
    attach(x, new Node(name, edges, [{ shape: x.shape, dtype: x.dtype }], (grads, kept, needs) => rule(grads[0]!, kept, needs)), saved);
    return x;
  }
  if (!base.isDense) throw new AutogradError(`${name}: in-place change of a view of a tensor with gaps in memory: clone() it first`);
  // The base now depends on what was written through the view (PyTorch's CopySlices), and the view is one of the new base.
  const { shape, strides } = x, offset = x.offset - base.offset;
  const window = (whole: Tensor) => new Tensor(whole.storage, shape, strides, offset, whole.dtype);
  const node = new Node(`${name} of a view`, edges, [{ shape: base.shape, dtype: base.dtype }], ([grad], kept, needs) => {
    const whole = copyInto(emptyTensor(base.shape, grad!.dtype, grad!.device, base.strides), grad!);
    const part = window(whole);
    const [forOld, ...rest] = rule(clone(part), kept, [true, ...needs.slice(1)]);
    if (forOld === null) fill_(part.detach(), 0);
    else copyInto(part, broadcastTo(forOld, shape));
    return once(name, [grad!], [whole, ...rest]);
  });
  attach(base, node, saved);
  const viewNode = new Node("view", [edgeTo(base)], [{ shape, dtype: x.dtype }], ([grad]) => {
    const whole = zeros(base.shape, { dtype: grad!.dtype, device: grad!.device });
    const ordered = base.isContiguous() ? whole : copyInto(emptyTensor(base.shape, grad!.dtype, grad!.device, base.strides), whole);
    copyInto(window(ordered), grad!);
    return once(name, [grad!], [ordered]);
  });
  attach(x, viewNode, []);
  return x;
}

function attach(x: Tensor, node: Node, saved: readonly Tensor[]): void {
  for (const tensor of saved) node.save(tensor, tensor === x ? 0 : -1);
  x.node = node;
  x.outputIndex = 0;
  x.graphVersion = x.storage.graphVersion;
}

/** Refuses a tensor that cannot be changed in place: not one, expanded, or a leaf that requires a gradient. */
export function checkWritable(x: Tensor, name: string): void {
  checkTensor(x, name, "the tensor to write to");
  for (let i = 0; i < x.rank; i++) {
    if (x.strides[i] === 0 && x.shape[i] > 1 && x.numel() > 0) {
      throw new ShapeError(
        `${name}: more than one element of the written-to tensor ${
          textOf(x.shape)
        } refers to a single memory location (it was expanded): clone() first`,
      );
    }
  }
  const base = x.viewOf ?? x;
  if (context().grad && base.requiresGrad && base.isLeaf) {
    const what = base === x ? "a leaf tensor" : "a view of a leaf tensor";
    throw new AutogradError(`${name}: ${what} that requires a gradient cannot be changed in place: use noGrad(() => ...) or clone() first`);
  }
}

/** `other` as an operand of x's dtype and shape that does not share changing memory with it. */
function operand(x: Tensor, other: Tensor, name: string): Tensor {
  checkTensor(other, name, "the operand", x);
  if (!sameShape(broadcastShapes(x.shape, other.shape, name), x.shape)) {
    throw new ShapeError(`${name}: an operand of ${textOf(other.shape)} does not broadcast to the tensor's own ${textOf(x.shape)}`);
  }
  const common = resultType(x, other);
  if ((isFloat(common) && !x.isFloat) || (x.dtype === "bool" && common !== "bool")) {
    throw new DTypeError(`${name}: a result of ${common} cannot be stored in a tensor of ${x.dtype}`);
  }
  const converted = to(other, x.dtype);
  const clash = converted.storage === x.storage &&
    !(sameShape(x.shape, converted.shape) && sameShape(x.strides, converted.strides) && x.offset === converted.offset);
  return clash ? clone(converted) : converted;
}

function checkNumber(x: Tensor, value: number, name: string): void {
  if (typeof value !== "number") throw new TypeError(`${name}: the operand must be a tensor or a number, got ${typeof value}`);
  const common = resultType(x, value);
  if (isFloat(common) && !x.isFloat) throw new DTypeError(`${name}: ${value} cannot be stored in a tensor of ${x.dtype}`);
}

/** `x += alpha * other`. */
export function add_<T extends Tensor>(x: T, other: Tensor | number, options?: { alpha?: number }): T {
  const alpha = options?.alpha ?? 1;
  if (!(other instanceof Tensor)) {
    checkTensor(x, "add_", "the tensor to write to");
    checkNumber(x, other * alpha, "add_");
    return overwrite("add_", x, [], () => scalarKernel(x, other * alpha, "add", false, x), [], (grad) => [grad]);
  }
  checkWritable(x, "add_");
  const y = operand(x, other, "add_");
  return overwrite("add_", x, [y], () => binaryKernel(x, y, "add", alpha, x), [], (grad) => [grad, alpha === 1 ? grad : grad.mul(alpha)]);
}

/** `x -= alpha * other`. */
export function sub_<T extends Tensor>(x: T, other: Tensor | number, options?: { alpha?: number }): T {
  return add_(x, other, { alpha: -(options?.alpha ?? 1) });
}

/** `x *= other`. */
export function mul_<T extends Tensor>(x: T, other: Tensor | number): T {
  if (!(other instanceof Tensor)) {
    checkTensor(x, "mul_", "the tensor to write to");
    checkNumber(x, other, "mul_");
    return overwrite("mul_", x, [], () => scalarKernel(x, other, "mul", false, x), [], (grad) => [grad.mul(other)]);
  }
  checkWritable(x, "mul_");
  const y = operand(x, other, "mul_");
  const before = recording(y) ? clone(x.detach()) : y;
  return overwrite("mul_", x, [y], () => binaryKernel(x, y, "mul", 1, x), [y, before], (grad, [q, old], [forX, forY]) => [
    forX ? grad.mul(q) : null,
    forY ? grad.mul(old) : null,
  ]);
}

/** `x /= other`. @throws {DTypeError} For an integer tensor: a quotient is floating-point. */
export function div_<T extends Tensor>(x: T, other: Tensor | number): T {
  checkTensor(x, "div_", "the tensor to write to");
  if (!x.isFloat) throw new DTypeError(`div_: a quotient cannot be stored in a tensor of ${x.dtype}`);
  if (!(other instanceof Tensor)) {
    checkNumber(x, other, "div_");
    return overwrite("div_", x, [], () => scalarKernel(x, other, "div", false, x), [], (grad) => [grad.div(other)]);
  }
  checkWritable(x, "div_");
  const y = operand(x, other, "div_");
  return overwrite("div_", x, [y], () => binaryKernel(x, y, "div", 1, x), [y, x], (grad, [q, value], [forX, forY]) => {
    const first = grad.div(q);
    return [forX ? first : null, forY ? first.mul(value).neg() : null];
  });
}

/**
 * Overwrites `x` with `source`, broadcast and converted to x's dtype; it may lie on another device.
 *
 * @param options.nonBlocking Do not wait for a copy from page-locked memory to a GPU. Default `false`.
 */
export function copy_<T extends Tensor>(x: T, source: Tensor, options?: TransferOptions): T {
  checkWritable(x, "copy_");
  checkTensor(source, "copy_", "the source");
  if (!sameShape(broadcastShapes(x.shape, source.shape, "copy_"), x.shape)) {
    throw new ShapeError(`copy_: a source of ${textOf(source.shape)} does not broadcast to ${textOf(x.shape)}`);
  }
  const from = source.storage === x.storage ? clone(source) : source;
  const shown = broadcastTo(from, x.shape);
  const { device } = source, nonBlocking = options?.nonBlocking ?? false;
  return overwrite("copy_", x, [shown], () => copyAcross(x, shown, nonBlocking), [], (grad) => [null, to(grad, device)]);
}

/** Overwrites `x` with a number. */
export function fill_<T extends Tensor>(x: T, value: number): T {
  checkTensor(x, "fill_", "the tensor to write to");
  if (typeof value !== "number" && typeof value !== "boolean") throw new TypeError(`fill_: takes a number, got ${typeof value}`);
  return overwrite("fill_", x, [], () => native(x.device, (lib, f) => lib.dg_fill(f.pointer, f.put(x), Number(value))), [], () => [null]);
}

/** Limits `x` to `[min, max]`; see `clamp`. */
export function clamp_<T extends Tensor>(x: T, min: number | null, max: number | null = null): T {
  checkTensor(x, "clamp_", "the tensor to write to");
  if (min === null && max === null) throw new RangeError("clamp_: at least one of min and max must be given");
  const inside = recording(x) ? logicalAnd(gt(x, min ?? -Infinity), lt(x, max ?? Infinity)) : null;
  const write = () => {
    if (min !== null) scalarKernel(x, min, "maximum", false, x);
    if (max !== null) scalarKernel(x, max, "minimum", false, x);
  };
  return overwrite("clamp_", x, [], write, inside === null ? [] : [inside], (grad, [mask]) => [where(mask, grad, 0)]);
}

/** {@linkcode relu} in place. */
export function relu_<T extends Tensor>(x: T): T {
  return overwrite("relu_", x, [], () => activationKernel(x, "relu", 0, 0, x), [x], (grad, [y]) => [grad.mul(y.gt(0).to(y.dtype))]);
}

/** {@linkcode exp} in place. */
export function exp_<T extends Tensor>(x: T): T {
  return overwrite("exp_", x, [], () => unaryKernel(x, "exp", x), [x], (grad, [y]) => [grad.mul(y)]);
}

/** {@linkcode sqrt} in place. */
export function sqrt_<T extends Tensor>(x: T): T {
  return overwrite("sqrt_", x, [], () => unaryKernel(x, "sqrt", x), [x], (grad, [y]) => [grad.div(y.mul(2))]);
}

/** {@linkcode neg} in place. */
export function neg_<T extends Tensor>(x: T): T {
  return overwrite("neg_", x, [], () => unaryKernel(x, "neg", x), [], (grad) => [grad.neg()]);
}
