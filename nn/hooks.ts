/**
 * Hooks of modules: functions called before and after `forward`, and when backward passes the module.
 *
 * @module
 */
import { recordMany } from "../autograd/tape.ts";
import { AutogradError } from "../ffi/errors.ts";
import { context, withContextSync } from "../tensor/context.ts";
import { Tensor } from "../tensor/tensor.ts";
import { detach } from "../ops/mod.ts";
import type { Module } from "./module.ts";

/** Removes what it was returned for. */
export interface Handle {
  /** Removes it; a second call does nothing. */
  remove(): void;
}

/**
 * Called before `forward` with the module and its inputs. A returned array takes the place of the inputs, any other value but `undefined` that of a
 * single input.
 */
export type ForwardPreHook = (module: Module, inputs: readonly unknown[]) => unknown;

/** Called after `forward` with the module, its inputs and its output. What it returns, unless `undefined`, takes the place of the output. */
export type ForwardHook = (module: Module, inputs: readonly unknown[], output: unknown) => unknown;

/**
 * Called when backward has computed the gradients of the module's tensor inputs, with those and the gradients of its tensor outputs (`null` where there
 * is none). A returned array takes the place of the inputs' gradients.
 */
export type FullBackwardHook = (
  module: Module,
  gradInput: readonly (Tensor | null)[],
  gradOutput: readonly (Tensor | null)[],
) => readonly (Tensor | null)[] | void;

/** Functions in the order of their registration. */
export class HookList<T> {
  readonly #hooks: Set<{ readonly call: T }> = new Set();

  /** How many there are. */
  get size(): number {
    return this.#hooks.size;
  }

  /** Adds a function; the same one may be added twice. */
  add(hook: T): Handle {
    if (typeof hook !== "function") throw new TypeError(`a hook must be a function, got ${typeof hook}`);
    const entry = { call: hook };
    this.#hooks.add(entry);
    return { remove: () => void this.#hooks.delete(entry) };
  }

  /** The functions. */
  *[Symbol.iterator](): IterableIterator<T> {
    for (const { call } of [...this.#hooks]) yield call;
  }
}

/** `value` with every tensor in it (in arrays and plain objects) replaced. */
export function mapTensors(value: unknown, change: (x: Tensor) => Tensor): unknown {
  if (value instanceof Tensor) return change(value);
  if (Array.isArray(value)) return value.map((item) => mapTensors(item, change));
  if (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, mapTensors(item, change)]));
  }
  return value;
}

/** Other handles on the tensors in `value` behind one node of the graph, whose derivative is `rule`. */
function throughNode(
  name: string,
  value: unknown,
  differentiable: boolean,
  rule: (grads: readonly (Tensor | null)[]) => readonly (Tensor | null)[],
): unknown {
  const inputs: Tensor[] = [], outputs: Tensor[] = [];
  const wrapped = mapTensors(value, (x) => {
    if (differentiable && !x.requiresGrad) return x;
    const y = detach(x);
    inputs.push(x);
    outputs.push(y);
    return y;
  });
  recordMany(name, inputs, outputs, [], rule);
  return wrapped;
}

/** One call of a module with full backward hooks: an identity before it, and one behind it, see the gradients go by. */
export class BackwardWatch {
  readonly #module: Module;
  readonly #hooks: HookList<FullBackwardHook>;
  #positions: number[] = []; // of the inputs that take gradients, among the tensor inputs
  #count = 0;
  #gradOutput: readonly (Tensor | null)[] = [];

  constructor(module: Module, hooks: HookList<FullBackwardHook>) {
    this.#module = module;
    this.#hooks = hooks;
  }

  /** Puts the identity before the module. */
  inputs(values: readonly unknown[]): readonly unknown[] {
    mapTensors(values, (x) => {
      if (x.requiresGrad && context().grad) this.#positions.push(this.#count);
      this.#count++;
      return x;
    });
    if (this.#positions.length === 0) return values;
    return throughNode("backward hook", values, true, (grads) => {
      const all = new Array<Tensor | null>(this.#count).fill(null);
      this.#positions.forEach((position, i) => all[position] = grads[i]);
      const changed = this.#call(all);
      return this.#positions.map((position) => changed[position]);
    }) as readonly unknown[];
  }

  /** Puts the identity behind the module. */
  output(value: unknown): unknown {
    let any = false;
    mapTensors(value, (x) => {
      any ||= x.requiresGrad;
      return x;
    });
    if (!any || !context().grad) return value;
    return throughNode("backward hook", value, false, (grads) => {
      // Kept until the input's identity is passed: the engine frees its own handles in between.
      this.#gradOutput = grads.map((grad) => grad === null ? null : this.#hold(grad));
      if (this.#positions.length === 0) this.#call(new Array<Tensor | null>(this.#count).fill(null));
      return grads;
    });
  }

  #hold(grad: Tensor): Tensor {
    return withContextSync({ ...context(), scope: null }, () => grad.alias());
  }

  #call(gradInput: readonly (Tensor | null)[]): readonly (Tensor | null)[] {
    let current = gradInput;
    for (const hook of this.#hooks) {
      // What a hook makes belongs to the hook; only what it returns is the engine's.
      const changed = withContextSync({ ...context(), scope: null }, () => hook(this.#module, current, this.#gradOutput));
      if (changed === undefined) continue;
      if (!Array.isArray(changed) || changed.length !== gradInput.length) {
        throw new AutogradError(
          `full backward hook: must return ${gradInput.length} gradients, one per tensor input, or nothing; got ${
            Array.isArray(changed) ? changed.length : typeof changed
          }`,
        );
      }
      for (const grad of changed) if (grad !== null && !current.includes(grad)) context().scope?.track(grad);
      current = changed;
    }
    for (const grad of this.#gradOutput) grad?.dispose();
    this.#gradOutput = [];
    return current;
  }
}
