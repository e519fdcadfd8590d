/**
 * From samples to a batch.
 *
 * @module
 */
import { ShapeError } from "../ffi/errors.ts";
import { fromArray, stack, tensor } from "../ops/mod.ts";
import { withContext } from "../tensor/context.ts";
import { Tensor, type TypedArray } from "../tensor/tensor.ts";

/** What {@linkcode defaultCollate} makes of samples of type `T`. */
export type Collated<T> = T extends Tensor | number | bigint | boolean | TypedArray ? Tensor
  : T extends string | null | undefined ? T[]
  : T extends readonly unknown[] ? { -readonly [K in keyof T]: Collated<T[K]> }
  : T extends object ? { -readonly [K in keyof T]: Collated<T[K]> }
  : T[];

/**
 * Samples of one structure joined into a batch with a new axis 0.
 *
 * Tensors are stacked; typed arrays become the rows of a tensor; numbers become a tensor of their number, int64 when all are whole (class labels) and else
 * the default floating-point dtype; bigints int64, booleans bool; strings, `null` and `undefined` stay an array. Arrays and plain objects are
 * joined entry by entry.
 *
 * @param samples At least one sample.
 * @throws {ShapeError} If the samples differ in structure or shape.
 *
 * @example
 * ```ts
 * import { defaultCollate, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const { x, label, name } = defaultCollate([{ x: tensor([1, 2]), label: 3, name: "a" }, { x: tensor([4, 5]), label: 6, name: "b" }]);
 * assertEquals(x.tolist(), [[1, 2], [4, 5]]);
 * assertEquals(label.dtype, "int64");
 * assertEquals(name, ["a", "b"]);
 * ```
 */
export function defaultCollate<T>(samples: readonly T[]): Collated<T> {
  if (samples.length === 0) throw new ShapeError("defaultCollate: expected at least one sample");
  return withContext({ grad: false }, () => join(samples, "sample")) as Collated<T>;
}

function join(samples: readonly unknown[], path: string): unknown {
  const [first] = samples, kind = kindOf(first);
  for (let i = 1; i < samples.length; i++) {
    const other = kindOf(samples[i]);
    if (other !== kind) throw new ShapeError(`defaultCollate: ${path} is ${kind} in the first sample and ${other} in sample ${i}`);
  }
  if (kind === "a tensor") return joinTensors(samples as Tensor[], path);
  if (kind === "a number") {
    const whole = samples.every(Number.isSafeInteger);
    return whole ? tensor(BigInt64Array.from(samples as number[], BigInt)) : tensor(samples as number[]);
  }
  if (kind === "a bigint" || kind === "a boolean") return tensor(samples as boolean[]);
  if (ArrayBuffer.isView(first)) return joinArrays(samples as TypedArray[], path);
  if (kind === "an array") {
    const length = (first as unknown[]).length;
    samples.forEach((sample, i) => {
      const other = (sample as unknown[]).length;
      if (other !== length) {
        throw new ShapeError(`defaultCollate: ${path} has ${length} entries in the first sample and ${other} in sample ${i}`);
      }
    });
    return Array.from({ length }, (_, k) => join(samples.map((sample) => (sample as unknown[])[k]), `${path}[${k}]`));
  }
  if (kind === "an object") {
    const keys = Object.keys(first as object);
    samples.forEach((sample, i) => {
      const other = Object.keys(sample as object);
      if (other.length !== keys.length || !keys.every((key) => Object.hasOwn(sample as object, key))) {
        throw new ShapeError(`defaultCollate: ${path} has the keys ${keys} in the first sample and ${other} in sample ${i}`);
      }
    });
    return Object.fromEntries(keys.map((key) => [key, join(samples.map((it) => (it as Record<string, unknown>)[key]), `${path}.${key}`)]));
  }
  return [...samples];
}

function kindOf(value: unknown): string {
  if (value instanceof Tensor) return "a tensor";
  if (ArrayBuffer.isView(value)) return `a ${value.constructor.name}`;
  if (Array.isArray(value)) return "an array";
  if (value === null) return "null";
  return typeof value === "object" ? "an object" : typeof value === "undefined" ? "undefined" : `a ${typeof value}`;
}

function joinTensors(samples: readonly Tensor[], path: string): Tensor {
  const shape = samples[0].shape;
  samples.forEach((x, i) => {
    if (x.rank !== shape.length || !x.shape.every((size, d) => size === shape[d])) {
      throw new ShapeError(
        `defaultCollate: ${path} has shape [${shape.join(", ")}] in the first sample and [${x.shape.join(", ")}] in sample ${i}: ` +
          "make them equal or give the loader a collate function",
      );
    }
  });
  return stack(samples);
}

function joinArrays(samples: readonly TypedArray[], path: string): Tensor {
  const length = samples[0].length;
  const all = new (samples[0].constructor as new (length: number) => Float32Array<ArrayBuffer>)(length * samples.length);
  samples.forEach((row, i) => {
    if (row.length !== length) {
      throw new ShapeError(`defaultCollate: ${path} has ${length} elements in the first sample and ${row.length} in sample ${i}`);
    }
    all.set(row as Float32Array, i * length);
  });
  return length > 0 ? fromArray(all, [samples.length, length]) : tensor(all).reshape([samples.length, 0]);
}
