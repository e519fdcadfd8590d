/**
 * Recording a call of a function: it is run as it is, and what it did becomes a {@linkcode Recording} if that can be repeated.
 *
 * @module
 */
import type { Node } from "../autograd/tape.ts";
import { check } from "../ffi/library.ts";
import { allocate, type Storage } from "../ffi/storage.ts";
import type { KernelLibrary } from "../ffi/symbols.ts";
import { context, type Owner, withContext } from "../tensor/context.ts";
import { bytesOf, type DType } from "../tensor/dtype.ts";
import { type Captured, Recorder } from "../tensor/recorder.ts";
import { collectTensors, scope } from "../tensor/scope.ts";
import { textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { type Arena, type Lifetime, place } from "./arena.ts";
import { copyElements, type Held, type Input, type Leaf, type Output, type Plan, Recording, type Source } from "./recording.ts";
import { changeable, geometryOf, type Tree, treeOf, valueOf } from "./tree.ts";

/** What came of recording a call. */
export interface Recorded<R> {
  /** What the function returned. */
  readonly result: R;
  /** The recording, or why there is none: for good, or only of this call. */
  readonly outcome: Recording | { readonly reason: string } | { readonly later: string };
}

/** Holds what a function makes and returns or keeps. */
class Results implements Owner {
  readonly tensors: Set<Tensor> = new Set();
  readonly #outer: Owner | null = context().scope;
  track(tensor: Tensor): void {
    this.tensors.add(tensor);
  }
  trackNode(node: Node): void {
    this.#outer?.trackNode(node);
  }
  /** Hands what it holds to the scope outside. */
  pass(): void {
    for (const tensor of this.tensors) this.#outer?.track(tensor);
  }
}

/** An argument during recording: the tensor that the function gets. */
interface Given {
  readonly user: Tensor;
  readonly own: Tensor | null;
  readonly fixed: Storage | null;
  readonly shared: number;
  readonly version: number;
}

/** Says why a call cannot be repeated. */
class Refusal {
  constructor(readonly reason: string) {}
}

/** The function must not be asynchronous. */
export function synchronous<T>(result: T): T {
  if (!(result instanceof Promise)) return result;
  result.catch(() => {});
  throw new TypeError("compile: the function must not be asynchronous: await outside of it");
}

/**
 * Runs `fn` and records what it does.
 *
 * @param copyAll Copy all arguments into memory of the program.
 * @throws What `fn` throws.
 */
export function record<R>(fn: (...args: unknown[]) => R, args: readonly unknown[], arena: Arena): Recorded<R> {
  const users: Tensor[] = [], tree = treeOf([...args], users);
  const odd = changeable(tree);
  if (odd !== null) return { result: scope(() => synchronous(fn(...args))), outcome: { reason: `an argument is a ${odd}, whose contents nobody watches` } };
  for (const x of users) x.checkAlive("compile");
  const given = withContext({ scope: null }, () => users.map((x, i) => prepare(x, i, users)));
  const tensors = given.map((it) => it.own ?? it.user);
  const results = new Results(), recorder = new Recorder();
  let result: R, ended: ReturnType<Recorder["end"]> = null, done = false, outcome: Recorded<R>["outcome"];
  try {
    result = withContext({ scope: results }, () => scope(() => synchronous(fn(...valueOf(tree, tensors) as unknown[]))));
    done = true;
  } finally {
    ended = recorder.end();
    if (!done) forget(recorder, ended, given);
  }
  try {
    outcome = new Recording(new Planner(recorder, ended, tree, given, results, arena).plan(result));
  } catch (error) {
    forget(recorder, ended, []);
    if (!(error instanceof Refusal)) {
      forget(recorder, null, given);
      throw error;
    }
    outcome = recorder.reason === null && recorder.later !== null ? { later: recorder.later } : { reason: error.reason };
  }
  const shown = outcome instanceof Recording && !given.some((it) => it.own !== null) ? result : restore(result, given);
  results.pass();
  if (!(outcome instanceof Recording)) for (const { own } of given) own?.dispose();
  return { result: shown, outcome };
}

function forget(recorder: Recorder, ended: { library: KernelLibrary; program: number } | null, given: readonly Given[]): void {
  if (ended !== null) ended.library.dg_program_free(ended.program);
  if (ended !== null || given.length > 0) for (const storage of recorder.constants) storage.release();
  for (const { own } of given) own?.dispose();
}

/** How argument `i` is given to the function. Memory in which others have a part is copied, so that the program can tell it from theirs. */
function prepare(user: Tensor, i: number, all: readonly Tensor[]): Given {
  const { storage } = user, together = all.filter((it) => it.storage === storage).length;
  const shared = all.findIndex((it) => it.storage === storage), apart = storage.references > together;
  if (!apart || user.requiresGrad) return { user, own: null, fixed: apart ? storage : null, shared, version: storage.version };
  let last = 0;
  user.shape.forEach((size, axis) => last += Math.max(0, size - 1) * user.strides[axis]);
  const bytes = user.numel() === 0 ? 0 : (last + 1) * bytesOf(user.dtype);
  const own = new Tensor(allocate(bytes, user.device, user.shape), user.shape, user.strides, 0, user.dtype);
  own.kept = true;
  copyElements(own, user);
  return { user, own, fixed: null, shared: i, version: own.storage.version };
}

/** A result with the arguments themselves in the place of their copies. */
function restore<R>(result: R, given: readonly Given[]): R {
  const tensors: Tensor[] = [], tree = treeOf(result, tensors);
  const shown = tensors.map((x) => {
    const it = given.find(({ own }) => own !== null && own.storage === x.storage);
    if (it === undefined) return x;
    if (x === it.own) return it.user;
    const view = new Tensor(it.user.storage, x.shape, x.strides, x.offset + it.user.offset, x.dtype);
    view.viewOf = it.user.viewOf ?? it.user;
    return view;
  });
  return shown.every((x, i) => x === tensors[i]) ? result : valueOf(tree, shown) as R;
}

/** Makes the plan of a recording from the notes. */
class Planner {
  readonly #recorder: Recorder;
  readonly #ended: { library: KernelLibrary; program: number } | null;
  readonly #tree: Tree;
  readonly #given: readonly Given[];
  readonly #results: Results;
  readonly #outputs: Output[] = [];
  readonly #output: Map<Storage, number> = new Map();
  readonly #slots: Map<Storage, number> = new Map(); // of storages that were there before
  readonly #last: Map<number, { first: number; last: number }> = new Map();
  readonly #inputSlots: Set<Storage> = new Set();

  constructor(
    recorder: Recorder,
    ended: { library: KernelLibrary; program: number } | null,
    tree: Tree,
    given: readonly Given[],
    results: Results,
    _arena: Arena,
  ) {
    this.#recorder = recorder;
    this.#ended = ended;
    this.#tree = tree;
    this.#given = given;
    this.#results = results;
  }

  plan(result: unknown): Plan {
    const recorder = this.#recorder, ended = this.#ended;
    if (recorder.reason !== null) throw new Refusal(recorder.reason);
    if (recorder.later !== null) throw new Refusal(recorder.later);
    if (ended === null || recorder.device === null) throw new Refusal("it makes no native call");
    for (const guard of recorder.guards) {
      const text = guard.inside?.(recorder) ?? null;
      if (text !== null) throw new Refusal(`it changes ${text}`);
    }
    for (const step of recorder.host) {
      if ("values" in step && step.places.length === 0) throw new Refusal("it draws random numbers for the program itself");
    }
    this.#readSlots(ended);
    const leaves = this.#leaves();
    const returned: Tensor[] = [], tree = treeOf(result, returned);
    this.#checkReturned(result, returned);
    const sources = returned.map((x) => this.#source(x, leaves));
    const inputs = this.#given.map((it) => this.#input(it));
    this.#checkLeft();
    const taken = new Set<Storage>([...this.#inputSlots, ...leaves.storages]);
    const held: Held[] = [];
    for (const { storage, version, changes } of recorder.captured.values()) {
      if (recorder.constants.has(storage)) {
        if (storage.version !== version) throw new Refusal("it changes a tensor made of a number of the program in place");
        continue;
      }
      if (taken.has(storage) || this.#given.some(({ own }) => own?.storage === storage)) continue;
      if (storage.id === 0) throw new Refusal("it disposes of a tensor made outside");
      held.push({ storage, id: storage.id, changes, writes: storage.version - version });
    }
    for (const storage of recorder.constants) {
      if (recorder.made.has(storage) && storage.version > 0) {
        throw new Refusal("it changes a tensor made of a number of the program in place");
      }
    }
    const lives: Lifetime[] = [];
    for (const [storage, slot] of recorder.made) {
      const life = this.#last.get(slot);
      if (life !== undefined && !this.#output.has(storage) && !recorder.constants.has(storage)) lives.push({ slot, bytes: storage.bytes, ...life });
    }
    const { offsets, bytes } = place(lives);
    return {
      library: ended.library,
      device: recorder.device,
      program: ended.program,
      arguments: this.#tree,
      inputs,
      held,
      guards: recorder.guards,
      host: recorder.host,
      leaves: leaves.plans,
      outputs: this.#outputs,
      result: tree,
      sources,
      temporaries: offsets,
      arenaBytes: bytes,
      constants: [...recorder.constants],
    };
  }

  /** Which calls name which storages. */
  #readSlots({ library, program }: { library: KernelLibrary; program: number }): void {
    const out = new Float64Array(8);
    check(library.dg_program_info(program, out), library);
    if (out[0] === 0) throw new Refusal("it makes no native call");
    for (let slot = 0, count = out[1]; slot < count; slot++) {
      check(library.dg_program_slot(program, slot, out), library);
      const [id, announced, headers, first, last] = out;
      if (headers === 0) continue;
      this.#last.set(slot, { first, last });
      if (announced !== 0) continue;
      const captured = this.#recorder.captured.get(id);
      if (captured === undefined) throw new Refusal("it makes native calls with memory that is unknown");
      this.#slots.set(captured.storage, slot);
      this.#checkCaptured(captured);
    }
  }

  #checkCaptured({ storage, changes, graphVersion }: Captured): void {
    if (storage.changes !== changes) throw new Refusal("it changes what a tensor made outside stands for (setData, requiresGrad)");
    if (storage.graphVersion !== graphVersion) throw new Refusal("it changes a tensor made outside in place and would differentiate that");
  }

  /** The number of the output that a storage is. */
  #outputOf(storage: Storage): number {
    let index = this.#output.get(storage);
    if (index !== undefined) return index;
    const shape = [...this.#results.tensors].find((x) => x.storage === storage)?.shape ?? [storage.bytes];
    index = this.#outputs.push({ slot: this.#recorder.made.get(storage)!, bytes: storage.bytes, shape, version: storage.version }) - 1;
    this.#output.set(storage, index);
    return index;
  }

  #input({ user, own, fixed, shared, version }: Given): Input {
    const storage = (own ?? user).storage, writes = storage.version - version;
    if (own !== null && writes > 0) throw new Refusal("it changes an argument whose memory others share in place");
    const { requiresGrad, isLeaf, dtype, device } = user;
    const input = { geometry: geometryOf(user), dtype, device, requiresGrad, isLeaf, own, fixed };
    if (own === null) this.#inputSlots.add(storage);
    const first = shared < 0 || this.#given[shared].user === user;
    return { ...input, shared, slot: own === null && first ? this.#slots.get(storage) ?? -1 : -1, writes: first ? writes : 0 };
  }

  #leaves(): { plans: Leaf[]; storages: Storage[]; after: Map<Tensor, number> } {
    const { gradients, made } = this.#recorder, plans: Leaf[] = [], storages: Storage[] = [], after = new Map<Tensor, number>();
    for (const [x, { tensor: before, references }] of gradients) {
      const grad = x.grad, argument = this.#given.findIndex((it) => it.user === x);
      if (x.disposed || this.#results.tensors.has(x)) {
        if (grad !== null && grad !== before && made.has(grad.storage)) grad.dispose(); // of a leaf that ends with the call
        continue;
      }
      if (this.#given.some(({ own }) => own === x)) {
        if (grad !== null) throw new Refusal("it sets grad of an argument whose memory others share");
        continue;
      }
      const leaf = argument >= 0 ? argument : x;
      const slot = before === null ? -1 : this.#slots.get(before.storage) ?? -1;
      const alone = references === 1;
      if (slot >= 0 && alone) storages.push(before!.storage);
      const captured = before === null ? undefined : this.#recorder.captured.get(before.storage.id);
      const writes = captured === undefined || !alone ? 0 : before!.storage.version - captured.version;
      const common = {
        leaf,
        before: before === null ? null : geometryOf(before),
        slot: alone ? slot : -1,
        writes,
        identity: slot >= 0 && !alone ? before : null,
        disposes: before !== null && before.disposed,
      };
      if (common.disposes && common.identity !== null) throw new Refusal("it disposes of a gradient whose memory others share");
      if (grad === before) {
        if (common.disposes) throw new Refusal("it leaves a disposed tensor as a gradient");
        plans.push({ ...common, after: "same" });
      } else if (grad === null) plans.push({ ...common, after: "null" });
      else {
        if (!made.has(grad.storage) || grad.node !== null) throw new Refusal("it sets grad to a tensor made outside, or with a graph");
        after.set(grad, plans.length);
        plans.push({ ...common, after: { output: this.#outputOf(grad.storage), geometry: geometryOf(grad), dtype: grad.dtype } });
      }
    }
    this.#gradients = after;
    return { plans, storages, after };
  }
  #gradients: Map<Tensor, number> = new Map();

  #checkReturned(result: unknown, returned: readonly Tensor[]): void {
    const all = new Set<Tensor>();
    collectTensors(result, all);
    if (all.size !== returned.length) throw new Refusal("it returns tensors in a Map or a Set");
    for (const x of returned) {
      if (x.node !== null && x.node.sequence >= this.#recorder.firstNode) {
        throw new Refusal("it returns a tensor with its graph: call backward() inside, return detach(), or run it in noGrad()");
      }
    }
  }

  #source(x: Tensor, leaves: { after: Map<Tensor, number> }): Source {
    const gradient = leaves.after.get(x);
    if (gradient !== undefined) return { kind: "gradient", index: gradient };
    const index = this.#given.findIndex(({ user, own }) => x === (own ?? user));
    if (index >= 0) return { kind: "argument", index };
    if (!this.#results.tensors.has(x)) {
      for (const { tensor } of this.#recorder.gradients.values()) if (tensor === x) throw new Refusal("it returns a gradient that was there before");
      return { kind: "tensor", tensor: x };
    }
    const common = { kind: "made" as const, geometry: geometryOf(x), dtype: x.dtype as DType, requiresGrad: x.requiresGrad };
    const { constants, made } = this.#recorder;
    if (made.has(x.storage) && !constants.has(x.storage)) return { ...common, memory: { output: this.#outputOf(x.storage) } };
    const argument = this.#given.findIndex(({ user, own }) => (own ?? user).storage === x.storage);
    if (argument >= 0) return { ...common, memory: { argument } };
    return { ...common, memory: x.storage };
  }

  /** Refuses memory that outlives the call without being returned: nobody could give it new memory in a repetition. */
  #checkLeft(): void {
    for (const storage of this.#recorder.made.keys()) {
      if (storage.id === 0 || this.#output.has(storage) || this.#recorder.constants.has(storage)) continue;
      const tensor = [...this.#results.tensors].find((x) => x.storage === storage);
      throw new Refusal(`it keeps a tensor${tensor === undefined ? "" : ` of shape ${textOf(tensor.shape)}`} that it does not return`);
    }
  }
}
