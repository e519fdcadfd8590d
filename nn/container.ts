/**
 * Modules that hold modules or parameters.
 *
 * @module
 */
import type { ActivationOptions } from "../ops/mod.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { LeakyReLU, ReLU, Sigmoid, Tanh } from "./activation.ts";
import { BatchNorm } from "./batch_norm.ts";
import { Convolution, PaddedConvolution } from "./convolution.ts";
import { Linear } from "./linear.ts";
import { type Layer, Module } from "./module.ts";
import { Parameter } from "./parameter.ts";
import { isTransient, markTransientTree } from "./transient.ts";

function position(index: number, length: number, op: string): number {
  const at = index < 0 ? index + length : index;
  if (!Number.isInteger(at) || at < 0 || at >= length) throw new RangeError(`${op}: index ${index} is outside ${length} entries`);
  return at;
}

function checkModule(value: unknown, op: string, what: string): asserts value is Module {
  if (!(value instanceof Module)) throw new TypeError(`${op}: ${what} must be a Module, got ${value === null ? "null" : typeof value}`);
}

/**
 * Modules one after the other: the output of each is the input of the next.
 *
 * Results between two of dinograd's own layers are let go as soon as the next layer has them. A batch normalisation and the `ReLU` behind it run as one
 * pass, and so do `Linear` or a convolution and the `ReLU`, `LeakyReLU`, `Sigmoid` or `Tanh` behind it, unless one of the two has hooks. A convolution
 * makes the statistics of a batch normalisation behind it, and in evaluation mode, where nothing is to be recorded, normalises what it writes, with the
 * `ReLU` that may follow.
 *
 * @example
 * ```ts
 * import { nn, ones } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * using model = new nn.Sequential(new nn.ReLU(), new nn.Flatten());
 * assertEquals(model.call(ones([2, 3, 4])).shape, [2, 12]);
 * ```
 */
export class Sequential extends Module {
  readonly #layers: Map<string, Layer> = new Map();

  /**
   * Makes the module.
   *
   * @param layers Modules, named `0`, `1`, …; or one object of modules by name.
   */
  constructor(...layers: readonly Layer[] | readonly [Readonly<Record<string, Layer>>]) {
    super();
    const [first] = layers;
    const entries = layers.length === 1 && first !== null && typeof first === "object" && !(first instanceof Module)
      ? Object.entries(first)
      : (layers as readonly Layer[]).map((layer, i) => [String(i), layer] as const);
    for (const [name, layer] of entries) this.addModule(name, layer);
  }

  /** Adds a layer at the end, or replaces the one of that name. */
  override addModule(name: string, module: Module | null): void {
    checkModule(module, "Sequential", `layer "${name}"`);
    if (name === "" || name.includes(".")) throw new RangeError(`Sequential: a name must not be empty and has no ".", got "${name}"`);
    this.#layers.set(name, module as Layer);
  }
  /** Adds a layer at the end under the next number. */
  append(layer: Layer): this {
    this.addModule(String(this.#layers.size), layer);
    return this;
  }
  /** Number of layers. */
  get length(): number {
    return this.#layers.size;
  }
  /** The layer at a position; negative ones count from the end. @throws {RangeError} If it is outside. */
  at(index: number): Layer {
    return [...this.#layers.values()][position(index, this.#layers.size, "Sequential")];
  }
  /** The layers in order. */
  [Symbol.iterator](): IterableIterator<Layer> {
    return this.#layers.values();
  }
  /** The properties, then the entries. */
  protected override *members(): Iterable<readonly [string, unknown]> {
    yield* super.members();
    yield* this.#layers;
  }

  /** The input passed through all layers. */
  override forward(x: Tensor): Tensor {
    const layers = [...this.#layers.values()];
    let current = x, producer: Layer | null = null;
    for (let i = 0; i < layers.length; i++) {
      const layer = layers[i];
      const [next, count] = together(current, layers, i) ?? [layer.call(current), 1];
      i += count - 1;
      // The graph and views hold the memory that they need; only the handle ends here.
      if (next !== current && current !== x && producer !== null && isTransient(producer) && isTransient(layer)) current.dispose();
      current = next;
      producer = layers[i];
    }
    return current;
  }
}

/** The layer at `i` and one or two behind it in one pass, if nobody looks in between: the result and how many; `null` if there are no such layers. */
function together(x: Tensor, layers: readonly Layer[], i: number): readonly [Tensor, number] | null {
  const layer = layers[i], next = layers[i + 1];
  if (next === undefined || layer.hasHooks || next.hasHooks || Object.hasOwn(next, "forward")) return null;
  if (layer instanceof BatchNorm) return endsInRelu(layer, next) ? [layer.fused(x, { activation: "relu" }), 2] : null;
  if (next instanceof BatchNorm && layer instanceof PaddedConvolution) {
    const relu = endsInRelu(next, layers[i + 2]);
    return [next.after(layer, x, { activation: relu ? "relu" : null }), relu ? 3 : 2];
  }
  if (!(layer instanceof Linear || layer instanceof Convolution)) return null;
  const activation = named.get(next.constructor);
  if (activation === undefined) return null;
  return [layer.fused(x, next instanceof LeakyReLU ? { activation, negativeSlope: next.negativeSlope } : { activation }), 2];
}

/** Whether `next` is a plain relu that the normalisation applies. */
function endsInRelu(norm: BatchNorm, next: Layer | undefined): boolean {
  if (next === undefined || next.hasHooks || Object.hasOwn(next, "forward")) return false;
  return next.constructor === ReLU && norm.forward === BatchNorm.prototype.forward;
}

/** Activations that Linear and convolutions apply in place. */
const named: ReadonlyMap<unknown, ActivationOptions["activation"]> = new Map(
  [
    [ReLU, "relu"],
    [LeakyReLU, "leakyRelu"],
    [Sigmoid, "sigmoid"],
    [Tanh, "tanh"],
  ] as const,
);

markTransientTree(Sequential);

/**
 * A list of modules, all of which are found as children `0`, `1`, …. It has no `forward` of its own.
 *
 * @example
 * ```ts
 * import { nn } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const list = new nn.ModuleList([new nn.ReLU(), new nn.Tanh()]);
 * assertEquals([...list.namedChildren()].map(([name]) => name), ["0", "1"]);
 * ```
 */
export class ModuleList<T extends Module = Module> extends Module {
  readonly #items: T[] = [];

  /**
   * Makes the module.
   *
   * @param modules The first entries. Default none.
   */
  constructor(modules: Iterable<T> = []) {
    super();
    this.extend(modules);
  }
  /** Number of entries. */
  get length(): number {
    return this.#items.length;
  }
  /** The module at a position; negative ones count from the end. @throws {RangeError} If it is outside. */
  at(index: number): T {
    return this.#items[position(index, this.#items.length, "ModuleList")];
  }
  /** Replaces an entry. @throws {RangeError} If the position is outside. */
  set(index: number, module: T): void {
    checkModule(module, "ModuleList", "the entry");
    this.#items[position(index, this.#items.length, "ModuleList")] = module;
  }
  /** Adds an entry at the end. */
  append(module: T): this {
    checkModule(module, "ModuleList", "the entry");
    this.#items.push(module);
    return this;
  }
  /** Adds entries at the end. */
  extend(modules: Iterable<T>): this {
    for (const module of modules) this.append(module);
    return this;
  }
  /** The modules in order. */
  [Symbol.iterator](): IterableIterator<T> {
    return this.#items.values();
  }
  /** The properties, then the entries. */
  protected override *members(): Iterable<readonly [string, unknown]> {
    yield* super.members();
    for (const [i, item] of this.#items.entries()) yield [String(i), item];
  }
}

/** Modules by name. It has no `forward` of its own. */
export class ModuleDict<T extends Module = Module> extends Module {
  readonly #items: Map<string, T> = new Map();

  /**
   * Makes the module.
   *
   * @param modules The first entries, an object or a Map. Default none.
   */
  constructor(modules: Readonly<Record<string, T>> | ReadonlyMap<string, T> = {}) {
    super();
    for (const [name, module] of modules instanceof Map ? modules : Object.entries(modules)) this.set(name, module);
  }
  /** Number of entries. */
  get length(): number {
    return this.#items.size;
  }
  /** The module of a name, if there is one. */
  get(name: string): T | undefined {
    return this.#items.get(name);
  }
  /** True if there is a module of that name. */
  has(name: string): boolean {
    return this.#items.has(name);
  }
  /** Adds an entry, or replaces the one of that name. @throws {RangeError} For a name that is empty or has a ".". */
  set(name: string, module: T): this {
    checkModule(module, "ModuleDict", `"${name}"`);
    if (name === "" || name.includes(".")) throw new RangeError(`ModuleDict: a name must not be empty and has no ".", got "${name}"`);
    this.#items.set(name, module);
    return this;
  }
  /** Removes an entry; false if there was none. */
  delete(name: string): boolean {
    return this.#items.delete(name);
  }
  /** The names in order. */
  keys(): IterableIterator<string> {
    return this.#items.keys();
  }
  /** The modules in order. */
  values(): IterableIterator<T> {
    return this.#items.values();
  }
  /** Names and modules in order. */
  [Symbol.iterator](): IterableIterator<[string, T]> {
    return this.#items.entries();
  }
  /** The properties, then the entries. */
  protected override *members(): Iterable<readonly [string, unknown]> {
    yield* super.members();
    yield* this.#items;
  }
}

/** A list of parameters, found as `0`, `1`, …. It has no `forward` of its own. */
export class ParameterList extends Module {
  readonly #items: Parameter[] = [];

  /**
   * Makes the module.
   *
   * @param parameters The first entries. Default none.
   */
  constructor(parameters: Iterable<Parameter> = []) {
    super();
    for (const parameter of parameters) this.append(parameter);
  }
  /** Number of entries. */
  get length(): number {
    return this.#items.length;
  }
  /** The parameter at a position; negative ones count from the end. @throws {RangeError} If it is outside. */
  at(index: number): Parameter {
    return this.#items[position(index, this.#items.length, "ParameterList")];
  }
  /** Adds an entry at the end. */
  append(parameter: Parameter): this {
    if (!(parameter instanceof Parameter)) throw new TypeError(`ParameterList: an entry must be a Parameter, got ${typeof parameter}`);
    this.#items.push(parameter);
    return this;
  }
  /** The parameters in order. */
  [Symbol.iterator](): IterableIterator<Parameter> {
    return this.#items.values();
  }
  /** The properties, then the entries. */
  protected override *members(): Iterable<readonly [string, unknown]> {
    yield* super.members();
    for (const [i, item] of this.#items.entries()) yield [String(i), item];
  }
  /** The shapes of the entries. */
  override extraRepr(): string {
    return this.#items.map((item) => `[${item.shape.join(", ")}]`).join(", ");
  }
}
