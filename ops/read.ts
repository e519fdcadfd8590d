/**
 * Reading tensors into JavaScript and printing them.
 *
 * @module
 */
import { ShapeError } from "../ffi/errors.ts";
import { check, libraryOf } from "../ffi/library.ts";
import { withContext } from "../tensor/context.ts";
import { READS, unrepeatable } from "../tensor/recorder.ts";
import { bytesOf } from "../tensor/dtype.ts";
import { scope } from "../tensor/scope.ts";
import { textOf } from "../tensor/shape.ts";
import type { NestedArray, Tensor } from "../tensor/tensor.ts";
import { copyInto, to } from "./copy.ts";
import { checkTensor, emptyTensor } from "./native.ts";
import { cat, slice } from "./view.ts";

/** What {@linkcode data} returns. */
export type DataArray =
  | Float32Array<ArrayBuffer>
  | Float64Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | BigInt64Array<ArrayBuffer>
  | Uint8Array<ArrayBuffer>;

/** The elements in row-major order, copied into a typed array. float16 and bfloat16 are read as float32, bool as `Uint8Array`. */
export function data(x: Tensor): DataArray {
  checkTensor(x, "data", "the input");
  unrepeatable(READS);
  return withContext({ grad: false, scope: null }, () => {
    const wide = x.dtype === "float16" || x.dtype === "bfloat16" ? to(x, "float32") : x;
    const source = wide.isContiguous() ? wide : copyInto(emptyTensor(wide.shape, wide.dtype, wide.device), wide);
    const count = x.numel();
    const out = wide.dtype === "float32"
      ? new Float32Array(count)
      : wide.dtype === "float64"
      ? new Float64Array(count)
      : wide.dtype === "int32"
      ? new Int32Array(count)
      : wide.dtype === "int64"
      ? new BigInt64Array(count)
      : new Uint8Array(count);
    const library = libraryOf(x.device);
    check(library.dg_read(source.storage.id, source.offset * bytesOf(source.dtype), out, out.byteLength), library);
    if (source !== wide) source.dispose();
    if (wide !== x) wide.dispose();
    return out;
  });
}

/** The one element, as a number (0 or 1 for bool). @throws {ShapeError} If there are more or none. */
export function item(x: Tensor): number {
  checkTensor(x, "item", "the input");
  if (x.numel() !== 1) throw new ShapeError(`item: takes a tensor with one element, got ${textOf(x.shape)}`);
  return Number(data(x)[0]);
}

/** The elements as nested arrays; booleans for dtype bool, else numbers. */
export function tolist(x: Tensor): NestedArray {
  const flat = data(x);
  const value = (i: number): number | boolean => x.dtype === "bool" ? flat[i] !== 0 : Number(flat[i]);
  let at = 0;
  const level = (axis: number): NestedArray => {
    if (axis === x.rank) return value(at++);
    return Array.from({ length: x.shape[axis] }, () => level(axis + 1));
  };
  return level(0);
}

const EDGE = 3, FULL = 1000;

/**
 * Readable form, as PyTorch prints: columns aligned, past 1000 elements only the first and last three along each axis.
 */
export function format(x: Tensor): string {
  if (x.disposed || x.storage.id === 0) return `Tensor(disposed, shape=${textOf(x.shape)}, dtype=${x.dtype})`;
  const suffix = [
    x.dtype === "float32" || x.dtype === "int64" || x.dtype === "bool" ? "" : `, dtype=${x.dtype}`,
    x.device.type === "cpu" ? "" : `, device=${x.device}`,
    x.node !== null ? `, gradFn=${x.node.name}` : x.requiresGrad ? ", requiresGrad=true" : "",
  ].join("");
  if (x.numel() === 0) {
    return `tensor(${"[".repeat(Math.max(1, x.rank))}${"]".repeat(Math.max(1, x.rank))}, shape=${textOf(x.shape)}${suffix})`;
  }
  const [texts, shape] = scope(() => {
    const shown = withContext({ grad: false }, () => x.numel() > FULL ? edges(x, 0) : x);
    return [numberTexts(data(shown), x), shown.shape] as const;
  });
  const width = Math.max(...texts.map((text) => text.length));
  let at = 0;
  const level = (axis: number, indent: string): string => {
    if (axis === x.rank) return texts[at++].padStart(width);
    const cut = x.numel() > FULL && x.shape[axis] > 2 * EDGE;
    const parts = Array.from({ length: shape[axis] }, () => level(axis + 1, indent + " "));
    if (cut) parts.splice(EDGE, 0, "...");
    const last = axis === x.rank - 1;
    return `[${parts.join(last ? ", " : `,${"\n".repeat(Math.min(x.rank - axis - 1, 2))}${indent} `)}]`;
  };
  return `tensor(${level(0, "       ")}${suffix})`;
}

function edges(x: Tensor, axis: number): Tensor {
  if (axis === x.rank) return x;
  const inner = x.shape[axis] > 2 * EDGE ? cat([slice(x, axis, 0, EDGE), slice(x, axis, -EDGE)], axis) : x;
  return edges(inner, axis + 1);
}

function numberTexts(values: DataArray, x: Tensor): string[] {
  if (x.dtype === "bool") return Array.from(values as Uint8Array, (v) => v ? "true" : "false");
  if (!x.isFloat) return Array.from(values as Int32Array, String);
  const numbers = Array.from(values as Float64Array, Number);
  const finite = numbers.filter(Number.isFinite), magnitudes = finite.filter((v) => v !== 0).map(Math.abs);
  const largest = Math.max(0, ...magnitudes), smallest = Math.min(Infinity, ...magnitudes);
  const whole = finite.every(Number.isInteger);
  const scientific = largest >= 1e8 || (!whole && (smallest < 1e-4 || largest / smallest > 1000));
  return numbers.map((v) => {
    if (Number.isNaN(v)) return "nan";
    if (!Number.isFinite(v)) return v > 0 ? "inf" : "-inf";
    if (scientific) return v.toExponential(4).replace(/e([+-])(\d)$/, "e$10$2");
    return whole ? `${v}.` : v.toFixed(4);
  });
}

/** True when shapes and all elements are equal. */
export function equal(x: Tensor, y: Tensor): boolean {
  checkTensor(x, "equal", "the first tensor");
  checkTensor(y, "equal", "the second tensor", x);
  if (x.rank !== y.rank || !x.shape.every((size, i) => size === y.shape[i])) return false;
  const a = data(x), b = data(y);
  return a.every((value: number | bigint, i: number) => Number(value) === Number(b[i]));
}
