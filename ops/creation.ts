/**
 * Tensors from nothing: constants, ranges, JavaScript arrays.
 *
 * @module
 */
import { cpu, device as deviceOf, type DeviceLike } from "../ffi/device.ts";
import { DTypeError, ShapeError } from "../ffi/errors.ts";
import { check, libraryOf } from "../ffi/library.ts";
import { observer } from "../ffi/observer.ts";
import { allocate, lend } from "../ffi/storage.ts";
import { bytesOf, type DType, getDefaultDType, isFloat } from "../tensor/dtype.ts";
import { checkShape, contiguousStrides, numelOf, type Shape, textOf } from "../tensor/shape.ts";
import { type NestedArray, Tensor, type TypedArray } from "../tensor/tensor.ts";
import { copyInto, to } from "./copy.ts";
import { checkTensor, emptyLike as uninitialisedLike, emptyTensor, native } from "./native.ts";

/** What the creation functions take besides a shape. */
export interface TensorOptions {
  /** Element type. Default: that of the data, or the default floating-point dtype. */
  dtype?: DType;
  /** Where to put it. Default: `defaultDevice()`. */
  device?: DeviceLike;
  /** Record operations on it. Default `false`. */
  requiresGrad?: boolean;
}

let fallback: DeviceLike = cpu;

/** The device of new tensors that name none: the CPU unless {@linkcode setDefaultDevice} changed it. */
export function defaultDevice(): DeviceLike {
  return fallback;
}

/** Sets the device of new tensors that name none. @throws {DeviceError} If the name is not that of a device. */
export function setDefaultDevice(device: DeviceLike): void {
  fallback = deviceOf(device);
}

function finish(x: Tensor, options: TensorOptions | undefined): Tensor {
  return options?.requiresGrad ? x.requiresGrad_() : x;
}

function place(shape: Shape, options: TensorOptions | undefined, op: string, dtype = options?.dtype ?? getDefaultDType()): Tensor {
  checkShape(shape, op);
  return emptyTensor([...shape], dtype, deviceOf(options?.device ?? fallback));
}

/** A tensor whose elements are not set: whatever the memory held. */
export function empty(shape: Shape, options?: TensorOptions): Tensor {
  return finish(place(shape, options, "empty"), options);
}

/** A tensor of zeros. */
export function zeros(shape: Shape, options?: TensorOptions): Tensor {
  checkShape(shape, "zeros");
  const dtype = options?.dtype ?? getDefaultDType(), own = [...shape];
  const storage = allocate(numelOf(own) * bytesOf(dtype), deviceOf(options?.device ?? fallback), own, true);
  return finish(new Tensor(storage, own, contiguousStrides(own), 0, dtype), options);
}

/** A tensor of ones. */
export function ones(shape: Shape, options?: TensorOptions): Tensor {
  return full(shape, 1, options);
}

/**
 * A tensor filled with `value`.
 *
 * @param options.dtype Default: bool for a boolean, int64 for a whole number given as bigint, else the default floating-point dtype.
 */
export function full(shape: Shape, value: number | boolean, options?: TensorOptions): Tensor {
  const dtype = options?.dtype ?? (typeof value === "boolean" ? "bool" : getDefaultDType());
  const out = place(shape, options, "full", dtype);
  native(out.device, (lib, f) => lib.dg_fill(f.pointer, f.put(out), Number(value)));
  return finish(out, options);
}

/** Zeros with the shape, dtype, device and memory order of `x`. */
export function zerosLike(x: Tensor, options?: TensorOptions): Tensor {
  return fullLike(x, 0, options);
}

/** Ones with the shape, dtype, device and memory order of `x`. */
export function onesLike(x: Tensor, options?: TensorOptions): Tensor {
  return fullLike(x, 1, options);
}

/** `value` with the shape, dtype, device and memory order of `x`. */
export function fullLike(x: Tensor, value: number | boolean, options?: TensorOptions): Tensor {
  const out = emptyLike(x, options);
  native(out.device, (lib, f) => lib.dg_fill(f.pointer, f.put(out), Number(value)));
  return out;
}

/** Elements not set, with the shape, dtype, device and memory order of `x`. */
export function emptyLike(x: Tensor, options?: TensorOptions): Tensor {
  checkTensor(x, "emptyLike", "the input");
  if (options?.device !== undefined && deviceOf(options.device) !== x.device) {
    return empty(x.shape, { ...options, dtype: options.dtype ?? x.dtype });
  }
  return finish(uninitialisedLike(x, options?.dtype), options);
}

/**
 * Numbers from `start` to `end` (exclusive) in steps of `step`. With one argument, from 0 to it.
 *
 * @param options.dtype Default: int64 when all are whole numbers, else the default floating-point dtype.
 * @throws {RangeError} If `step` is 0 or leads away from `end`.
 *
 * @example
 * ```ts
 * import { arange } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(arange(1, 2, 0.25).tolist(), [1, 1.25, 1.5, 1.75]);
 * ```
 */
export function arange(start: number, end?: number, step = 1, options?: TensorOptions): Tensor {
  const [from, until] = end === undefined ? [0, start] : [start, end];
  if (![from, until, step].every(Number.isFinite)) throw new RangeError(`arange: bounds must be finite, got ${from}, ${until}, ${step}`);
  if (step === 0 || (until - from) / step < 0) throw new RangeError(`arange: step ${step} does not lead from ${from} to ${until}`);
  const whole = [from, until, step].every(Number.isInteger);
  const count = Math.ceil((until - from) / step);
  const out = place([count], options, "arange", options?.dtype ?? (whole ? "int64" : getDefaultDType()));
  native(out.device, (lib, f) => lib.dg_arange(f.pointer, f.put(out), from, step));
  return finish(out, options);
}

/**
 * `count` evenly spaced numbers from `start` to `end`, both included.
 *
 * @throws {RangeError} If `count` is negative or not whole.
 */
export function linspace(start: number, end: number, count: number, options?: TensorOptions): Tensor {
  if (!Number.isSafeInteger(count) || count < 0) throw new RangeError(`linspace: count must be a whole number >= 0, got ${count}`);
  const dtype = options?.dtype ?? getDefaultDType();
  const values = new Float64Array(count);
  const step = count > 1 ? (end - start) / (count - 1) : 0;
  // From both ends, so that the last is exactly `end`.
  for (let i = 0; i < count; i++) values[i] = i < count / 2 ? start + i * step : end - (count - 1 - i) * step;
  return tensor(values, { ...options, dtype });
}

/** The identity matrix of `rows` rows and `columns` (default `rows`) columns. */
export function eye(rows: number, columns: number = rows, options?: TensorOptions): Tensor {
  const out = zeros([rows, columns], { ...options, requiresGrad: false });
  const diagonal = new Tensor(out.storage, [Math.min(rows, columns)], [columns + 1], 0, out.dtype);
  native(out.device, (lib, f) => lib.dg_fill(f.pointer, f.put(diagonal), 1));
  diagonal.dispose();
  return finish(out, options);
}

const arrayDTypes = new Map<unknown, DType>([
  [Float32Array, "float32"],
  [Float64Array, "float64"],
  [Int32Array, "int32"],
  [BigInt64Array, "int64"],
  [Uint8Array, "uint8"],
  [Uint8ClampedArray, "uint8"],
]);

/** Typed arrays whose elements some dtype holds as they are. */
export type TensorArray = Exclude<TypedArray, Uint16Array<ArrayBuffer>>;

/**
 * A tensor of the given elements, copied.
 *
 * @param data A number, boolean, nested arrays of them (all of one length per level), or a typed array (shape `[length]`).
 * @param options.dtype Default: that of the typed array; bool for booleans, int64 for bigints, else the default floating-point dtype.
 * @throws {ShapeError} If nested arrays differ in length.
 *
 * @example
 * ```ts
 * import { tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(tensor([[1, 2, 3], [4, 5, 6]]).shape, [2, 3]);
 * assertEquals(tensor([true, false]).dtype, "bool");
 * assertEquals(tensor(new Int32Array([1, 2])).dtype, "int32");
 * ```
 */
export function tensor(data: NestedArray | TensorArray, options?: TensorOptions): Tensor {
  const target = deviceOf(options?.device ?? fallback);
  let values: ArrayBufferView<ArrayBuffer>, dtype: DType, shape: number[];
  if (ArrayBuffer.isView(data)) {
    const found = arrayDTypes.get(data.constructor);
    if (found === undefined) throw new DTypeError(`tensor: no dtype holds the elements of ${data.constructor.name}`);
    [values, dtype, shape] = [data as ArrayBufferView<ArrayBuffer>, found, [(data as Float32Array).length]];
  } else {
    shape = nestedShape(data);
    const flat: (number | boolean | bigint)[] = [];
    flatten(data, shape, 0, flat);
    const wanted = options?.dtype ??
      (flat.length === 0
        ? getDefaultDType()
        : typeof flat[0] === "boolean"
        ? "bool"
        : typeof flat[0] === "bigint"
        ? "int64"
        : getDefaultDType());
    if (wanted === "int64") {
      [values, dtype] = [BigInt64Array.from(flat, (v) => typeof v === "bigint" ? v : BigInt(Math.trunc(Number(v)))), "int64"];
    } else if (wanted === "bool") [values, dtype] = [Uint8Array.from(flat, (v) => v ? 1 : 0), "bool"];
    else if (wanted === "int32") [values, dtype] = [Int32Array.from(flat, Number), "int32"];
    else if (wanted === "uint8") [values, dtype] = [Uint8Array.from(flat, Number), "uint8"];
    else if (wanted === "float32") [values, dtype] = [Float32Array.from(flat, Number), "float32"];
    else [values, dtype] = [Float64Array.from(flat, Number), "float64"];
  }
  const raw = write(values, dtype, shape, target);
  if (options?.dtype === undefined || options.dtype === dtype) return finish(raw, options);
  const converted = to(raw, options.dtype);
  raw.dispose();
  return finish(converted, options);
}

function write(values: ArrayBufferView<ArrayBuffer>, dtype: DType, shape: Shape, device: ReturnType<typeof deviceOf>): Tensor {
  const out = emptyTensor(shape, dtype, device), library = libraryOf(device);
  check(library.dg_write(out.storage.id, 0, values as BufferSource, values.byteLength), library);
  observer?.filled(out.storage);
  return out;
}

/**
 * A tensor over the memory of a typed array, without a copy: each sees what the other writes. On the CPU only.
 *
 * The array stays referenced; using the tensor after the array was transferred elsewhere is a {@linkcode DisposedError}.
 *
 * @param data Elements, row-major.
 * @param shape Default: `[data.length]`.
 * @throws {ShapeError} If the shape does not have as many elements as the array.
 *
 * @example
 * ```ts
 * import { fromArray } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const memory = new Float32Array([1, 2, 3, 4]);
 * fromArray(memory, [2, 2]).mul_(10);
 * assertEquals(memory[3], 40);
 * ```
 */
export function fromArray(data: TensorArray, shape: Shape = [data.length], options?: { requiresGrad?: boolean }): Tensor {
  const dtype = arrayDTypes.get(data?.constructor);
  if (dtype === undefined) throw new DTypeError("fromArray: takes a Float32Array, Float64Array, Int32Array, BigInt64Array or Uint8Array");
  checkShape(shape, "fromArray");
  if (numelOf(shape) !== data.length) {
    throw new ShapeError(`fromArray: ${textOf(shape)} has ${numelOf(shape)} elements, the array has ${data.length}`);
  }
  const buffer: ArrayBufferLike = data.buffer;
  // Shared or resizable memory can change or vanish under native code: copy it.
  if (!(buffer instanceof ArrayBuffer) || buffer.resizable || data.length === 0) {
    return finish(write(data, dtype, [...shape], cpu), options);
  }
  return finish(new Tensor(lend(data, cpu, shape), [...shape], contiguousStrides(shape), 0, dtype), options);
}

/** A copy of a tensor's elements without its history; `torch.tensor(x)` for a tensor. */
export function asLeaf(x: Tensor): Tensor {
  return copyInto(uninitialisedLike(x), x);
}

function nestedShape(data: NestedArray): number[] {
  const shape: number[] = [];
  for (let level = data; Array.isArray(level); level = level[0]) {
    shape.push(level.length);
    if (level.length === 0) break;
  }
  checkShape(shape, "tensor");
  return shape;
}

function flatten(data: NestedArray, shape: Shape, level: number, out: (number | boolean | bigint)[]): void {
  if (level === shape.length) {
    if (typeof data !== "number" && typeof data !== "boolean" && typeof data !== "bigint") {
      throw new ShapeError(`tensor: expected a number at depth ${level}, got ${Array.isArray(data) ? "an array" : typeof data}`);
    }
    out.push(data);
    return;
  }
  if (!Array.isArray(data) || data.length !== shape[level]) {
    throw new ShapeError(
      `tensor: nested arrays must have one length per level: expected ${shape[level]} at depth ${level}, got ${
        Array.isArray(data) ? data.length : typeof data
      }`,
    );
  }
  for (const item of data) flatten(item, shape, level + 1, out);
}

/** True for the floating-point dtypes, of a tensor or a dtype. */
export function isFloatingPoint(x: Tensor | DType): boolean {
  return isFloat(x instanceof Tensor ? x.dtype : x);
}
