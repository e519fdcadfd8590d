/**
 * Copies, conversion of dtype and device, and memory layout.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { Device, device as deviceOf, type DeviceLike } from "../ffi/device.ts";
import { DeviceError } from "../ffi/errors.ts";
import { check, libraryOf } from "../ffi/library.ts";
import { type DType, dtypes } from "../tensor/dtype.ts";
import { channelsLastStrides, contiguousStrides, isChannelsLast } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { checkTensor, emptyLike, emptyTensor, native } from "./native.ts";

/** Writes `x` into `out` of the same shape, converting; no checks, no recording. */
export function copyInto(out: Tensor, x: Tensor): Tensor {
  native(out.device, (lib, f) => lib.dg_copy(f.pointer, f.put(out), f.put(x)));
  return out;
}

/** A copy with memory of its own, in the same memory order where that has no gaps. */
export function clone(x: Tensor): Tensor {
  checkTensor(x, "clone", "the input");
  return record("clone", [x], copyInto(emptyLike(x), x), [], (grad) => [grad]);
}

/** `x` if it is row-major without gaps, else a copy that is. */
export function contiguous(x: Tensor): Tensor {
  checkTensor(x, "contiguous", "the input");
  if (x.isContiguous()) return x;
  return record("contiguous", [x], copyInto(emptyTensor(x.shape, x.dtype, x.device), x), [], (grad) => [grad]);
}

/**
 * `x` if axis 1 is innermost in memory, else a copy that is (`memory_format=torch.channels_last`). Below 3 axes: {@linkcode contiguous}.
 */
export function channelsLast(x: Tensor): Tensor {
  checkTensor(x, "channelsLast", "the input");
  if (isChannelsLast(x.shape, x.strides)) return x;
  const y = copyInto(emptyTensor(x.shape, x.dtype, x.device, channelsLastStrides(x.shape)), x);
  return record("channelsLast", [x], y, [], (grad) => [grad]);
}

/**
 * Converts to a dtype, a device or both; returns `x` itself when nothing changes.
 *
 * Derivative: the gradient converted back.
 */
export function to(x: Tensor, target: DType | DeviceLike | { dtype?: DType; device?: DeviceLike }): Tensor {
  checkTensor(x, "to", "the input");
  const options = typeof target === "object" && !(target instanceof Device)
    ? target
    : (dtypes as readonly unknown[]).includes(target)
    ? { dtype: target as DType }
    : { device: target as DeviceLike };
  const dtype = options.dtype ?? x.dtype, device = options.device === undefined ? x.device : deviceOf(options.device);
  if (dtype === x.dtype && device === x.device) return x;
  let y = x;
  if (device !== x.device) y = transfer(y, device);
  if (dtype !== y.dtype) {
    const converted = copyInto(emptyLike(y, dtype), y);
    if (y !== x) y.dispose();
    y = converted;
  }
  return record("to", [x], y, [], (grad) => [to(grad, { dtype: x.dtype, device: x.device })]);
}

function transfer(x: Tensor, device: Device): Tensor {
  const source = copyInto(emptyTensor(x.shape, x.dtype, x.device), x);
  const bytes = new Uint8Array(source.storage.bytes);
  const from = libraryOf(x.device), into = libraryOf(device);
  if (from === into) throw new DeviceError(`to: copying between ${x.device} and ${device} is not available`);
  check(from.dg_read(source.storage.id, 0, bytes, bytes.length), from);
  source.dispose();
  const y = emptyTensor(x.shape, x.dtype, device, contiguousStrides(x.shape));
  check(into.dg_write(y.storage.id, 0, bytes, bytes.length), into);
  return y;
}
