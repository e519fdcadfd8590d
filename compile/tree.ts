/**
 * What a function takes and returns, as a tree with tensors and other values at the leaves.
 *
 * @module
 */
import { sameShape, type Shape } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";

/** A value: a tensor by its number, an array, a plain object, an object of a class with its properties, or something that is compared. */
export type Tree =
  | { readonly kind: "tensor"; readonly index: number }
  | { readonly kind: "array"; readonly items: readonly Tree[] }
  | { readonly kind: "object"; readonly keys: readonly string[]; readonly items: readonly Tree[] }
  | { readonly kind: "instance"; readonly value: object; readonly keys: readonly string[]; readonly values: readonly unknown[] }
  | { readonly kind: "value"; readonly value: unknown };

function isPlain(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/**
 * The tree of a value.
 *
 * @param tensors Gets its tensors, each once.
 * @throws {RangeError} If an object contains itself.
 */
export function treeOf(value: unknown, tensors: Tensor[], within: readonly unknown[] = []): Tree {
  if (typeof value !== "object" || value === null) return { kind: "value", value };
  if (value instanceof Tensor) {
    let index = tensors.indexOf(value);
    if (index < 0) index = tensors.push(value) - 1;
    return { kind: "tensor", index };
  }
  if (within.includes(value)) throw new RangeError("compile: an argument or result contains itself");
  const inner = [...within, value];
  if (Array.isArray(value)) return { kind: "array", items: value.map((item) => treeOf(item, tensors, inner)) };
  const keys = Object.keys(value);
  if (!isPlain(value)) {
    if (ArrayBuffer.isView(value)) return { kind: "value", value };
    return { kind: "instance", value, keys, values: keys.map((key) => (value as Record<string, unknown>)[key]) };
  }
  return { kind: "object", keys, items: keys.map((key) => treeOf((value as Record<string, unknown>)[key], tensors, inner)) };
}

/**
 * True when a value has the form of a tree, equal values included.
 *
 * @param tensors Gets its tensors by number; a tensor that the tree has twice must be one here, too.
 */
export function fits(tree: Tree, value: unknown, tensors: (Tensor | undefined)[]): boolean {
  switch (tree.kind) {
    case "tensor": {
      if (!(value instanceof Tensor)) return false;
      const known = tensors[tree.index];
      if (known !== undefined && known !== value) return false;
      tensors[tree.index] = value;
      return true;
    }
    case "value":
      return Object.is(tree.value, value);
    case "instance": {
      if (tree.value !== value) return false;
      const { keys, values } = tree, own = value as Record<string, unknown>;
      for (let i = 0; i < keys.length; i++) if (!Object.is(own[keys[i]], values[i])) return false;
      return true;
    }
    case "array": {
      if (!Array.isArray(value) || value.length !== tree.items.length) return false;
      for (let i = 0; i < tree.items.length; i++) if (!fits(tree.items[i], value[i], tensors)) return false;
      return true;
    }
    default: {
      if (typeof value !== "object" || value === null || value instanceof Tensor || !isPlain(value)) return false;
      const { keys, items } = tree, found = Object.keys(value);
      if (found.length !== keys.length) return false;
      for (let i = 0; i < keys.length; i++) {
        if (found[i] !== keys[i] || !fits(items[i], (value as Record<string, unknown>)[keys[i]], tensors)) return false;
      }
      return true;
    }
  }
}

/** An array or object that was made in the place of another. */
export interface Copied {
  readonly from: object;
  readonly to: object;
  /** What it held at first. */
  readonly entries: readonly (readonly [string, unknown])[];
}

/** The value of a tree with other tensors, and what its arrays and objects stand for in `value`, which the tree is of. */
export function copyOf(tree: Tree, value: unknown, tensors: readonly Tensor[], copied: Copied[]): unknown {
  if (tree.kind !== "array" && tree.kind !== "object") return valueOf(tree, tensors);
  const from = value as Record<string, unknown>;
  const to = tree.kind === "array"
    ? tree.items.map((item, i) => copyOf(item, from[i], tensors, copied))
    : Object.fromEntries(tree.keys.map((key, i) => [key, copyOf(tree.items[i], from[key], tensors, copied)]));
  copied.push({ from, to, entries: Object.entries(to) });
  return to;
}

/** Brings what has become of a copy to what it stands for. @returns True if anything has. */
export function copyBack({ from, to, entries }: Copied, back: (value: unknown) => unknown): boolean {
  const now = Object.entries(to);
  if (now.length === entries.length && now.every(([key, value], i) => key === entries[i][0] && Object.is(value, entries[i][1]))) {
    return false;
  }
  const target = from as Record<string, unknown>, known = new Map(entries);
  if (Array.isArray(from) && Array.isArray(to)) from.length = to.length;
  for (const key of known.keys()) if (!(key in to)) delete target[key];
  for (const [key, value] of now) if (!known.has(key) || !Object.is(known.get(key), value)) target[key] = back(value);
  return true;
}

/** The value of a tree. */
export function valueOf(tree: Tree, tensors: readonly Tensor[]): unknown {
  switch (tree.kind) {
    case "tensor":
      return tensors[tree.index];
    case "value":
    case "instance":
      return tree.value;
    case "array":
      return tree.items.map((item) => valueOf(item, tensors));
    default:
      return Object.fromEntries(tree.keys.map((key, i) => [key, valueOf(tree.items[i], tensors)]));
  }
}

/** The first value in a tree that may change without being another, such as an array of numbers' memory; `null` if there is none. */
export function changeable(tree: Tree): string | null {
  if (tree.kind === "value" || tree.kind === "instance") {
    const { value } = tree;
    if (ArrayBuffer.isView(value) || value instanceof Map || value instanceof Set || value instanceof Date) return value.constructor.name;
    return null;
  }
  if (tree.kind === "tensor") return null;
  for (const item of tree.items) {
    const found = changeable(item);
    if (found !== null) return found;
  }
  return null;
}

/** Where the elements of a tensor lie in its storage, and what they are. */
export interface Geometry {
  readonly shape: Shape;
  readonly strides: Shape;
  readonly offset: number;
  readonly dtypeCode: number;
}

/** The geometry of a tensor, for later. */
export function geometryOf({ shape, strides, offset, dtypeCode }: Tensor): Geometry {
  return { shape, strides, offset, dtypeCode };
}

/** True when tensors differ in nothing but the offset. */
export function alike(a: Geometry, b: Geometry): boolean {
  return a.dtypeCode === b.dtypeCode && (a.shape === b.shape || sameShape(a.shape, b.shape)) &&
    (a.strides === b.strides || sameShape(a.strides, b.strides));
}
