/**
 * What every operation needs for its native call: results to write into and checked calls.
 *
 * @module
 */
import type { Device } from "../ffi/device.ts";
import { DeviceError, DTypeError } from "../ffi/errors.ts";
import { type Frame, frame, type Operand } from "../ffi/frame.ts";
import { check, libraryOf } from "../ffi/library.ts";
import { allocate } from "../ffi/storage.ts";
import type { KernelLibrary } from "../ffi/symbols.ts";
import { bytesOf, type DType } from "../tensor/dtype.ts";
import { contiguousStrides, expandedStrides, numelOf, sameShape, type Shape, textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";

/** A result whose elements the caller will write, row-major unless `strides` say otherwise (they must be dense). */
export function emptyTensor(shape: Shape, dtype: DType, device: Device, strides: Shape = contiguousStrides(shape)): Tensor {
  return new Tensor(allocate(numelOf(shape) * bytesOf(dtype), device, shape), shape, strides, 0, dtype);
}

/** A result of the shape of `x`, in the same memory order where that has no gaps. */
export function emptyLike(x: Tensor, dtype: DType = x.dtype): Tensor {
  return emptyTensor(x.shape, dtype, x.device, x.isDense ? x.strides : contiguousStrides(x.shape));
}

/** Where a derivative rule writes a result like `like`: over the gradient that it was given, if only the engine sees that and it lies alike. */
export function overGradient(grad: Tensor, like: Tensor): Tensor {
  const { storage } = grad;
  const free = storage.references === 1 && storage.lent === null && grad.dtype === like.dtype && grad.isDense &&
    sameShape(grad.shape, like.shape);
  return free && like.shape.every((size, axis) => size === 1 || grad.strides[axis] === like.strides[axis]) ? grad : emptyLike(like);
}

/**
 * Makes a native call: `body` gets the library of `device` and the empty frame, writes the headers and returns the status.
 *
 * @throws The typed error of the status, with the library's text.
 */
export function native(device: Device, body: (library: KernelLibrary, frame: Frame) => number): void {
  const library = libraryOf(device);
  frame.begin();
  const status = body(library, frame);
  if (status !== 0) check(status, library);
}

/** What a native call sees of `x` expanded to `shape`: costs no tensor. */
export function spread(x: Tensor, shape: Shape): Operand {
  if (sameShape(x.shape, shape)) return x;
  const strides = expandedStrides(x.shape, x.strides, shape);
  return { storage: x.storage, shape, strides, offset: x.offset, dtypeCode: x.dtypeCode, disposed: x.disposed };
}

/** Refuses what is not a tensor (in JavaScript, or through `any`), is disposed, or lies on another device than `first`. */
export function checkTensor(x: unknown, op: string, what: string, first?: Tensor): asserts x is Tensor {
  if (!(x instanceof Tensor)) {
    throw new TypeError(`${op}: ${what} must be a tensor, got ${x === null ? "null" : typeof x}`);
  }
  x.checkAlive(op);
  if (first !== undefined && x.device !== first.device) {
    throw new DeviceError(`${op}: ${what} is on ${x.device}, expected ${first.device}: move it with .to("${first.device}")`);
  }
}

/** Refuses dtypes that are not floating-point. */
export function checkFloat(x: Tensor, op: string): void {
  if (!x.isFloat) throw new DTypeError(`${op}: takes a floating point tensor, got ${x.dtype} of shape ${textOf(x.shape)}`);
}

/** Refuses a dtype other than those listed. */
export function checkDType(x: Tensor, allowed: readonly DType[], op: string, what: string): void {
  if (!allowed.includes(x.dtype)) throw new DTypeError(`${op}: ${what} must be ${allowed.join(" or ")}, got ${x.dtype}`);
}
