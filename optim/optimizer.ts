/**
 * What all optimisers share: groups of parameters, their state, gradients to zero, and the one native call that updates a whole group.
 *
 * @module
 */
import type { Device } from "../ffi/device.ts";
import { AutogradError, DTypeError, FormatError, ShapeError } from "../ffi/errors.ts";
import { Frame } from "../ffi/frame.ts";
import { check, libraryOf } from "../ffi/library.ts";
import { allocate } from "../ffi/storage.ts";
import type { KernelLibrary } from "../ffi/symbols.ts";
import { enableGrad, noGrad } from "../autograd/functional.ts";
import { copy_, copyInto, fill_ } from "../ops/mod.ts";
import { emptyLike } from "../ops/native.ts";
import { counted, refuseInCapture } from "../tensor/capture.ts";
import { bytesOf, type DType } from "../tensor/dtype.ts";
import { type Guard, type Recorder, recorder } from "../tensor/recorder.ts";
import { sameShape, textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";

/** What every group has. */
export interface GroupOptions {
  /** Learning rate. */
  lr: number;
  /** Weight decay. */
  weightDecay: number;
  /** Ascend instead of descend. */
  maximize: boolean;
}

/** Parameters with options of their own. */
export type ParamGroup<O extends GroupOptions = GroupOptions> = O & {
  /** The parameters, in order. */
  params: Tensor[];
  /** Learning rate that a scheduler started from. */
  initialLr?: number;
};

/** A group as it is given: options that are missing are taken from the optimiser's. */
export type ParamGroupInput<O extends GroupOptions = GroupOptions> = Partial<O> & {
  /** The parameters. */
  params: Tensor | Iterable<Tensor>;
};

/** Parameters, or groups of them. */
export type Params<O extends GroupOptions = GroupOptions> = Iterable<Tensor> | Iterable<ParamGroupInput<O>>;

/** State of one parameter: tensors of its shape, and numbers. */
export type ParamState = Record<string, Tensor | number>;

/** What `stateDict()` gives: PyTorch's structure and names, parameters numbered through all groups. */
export interface OptimizerState {
  /** State of each parameter that has one. */
  state: Record<string, Record<string, Tensor | number>>;
  /** Options of each group, in PyTorch's spelling, with the numbers of its parameters. */
  param_groups: (Record<string, unknown> & { params: number[] })[];
}

const SLOTS = 4096; // DG_MAX_SLOTS
let headers: Frame | null = null;

/**
 * Runs `body` on all operands in as few native calls as the frame allows.
 *
 * @param operands Tensors, `each` of them belonging together.
 * @param lead A tensor to put before them in each call, or `null`.
 */
export function fused(
  device: Device,
  operands: readonly Tensor[],
  each: number,
  lead: Tensor | null,
  body: (library: KernelLibrary, t: Deno.PointerObject, lead: number, first: number, count: number) => number,
): void {
  const library = libraryOf(device), frame = headers ??= new Frame(SLOTS);
  const capacity = Math.floor((SLOTS - 1) / each) * each;
  for (let start = 0; start < operands.length; start += capacity) {
    const t = frame.begin(), end = Math.min(operands.length, start + capacity);
    const leadSlot = lead === null ? 0 : frame.put(lead);
    for (let i = start; i < end; i++) frame.put(operands[i]);
    check(body(library, t, leadSlot, lead === null ? 0 : 1, (end - start) / each), library);
  }
}

/** Options in the spelling of PyTorch's state dictionaries. */
const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const camel = (name: string) => name.replace(/_([a-z0-9])/g, (_, letter) => letter.toUpperCase());

/** Options of PyTorch's groups that choose an implementation and mean nothing here. */
const foreign = new Set(["foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"]);

/**
 * Base class of the optimisers.
 *
 * `step()` updates all parameters of a group in one native call, in place: it counts up their versions, so a graph that saved them is noticed.
 * States have the parameter's shape and memory order; those of float16 and bfloat16 parameters are float32.
 */
export abstract class Optimizer<O extends GroupOptions = GroupOptions> implements Disposable {
  /** Options of groups that do not set their own. */
  readonly defaults: O;
  /** The groups; their options may be changed between steps. */
  readonly paramGroups: ParamGroup<O>[] = [];
  /** State by parameter, from its first step on. */
  readonly state: Map<Tensor, ParamState> = new Map();
  #operands: Tensor[] = [];
  #copies: Tensor[] = [];
  #patched = 0; // calls of a recorded update whose numbers are read anew in each repetition

  /**
   * Takes parameters and options.
   *
   * @param defaults Options of groups that do not set their own.
   */
  constructor(params: Params<O>, defaults: O) {
    this.defaults = defaults;
    if (params instanceof Tensor) throw new TypeError(`${this.name}: params must be an iterable of tensors or groups, got one tensor`);
    const list = [...params] as (Tensor | ParamGroupInput<O>)[];
    if (list.length === 0) throw new RangeError(`${this.name}: no parameters were given`);
    if (list[0] instanceof Tensor) this.addParamGroup({ params: list as Tensor[] } as unknown as ParamGroupInput<O>);
    else for (const group of list) this.addParamGroup(group as ParamGroupInput<O>);
  }

  /** Name of the class, as errors show it. */
  protected get name(): string {
    return this.constructor.name;
  }

  /** Refuses options out of range. */
  protected abstract checkOptions(group: ParamGroup<O>): void;

  /** Updates the parameters of a group that have a gradient. */
  protected abstract update(group: ParamGroup<O>): void;

  /**
   * Adds a group.
   *
   * @throws {AutogradError} For a parameter that is not a leaf.
   * @throws {RangeError} For a parameter that another group has, or an option out of range.
   */
  addParamGroup(group: ParamGroupInput<O>): void {
    const params = group.params instanceof Tensor ? [group.params] : [...group.params];
    const known = new Set(this.paramGroups.flatMap((it) => it.params));
    params.forEach((p, i) => {
      if (!(p instanceof Tensor)) {
        throw new TypeError(`${this.name}: parameter ${i} must be a tensor, got ${p === null ? "null" : typeof p}`);
      }
      p.checkAlive(this.name);
      if (!p.isFloat) throw new DTypeError(`${this.name}: parameter ${i} must be floating point, got ${p.dtype}`);
      if (!p.isLeaf) throw new AutogradError(`${this.name}: parameter ${i} was made by ${p.node!.name}: only leaves can be optimised`);
      if (!p.isDense) throw new ShapeError(`${this.name}: parameter ${i} of ${textOf(p.shape)} has gaps in memory: clone() it first`);
      if (known.has(p)) throw new RangeError(`${this.name}: parameter ${i} of ${textOf(p.shape)} appears twice`);
      known.add(p);
    });
    const full: ParamGroup<O> = { ...this.defaults, ...group, params };
    this.checkOptions(full);
    this.paramGroups.push(full);
  }

  /**
   * Updates the parameters from their gradients; those without a gradient stay as they are.
   *
   * @param closure Computes the loss anew and calls `backward()`; run first, with recording on.
   * @returns What the closure returns.
   */
  step(): undefined;
  /** As above, with the loss computed anew first. */
  step<T>(closure: () => T): T;
  step<T>(closure?: () => T): T | undefined {
    const loss = closure === undefined ? undefined : enableGrad(closure);
    if (recorder !== null) recorder.once(this as AnyOptimizer, guardGroups);
    try {
      for (const group of this.paramGroups) {
        if (recorder === null) this.update(group);
        else this.#recordUpdate(group, recorder);
      }
    } finally {
      for (const copy of this.#copies) copy.dispose();
      this.#copies = [];
      this.#operands = [];
    }
    return loss;
  }

  /** {@linkcode Optimizer.update} while a step is recorded. Numbers among the options may change from step to step if `flush` reads them. */
  #recordUpdate(group: ParamGroup<O>, to: Recorder): void {
    const before = this.#numbers(), start = to.position(), host = to.host.length;
    this.#patched = 0;
    this.update(group);
    const counts = to.host.length - host - this.#patched;
    if (Math.abs(this.#numbers() - before - counts) > 0.5) to.refuse(`${this.name} counts in its state by itself`);
    if (to.position() - start !== this.#patched + this.#copies.length) to.guards.push(guardNumbers(group));
  }

  /** Sum of the numbers in all states. */
  #numbers(): number {
    let sum = 0;
    for (const state of this.state.values()) for (const value of Object.values(state)) if (typeof value === "number") sum += value;
    return sum;
  }

  /**
   * Forgets the gradients of all parameters.
   *
   * @param options.setToNone Frees them and sets `grad` to `null`; other references to a gradient are then disposed. `false`: fills with 0. Default `true`.
   */
  zeroGrad(options?: { setToNone?: boolean }): void {
    const free = options?.setToNone ?? true;
    for (const { params } of this.paramGroups) {
      for (const p of params) {
        if (p.grad === null) continue;
        if (free) {
          p.grad.dispose();
          p.grad = null;
        } else {
          const grad = p.grad.node === null ? p.grad : p.grad.detach();
          grad.kept = true;
          noGrad(() => fill_(grad, 0));
          p.grad = grad;
        }
      }
    }
  }

  /** The gradient of `p` in its memory order. */
  protected gradient(p: Tensor): Tensor {
    const grad = p.grad!;
    if (grad.dtype !== p.dtype || !sameShape(grad.shape, p.shape)) {
      throw new ShapeError(
        `${this.name}: the gradient is ${grad.dtype} of ${textOf(grad.shape)}, its parameter ${p.dtype} of ${textOf(p.shape)}`,
      );
    }
    if (sameShape(grad.strides, p.strides)) return grad;
    const copy = copyInto(emptyLike(p), grad);
    this.#copies.push(copy);
    return copy;
  }

  /** A state tensor for `p`: its shape and memory order, filled with `value`. */
  protected stateTensor(p: Tensor, value = 0): Tensor {
    refuseInCapture(`${this.name} has no state of a parameter of ${textOf(p.shape)} yet: take a step before`);
    recorder?.postpone(`${this.name} makes states`);
    const dtype: DType = p.dtype === "float64" ? "float64" : "float32";
    const storage = allocate(p.numel() * bytesOf(dtype), p.device, p.shape, true);
    const tensor = new Tensor(storage, p.shape, p.strides, 0, dtype);
    tensor.kept = true;
    return value === 0 ? tensor : noGrad(() => fill_(tensor, value));
  }

  /** Counts a step of a parameter. */
  protected countStep(state: { step: number }): void {
    counted(state, 1, false, (by) => state.step += by);
    state.step++;
  }

  /** Adds a parameter, its gradient and its states to the operands of the next {@linkcode Optimizer.flush}. */
  protected push(p: Tensor, ...states: readonly Tensor[]): void {
    this.#operands.push(p, this.gradient(p), ...states);
  }

  /**
   * Updates what was pushed, `each` tensors a parameter. A recorded step calls `body` again before each repetition, with a library that only looks at
   * the arguments: it has to read options and counts where they are kept.
   *
   * @param counted Which argument behind the frame is a count of steps, if the device counts it by itself in a captured step.
   * @ignore
   */
  protected flush(
    each: number,
    body: (library: KernelLibrary, t: Deno.PointerObject, first: number, count: number) => number,
    counted?: number,
  ): void {
    const operands = this.#operands;
    if (operands.length === 0) return;
    this.#operands = [];
    fused(operands[0].device, operands, each, null, (library, t, _, first, count) => {
      if (recorder !== null) {
        recorder.patch(() => argumentsOf((look) => body(look, t, first, count)), counted);
        this.#patched++;
      }
      return body(library, t, first, count);
    });
    for (let i = 0; i < operands.length; i += each) operands[i].storage.version++;
  }

  /** True when `p` cannot be in one native call with what was pushed. */
  protected apart(p: Tensor): boolean {
    return this.#operands.length > 0 && this.#operands[0].device !== p.device;
  }

  /**
   * Groups and states in PyTorch's structure and spelling. The tensors are the optimiser's own, not copies.
   *
   * @example
   * ```ts
   * import { optim, ones } from "@dinograd/dinograd";
   * import { assertEquals } from "@std/assert";
   * const w = ones([2], { requiresGrad: true });
   * using optimizer = new optim.SGD([w], { lr: 0.1, momentum: 0.9 });
   * w.sum().backward();
   * optimizer.step();
   * const { state, param_groups } = optimizer.stateDict();
   * assertEquals(Object.keys(state[0]), ["momentum_buffer"]);
   * assertEquals(param_groups[0].params, [0]);
   * ```
   */
  stateDict(): OptimizerState {
    const state: OptimizerState["state"] = {};
    let number = 0;
    const param_groups = this.paramGroups.map(({ params, ...options }) => {
      const numbers = params.map((p) => {
        const own = this.state.get(p);
        if (own !== undefined) state[number] = { ...own };
        return number++;
      });
      const spelled = Object.entries(options).map(([key, value]) => [snake(key), Array.isArray(value) ? [...value] : value]);
      return { ...Object.fromEntries(spelled), params: numbers };
    });
    return { state, param_groups };
  }

  /**
   * Takes over groups' options and states, as {@linkcode Optimizer.stateDict} or PyTorch gave them. Tensors are copied and converted. Nothing changes
   * when something does not fit.
   *
   * @throws {FormatError} If groups, their sizes or the shapes of states differ.
   */
  loadStateDict(dict: OptimizerState): void {
    const op = `${this.name}.loadStateDict`;
    if (typeof dict !== "object" || dict === null || !Array.isArray(dict.param_groups) || typeof dict.state !== "object") {
      throw new FormatError(`${op}: expected { state, param_groups }`);
    }
    if (dict.param_groups.length !== this.paramGroups.length) {
      throw new FormatError(`${op}: ${dict.param_groups.length} groups, the optimiser has ${this.paramGroups.length}`);
    }
    const byNumber = new Map<number, Tensor>();
    const groups = dict.param_groups.map(({ params, ...options }, i) => {
      const own = this.paramGroups[i];
      if (!Array.isArray(params) || params.length !== own.params.length) {
        throw new FormatError(`${op}: group ${i} has ${params?.length} parameters, the optimiser's has ${own.params.length}`);
      }
      params.forEach((number, k) => byNumber.set(number, own.params[k]));
      const known = Object.entries(options).filter(([key]) => !foreign.has(key)).map(([key, value]) => [camel(key), value]);
      const next = { ...own, ...Object.fromEntries(known) } as ParamGroup<O>;
      this.checkOptions(next);
      return next;
    });
    const states = Object.entries(dict.state).map(([number, state]): [Tensor, ParamState] => {
      const p = byNumber.get(Number(number));
      if (p === undefined) throw new FormatError(`${op}: a state for parameter ${number}, which no group has`);
      for (const [key, value] of Object.entries(state)) {
        if (value instanceof Tensor && value.rank > 0 && !sameShape(value.shape, p.shape)) {
          throw new FormatError(`${op}: ${key} of parameter ${number} is ${textOf(value.shape)}, the parameter ${textOf(p.shape)}`);
        }
      }
      return [p, state];
    });
    const fresh = states.map(([p, state]): [Tensor, ParamState] => [
      p,
      Object.fromEntries(
        Object.entries(state).filter(([, value]) => value !== null).map(([key, value]) => {
          if (!(value instanceof Tensor)) return [key, Number(value)];
          // PyTorch counts steps in a tensor without axes.
          if (key === "step") return [key, value.item()];
          using elements = value.detach();
          return [key, noGrad(() => copy_(this.stateTensor(p), elements))];
        }),
      ),
    ]);
    this.#freeStates();
    groups.forEach((group, i) => Object.assign(this.paramGroups[i], group));
    for (const [p, state] of fresh) this.state.set(p, state);
  }

  #freeStates(): void {
    for (const state of this.state.values()) {
      for (const value of Object.values(state)) if (value instanceof Tensor) value.dispose();
    }
    this.state.clear();
  }

  /** Frees the states. */
  dispose(): void {
    this.#freeStates();
  }

  /** The same as {@linkcode Optimizer.dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The numbers that `call` gives a native function behind the frame; `null` if it makes no call. */
function argumentsOf(call: (library: KernelLibrary) => number): number[] | null {
  let found: number[] | null = null;
  const look = new Proxy({}, {
    get: () => (_frame: unknown, ...values: number[]) => {
      found = values;
      return 0;
    },
  });
  call(look as KernelLibrary);
  return found;
}

/** What a recorded step takes for granted of an optimiser: its groups, their parameters, options that are no numbers, and its states. */
function guardGroups(optimizer: AnyOptimizer): Guard {
  const name = optimizer.constructor.name;
  const known = optimizer.paramGroups.map((group) => ({ group, params: [...group.params], options: fixedOptions(group) }));
  const states = [...optimizer.state].map(([p, state]) => ({
    p,
    state,
    tensors: Object.entries(state).filter(([, it]) => it instanceof Tensor),
  }));
  const changed = (): string | null => {
    if (optimizer.paramGroups.length !== known.length) return `the groups of ${name}`;
    for (let i = 0; i < known.length; i++) {
      const { group, params, options } = known[i], now = optimizer.paramGroups[i];
      if (now !== group || now.params.length !== params.length) return `the groups of ${name}`;
      for (let k = 0; k < params.length; k++) if (now.params[k] !== params[k]) return `the parameters of ${name}`;
      if (fixedOptions(now) !== options) return `the options of ${name}`;
    }
    if (optimizer.state.size !== states.length) return `the states of ${name}`;
    for (const { p, state, tensors } of states) {
      if (optimizer.state.get(p) !== state) return `the states of ${name}`;
      for (const [key, tensor] of tensors) if (state[key] !== tensor) return `the states of ${name}`;
    }
    return null;
  };
  const numbers = () => optimizer.paramGroups.map(numbersOf).join(";"), before = numbers();
  const inside = (to: Recorder) => to.hostedSteps === 0 && numbers() !== before ? `the options of ${name}` : changed();
  return { changed, inside };
}

/** The numbers among the options of a group. */
function numbersOf(group: ParamGroup): string {
  return Object.values(group).filter((it) => typeof it === "number" || Array.isArray(it) && typeof it[0] === "number").join();
}

/** Options of which a change is another step: all but numbers, and of numbers whether they are 0. */
function fixedOptions(group: ParamGroup): string {
  let text = "";
  for (const value of Object.values(group)) {
    if (typeof value === "number") text += value === 0 ? "0" : "n";
    else if (typeof value === "boolean") text += value ? "t" : "f";
  }
  return text;
}

/** All numbers among the options of a group. */
function guardNumbers(group: ParamGroup): Guard {
  const before = numbersOf(group), changed = () => numbersOf(group) === before ? null : "the options of an optimiser";
  return { changed, inside: changed };
}

/** An optimiser with any options. */
// deno-lint-ignore no-explicit-any
export type AnyOptimizer = Optimizer<any>;

/** Refuses an option that is not a number of at least `low` (and below `high`). */
export function checkOption(op: string, name: string, value: unknown, low = 0, high = Infinity): void {
  if (typeof value !== "number" || !(value >= low) || (high < Infinity && !(value < high))) {
    throw new RangeError(`${op}: ${name} must be a number >= ${low}${high < Infinity ? ` and < ${high}` : ""}, got ${value}`);
  }
}
