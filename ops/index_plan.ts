/**
 * What reading and writing through index tensors share: which axes are indexed, where the indexed axes go, and the native calls on rows.
 *
 * @module
 */
import { record } from "../autograd/tape.ts";
import type { Device } from "../ffi/device.ts";
import { DTypeError, ShapeError } from "../ffi/errors.ts";
import type { Frame } from "../ffi/frame.ts";
import { ScatterOp } from "../ffi/op_codes.ts";
import type { KernelLibrary } from "../ffi/symbols.ts";
import type { DType } from "../tensor/dtype.ts";
import { broadcastShapes, expandedStrides, sameShape, type Shape, textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { copyInto, to } from "./copy.ts";
import { zeros } from "./creation.ts";
import { overwrite } from "./inplace.ts";
import { checkTensor, emptyLike, emptyTensor, native } from "./native.ts";
import { broadcastTo, unbind } from "./view.ts";

const nameBytes = new Map<string, Uint8Array<ArrayBuffer>>();

/** `op` as native code takes it. */
function bytesOfName(op: string): Uint8Array<ArrayBuffer> {
  let bytes = nameBytes.get(op);
  if (bytes === undefined) nameBytes.set(op, bytes = new TextEncoder().encode(op));
  return bytes;
}

/** `native` whose range errors name the operation, those that a device finds later too. */
export function nativeNamed(op: string, device: Device, body: (library: KernelLibrary, frame: Frame) => number): void {
  try {
    native(device, (library, f) => {
      if (device.type === "cuda") {
        const name = bytesOfName(op);
        library.dg_name_call(name, name.length);
      }
      return body(library, f);
    });
  } catch (error) {
    if (error instanceof RangeError) throw new RangeError(`${op}: ${error.message}`);
    throw error;
  }
}

/** Refuses what cannot be an index. */
export function checkIndex(index: unknown, op: string, x: Tensor): asserts index is Tensor {
  checkTensor(index, op, "the index", x);
  if (index.dtype !== "int64" && index.dtype !== "int32") {
    throw new DTypeError(`${op}: an index must be int64 or int32, got ${index.dtype}`);
  }
}

/** Refuses a source of another dtype. */
export function checkSource(source: unknown, op: string, x: Tensor): asserts source is Tensor {
  checkTensor(source, op, "the source", x);
  if (source.dtype !== x.dtype) {
    throw new DTypeError(
      `${op}: the source must have the tensor's dtype ${x.dtype}, got ${source.dtype}: convert it with .to("${x.dtype}")`,
    );
  }
}

/** The dtype in which sums of `dtype` are accumulated. */
export function wideType(dtype: DType): DType {
  return dtype === "float16" || dtype === "bfloat16" ? "float32" : dtype;
}

/** Coordinates of the true elements of a bool tensor, `[n, rank]`. */
export function coordinates(mask: Tensor): Tensor {
  const count = emptyTensor([], "int64", mask.device);
  native(mask.device, (lib, f) => lib.dg_count_nonzero(f.pointer, f.put(count), f.put(mask)));
  const out = emptyTensor([count.item(), mask.rank], "int64", mask.device);
  count.dispose();
  native(mask.device, (lib, f) => lib.dg_nonzero(f.pointer, f.put(out), f.put(mask)));
  return out;
}

/** One item of an index: a position, index tensor or mask, `null` for a whole axis, `"..."` for as many whole axes as are left. */
export type IndexItem = number | Tensor | null | "...";

/** How the items of an index apply to tensors of one shape. */
export class Plan {
  /** Index tensors, one for each of `axes`, to be broadcast to `shape`. */
  readonly tensors: readonly Tensor[];
  /** Their axes; -1 for the axis of size 1 that a mask without axes adds. */
  readonly axes: readonly number[];
  /** Axes taken whole. */
  readonly rest: readonly number[];
  /** Axes taken at one position. */
  readonly fixed: readonly (readonly [axis: number, at: number])[];
  /** Common shape of the index tensors. */
  readonly shape: Shape;
  /** Where in the result their axes begin. */
  readonly first: number;
  /** Negative indices count from the end. */
  readonly wrap: boolean;
  /** Name of the operation, for errors. */
  readonly op: string;

  constructor(
    it: Pick<Plan, "tensors" | "axes" | "rest" | "fixed" | "first" | "wrap" | "op">,
    shape: Shape = it.tensors.reduce<Shape>((common, x) => broadcastShapes(common, x.shape, it.op), []),
  ) {
    this.tensors = it.tensors;
    this.axes = it.axes;
    this.rest = it.rest;
    this.fixed = it.fixed;
    this.first = it.first;
    this.wrap = it.wrap;
    this.op = it.op;
    this.shape = shape;
  }

  /** One index tensor for axis `axis` of tensors of `rank` axes. */
  static axis(op: string, rank: number, axis: number, index: Tensor, wrap = false): Plan {
    const rest = Array.from({ length: rank }, (_, i) => i).filter((i) => i !== axis);
    return new Plan({ op, tensors: [index], axes: [axis], rest, fixed: [], first: axis, wrap });
  }

  /** The plan with other handles on the same index tensors. */
  with(tensors: readonly Tensor[]): Plan {
    return new Plan({ ...this, tensors }, this.shape);
  }

  /** Shape of the result for an input of `shape`. */
  resultShape(shape: Shape): Shape {
    const kept = this.rest.map((axis) => shape[axis]);
    return [...kept.slice(0, this.first), ...this.shape, ...kept.slice(this.first)];
  }

  /** Indexed axes first, then the whole ones. */
  rows(x: Tensor): Tensor {
    const offset = this.fixed.reduce((sum, [axis, at]) => sum + at * x.strides[axis], x.offset);
    const axes = [...this.axes, ...this.rest];
    const pick = (from: Shape, absent: number) => axes.map((axis) => axis < 0 ? absent : from[axis]);
    return new Tensor(x.storage, pick(x.shape, 1), pick(x.strides, 1), offset, x.dtype, false);
  }

  /** A result with the axes of the index tensors first. */
  packed(y: Tensor): Tensor {
    const rank = this.shape.length, order = y.shape.map((_, i) => i);
    const moved = [...order.splice(this.first, rank), ...order];
    return new Tensor(y.storage, moved.map((i) => y.shape[i]), moved.map((i) => y.strides[i]), y.offset, y.dtype, false);
  }

  /** Writes the headers of the index tensors and returns the first slot. */
  put(frame: Frame): number {
    const slots = this.tensors.map((x) =>
      frame.put(new Tensor(x.storage, this.shape, expandedStrides(x.shape, x.strides, this.shape), x.offset, x.dtype, false))
    );
    return slots[0];
  }

  /** The axes as bits. */
  get mask(): number {
    return this.axes.reduce((bits, axis, i) => bits | 1 << (axis < 0 ? 8 + i : axis), 0);
  }
}

/**
 * Reads the items of an index.
 *
 * @returns The plan, and the index tensors that were made for it.
 */
export function planOf(op: string, x: Tensor, items: readonly IndexItem[]): { plan: Plan; made: Tensor[] } {
  checkTensor(x, op, "the input");
  if (!Array.isArray(items)) throw new TypeError(`${op}: the index must be an array of numbers, tensors, null and "..."`);
  const span = (item: IndexItem) => item === "..." ? 0 : item instanceof Tensor && item.dtype === "bool" ? item.rank : 1;
  const dots = items.indexOf("..."), used = items.reduce<number>((sum, item) => sum + span(item), 0);
  if (dots !== items.lastIndexOf("...")) throw new RangeError(`${op}: "..." appears more than once`);
  if (used > x.rank) throw new ShapeError(`${op}: ${used} axes are indexed of ${textOf(x.shape)}, which has ${x.rank}`);
  const whole = new Array<null>(x.rank - used).fill(null);
  const all = dots < 0 ? [...items, ...whole] : [...items.slice(0, dots), ...whole, ...items.slice(dots + 1)];
  const tensors: Tensor[] = [], axes: number[] = [], rest: number[] = [], fixed: [number, number][] = [], made: Tensor[] = [];
  const places: number[] = []; // whole axes before each indexed one: all equal when the indexed axes are neighbours
  let axis = 0;
  const addIndex = (index: Tensor, at: number) => {
    tensors.push(index);
    axes.push(at);
    places.push(rest.length);
  };
  for (const item of all) {
    if (item === null) {
      rest.push(axis++);
    } else if (typeof item === "number" || (item instanceof Tensor && item.rank === 0 && item.dtype !== "bool")) {
      if (item instanceof Tensor) checkIndex(item, op, x);
      fixed.push([axis, positionOf(op, x, axis, typeof item === "number" ? item : item.item())]);
      axis++;
    } else if (item instanceof Tensor && item.dtype === "bool") {
      checkTensor(item, op, "a mask", x);
      const window = x.shape.slice(axis, axis + item.rank);
      if (!sameShape(item.shape, window)) {
        throw new ShapeError(`${op}: a mask of ${textOf(item.shape)} does not fit axes ${axis} .. of ${textOf(x.shape)}`);
      }
      const found = coordinates(item);
      if (item.rank === 0) {
        const none = zeros([found.shape[0]], { dtype: "int64", device: x.device });
        made.push(none);
        addIndex(none, -1);
      } else {
        for (const column of unbind(found, 1)) {
          made.push(column);
          addIndex(column, axis++);
        }
      }
      found.dispose();
    } else {
      checkIndex(item, op, x);
      addIndex(item, axis++);
    }
  }
  const first = places.every((place) => place === places[0]) ? places[0] ?? 0 : 0;
  return { plan: new Plan({ op, tensors, axes, rest, fixed, first, wrap: true }), made };
}

function positionOf(op: string, x: Tensor, axis: number, index: number): number {
  const size = x.shape[axis];
  if (!Number.isInteger(index)) throw new RangeError(`${op}: positions are whole numbers, got ${index}`);
  if (index < -size || index >= size) {
    throw new RangeError(`${op}: index ${index} is outside axis ${axis} of size ${size}, allowed are ${-size} to ${size - 1}`);
  }
  return index < 0 ? index + size : index;
}

/** The rows of `x` that a plan names. */
export function readRows(x: Tensor, plan: Plan): Tensor {
  const out = emptyTensor(plan.resultShape(x.shape), x.dtype, x.device);
  if (plan.axes.length === 0) {
    copyInto(out, plan.rows(x));
  } else {
    nativeNamed(plan.op, x.device, (lib, f) => {
      const to = f.put(plan.packed(out)), from = f.put(plan.rows(x)), first = plan.put(f);
      return lib.dg_index_get(f.pointer, to, from, first, plan.mask, plan.wrap ? 1 : 0);
    });
  }
  const shape = x.shape;
  return record(plan.op, [x], out, plan.tensors, (grad, saved) => [spreadRows(grad, plan.with(saved), shape)]);
}

/** The adjoint of {@linkcode readRows}: zeros of `shape` to whose rows those of `grad` are added. */
export function spreadRows(grad: Tensor, plan: Plan, shape: Shape): Tensor {
  const wide = wideType(grad.dtype), sums = zeros(shape, { dtype: wide, device: grad.device });
  putRows(sums, plan, to(grad.detach(), wide), "sum");
  const out = wide === grad.dtype ? sums : copyInto(emptyLike(sums, grad.dtype), sums);
  if (out !== sums) sums.dispose();
  return record(`${plan.op} (derivative)`, [grad], out, plan.tensors, (again, saved) => [readRows(again, plan.with(saved))]);
}

/** Writes `values` (broadcast to the result's shape), or a number, to the rows of `x` that a plan names, or adds it to them. */
function putRows(x: Tensor, plan: Plan, values: Tensor | number, mode: "assign" | "sum"): void {
  const wide = wideType(x.dtype);
  if (mode === "sum" && wide !== x.dtype) {
    const sums = copyInto(emptyLike(x, wide), x), terms = values instanceof Tensor ? to(values.detach(), wide) : values;
    putRows(sums, plan, terms, mode);
    copyInto(x, sums);
    sums.dispose();
    if (terms instanceof Tensor) terms.dispose();
    return;
  }
  const shape = plan.resultShape(x.shape);
  const shown = values instanceof Tensor
    ? plan.packed(
      new Tensor(values.storage, shape, expandedStrides(values.shape, values.strides, shape), values.offset, values.dtype, false),
    )
    : null;
  if (plan.axes.length === 0) {
    const target = plan.rows(x);
    native(x.device, (lib, f) => {
      const to = f.put(target);
      if (shown === null) return lib.dg_fill(f.pointer, to, Number(values));
      return mode === "sum" ? lib.dg_binary(f.pointer, to, to, f.put(shown), 0, 1) : lib.dg_copy(f.pointer, to, f.put(shown));
    });
    return;
  }
  nativeNamed(plan.op, x.device, (lib, f) => {
    const to = f.put(plan.rows(x)), from = f.put(shown), first = plan.put(f);
    return lib.dg_index_put(f.pointer, to, from, Number(shown === null ? values : 0), first, plan.mask, plan.wrap ? 1 : 0, ScatterOp[mode]);
  });
}

/** `x` with `values` written or added to the rows that a plan names: a copy, or `x` itself. Differentiable in both. */
export function writeRows<T extends Tensor>(x: T, plan: Plan, values: Tensor | number, mode: "assign" | "sum", inPlace: boolean): Tensor {
  let source = values;
  if (values instanceof Tensor) {
    const shape = plan.resultShape(x.shape);
    if (!sameShape(broadcastShapes(values.shape, shape, plan.op), shape)) {
      throw new ShapeError(`${plan.op}: values of ${textOf(values.shape)} do not broadcast to the indexed ${textOf(shape)}`);
    }
    const apart = inPlace && values.storage === x.storage ? values.clone() : values;
    source = broadcastTo(apart, shape);
  }
  const others = source instanceof Tensor ? [source] : [];
  const rule = (grad: Tensor, saved: readonly Tensor[], [forX, forValues]: readonly boolean[]) => {
    const again = plan.with(saved);
    return [forX ? mode === "sum" ? grad : writeRows(grad, again, 0, "assign", false) : null, forValues ? readRows(grad, again) : null];
  };
  if (inPlace) return overwrite(plan.op, x, others, () => putRows(x, plan, source, mode), plan.tensors, rule);
  const out = copyInto(emptyLike(x), x);
  putRows(out, plan, source, mode);
  return record(plan.op, [x, ...others], out, plan.tensors, rule);
}
