/**
 * The base class of everything with parameters.
 *
 * @module
 */
import { noGrad } from "../autograd/functional.ts";
import { Device, type DeviceLike } from "../ffi/device.ts";
import { detach, to } from "../ops/mod.ts";
import { type DType, dtypes, isFloat } from "../tensor/dtype.ts";
import { type Guard, recorder, unrepeatable } from "../tensor/recorder.ts";
import { Tensor } from "../tensor/tensor.ts";
import { BackwardWatch, type ForwardHook, type ForwardPreHook, type FullBackwardHook, type Handle, HookList } from "./hooks.ts";
import { snakeCase } from "./names.ts";
import { Parameter } from "./parameter.ts";
import { loadInto, type LoadResult, type StateDict } from "./state_dict.ts";

/** A buffer's place: the property that holds it, and whether it belongs to the state dict. */
interface BufferInfo {
  readonly property: string;
  readonly persistent: boolean;
}

/** Options of the walks over a module and those inside it. */
export interface WalkOptions {
  /** Put before every name. Default `""`. */
  prefix?: string;
  /** Include the modules inside. Default `true`. */
  recurse?: boolean;
}

/**
 * Base class of all neural network modules: parameters, buffers, modules inside it, a mode, hooks, and a `forward`.
 *
 * A subclass assigns its parameters and modules to properties and defines `forward`. They are found by themselves, in the order of their
 * assignment; arrays are not looked into (use `ModuleList`, `ModuleDict`, `ParameterList`). Buffers are declared with `registerBuffer`.
 *
 * **Calling**: `module.call(x)` runs the hooks and `forward`; `module.forward(x)` alone skips the hooks, as in PyTorch.
 *
 * **Names** (`namedParameters`, `stateDict`, …) are PyTorch's: the property `runningMean` of the module `layer1` is `layer1.running_mean`. Names with
 * an underscore or a leading capital stay as they are. Methods that take a name take either form.
 *
 * **Conversion** (`to`, `double`, `cuda`, …) changes the module in place: each parameter stays the same object with new elements, so an optimiser
 * made before goes on with it. Its state (momenta) is not converted, though: make the optimiser after, as PyTorch advises, too.
 *
 * @example A module of one's own
 * ```ts
 * import { nn, ones, type Tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 *
 * class Scale extends nn.Module {
 *   weight = new nn.Parameter(ones([3]));
 *   override forward(x: Tensor): Tensor {
 *     return x.mul(this.weight);
 *   }
 * }
 *
 * using model = new Scale();
 * assertEquals(model.call(ones([2, 3])).shape, [2, 3]);
 * assertEquals([...model.namedParameters()].map(([name]) => name), ["weight"]);
 * ```
 */
export class Module implements Disposable {
  #training = true;
  readonly #buffers: Map<string, BufferInfo> = new Map();
  readonly #preHooks: HookList<ForwardPreHook> = new HookList();
  readonly #hooks: HookList<ForwardHook> = new HookList();
  readonly #backwardHooks: HookList<FullBackwardHook> = new HookList();

  /** True in training mode: Dropout drops, BatchNorm uses the batch's statistics. Set it with {@linkcode Module.train}. Default `true`. */
  get training(): boolean {
    if (recorder !== null) recorder.once(this, guardModule);
    return this.#training;
  }
  set training(mode: boolean) {
    if (recorder !== null) recorder.assign(this, () => this.#training = mode);
    this.#training = mode;
  }

  /** What the module computes. Every subclass defines its own. Call it through {@linkcode Module.call}. */
  forward(..._inputs: never[]): unknown {
    throw new TypeError(`${this.constructor.name}: forward is not defined`);
  }

  /**
   * Runs the forward-pre hooks, `forward`, and the forward hooks, and sets up full backward hooks.
   *
   * @param inputs What `forward` takes.
   * @returns What `forward` returns, unless a hook replaces it.
   */
  call(...inputs: Parameters<this["forward"]>): ReturnType<this["forward"]> {
    if (recorder !== null) recorder.once(this, guardModule);
    const forward = this.forward as (...inputs: unknown[]) => unknown;
    if (!this.hasHooks) return forward.apply(this, inputs) as ReturnType<this["forward"]>;
    let current: readonly unknown[] = inputs;
    for (const hook of this.#preHooks) {
      const changed = hook(this, current);
      if (changed !== undefined) current = Array.isArray(changed) ? changed : [changed];
    }
    const watch = this.#backwardHooks.size > 0 ? new BackwardWatch(this, this.#backwardHooks) : null;
    if (watch !== null) current = watch.inputs(current);
    let output = forward.apply(this, [...current]);
    for (const hook of this.#hooks) {
      const changed = hook(this, current, output);
      if (changed !== undefined) output = changed;
    }
    return (watch === null ? output : watch.output(output)) as ReturnType<this["forward"]>;
  }

  // ---- hooks

  /** True when some hook is registered here (not on the modules inside). */
  get hasHooks(): boolean {
    if (recorder !== null) recorder.once(this, guardModule); // who asks may run the layer without call()
    return this.#preHooks.size > 0 || this.#hooks.size > 0 || this.#backwardHooks.size > 0;
  }
  /** Adds a hook that runs before `forward` and may change its inputs. */
  registerForwardPreHook(hook: ForwardPreHook): Handle {
    return this.#preHooks.add(hook);
  }
  /** Adds a hook that runs after `forward` and may change its output. */
  registerForwardHook(hook: ForwardHook): Handle {
    return this.#hooks.add(hook);
  }
  /**
   * Adds a hook that sees the gradients of the inputs and outputs whenever backward passes the module, and may change those of the inputs. The
   * engine frees these gradients afterwards: `clone()` what is to stay.
   */
  registerFullBackwardHook(hook: FullBackwardHook): Handle {
    return this.#backwardHooks.add(hook);
  }

  // ---- members

  /**
   * What the module holds, by name: its properties. Containers add what they hold in another way.
   *
   * @returns Pairs of the state-dict name and the value, in order.
   */
  protected members(): Iterable<readonly [string, unknown]> {
    const found: [string, unknown][] = [];
    for (const property of Object.keys(this)) {
      const value = (this as Record<string, unknown>)[property];
      if (value instanceof Tensor || value instanceof Module) found.push([snakeCase(property), value]);
    }
    return found;
  }

  #define(name: string, value: unknown, what: string, current: (old: unknown) => boolean): void {
    if (typeof name !== "string" || name === "" || name.includes(".")) {
      throw new RangeError(`${what}: a name must be a string that is not empty and has no ".", got ${JSON.stringify(name)}`);
    }
    const self = this as unknown as Record<string, unknown>;
    if (name in this && self[name] !== undefined && self[name] !== null && !current(self[name])) {
      throw new RangeError(`${what}: ${this.constructor.name} already has a member "${name}"`);
    }
    self[name] = value;
  }

  /** Adds a module under a name, as an assignment to a property does. `null` leaves the place empty. @throws {RangeError} If the name is taken. */
  addModule(name: string, module: Module | null): void {
    if (module !== null && !(module instanceof Module)) throw new TypeError(`addModule: "${name}" must be a Module, got ${typeof module}`);
    this.#define(name, module, "addModule", (old) => old instanceof Module);
  }

  /** Adds a parameter under a name, as an assignment to a property does. `null` leaves the place empty. @throws {RangeError} If the name is taken. */
  registerParameter<T extends Parameter | null>(name: string, parameter: T): T {
    if (parameter !== null && !(parameter instanceof Parameter)) {
      throw new TypeError(`registerParameter: "${name}" must be a Parameter, got ${typeof parameter}: wrap it in new Parameter()`);
    }
    this.#define(name, parameter, "registerParameter", (old) => old instanceof Parameter);
    return parameter;
  }

  /**
   * Declares the property `name` a buffer: a tensor that is part of the module but not learnt.
   *
   * @param tensor Its value; no scope frees it. `null` leaves the place empty.
   * @param options.persistent Part of the state dict. Default `true`.
   * @returns `tensor`.
   * @throws {RangeError} If the name is taken.
   */
  registerBuffer<T extends Tensor | null>(name: string, tensor: T, options?: { persistent?: boolean }): T {
    if (tensor !== null && !(tensor instanceof Tensor)) {
      throw new TypeError(`registerBuffer: "${name}" must be a tensor, got ${typeof tensor}`);
    }
    const key = snakeCase(name);
    this.#define(name, tensor, "registerBuffer", () => this.#buffers.has(key));
    if (tensor !== null) tensor.kept = true;
    this.#buffers.set(key, { property: name, persistent: options?.persistent ?? true });
    return tensor;
  }

  /** Names and modules directly inside. */
  *namedChildren(): IterableIterator<[string, Module]> {
    const seen = new Set<Module>();
    for (const [name, value] of this.members()) {
      if (!(value instanceof Module) || seen.has(value)) continue;
      seen.add(value);
      yield [name, value];
    }
  }
  /** The modules directly inside. */
  *children(): IterableIterator<Module> {
    for (const [, module] of this.namedChildren()) yield module;
  }
  /** True if `test` holds of all modules directly inside. */
  everyChild(test: (module: Module) => boolean): boolean {
    for (const [, value] of this.members()) if (value instanceof Module && !test(value)) return false;
    return true;
  }
  /** Names and modules, this one (named `prefix`) first; one used twice comes once. */
  *namedModules(prefix = "", seen: Set<Module> = new Set()): IterableIterator<[string, Module]> {
    if (seen.has(this)) return;
    seen.add(this);
    yield [prefix, this];
    for (const [name, module] of this.namedChildren()) yield* module.namedModules(prefix === "" ? name : `${prefix}.${name}`, seen);
  }
  /** This module and all inside it. */
  *modules(): IterableIterator<Module> {
    for (const [, module] of this.namedModules()) yield module;
  }

  *#named<T extends Tensor>(
    options: WalkOptions | undefined,
    own: (module: Module) => Iterable<readonly [string, T]>,
  ): IterableIterator<[string, T]> {
    const prefix = options?.prefix ?? "", seen = new Set<Tensor>();
    const modules = options?.recurse ?? true ? this.namedModules(prefix) : [[prefix, this] as const];
    for (const [path, module] of modules) {
      for (const [name, tensor] of own(module)) {
        if (seen.has(tensor)) continue;
        seen.add(tensor);
        yield [path === "" ? name : `${path}.${name}`, tensor];
      }
    }
  }
  *#ownParameters(): Iterable<readonly [string, Parameter]> {
    for (const [name, value] of this.members()) if (value instanceof Parameter && !this.#buffers.has(name)) yield [name, value];
  }
  *#ownBuffers(persistentOnly = false): Iterable<readonly [string, Tensor]> {
    for (const [name, { property, persistent }] of this.#buffers) {
      const value = (this as unknown as Record<string, unknown>)[property];
      if (value instanceof Tensor && (persistent || !persistentOnly)) yield [name, value];
    }
  }
  /** Names and parameters of this module and those inside; one used twice comes once. */
  namedParameters(options?: WalkOptions): IterableIterator<[string, Parameter]> {
    return this.#named(options, (module) => module.#ownParameters());
  }
  /** The parameters of this module and those inside. */
  *parameters(options?: { recurse?: boolean }): IterableIterator<Parameter> {
    for (const [, parameter] of this.namedParameters(options)) yield parameter;
  }
  /** Names and buffers of this module and those inside. */
  namedBuffers(options?: WalkOptions): IterableIterator<[string, Tensor]> {
    return this.#named(options, (module) => module.#ownBuffers());
  }
  /** The buffers of this module and those inside. */
  *buffers(options?: { recurse?: boolean }): IterableIterator<Tensor> {
    for (const [, buffer] of this.namedBuffers(options)) yield buffer;
  }

  /** The module of a dotted name, this one for `""`. @throws {RangeError} If there is none; the message lists what there is. */
  getSubmodule(path: string): Module {
    if (path === "") return this;
    const [head, ...rest] = path.split(".");
    for (const [name, module] of this.namedChildren()) {
      if (name === head || name === snakeCase(head)) return module.getSubmodule(rest.join("."));
    }
    const names = [...this.namedChildren()].map(([name]) => name).join(", ");
    throw new RangeError(`getSubmodule: ${this.constructor.name} has no module "${head}", it has: ${names || "none"}`);
  }
  #find<T>(path: string, op: string, own: (module: Module) => Iterable<readonly [string, T]>): T {
    const dot = path.lastIndexOf("."), last = path.slice(dot + 1);
    const owner = this.getSubmodule(dot < 0 ? "" : path.slice(0, dot));
    for (const [name, value] of own(owner)) if (name === last || name === snakeCase(last)) return value;
    const names = [...own(owner)].map(([name]) => name).join(", ");
    throw new RangeError(`${op}: ${owner.constructor.name} has no "${last}", it has: ${names || "none"}`);
  }
  /** The parameter of a dotted name, as `layer1.0.weight`. @throws {RangeError} If there is none. */
  getParameter(path: string): Parameter {
    return this.#find(path, "getParameter", (module) => module.#ownParameters());
  }
  /** The buffer of a dotted name. @throws {RangeError} If there is none. */
  getBuffer(path: string): Tensor {
    return this.#find(path, "getBuffer", (module) => module.#ownBuffers());
  }

  // ---- mode and gradients

  /** Calls `fn` with every module inside, then with this one. */
  apply(fn: (module: Module) => void): this {
    for (const child of this.children()) child.apply(fn);
    fn(this);
    return this;
  }
  /** Sets training mode, or evaluation mode with `false`, here and inside. */
  train(mode = true): this {
    if (typeof mode !== "boolean") throw new TypeError(`train: mode must be a boolean, got ${typeof mode}`);
    this.training = mode;
    for (const child of this.children()) child.train(mode);
    return this;
  }
  /** Sets evaluation mode here and inside. */
  eval(): this {
    return this.train(false);
  }
  /** Starts or stops recording operations on the parameters. */
  requiresGrad_(value = true): this {
    for (const parameter of this.parameters()) parameter.requiresGrad_(value);
    return this;
  }
  /** Lets go of the parameters' gradients, or fills them with zeros if `setToNull` is `false`. */
  zeroGrad(options?: { setToNull?: boolean }): void {
    for (const parameter of this.parameters()) {
      if (parameter.grad === null) continue;
      if (options?.setToNull ?? true) {
        parameter.grad.dispose();
        parameter.grad = null;
      } else {
        const { grad } = parameter;
        noGrad(() => grad.fill_(0));
      }
    }
  }

  // ---- conversion

  /**
   * Moves parameters and buffers to a device, or converts the floating-point ones to a dtype, in place.
   *
   * @param target A floating-point dtype, a device, or both.
   * @param options.nonBlocking Do not wait for copies from page-locked memory to a GPU. Default `false`.
   * @throws {TypeError} For a dtype that is not floating-point.
   */
  to(target: DType | DeviceLike | { dtype?: DType; device?: DeviceLike }, options?: { nonBlocking?: boolean }): this {
    const change = typeof target === "object" && !(target instanceof Device)
      ? target
      : (dtypes as readonly unknown[]).includes(target)
      ? { dtype: target as DType }
      : { device: target as DeviceLike };
    const { dtype, device } = change;
    if (dtype !== undefined && !isFloat(dtype)) throw new TypeError(`to: a module converts to floating point dtypes, got ${dtype}`);
    const convert = (x: Tensor) => {
      const wanted = { dtype: x.isFloat ? dtype : undefined, device };
      const y = noGrad(() => to(x, wanted, options));
      if (y === x) return;
      x.setData(y);
      y.dispose();
    };
    for (const parameter of this.parameters()) {
      convert(parameter);
      if (parameter.grad !== null) convert(parameter.grad);
    }
    for (const buffer of this.buffers()) convert(buffer);
    return this;
  }
  /** Floating-point parameters and buffers as float32, in place. */
  float(): this {
    return this.to("float32");
  }
  /** Floating-point parameters and buffers as float64, in place. */
  double(): this {
    return this.to("float64");
  }
  /** Floating-point parameters and buffers as float16, in place. */
  half(): this {
    return this.to("float16");
  }
  /** Floating-point parameters and buffers as bfloat16, in place. */
  bfloat16(): this {
    return this.to("bfloat16");
  }
  /** Moved to the CPU, in place. */
  cpu(): this {
    return this.to("cpu");
  }
  /** Moved to a GPU, in place. */
  cuda(index = 0): this {
    return this.to(`cuda:${index}`);
  }
  /** Frees the memory of parameters, their gradients and buffers. The module cannot be used afterwards. */
  dispose(): void {
    for (const parameter of this.parameters()) {
      parameter.grad?.dispose();
      parameter.grad = null;
      parameter.dispose();
    }
    for (const buffer of this.buffers()) buffer.dispose();
  }
  /** The same as {@linkcode Module.dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  // ---- state

  /**
   * Parameters and persistent buffers by PyTorch's names. The tensors share the module's memory and take no part in the graph.
   *
   * @param options.prefix Put before every name. Default `""`.
   */
  stateDict(options?: { prefix?: string }): StateDict {
    const state: StateDict = {};
    for (const [name, tensor] of this.#stateTensors(options?.prefix ?? "")) state[name] = detach(tensor);
    return state;
  }
  /** Every place of the state dict: unlike the walks, a tensor or module used twice comes twice, as in PyTorch. */
  *#stateTensors(prefix: string): Iterable<readonly [string, Tensor]> {
    for (const [name, parameter] of this.#ownParameters()) yield [prefix + name, parameter];
    for (const [name, buffer] of this.#ownBuffers(true)) yield [prefix + name, buffer];
    for (const [name, value] of this.members()) if (value instanceof Module) yield* value.#stateTensors(`${prefix}${name}.`);
  }
  /**
   * Copies the elements of a state dict into this module, converting dtypes and devices. Nothing is changed if anything does not fit. Names that all begin
   * with `module.`, as those of a module that PyTorch wrapped for several devices, are taken without.
   *
   * @param state Tensors by name, as {@linkcode Module.stateDict} or a checkpoint reader returns them.
   * @param options.strict Refuse missing and unexpected names. Default `true`.
   * @returns The names that the state lacks, and those that the module lacks.
   * @throws {FormatError} For missing or unexpected names, if strict.
   * @throws {ShapeError} For a tensor of another shape; also if not strict.
   */
  loadStateDict(state: Readonly<StateDict> | ReadonlyMap<string, Tensor>, options?: { strict?: boolean }): LoadResult {
    return loadInto(new Map(this.#stateTensors("")), state, options?.strict ?? true, this.constructor.name);
  }

  // ---- printing

  /** What stands between the parentheses of {@linkcode Module.toString}, as `inFeatures=2, outFeatures=3`. */
  extraRepr(): string {
    return "";
  }
  /** The module and what is inside it, one line each, indented as PyTorch prints it. */
  toString(): string {
    const extra = this.extraRepr();
    const lines: string[] = [];
    for (const [name, value] of this.members()) {
      if (value instanceof Module) lines.push(`(${name}): ${value.toString().replaceAll("\n", "\n  ")}`);
    }
    if (lines.length === 0) return `${this.constructor.name}(${extra})`;
    if (extra !== "") lines.unshift(extra);
    return `${this.constructor.name}(\n  ${lines.join("\n  ")}\n)`;
  }
  /** What `console.log` shows. */
  [Symbol.for("Deno.customInspect")](): string {
    return this.toString();
  }
}

/** What a recorded step takes for granted of a module: its properties, mode, members and that it has no hooks. */
function guardModule(module: Module): Guard {
  if (module.hasHooks) unrepeatable(`${module.constructor.name} has hooks`);
  const own = module as unknown as Record<string, unknown>, names = Object.keys(module), values = names.map((name) => own[name]);
  const assigned = recorder?.assigns(module) ?? false, { training } = module, children = [...module.children()];
  const changed = (): string | null => {
    if (!assigned && module.training !== training) return `the mode of ${module.constructor.name}`;
    if (module.hasHooks) return `the hooks of ${module.constructor.name}`;
    for (let i = 0; i < names.length; i++) {
      if (!Object.is(own[names[i]], values[i])) return `${names[i]} of ${module.constructor.name}`;
    }
    if (children.length > 0) {
      let i = 0;
      for (const child of module.children()) if (child !== children[i++]) return `the modules in ${module.constructor.name}`;
      if (i !== children.length) return `the modules in ${module.constructor.name}`;
    }
    return null;
  };
  return { changed, inside: changed };
}

/** A module from one tensor to one tensor, as `Sequential` strings together. */
export interface Layer extends Module {
  /** What it computes. */
  forward(x: Tensor): Tensor;
}

/** Refuses a size that is not a whole number of at least `least`. */
export function checkSize(value: unknown, name: string, op: string, least = 1): asserts value is number {
  if (!Number.isSafeInteger(value) || (value as number) < least) {
    throw new RangeError(`${op}: ${name} must be a whole number >= ${least}, got ${value}`);
  }
}
