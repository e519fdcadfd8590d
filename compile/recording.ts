/**
 * One recorded call of a function: what has to hold for it to be made again, and making it again.
 *
 * @module
 */
import { check, errorOf, lastError } from "../ffi/library.ts";
import { allocate, type Storage } from "../ffi/storage.ts";
import type { KernelLibrary } from "../ffi/symbols.ts";
import { defaultDevice } from "../ops/creation.ts";
import type { Device } from "../ffi/device.ts";
import { context } from "../tensor/context.ts";
import { bytesOf, type DType, getDefaultDType } from "../tensor/dtype.ts";
import type { Guard, HostStep, Patch } from "../tensor/recorder.ts";
import { Tensor } from "../tensor/tensor.ts";
import type { Arena } from "./arena.ts";
import { GraphRunner } from "./graph.ts";
import { alike, fits, type Geometry, type Tree, valueOf } from "./tree.ts";

/** How an argument that is a tensor reaches the program. */
export interface Input {
  /** What the recorded call was given. */
  readonly geometry: Geometry;
  readonly dtype: DType;
  readonly device: Device;
  readonly requiresGrad: boolean;
  readonly isLeaf: boolean;
  /** The first argument on the same memory. */
  readonly shared: number;
  /** The slot of that memory, -1 if no call names it. */
  readonly slot: number;
  /** In-place writes to that memory. */
  readonly writes: number;
  /** Where in that memory, as the program was recorded, its first element lies. */
  readonly offset: number;
  /** It requires a gradient, and others may know it: no other memory can take its place. */
  readonly fixed: Storage | null;
}

/** Memory that a call makes and leaves. */
export interface Output {
  readonly slot: number;
  readonly bytes: number;
  readonly shape: readonly number[];
  readonly version: number;
}

/** What becomes of `grad` of a leaf. */
export interface Leaf {
  /** The leaf: a tensor, or the number of an argument. */
  readonly leaf: Tensor | number;
  /** What `grad` was, `null` for none. */
  readonly before: Geometry | null;
  /** Slot of that, -1 if no call names it. */
  readonly slot: number;
  /** In-place writes to it. */
  readonly writes: number;
  /** It has to be this very tensor, whose memory others share. */
  readonly identity: Tensor | null;
  /** The call disposes of it. */
  readonly disposes: boolean;
  /** What `grad` is afterwards: as before, `null`, or a new tensor in the memory of an output. */
  readonly after: "same" | "null" | { readonly output: number; readonly geometry: Geometry; readonly dtype: DType };
}

/** Where a returned tensor comes from. */
export type Source =
  | { readonly kind: "argument"; readonly index: number }
  | { readonly kind: "gradient"; readonly index: number }
  | { readonly kind: "tensor"; readonly tensor: Tensor }
  | {
    readonly kind: "made";
    /** Whose memory: an output's, an argument's, or a storage that was there. */
    readonly memory: { readonly output: number } | { readonly argument: number } | Storage;
    readonly geometry: Geometry;
    readonly dtype: DType;
    readonly requiresGrad: boolean;
  };

/** A storage that was there before the call and that the program names. */
export interface Held {
  readonly storage: Storage;
  readonly id: number;
  readonly changes: number;
  readonly writes: number;
}

/** All that {@linkcode Recording} is made of. */
export interface Plan {
  readonly library: KernelLibrary;
  readonly device: Device;
  readonly program: number;
  readonly arguments: Tree;
  /** Calls write to memory that was there before, gradients apart. */
  readonly writes: boolean;
  readonly inputs: readonly Input[];
  readonly held: readonly Held[];
  readonly guards: readonly Guard[];
  readonly host: readonly (HostStep | Patch)[];
  readonly leaves: readonly Leaf[];
  readonly outputs: readonly Output[];
  readonly result: Tree;
  readonly sources: readonly Source[];
  readonly temporaries: ReadonlyMap<number, number>;
  readonly arenaBytes: number;
  readonly constants: readonly Storage[];
}

const counts = new Float64Array(8);

const finalizers = new FinalizationRegistry<{ library: KernelLibrary; program: number; runner: GraphRunner | null }>((it) => {
  it.runner?.[Symbol.dispose]();
  it.library.dg_program_free(it.program);
});

/** A call of {@linkcode Recording.replay} that found what it takes for granted changed, and took back what it had done. */
export class Differs extends Error {}

/** See the module's comment. */
export class Recording implements Disposable {
  readonly #plan: Plan;
  readonly #grad = context().grad;
  readonly #anomaly = context().anomaly;
  readonly #dtype = getDefaultDType();
  readonly #device = defaultDevice();
  readonly #bound: Map<number, { storage: number; bytes: number }> = new Map();
  readonly #values: number[][];
  readonly #lastPatch: number;
  readonly #runner: GraphRunner | null;
  readonly #gradientOutputs: ReadonlySet<number>;
  #arena = 0;

  /** Takes over the program and the constants of a plan. */
  constructor(plan: Plan) {
    this.#plan = plan;
    this.#values = plan.host.map((step) => "values" in step ? this.#recorded(step) : []);
    this.#lastPatch = plan.host.findLastIndex((step) => "values" in step);
    this.#gradientOutputs = new Set(plan.leaves.flatMap(({ after }) => typeof after === "object" ? [after.output] : []));
    // A graph names places in memory: arguments that are written to, or that share memory, have none of their own.
    const placed = plan.inputs.every((it, i) => it.writes === 0 && it.shared === i && it.fixed === null);
    this.#runner = plan.device.type === "cuda" && placed
      ? new GraphRunner(plan.library, plan.device, plan.program, plan.host, plan.inputs, plan.outputs.length)
      : null;
    finalizers.register(this, { library: plan.library, program: plan.program, runner: this.#runner }, this);
  }

  /** The arguments of a patched call as they were recorded, as many as the call takes. */
  #recorded({ places: [{ at, first }] }: Patch): number[] {
    const { library, program } = this.#plan, value = new Float64Array(1), found: number[] = [];
    while (library.dg_program_get(program, at, first + found.length, value) === 0) found.push(value[0]);
    return found;
  }

  /**
   * What keeps the recording from being made again with these arguments, `null` if nothing does.
   *
   * @param tensors Gets the tensors among them.
   */
  mismatch(args: readonly unknown[], tensors: Tensor[]): string | null {
    const plan = this.#plan, { grad, anomaly } = context();
    if (!fits(plan.arguments, args, tensors)) return "the arguments";
    if (grad !== this.#grad || anomaly !== this.#anomaly) return "the gradient mode";
    if (getDefaultDType() !== this.#dtype || defaultDevice() !== this.#device) return "the default dtype or device";
    for (let i = 0; i < plan.inputs.length; i++) {
      const text = this.#differs(plan.inputs[i], tensors[i], i, tensors);
      if (text !== null) return text;
    }
    for (const { storage, id, changes } of plan.held) {
      if (storage.id !== id || storage.detached) return "a tensor that it uses was disposed";
      if (storage.changes !== changes) return "a tensor that it uses has other elements or requiresGrad";
    }
    for (const leaf of plan.leaves) {
      const x = leafOf(leaf, tensors), { grad } = x, text = gradientDiffers(leaf, grad, x);
      if (text !== null) return text;
      if (leaf.writes > 0) {
        for (const it of tensors) if (it.storage === grad!.storage) return "an argument is a gradient that it changes";
      }
    }
    for (const guard of plan.guards) {
      const text = guard.changed();
      if (text !== null) return text;
    }
    return null;
  }

  #differs(input: Input, x: Tensor, i: number, all: readonly Tensor[]): string | null {
    if (x.disposed || x.storage.id === 0 || x.storage.detached) return `tensor ${i} of the arguments was disposed`;
    if (!alike(input.geometry, x)) return `shape, strides or dtype of tensor ${i} of the arguments`;
    if (x.device !== input.device) return `the device of tensor ${i} of the arguments`;
    if (x.requiresGrad !== input.requiresGrad || x.isLeaf !== input.isLeaf) return `requiresGrad of tensor ${i} of the arguments`;
    if (input.fixed !== null) {
      return x.storage === input.fixed && x.offset === input.geometry.offset
        ? null
        : `the memory of tensor ${i} of the arguments, which requires a gradient`;
    }
    let shared = i;
    for (let k = 0; k < i && shared === i; k++) if (all[k].storage === x.storage) shared = k;
    if (shared === input.shared) {
      if (shared === i || x.offset - all[shared].offset === input.offset - this.#plan.inputs[shared].offset) return this.#meets(input, x);
    } else if (input.shared === i && !this.#plan.writes) return this.#meets(input, x);
    return "how arguments share memory";
  }

  /** Memory that a call writes to has one name in the program. */
  #meets(input: Input, x: Tensor): string | null {
    if (!this.#plan.writes) return null;
    for (const { storage, writes } of this.#plan.held) {
      if (storage === x.storage && writes + input.writes > 0) return "an argument is memory that it changes anyway";
    }
    return null;
  }

  /** Makes the call again. @param args Tensors of arguments that {@linkcode Recording.mismatch} found nothing against. */
  replay(args: readonly Tensor[], arena: Arena): unknown {
    const plan = this.#plan, { library, program, outputs, leaves, inputs } = plan;
    const made: (Storage | null)[] = outputs.map(() => null), runner = this.#runner;
    let steps = 0, failedAt = -1;
    try {
      for (; steps <= this.#lastPatch; steps++) this.#step(steps);
      for (let i = 0; i < inputs.length; i++) {
        const { slot, offset } = inputs[i], x = args[i], size = bytesOf(x.dtype);
        if (slot < 0) continue;
        if (runner === null) this.#bind(slot, x.storage.id, (x.offset - offset) * size);
        else this.#bind(slot, runner.take(i, x).id, -offset * size);
      }
      const temporary = arena.at(plan.arenaBytes, plan.device);
      if (temporary.id !== this.#arena) {
        for (const [slot, offset] of plan.temporaries) this.#bind(slot, temporary.id, offset);
        this.#arena = temporary.id;
      }
      for (const leaf of leaves) {
        const { grad } = leafOf(leaf, args);
        if (leaf.slot >= 0) this.#bind(leaf.slot, grad!.storage.id, (grad!.offset - leaf.before!.offset) * bytesOf(grad!.dtype));
        if (typeof leaf.after === "object" && leaf.disposes && grad !== null) {
          made[leaf.after.output] = reusable(leaf, grad, args, outputs[leaf.after.output]);
        }
      }
      for (let i = 0; i < outputs.length; i++) {
        const storage = made[i] ??= allocate(outputs[i].bytes, plan.device, outputs[i].shape);
        const own = runner !== null && !this.#gradientOutputs.has(i);
        this.#bind(outputs[i].slot, own ? runner.place(i, outputs[i]).id : storage.id, 0);
      }
      const status = runner === null ? library.dg_program_run(program) : runner.run();
      if (status !== 0) {
        const text = lastError(library);
        check(library.dg_program_info(program, counts), library);
        failedAt = counts[3];
        throw errorOf(status, text);
      }
      if (runner !== null) { for (let i = 0; i < outputs.length; i++) if (!this.#gradientOutputs.has(i)) runner.give(i, made[i]!); }
    } catch (error) {
      this.#takeBack(steps, failedAt, args, made);
      throw error;
    }
    for (let i = 0; i < outputs.length; i++) made[i]!.version = outputs[i].version;
    for (const { storage, writes } of plan.held) storage.version += writes;
    for (let i = 0; i < inputs.length; i++) args[i].storage.version += inputs[i].writes;
    for (const leaf of leaves) setGradient(leaf, leafOf(leaf, args), made);
    for (; steps < plan.host.length; steps++) this.#step(steps);
    return valueOf(plan.result, plan.sources.map((source) => this.#made(source, args, made)));
  }

  /** Work on the host: counts move on, numbers of the program are brought up to date. */
  #step(i: number): void {
    const step = this.#plan.host[i];
    if ("run" in step) {
      step.run();
      return;
    }
    const { library, program } = this.#plan, values = step.values(), before = this.#values[i];
    if (values === null) throw new Differs();
    if (this.#runner !== null) this.#watch(this.#runner, step, before, values);
    for (let k = 0; k < values.length; k++) {
      if (values[k] === before[k]) continue;
      for (const { at, first } of step.places) check(library.dg_program_set(program, at, first + k, values[k]), library);
      before[k] = values[k];
    }
  }

  #watch(runner: GraphRunner, step: Patch, before: readonly number[], values: readonly number[]): void {
    for (let k = 0; k < values.length; k++) {
      const still = values[k] === before[k] && k !== step.counted && step.drawn === undefined;
      if (!still && !runner.moves(step, k, before, values)) runner.change();
    }
  }

  #bind(slot: number, storage: number, bytes: number): void {
    const bound = this.#bound.get(slot);
    if (bound !== undefined && bound.storage === storage && bound.bytes === bytes) return;
    const { library, program } = this.#plan;
    check(library.dg_program_bind(program, slot, storage, bytes), library);
    this.#runner?.change();
    if (bound === undefined) this.#bound.set(slot, { storage, bytes });
    else [bound.storage, bound.bytes] = [storage, bytes];
  }

  /** After a failure: undoes what the function would not have come to, and leaves no gradient half made. */
  #takeBack(steps: number, failedAt: number, args: readonly Tensor[], made: readonly (Storage | null)[]): void {
    const { host, leaves, inputs } = this.#plan;
    for (let i = Math.min(steps, host.length) - 1; i >= 0 && host[i].at > failedAt; i--) host[i].undo?.();
    if (failedAt >= 0) {
      for (let i = 0; i < inputs.length; i++) if (inputs[i].writes > 0) args[i].storage.version++;
      for (const { storage, writes } of this.#plan.held) if (writes > 0) storage.version++;
      for (const leaf of leaves) {
        if (typeof leaf.after !== "object") continue;
        const x = leafOf(leaf, args);
        if (leaf.disposes) x.grad?.dispose();
        x.grad = null;
      }
    }
    for (const storage of made) if (storage !== null && storage.references === 0) storage.free();
  }

  #made(source: Source, args: readonly Tensor[], made: readonly (Storage | null)[]): Tensor {
    switch (source.kind) {
      case "argument":
        return args[source.index];
      case "tensor":
        return source.tensor;
      case "gradient":
        return leafOf(this.#plan.leaves[source.index], args).grad!;
      default: {
        const { memory, geometry: { shape, strides, offset }, dtype, requiresGrad } = source;
        let result: Tensor;
        if ("output" in memory) result = new Tensor(made[memory.output]!, shape, strides, offset, dtype);
        else if ("argument" in memory) {
          const x = args[memory.argument], input = this.#plan.inputs[memory.argument];
          result = new Tensor(x.storage, shape, strides, offset + x.offset - input.offset, dtype);
          result.viewOf = x.viewOf ?? x;
        } else result = new Tensor(memory, shape, strides, offset, dtype);
        return requiresGrad ? result.requiresGrad_() : result;
      }
    }
  }

  /** True while it runs as a graph. */
  get captured(): boolean {
    return this.#runner?.captured ?? false;
  }

  /** Frees the program and what only it holds. */
  [Symbol.dispose](): void {
    finalizers.unregister(this);
    this.#runner?.[Symbol.dispose]();
    this.#plan.library.dg_program_free(this.#plan.program);
    for (const storage of this.#plan.constants) storage.release();
  }
}

function leafOf({ leaf }: Leaf, args: readonly Tensor[]): Tensor {
  return typeof leaf === "number" ? args[leaf] : leaf;
}

function gradientDiffers({ before, slot, after, identity }: Leaf, grad: Tensor | null, leaf: Tensor): string | null {
  if ((before === null) !== (grad === null)) return "which tensors have a gradient";
  if (leaf.hooks !== null && leaf.hooks.size > 0 || leaf.accumulateHooks !== null && leaf.accumulateHooks.size > 0) {
    return "hooks of a leaf";
  }
  if (grad === null || before === null) return null;
  if (identity !== null) return grad === identity && !grad.disposed ? null : "the memory of a gradient";
  if (slot < 0 && after !== "same") return null;
  if (grad.disposed || grad.storage.id === 0) return "a gradient was disposed";
  return grad.node === null && alike(before, grad) ? null : "shape, strides or dtype of a gradient";
}

/** The memory of a gradient that the call disposes of, if the new one can have it: nobody else would see that. */
function reusable(leaf: Leaf, grad: Tensor, args: readonly Tensor[], output: Output): Storage | null {
  const { storage } = grad;
  const free = leaf.slot < 0 && !grad.disposed && storage.id !== 0 && storage.references === 1 && storage.bytes === output.bytes;
  if (!free || storage.lent !== null || storage.keeper !== null) return null;
  for (const x of args) if (x.storage === storage) return null;
  return storage;
}

function setGradient(leaf: Leaf, x: Tensor, made: readonly (Storage | null)[]): void {
  const { after, disposes, writes } = leaf, before = x.grad;
  if (after === "same") {
    if (before !== null) before.storage.version += writes;
    return;
  }
  let next: Tensor | null = null;
  if (after !== "null") {
    const { shape, strides, offset } = after.geometry;
    next = new Tensor(made[after.output]!, shape, strides, offset, after.dtype);
    next.kept = true;
  }
  if (disposes) before?.dispose();
  x.grad = next;
}
