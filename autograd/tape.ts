/**
 * The tape: what an operation leaves behind so that backward can pass it.
 *
 * @module
 */
import { AutogradError } from "../ffi/errors.ts";
import type { Storage } from "../ffi/storage.ts";
import { context } from "../tensor/context.ts";
import type { DType } from "../tensor/dtype.ts";
import { Tensor } from "../tensor/tensor.ts";

/** Gradients of a node's inputs, in their order; `null` where there is none. */
export type Gradients = readonly (Tensor | null)[];

/**
 * A derivative rule: from the gradient of the output, the saved tensors and which inputs want one, the gradients of the inputs.
 * Rules only return gradients: the engine accumulates them, sums them over broadcast axes and converts their dtype.
 */
export type Rule = (grad: Tensor, saved: readonly Tensor[], needs: readonly boolean[]) => Gradients;

/** A rule of an operation with several outputs; a gradient is `null` where nothing flowed into that output. */
export type MultiRule = (grads: readonly (Tensor | null)[], saved: readonly Tensor[], needs: readonly boolean[]) => Gradients;

/** Replaces a gradient, or only looks at it. */
export type GradHook = (grad: Tensor) => Tensor | void;

/** Sees a leaf whose `grad` holds the whole gradient of a backward pass. */
export type PostAccumulateGradHook = (leaf: Tensor) => void;

/** Where the gradient of an input goes. */
export interface Edge {
  /** The operation that made the input, or null for a leaf. */
  readonly node: Node | null;
  /** Which of its outputs. */
  readonly index: number;
  /** The leaf. */
  readonly leaf: Tensor | null;
  /** What the gradient must look like. */
  readonly shape: readonly number[];
  /** What the gradient must look like. */
  readonly dtype: DType;
}

interface Saved {
  readonly tensor: Tensor;
  readonly storage: Storage;
  readonly version: number;
  readonly output: number; // index among the node's outputs, -1 for an input
}

/** Shape and dtype of an output, for gradients of outputs into which nothing flowed. */
export interface OutputLike {
  /** Sizes. */
  readonly shape: readonly number[];
  /** Element type. */
  readonly dtype: DType;
}

let sequence = 0;

/** The position of the next node in time. */
export function nextSequence(): number {
  return sequence;
}

/** One recorded operation. */
export class Node {
  /** Name of the forward operation. */
  readonly name: string;
  /** Inputs, in the order of the rule's results. */
  edges: readonly (Edge | null)[];
  /** Position in time: inputs come before outputs. */
  readonly sequence: number = sequence++;
  /** Outputs. */
  readonly outputs: readonly OutputLike[];
  /** Stack of the forward call, under `detectAnomaly`. */
  readonly stack: string | undefined = context().anomaly ? new Error().stack : undefined;
  /** Hooks of the output tensors. */
  hooks: (Set<GradHook> | undefined)[] | null = null;
  /** Outputs that want their gradient kept. */
  retained: (Tensor | undefined)[] | null = null;
  /** True once backward has passed and freed what was saved. */
  released = false;
  #saved: Saved[] = [];
  readonly #rule: MultiRule;

  /** Operations make nodes through {@linkcode record}. */
  constructor(name: string, edges: readonly (Edge | null)[], outputs: readonly OutputLike[], rule: MultiRule) {
    this.name = name;
    this.edges = edges;
    this.outputs = outputs;
    this.#rule = rule;
    context().scope?.trackNode(this);
  }

  /** Holds `tensor` until backward has passed. */
  save(tensor: Tensor, output: number): void {
    const storage = tensor.storage;
    storage.retain();
    // A leaf that requires a gradient is saved as itself: its identity matters to a second derivative. Others as an alias, so that
    // the caller may dispose of its tensor and an output does not refer to its own node in a circle.
    const held = tensor.isLeaf && tensor.requiresGrad ? tensor : Tensor.unowned(tensor, output < 0);
    this.#saved.push({ tensor: held, storage, version: storage.version, output });
  }

  /** Runs the rule. */
  apply(grads: readonly (Tensor | null)[], needs: readonly boolean[], createGraph: boolean): Gradients {
    if (this.released) {
      throw new AutogradError(
        `backward: the graph of ${this.name} was freed by an earlier backward(): pass { retainGraph: true } to the earlier one`,
      );
    }
    const saved = this.#saved.map((it) => {
      if (it.storage.version !== it.version) {
        throw new AutogradError(
          `backward: a tensor of shape [${it.tensor.shape.join(", ")}] that ${this.name} needs was changed in place afterwards ` +
            `(version ${it.storage.version}, expected ${it.version}): clone() before the in-place operation`,
        );
      }
      return it.output >= 0 && createGraph ? Tensor.output(it.tensor, this, it.output) : it.tensor;
    });
    return this.#rule(grads, saved, needs);
  }

  /** Lets go of what was saved. */
  release(): void {
    if (this.#saved.length === 0) return;
    this.released = true;
    for (const { storage } of this.#saved) storage.release();
    this.#saved = [];
  }

  /** True while it holds memory. */
  get holds(): boolean {
    return this.#saved.length > 0;
  }
}

/** The edge to a tensor, or `null` when no gradient is wanted for it. */
export function edgeTo(x: Tensor | null): Edge | null {
  if (x === null || !x.requiresGrad) return null;
  if (x.graphVersion !== x.storage.graphVersion) {
    throw new AutogradError(
      `a tensor of shape [${
        x.shape.join(", ")
      }] shares memory with one that was changed in place since: take the view or alias again after the change`,
    );
  }
  return { node: x.node, index: x.outputIndex, leaf: x.node === null ? x : null, shape: x.shape, dtype: x.dtype };
}

/** True when operations on these inputs are to be recorded. */
export function recording(...inputs: readonly (Tensor | null)[]): boolean {
  for (const input of inputs) if (input !== null && input.requiresGrad) return context().grad;
  return false;
}

/**
 * Records an operation with one output, if a gradient may be asked for, and returns the output.
 *
 * @param name Name of the operation, as errors show it.
 * @param inputs Differentiable inputs, in the order of the rule's results; `null` for absent ones.
 * @param output Its result. May be listed in `saved`, too.
 * @param saved Tensors that the rule needs.
 * @param rule The derivative.
 */
export function record(name: string, inputs: readonly (Tensor | null)[], output: Tensor, saved: readonly Tensor[], rule: Rule): Tensor {
  let any = false;
  for (let i = 0; i < inputs.length && !any; i++) any = inputs[i] !== null && inputs[i]!.requiresGrad;
  if (!any || !context().grad) return output;
  recordAll(name, inputs, [output], saved, (grads, kept, needs) => rule(grads[0]!, kept, needs));
  return output;
}

/** {@linkcode record} for several outputs. Outputs of an integer or bool dtype take no part. */
export function recordMany(
  name: string,
  inputs: readonly (Tensor | null)[],
  outputs: readonly Tensor[],
  saved: readonly Tensor[],
  rule: MultiRule,
): void {
  if (recording(...inputs)) recordAll(name, inputs, outputs, saved, rule);
}

function recordAll(
  name: string,
  inputs: readonly (Tensor | null)[],
  outputs: readonly Tensor[],
  saved: readonly Tensor[],
  rule: MultiRule,
): void {
  const node = new Node(name, inputs.map(edgeTo), outputs.map(({ shape, dtype }) => ({ shape, dtype })), rule);
  for (const tensor of saved) node.save(tensor, outputs.indexOf(tensor));
  outputs.forEach((output, index) => {
    if (!output.isFloat) return;
    output.node = node;
    output.outputIndex = index;
  });
}

/**
 * Marks the result of a fused derivative kernel: differentiating it again is refused with the operation's name.
 *
 * @param name The forward operation.
 * @param inputs What the kernel's results depend on.
 * @param results What it returned.
 */
export function once<T extends readonly (Tensor | null)[]>(name: string, inputs: readonly (Tensor | null)[], results: T): T {
  if (recording(...inputs)) {
    recordAll(`${name} (derivative)`, inputs, results.filter((r) => r !== null), [], () => {
      throw new AutogradError(`backward: the second derivative of ${name} is not available: its derivative is one fused kernel`);
    });
  }
  return results;
}
