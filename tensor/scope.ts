/**
 * Scopes: deterministic lifetimes for tensors.
 *
 * @module
 */
import { Node } from "../autograd/tape.ts";
import { context, type Owner, withContext } from "./context.ts";
import { Tensor } from "./tensor.ts";

/** The list of what was made while a scope was current. */
export class Scope implements Owner {
  readonly #parent: Owner | null;
  #tensors: Tensor[] = [];
  #nodes: Node[] = [];

  constructor(parent: Owner | null) {
    this.#parent = parent;
  }

  track(tensor: Tensor): void {
    this.#tensors.push(tensor);
  }

  trackNode(node: Node): void {
    this.#nodes.push(node);
  }

  /** Frees everything but what is kept and the tensors inside `result`, which pass to the enclosing scope. */
  end(result: unknown): void {
    const survivors = new Set<Tensor>();
    collectTensors(result, survivors);
    for (const tensor of this.#tensors) {
      if (tensor.disposed) continue;
      if (tensor.kept) survivors.add(tensor);
      else if (survivors.has(tensor)) this.#parent?.track(tensor);
      else tensor.dispose();
    }
    this.#endNodes(survivors);
    this.#tensors = [];
    this.#nodes = [];
  }

  // What the graph still holds is freed unless a survivor can reach it.
  #endNodes(survivors: Set<Tensor>): void {
    const holding = this.#nodes.filter((node) => node.holds);
    if (holding.length === 0) return;
    const reachable = new Set<Node>();
    const open = [...survivors].map((tensor) => tensor.node).filter((node) => node !== null);
    for (let node = open.pop(); node !== undefined; node = open.pop()) {
      if (reachable.has(node)) continue;
      reachable.add(node);
      for (const edge of node.edges) if (edge !== null && edge.node !== null) open.push(edge.node);
    }
    for (const node of holding) {
      if (reachable.has(node)) this.#parent?.trackNode(node);
      else node.release();
    }
  }
}

/** Adds the tensors in a tensor, array, map, set or plain object to `found`. */
export function collectTensors(value: unknown, found: Set<Tensor>, seen: Set<unknown> = new Set()): void {
  if (typeof value !== "object" || value === null || seen.has(value)) return;
  if (value instanceof Tensor) {
    found.add(value);
    return;
  }
  seen.add(value);
  if (Array.isArray(value) || value instanceof Set) {
    for (const item of value) collectTensors(item, found, seen);
  } else if (value instanceof Map) {
    for (const item of value.values()) collectTensors(item, found, seen);
  } else if (Object.getPrototypeOf(value) === Object.prototype || Object.getPrototypeOf(value) === null) {
    for (const item of Object.values(value)) collectTensors(item, found, seen);
  }
}

/**
 * Runs `fn` and frees the tensors that were made inside, apart from those it returns (in arrays, maps, sets and plain objects, too) and those
 * that a parameter, buffer, gradient, optimiser state or {@linkcode keep} holds. Scopes nest. For an asynchronous `fn` the scope lasts until its
 * promise settles.
 *
 * @param fn Code that makes tensors.
 * @returns What `fn` returns.
 *
 * @example Nothing is left behind
 * ```ts
 * import { memory, ones, scope } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * const before = memory.stats().tensors;
 * const total = scope(() => ones([1000]).mul(2).add(1).sum().item());
 * assertEquals(total, 3000);
 * assertEquals(memory.stats().tensors, before);
 * ```
 */
export function scope<T>(fn: () => T): T {
  const own = new Scope(context().scope);
  return withContext({ scope: own }, fn, (result) => own.end(result));
}

/** Excepts tensors from being freed by any scope; they are freed by `dispose()` or when nothing refers to them. */
export function keep<T extends Tensor | readonly Tensor[]>(value: T): T {
  for (const tensor of value instanceof Tensor ? [value] : value) tensor.kept = true;
  return value;
}
