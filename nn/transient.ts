/**
 * Which layers keep neither their input nor their output, so that what passes between two of them can be let go.
 *
 * @module
 */
import type { Tensor } from "../tensor/tensor.ts";
import type { Module } from "./module.ts";

type ModuleClass = abstract new (...args: never[]) => Module;

const leaves = new WeakSet<object>(), trees = new WeakSet<object>();

/** Says of library layers that they keep neither input nor output. */
export function markTransient(...classes: readonly ModuleClass[]): void {
  for (const layer of classes) leaves.add(layer);
}

/** Says so of library modules, as far as it is true of the modules inside. */
export function markTransientTree(...classes: readonly ModuleClass[]): void {
  for (const layer of classes) trees.add(layer);
}

/** True for a marked class (not its subclasses) if no hook looks at the module or those inside. */
export function isTransient(module: Module): boolean {
  if (module.hasHooks) return false;
  if (leaves.has(module.constructor)) return true;
  return trees.has(module.constructor) && module.everyChild(isTransient);
}

/** Lets go of the result of `from` once `into` has taken it, unless one of the two may still hold it. */
export function letGo(x: Tensor, from: Module, into: Module): void {
  if (isTransient(from) && isTransient(into)) x.dispose();
}
