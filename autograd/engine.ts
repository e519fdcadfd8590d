/**
 * The engine: passes the tape backwards, accumulates gradients and frees what only it can see.
 *
 * @module
 */
import { AutogradError, ShapeError } from "../ffi/errors.ts";
import { type Context, context, type Owner, withContextSync } from "../tensor/context.ts";
import { recorder, unrepeatable } from "../tensor/recorder.ts";
import { broadcastShapes, sameShape, textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import type { Edge, Gradients, Node } from "./tape.ts";

/** How to run backward. */
export interface BackwardOptions {
  /** Keep what backward needs, for another pass. */
  readonly retainGraph: boolean;
  /** Record backward itself. */
  readonly createGraph: boolean;
  /** Return the gradients of these instead of accumulating into leaves. */
  readonly inputs: readonly Tensor[] | null;
}

/** Frees what a rule made on the way to its results. */
class RuleScope implements Owner {
  readonly made: Set<Tensor> = new Set();
  readonly #outer: Owner | null;
  constructor(outer: Owner | null) {
    this.#outer = outer;
  }
  track(tensor: Tensor): void {
    this.made.add(tensor);
  }
  trackNode(node: Node): void {
    this.#outer?.trackNode(node);
  }
}

/** Gradients on their way into a node, one per output. The engine owns these handles. */
type Slots = (Tensor | null)[];

/** A leaf whose hooks wait for its whole gradient. */
interface Awaited {
  /** Edges into it that have not been passed. */
  left: number;
  /** A gradient has come. */
  given: boolean;
}

/** The backward pass under way, as hooks see it. */
export interface BackwardPass {
  /** It adds to `grad`, as `backward()`, and does not return gradients, as `grad()`. */
  readonly accumulates: boolean;
  /** True if a gradient may come to this leaf, which has a hook of `registerPostAccumulateGradHook`, in this pass. */
  reaches(leaf: Tensor): boolean;
  /** Calls `callback` when the pass has ended, with whether an error ended it. What it throws, `backward()` throws. */
  onEnd(callback: (failed: boolean) => void): void;
}

/** One pass over a graph. */
class Pass implements BackwardPass {
  readonly #options: BackwardOptions;
  readonly #awaited: Map<Tensor, Awaited> = new Map();
  readonly #callbacks: ((failed: boolean) => void)[] = [];
  readonly #outer: Context;
  readonly #slots: Map<Node, Slots> = new Map();
  readonly #wanted: Map<Node | Tensor, Map<number, number>> = new Map(); // node or leaf -> output -> position in inputs
  readonly results: (Tensor | null)[] = [];

  constructor(options: BackwardOptions) {
    this.#options = options;
    this.#outer = context();
    options.inputs?.forEach((input, i) => {
      this.results.push(null);
      const key = input.node ?? input;
      if (!this.#wanted.has(key)) this.#wanted.set(key, new Map());
      this.#wanted.get(key)!.set(input.outputIndex, i);
    });
  }

  run(roots: readonly Tensor[], grads: readonly Tensor[]): void {
    const nodes = this.#reachable(roots);
    if (recorder !== null && nodes.length > 0 && nodes[0].sequence < recorder.firstNode) {
      recorder.refuse("it differentiates a graph that was made outside");
    }
    const useful = this.#useful(nodes);
    if (this.#options.inputs === null) { for (const node of nodes) this.#await(node.edges); }
    try {
      const starts = roots.map((root) => this.#edge(root));
      if (this.#options.inputs === null) this.#await(starts);
      starts.forEach((edge, i) => this.#deliver(edge, grads[i].alias()));
      if (this.#awaited.size > 0) this.#passed(starts);
      for (let i = nodes.length - 1; i >= 0; i--) {
        const node = nodes[i], slots = this.#slots.get(node);
        if (slots !== undefined) this.#visit(node, slots, useful);
        this.#slots.delete(node);
        if (!this.#options.retainGraph) node.release();
        if (this.#awaited.size > 0) this.#passed(node.edges);
      }
    } finally {
      // Only after an error is anything left.
      for (const slots of this.#slots.values()) for (const grad of slots) grad?.dispose();
    }
  }

  get accumulates(): boolean {
    return this.#options.inputs === null;
  }

  reaches(leaf: Tensor): boolean {
    return this.#awaited.has(leaf);
  }

  onEnd(callback: (failed: boolean) => void): void {
    this.#callbacks.push(callback);
  }

  end(failed: boolean): void {
    for (const callback of this.#callbacks) callback(failed);
  }

  /** Counts the edges into leaves with hooks that wait for the whole gradient. */
  #await(edges: readonly (Edge | null)[]): void {
    for (const edge of edges) {
      const leaf = edge === null ? null : edge.leaf;
      if (leaf === null || leaf.accumulateHooks === null) continue;
      const awaited = this.#awaited.get(leaf);
      if (awaited !== undefined) awaited.left++;
      else this.#awaited.set(leaf, { left: 1, given: false });
    }
  }

  /** Calls the hooks of leaves to which no further gradient comes. */
  #passed(edges: readonly (Edge | null)[]): void {
    for (const edge of edges) {
      const leaf = edge === null ? null : edge.leaf, awaited = leaf === null ? undefined : this.#awaited.get(leaf);
      if (awaited === undefined || --awaited.left > 0 || !awaited.given) continue;
      unrepeatable("a hook sees the gradient of a leaf");
      withContextSync({ ...this.#outer, grad: this.#options.createGraph }, () => {
        for (const hook of [...leaf!.accumulateHooks ?? []]) hook(leaf!);
      });
    }
  }

  #edge(x: Tensor): Edge {
    return { node: x.node, index: x.outputIndex, leaf: x.node === null ? x : null, shape: x.shape, dtype: x.dtype };
  }

  /** Nodes behind the roots, oldest first: an input is always older than its output. */
  #reachable(roots: readonly Tensor[]): Node[] {
    const found = new Set<Node>(), open: Node[] = [];
    for (const root of roots) if (root.node !== null) open.push(root.node);
    for (let node = open.pop(); node !== undefined; node = open.pop()) {
      if (found.has(node)) continue;
      found.add(node);
      for (const edge of node.edges) if (edge !== null && edge.node !== null && !found.has(edge.node)) open.push(edge.node);
    }
    return [...found].sort((a, b) => a.sequence - b.sequence);
  }

  /** With given inputs, only nodes between them and the roots need to run. */
  #useful(nodes: readonly Node[]): Set<Node> | null {
    if (this.#options.inputs === null) return null;
    const useful = new Set<Node>();
    for (const node of nodes) {
      const leads = node.edges.some((edge) =>
        edge !== null && (edge.node !== null ? useful.has(edge.node) || this.#wanted.has(edge.node) : this.#wanted.has(edge.leaf!))
      );
      if (leads) useful.add(node);
    }
    return useful;
  }

  #visit(node: Node, slots: Slots, useful: Set<Node> | null): void {
    slots.forEach((grad, output) => {
      if (grad === null) return;
      const hooks = node.hooks?.[output];
      if (hooks !== undefined) grad = slots[output] = this.#callHooks(hooks, grad);
      const keeper = node.retained?.[output];
      if (keeper !== undefined) this.#accumulate(keeper, grad.alias());
      const position = this.#wanted.get(node)?.get(output);
      if (position !== undefined) this.results[position] = grad.alias();
    });
    if (useful === null || useful.has(node)) this.#apply(node, slots, useful);
    for (const grad of slots) grad?.dispose();
  }

  #apply(node: Node, slots: Slots, useful: Set<Node> | null): void {
    const needs = node.edges.map((edge) =>
      edge !== null &&
      (useful === null || (edge.node !== null ? useful.has(edge.node) || this.#wanted.has(edge.node) : this.#wanted.has(edge.leaf!)))
    );
    const scope = new RuleScope(this.#outer.scope);
    const inside: Context = { ...this.#outer, grad: this.#options.createGraph, scope };
    try {
      withContextSync(inside, () => {
        const grads: Gradients = node.apply(slots, needs, this.#options.createGraph);
        if (this.#outer.anomaly) this.#checkNaN(node, grads);
        node.edges.forEach((edge, i) => {
          const grad = grads[i] ?? null;
          if (edge === null || grad === null || !needs[i]) return;
          const fitted = this.#fit(grad, edge, node);
          // The engine takes over what the rule made; of anything else it makes a handle of its own.
          this.#deliver(edge, scope.made.delete(fitted) ? fitted : this.#own(fitted, scope));
        });
      });
    } finally {
      for (const temporary of scope.made) temporary.dispose();
    }
  }

  #own(x: Tensor, scope: RuleScope): Tensor {
    const alias = x.alias();
    scope.made.delete(alias);
    return alias;
  }

  #fit(grad: Tensor, edge: Edge, node: Node): Tensor {
    let fitted = grad;
    if (!sameShape(fitted.shape, edge.shape)) {
      let fits = false;
      try {
        fits = sameShape(broadcastShapes(fitted.shape, edge.shape, "backward"), fitted.shape);
      } catch (error) {
        if (!(error instanceof ShapeError)) throw error;
      }
      if (!fits) {
        throw new AutogradError(`backward: ${node.name} gave a gradient of ${textOf(fitted.shape)} for an input of ${textOf(edge.shape)}`);
      }
      fitted = sumTo(fitted, edge.shape);
    }
    return fitted.dtype === edge.dtype ? fitted : fitted.to(edge.dtype);
  }

  #checkNaN(node: Node, grads: Gradients): void {
    if (!grads.some((grad) => grad !== null && grad.isFloat && grad.isnan().any().item() !== 0)) return;
    throw new AutogradError(
      `detectAnomaly: ${node.name} returned NaN gradients in backward. Forward call:\n${node.stack ?? "(made outside detectAnomaly)"}`,
    );
  }

  /** Hands an owned gradient on to a node's output or a leaf. */
  #deliver(edge: Edge, grad: Tensor): void {
    if (edge.node === null) {
      this.#deliverToLeaf(edge.leaf!, grad);
      return;
    }
    let slots = this.#slots.get(edge.node);
    if (slots === undefined) this.#slots.set(edge.node, slots = new Array<Tensor | null>(edge.node.outputs.length).fill(null));
    slots[edge.index] = slots[edge.index] === null ? grad : this.#sum(slots[edge.index]!, grad);
  }

  /** Sum of two owned gradients, in place where nothing else sees the first. */
  #sum(a: Tensor, b: Tensor): Tensor {
    let total: Tensor;
    if (!this.#options.createGraph && a.storage.references === 1 && a.storage.lent === null && a.isDense) {
      this.#quietly(() => a.add_(b));
      total = a;
    } else {
      total = this.#untracked(() => a.add(b));
      a.dispose();
    }
    b.dispose();
    return total;
  }

  /** Makes a tensor that no scope owns. */
  #untracked(make: () => Tensor): Tensor {
    return withContextSync({ ...this.#outer, grad: this.#options.createGraph, scope: null }, make);
  }

  #quietly(change: () => void): void {
    withContextSync({ ...this.#outer, grad: false }, change);
  }

  #callHooks(hooks: Set<(grad: Tensor) => Tensor | void>, grad: Tensor): Tensor {
    let current = grad;
    try {
      withContextSync({ ...this.#outer, grad: this.#options.createGraph }, () => {
        for (const hook of [...hooks]) {
          // The hook gets a handle of its own: it may keep it.
          const result = hook(current.alias());
          if (!(result instanceof Tensor)) continue;
          if (!sameShape(result.shape, grad.shape)) {
            throw new ShapeError(`registerHook: a hook returned ${textOf(result.shape)} for a gradient of ${textOf(grad.shape)}`);
          }
          current.dispose();
          current = result.alias();
        }
      });
    } catch (error) {
      current.dispose();
      throw error;
    }
    return current;
  }

  #deliverToLeaf(leaf: Tensor, grad: Tensor): void {
    let given = grad;
    if (leaf.hooks !== null && leaf.hooks.size > 0) {
      unrepeatable("a hook sees the gradient of a leaf");
      given = this.#callHooks(leaf.hooks, given);
    }
    if (this.#options.inputs === null) {
      this.#accumulate(leaf, given);
      const awaited = this.#awaited.get(leaf);
      if (awaited !== undefined) awaited.given = true;
      return;
    }
    const position = this.#wanted.get(leaf)?.get(leaf.outputIndex);
    if (position === undefined) given.dispose();
    else this.results[position] = this.results[position] === null ? given : this.#sum(this.results[position]!, given);
  }

  /** Adds an owned gradient to `x.grad`. */
  #accumulate(x: Tensor, grad: Tensor): void {
    if (x.grad !== null) {
      if (this.#options.createGraph) {
        x.grad = this.#untracked(() => x.grad!.add(grad));
      } else {
        this.#quietly(() => x.grad!.add_(grad));
      }
      grad.dispose();
    } else if (grad.storage.references === 1 && grad.storage.lent === null && grad.isDense) {
      x.grad = grad;
    } else {
      x.grad = this.#untracked(() => grad.clone());
      grad.dispose();
    }
    x.grad.kept = true;
  }
}

/** Sum over the axes along which `shape` was broadcast to the shape of `x`. */
export function sumTo(x: Tensor, shape: readonly number[]): Tensor {
  const lead = x.rank - shape.length;
  const axes = x.shape.map((_, i) => i).filter((i) => i < lead || (shape[i - lead] === 1 && x.shape[i] !== 1));
  return axes.length === 0 ? x.reshape(shape) : x.sum(axes, { keepdim: true }).reshape(shape);
}

let running: Pass | null = null;

/** The pass under way, for hooks that {@linkcode runBackward} calls. */
export function backwardPass(): BackwardPass {
  if (running === null) throw new AutogradError("backwardPass: no backward() is under way");
  return running;
}

/** Runs backward from `roots` with their gradients; see {@linkcode BackwardOptions}. */
export function runBackward(roots: readonly Tensor[], grads: readonly Tensor[], options: BackwardOptions): (Tensor | null)[] {
  const pass = new Pass(options), outer = running;
  running = pass;
  let failed = true;
  try {
    pass.run(roots, grads);
    failed = false;
  } finally {
    running = outer;
    if (failed) pass.end(true);
  }
  pass.end(false);
  // Handed over in the caller's scope.
  return pass.results.map((result) => {
    const given = result?.alias() ?? null;
    result?.dispose();
    return given;
  });
}
