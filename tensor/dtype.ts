/**
 * Element types and PyTorch's promotion rules.
 *
 * @module
 */
import { DTypeError } from "../ffi/errors.ts";

/** Element type of a tensor. */
export type DType = "float32" | "float64" | "float16" | "bfloat16" | "int32" | "int64" | "uint8" | "bool";

/** All dtypes, in the order of their native codes. */
export const dtypes: readonly DType[] = ["float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool"];

const codes = new Map<string, number>(dtypes.map((dtype, code) => [dtype, code]));
const elementBytes: readonly number[] = [4, 8, 2, 2, 4, 8, 1, 1];

/** Native code of a dtype. */
export function codeOf(dtype: DType): number {
  const code = codes.get(dtype);
  if (code === undefined) throw new DTypeError(`unknown dtype ${JSON.stringify(dtype)}, expected one of ${dtypes.join(", ")}`);
  return code;
}

/** Bytes of one element. */
export function bytesOf(dtype: DType): number {
  return elementBytes[codeOf(dtype)];
}

/** True for float32, float64, float16 and bfloat16. */
export function isFloat(dtype: DType): boolean {
  return codeOf(dtype) < 4;
}

let defaultDType: DType = "float32";

/** The dtype of new floating-point tensors, `float32` unless {@linkcode setDefaultDType} changed it. */
export function getDefaultDType(): DType {
  return defaultDType;
}

/** Sets the dtype of new floating-point tensors. */
export function setDefaultDType(dtype: DType): void {
  if (!isFloat(dtype)) throw new DTypeError(`setDefaultDType: takes a floating point dtype, got ${dtype}`);
  defaultDType = dtype;
}

// Promotion of two dtypes of tensors with axes: rows and columns in the order of the codes.
const F32 = 0, F64 = 1, F16 = 2, BF16 = 3, I32 = 4, I64 = 5, U8 = 6, BOOL = 7;
const table: readonly (readonly number[])[] = [
  [F32, F64, F32, F32, F32, F32, F32, F32],
  [F64, F64, F64, F64, F64, F64, F64, F64],
  [F32, F64, F16, F32, F16, F16, F16, F16],
  [F32, F64, F32, BF16, BF16, BF16, BF16, BF16],
  [F32, F64, F16, BF16, I32, I64, I32, I32],
  [F32, F64, F16, BF16, I64, I64, I64, I64],
  [F32, F64, F16, BF16, I32, I64, U8, U8],
  [F32, F64, F16, BF16, I32, I64, U8, BOOL],
];

/**
 * The dtype that two dtypes promote to (`torch.promote_types`).
 *
 * @example
 * ```ts
 * import { promoteTypes } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * assertEquals(promoteTypes("int64", "float16"), "float16");
 * assertEquals(promoteTypes("float16", "bfloat16"), "float32");
 * ```
 */
export function promoteTypes(a: DType, b: DType): DType {
  return a === b ? a : dtypes[table[codeOf(a)][codeOf(b)]];
}

function category(dtype: DType): number {
  return isFloat(dtype) ? 2 : dtype === "bool" ? 0 : 1;
}

/** What promotion needs to know of an operand. */
export interface Promotable {
  /** Its dtype. */
  readonly dtype: DType;
  /** Its sizes: a tensor without axes yields to one with axes of the same category. */
  readonly shape: readonly number[];
}

/**
 * The dtype of a result of `a` and `b` (`torch.result_type`): a tensor with axes beats one without, unless the latter's category
 * (bool, integer, float) is higher; a number or boolean beats neither unless its category is higher.
 */
export function resultType(a: Promotable, b: Promotable | number | boolean): DType {
  if (typeof b === "object") {
    if (a.dtype === b.dtype) return a.dtype;
    const aHasAxes = a.shape.length > 0, bHasAxes = b.shape.length > 0;
    if (aHasAxes === bHasAxes) return promoteTypes(a.dtype, b.dtype);
    const [strong, weak] = aHasAxes ? [a.dtype, b.dtype] : [b.dtype, a.dtype];
    return category(weak) > category(strong) ? weak : strong;
  }
  const kind = typeof b === "boolean" ? 0 : Number.isInteger(b) ? 1 : 2;
  if (kind <= category(a.dtype)) return a.dtype;
  return kind === 2 ? defaultDType : "int64";
}
