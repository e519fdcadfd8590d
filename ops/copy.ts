/**
 * Copies, conversion of dtype and device, and memory layout.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import { Device, device as deviceOf, type DeviceLike } from "../ffi/device.ts";
import { DeviceError } from "../ffi/errors.ts";
import { check, libraryOf } from "../ffi/library.ts";
import { pinned, PinnedBlock } from "../ffi/pinned.ts";
import { lend } from "../ffi/storage.ts";
import { bytesOf, type DType, dtypes } from "../tensor/dtype.ts";
import { channelsLastStrides, contiguousStrides, isChannelsLast, sameShape } from "../tensor/shape.ts";
import { unrepeatable } from "../tensor/recorder.ts";
import { Tensor } from "../tensor/tensor.ts";
import { readChunks } from "./bytes.ts";
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

/** How copies between devices are made. */
export interface TransferOptions {
  /**
   * Do not wait for a copy from page-locked memory (see `pinMemory`) to a GPU: what is given to the GPU afterwards sees the elements, but they must not be
   * changed here before it has taken them. Copies from other memory, and those to the CPU, always wait. Default `false`.
   */
  nonBlocking?: boolean;
}

/**
 * Converts to a dtype, a device or both; returns `x` itself when nothing changes.
 *
 * @param options.nonBlocking Do not wait for a copy from page-locked memory to a GPU. Default `false`.
 *
 * Derivative: the gradient converted back.
 */
export function to(
  x: Tensor,
  target: DType | DeviceLike | { dtype?: DType; device?: DeviceLike },
  options?: TransferOptions,
): Tensor {
  checkTensor(x, "to", "the input");
  const wanted = typeof target === "object" && !(target instanceof Device)
    ? target
    : (dtypes as readonly unknown[]).includes(target)
    ? { dtype: target as DType }
    : { device: target as DeviceLike };
  const dtype = wanted.dtype ?? x.dtype, device = wanted.device === undefined ? x.device : deviceOf(wanted.device);
  if (dtype === x.dtype && device === x.device) return x;
  let y = x;
  if (device !== x.device) y = transfer(y, device, options?.nonBlocking ?? false);
  if (dtype !== y.dtype) {
    const converted = copyInto(emptyLike(y, dtype), y);
    if (y !== x) y.dispose();
    y = converted;
  }
  return record("to", [x], y, [], (grad) => [to(grad, { dtype: x.dtype, device: x.device })]);
}

function transfer(x: Tensor, device: Device, nonBlocking: boolean): Tensor {
  unrepeatable("it copies between devices");
  const source = x.isDense ? x : copyInto(emptyTensor(x.shape, x.dtype, x.device), x);
  const bytes = source.numel() * bytesOf(x.dtype);
  let y: Tensor;
  if (device.type === "cpu" && bytes > 0) {
    // Over JavaScript's memory: it is read straight into it.
    const memory = new Uint8Array(new ArrayBuffer(bytes)), library = libraryOf(x.device);
    check(library.dg_read(source.storage.id, source.offset * bytesOf(x.dtype), memory, bytes), library);
    y = new Tensor(lend(memory, device, x.shape), x.shape, source.strides, 0, x.dtype);
  } else {
    y = emptyTensor(x.shape, x.dtype, device, source.strides);
    moveBytes(y, source, nonBlocking);
  }
  if (source !== x) source.dispose();
  return y;
}

/** Writes the elements of `x` into `y` on a GPU; both without gaps in the same memory order, of one dtype. */
function moveBytes(y: Tensor, x: Tensor, nonBlocking: boolean): void {
  unrepeatable("it copies between devices");
  const size = bytesOf(x.dtype), bytes = x.numel() * size, start = x.offset * size, at = y.offset * size;
  const into = libraryOf(y.device), { lent, keeper } = x.storage;
  if (x.device.type === y.device.type) {
    check(into.dg_transfer(y.storage.id, at, x.storage.id, start, bytes), into);
  } else if (lent !== null) {
    check(into.dg_write(y.storage.id, at, lent.subarray(start, start + bytes), bytes), into);
    if (keeper instanceof PinnedBlock) {
      keeper.used(y.device);
      if (!nonBlocking) keeper.wait();
    }
  } else {
    let done = 0;
    const flat = new Tensor(x.storage, [x.numel()], [1], x.offset, x.dtype);
    readChunks(flat, (chunk) => {
      check(into.dg_write(y.storage.id, at + done, chunk, chunk.length), into);
      done += chunk.length;
    });
    flat.dispose();
  }
}

/** {@linkcode copyInto} from any device. */
export function copyAcross(out: Tensor, x: Tensor, nonBlocking: boolean): void {
  if (x.device === out.device) {
    copyInto(out, x);
  } else if (out.device.type !== "cpu" && x.dtype === out.dtype && out.isDense && x.isDense && sameShape(x.strides, out.strides)) {
    moveBytes(out, x, nonBlocking);
  } else {
    const near = transfer(x, out.device, nonBlocking);
    copyInto(out, near);
    near.dispose();
  }
}

/**
 * A copy on the CPU in page-locked memory, from which GPUs copy faster and, with `nonBlocking`, while the program goes on; `x` itself if it is there already.
 *
 * @throws {DeviceError} Without a CUDA device, or if `x` is not on the CPU.
 *
 * Derivative: the gradient itself.
 *
 * @example
 * ```ts
 * import { cuda, tensor } from "@dinograd/dinograd";
 * import { assert, assertEquals } from "@std/assert";
 * if (cuda.isAvailable()) {
 *   const batch = tensor([1, 2, 3], { device: "cpu" }).pinMemory();
 *   assert(batch.isPinned);
 *   assertEquals(batch.to("cuda", { nonBlocking: true }).tolist(), [1, 2, 3]);
 * }
 * ```
 */
export function pinMemory(x: Tensor): Tensor {
  checkTensor(x, "pinMemory", "the input");
  if (x.device.type !== "cpu") throw new DeviceError(`pinMemory: only memory of the CPU can be page-locked, the tensor is on ${x.device}`);
  if (isPinned(x)) return x;
  const strides = x.isDense ? x.strides : contiguousStrides(x.shape);
  const y = new Tensor(pinned(x.numel() * bytesOf(x.dtype), x.shape), x.shape, strides, 0, x.dtype);
  return record("pinMemory", [x], copyInto(y, x), [], (grad) => [grad]);
}

/** True for a tensor in page-locked memory. */
export function isPinned(x: Tensor): boolean {
  return x.storage.keeper instanceof PinnedBlock;
}
