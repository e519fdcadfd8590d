/**
 * Differentiation as the user calls it: `backward`, `grad`, hooks, and the modes that switch recording.
 *
 * @module
 */
import { AutogradError, ShapeError } from "../ffi/errors.ts";
import { context, withContext } from "../tensor/context.ts";
import { sameShape, textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { runBackward } from "./engine.ts";
import type { GradHook, PostAccumulateGradHook } from "./tape.ts";

function rootGradients(roots: readonly Tensor[], grads: readonly (Tensor | null)[] | null, op: string): Tensor[] {
  if (grads !== null && grads.length !== roots.length) {
    throw new ShapeError(`${op}: ${roots.length} outputs need as many gradients, got ${grads.length}`);
  }
  return roots.map((root, i) => {
    root.checkAlive(op);
    if (!root.requiresGrad) {
      throw new AutogradError(
        `${op}: output ${i} of shape ${
          textOf(root.shape)
        } does not require a gradient: nothing it was made from does, or recording was off`,
      );
    }
    const given = grads?.[i] ?? null;
    if (given === null) {
      if (root.numel() !== 1) {
        throw new ShapeError(
          `${op}: the gradient of an output of shape ${
            textOf(root.shape)
          } must be given: only one with a single element has an implied gradient of 1`,
        );
      }
      return withContext({ grad: false }, () => {
        using same = root.detach();
        return same.mul(0).fill_(1);
      });
    }
    if (!sameShape(given.shape, root.shape)) {
      throw new ShapeError(`${op}: a gradient of shape ${textOf(given.shape)} was given for an output of shape ${textOf(root.shape)}`);
    }
    return given;
  });
}

/**
 * Differentiates `outputs` and adds the results to the `grad` of the leaves they were made from.
 *
 * @param grads Gradients with respect to the outputs. Default: 1 for outputs with one element.
 * @param options.retainGraph Keep what backward needs. Default: `createGraph`.
 * @param options.createGraph Record backward itself. Default `false`.
 * @throws {AutogradError} If an output was not recorded, a saved tensor changed, or the graph was freed.
 */
export function backward(
  outputs: readonly Tensor[],
  grads: readonly (Tensor | null)[] | null = null,
  options?: { retainGraph?: boolean; createGraph?: boolean },
): void {
  const createGraph = options?.createGraph ?? false;
  const start = rootGradients(outputs, grads, "backward");
  runBackward(outputs, start, { createGraph, retainGraph: options?.retainGraph ?? createGraph, inputs: null });
  start.forEach((grad, i) => grads?.[i] ?? grad.dispose());
}

/**
 * Gradients of `outputs` with respect to `inputs`, without touching any `grad`.
 *
 * @param outputs A tensor or several; their gradients are added.
 * @param inputs Leaves or intermediate results.
 * @param options.gradOutputs Gradients with respect to the outputs. Default: 1 for outputs with one element.
 * @param options.allowUnused Return `null` for an input that the outputs do not depend on, instead of an error. Default `false`.
 * @returns One gradient per input, of its shape.
 *
 * @example A second derivative
 * ```ts
 * import { grad, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const x = tensor(3, { requiresGrad: true });
 * const [first] = grad(x.mul(x).mul(x), [x], { createGraph: true });
 * const [second] = grad(first, [x]);
 * assertEquals([first.item(), second.item()], [27, 18]);
 * ```
 */
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: readonly Tensor[],
  options?: { gradOutputs?: readonly (Tensor | null)[]; retainGraph?: boolean; createGraph?: boolean; allowUnused?: false },
): Tensor[];
/** As above, with `null` for inputs that the outputs do not depend on. */
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: readonly Tensor[],
  options: { gradOutputs?: readonly (Tensor | null)[]; retainGraph?: boolean; createGraph?: boolean; allowUnused: true },
): (Tensor | null)[];
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: readonly Tensor[],
  options?: { gradOutputs?: readonly (Tensor | null)[]; retainGraph?: boolean; createGraph?: boolean; allowUnused?: boolean },
): (Tensor | null)[] {
  const roots = outputs instanceof Tensor ? [outputs] : outputs;
  const createGraph = options?.createGraph ?? false;
  inputs.forEach((input, i) => {
    if (!input.requiresGrad) throw new AutogradError(`grad: input ${i} of shape ${textOf(input.shape)} does not require a gradient`);
  });
  const given = options?.gradOutputs ?? null;
  const start = rootGradients(roots, given, "grad");
  const results = runBackward(roots, start, { createGraph, retainGraph: options?.retainGraph ?? createGraph, inputs });
  start.forEach((it, i) => given?.[i] ?? it.dispose());
  results.forEach((result, i) => {
    if (result === null && !options?.allowUnused) {
      throw new AutogradError(`grad: the outputs do not depend on input ${i}: pass { allowUnused: true } to get null for it`);
    }
  });
  return results;
}

/** The same elements, taking no part in the graph. */
export function detach(x: Tensor): Tensor {
  x.checkAlive("detach");
  const y = new Tensor(x.storage, x.shape, x.strides, x.offset, x.dtype);
  return y;
}

/** Makes a result that is not a leaf keep its gradient in `grad`. */
export function retainGrad(x: Tensor): void {
  if (!x.requiresGrad) throw new AutogradError("retainGrad: the tensor does not require a gradient");
  if (x.node === null) return;
  (x.node.retained ??= [])[x.outputIndex] = x;
}

/** Calls `hook` with the gradient of `x`; what it returns, if a tensor, takes the gradient's place. */
export function registerHook(x: Tensor, hook: GradHook): { remove(): void } {
  if (!x.requiresGrad) throw new AutogradError("registerHook: the tensor does not require a gradient");
  const set = x.node === null ? x.hooks ??= new Set() : (x.node.hooks ??= [])[x.outputIndex] ??= new Set();
  set.add(hook);
  return { remove: () => void set.delete(hook) };
}

/** Calls `hook` with the leaf `x` once a backward pass has added all of its gradient to `x.grad`. */
export function registerPostAccumulateGradHook(x: Tensor, hook: PostAccumulateGradHook): { remove(): void } {
  const op = "registerPostAccumulateGradHook";
  if (typeof hook !== "function") throw new TypeError(`${op}: the hook must be a function, got ${typeof hook}`);
  if (!x.requiresGrad) throw new AutogradError(`${op}: the tensor does not require a gradient`);
  if (x.node !== null) throw new AutogradError(`${op}: made by ${x.node.name}, only leaves accumulate gradients: use registerHook()`);
  const set = x.accumulateHooks ??= new Set();
  set.add(hook);
  return {
    remove: () => {
      set.delete(hook);
      if (set.size === 0 && x.accumulateHooks === set) x.accumulateHooks = null;
    },
  };
}

/** Runs `fn` without recording; for an asynchronous one, until its promise settles. */
export function noGrad<T>(fn: () => T): T {
  return withContext({ grad: false }, fn);
}

/** Runs `fn` with recording, inside a {@linkcode noGrad}, too. */
export function enableGrad<T>(fn: () => T): T {
  return withContext({ grad: true }, fn);
}

/** Runs `fn` without recording, as {@linkcode noGrad}; the name that PyTorch code for prediction uses. */
export function inferenceMode<T>(fn: () => T): T {
  return withContext({ grad: false }, fn);
}

/** True when operations are recorded. */
export function isGradEnabled(): boolean {
  return context().grad;
}

/**
 * Runs `fn` so that a NaN made in backward is an error that names the forward operation and shows its stack. Slow: for finding faults.
 *
 * @throws {AutogradError} From a `backward()` inside `fn` whose derivative gave a NaN.
 */
export function detectAnomaly<T>(fn: () => T): T {
  return withContext({ anomaly: true }, fn);
}
