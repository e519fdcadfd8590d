/**
 * The bytes of tensors: what files and messages between threads are made of. Not differentiable, not part of the public surface.
 *
 * @module
 */
import { cpu, type Device } from "../ffi/device.ts";
import { check, libraryOf } from "../ffi/library.ts";
import { lend } from "../ffi/storage.ts";
import { withContext } from "../tensor/context.ts";
import { bytesOf, type DType } from "../tensor/dtype.ts";
import { READS, unrepeatable } from "../tensor/recorder.ts";
import { contiguousStrides, type Shape } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { copyInto } from "./copy.ts";
import { emptyTensor } from "./native.ts";

/** Bytes that {@linkcode readChunks} hands out at once. */
const CHUNK = 4 * 2 ** 20;

/** Calls `use` with the bytes of `x` in row-major order, piece by piece; a piece is overwritten by the next. */
export function readChunks(x: Tensor, use: (chunk: Uint8Array<ArrayBuffer>) => void): void {
  unrepeatable(READS);
  const source = x.isContiguous()
    ? x
    : withContext({ grad: false, scope: null }, () => copyInto(emptyTensor(x.shape, x.dtype, x.device), x));
  try {
    const size = bytesOf(x.dtype), bytes = x.numel() * size, start = source.offset * size;
    const library = libraryOf(x.device), chunk = new Uint8Array(Math.min(bytes, CHUNK));
    for (let at = 0; at < bytes; at += CHUNK) {
      const part = chunk.subarray(0, Math.min(CHUNK, bytes - at));
      check(library.dg_read(source.storage.id, start + at, part, part.length), library);
      use(part);
    }
  } finally {
    if (source !== x) source.dispose();
  }
}

/** Writes bytes into the row-major tensor `x`, from byte `at` on. */
export function writeBytes(x: Tensor, at: number, bytes: Uint8Array<ArrayBuffer>): void {
  unrepeatable("it writes values of the program into a tensor");
  const library = libraryOf(x.device);
  check(library.dg_write(x.storage.id, x.offset * bytesOf(x.dtype) + at, bytes, bytes.length), library);
}

/** A tensor's elements without the tensor: can be sent to another thread. */
export interface TensorBytes {
  /** Element type. */
  readonly dtype: DType;
  /** Sizes of the axes. */
  readonly shape: Shape;
  /** Order of the elements in `bytes`. */
  readonly strides: Shape;
  /** The elements. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** A copy of the elements of `x`, in the memory order of `x` where that has no gaps. */
export function toBytes(x: Tensor): TensorBytes {
  unrepeatable(READS);
  const bytes = new Uint8Array(x.numel() * bytesOf(x.dtype));
  if (x.isDense) {
    const library = libraryOf(x.device);
    check(library.dg_read(x.storage.id, x.offset * bytesOf(x.dtype), bytes, bytes.length), library);
    return { dtype: x.dtype, shape: x.shape, strides: x.strides, bytes };
  }
  let at = 0;
  readChunks(x, (chunk) => {
    bytes.set(chunk, at);
    at += chunk.length;
  });
  return { dtype: x.dtype, shape: x.shape, strides: contiguousStrides(x.shape), bytes };
}

/** The tensor of {@linkcode toBytes}, over the same memory on the CPU. */
export function fromBytes({ dtype, shape, strides, bytes }: TensorBytes, device: Device = cpu): Tensor {
  if (bytes.length === 0) return emptyTensor(shape, dtype, device, strides);
  return new Tensor(lend(bytes, device, shape), shape, strides, 0, dtype);
}
