/**
 * Recording a call of a function: it is run as it is, and what it did becomes a {@linkcode Recording} if that can be repeated.
 *
 * @module
 */
import type { Node } from "../autograd/tape.ts";
import { check } from "../ffi/library.ts";
import { aliasOf, type Storage } from "../ffi/storage.ts";
import { defaultDevice } from "../ops/creation.ts";
import { context, type Owner, withContext } from "../tensor/context.ts";
import { type DType, getDefaultDType } from "../tensor/dtype.ts";
import { type Captured, Recorder } from "../tensor/recorder.ts";
import { collectTensors, scope } from "../tensor/scope.ts";
import { Tensor } from "../tensor/tensor.ts";
import { type Lifetime, place } from "./arena.ts";
import { type Held, type Input, type Leaf, type Output, type Plan, Recording, type Source } from "./recording.ts";
import { changeable, type Copied, copyBack, copyOf, geometryOf, type Tree, treeOf, valueOf } from "./tree.ts";

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
  /**
   * Another tensor on the same memory, which has a name of its own in the program then: the function may know the user's, too. `null` for a tensor that
   * requires a gradient, which has to be itself.
   */
  readonly own: Tensor | null;
  /** The first argument on the same memory. */
  readonly shared: number;
  readonly version: number;
}

/** The memory that the program knows an argument by. */
function memoryOf({ user, own }: Given): Storage {
  return (own ?? user).storage;
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
 * @throws What `fn` throws.
 */
export function record<R>(fn: (...args: unknown[]) => R, args: readonly unknown[]): Recorded<R> {
  const users: Tensor[] = [], tree = argumentsOf(args, users);
  if (typeof tree === "string") return { result: scope(() => synchronous(fn(...args))), outcome: { reason: tree } };
  for (const x of users) x.checkAlive("compile");
  const given = prepare(users);
  const tensors = given.map((it) => it.own ?? it.user), copied: Copied[] = [];
  const inside = copyOf(tree, args, tensors, copied) as unknown[];
  const results = new Results(), dtype = getDefaultDType(), place = defaultDevice(), recorder = new Recorder();
  let ended: Ended = null, recorded = false;
  try {
    let result: R;
    try {
      result = withContext({ scope: results }, () => scope(() => synchronous(fn(...inside))));
    } finally {
      if (getDefaultDType() !== dtype || defaultDevice() !== place) recorder.refuse("it sets the default dtype or device");
      ended = recorder.end();
      writeBack(given, copied, recorder);
    }
    let outcome: Recorded<R>["outcome"];
    try {
      outcome = new Recording(new Planner(recorder, ended, tree, given, results).plan(result));
      recorded = true;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      outcome = recorder.reason === null && recorder.later !== null ? { later: recorder.later } : { reason: error.reason };
    }
    const same = copied.find((it) => it.to === result); // an array or object of the arguments
    return { result: same === undefined ? restore(result, given) : same.from as R, outcome };
  } finally {
    results.pass();
    if (!recorded) {
      if (ended !== null) ended.library.dg_program_free(ended.program);
      for (const storage of recorder.constants) storage.release();
    }
    for (const { own } of given) {
      if (own === null) continue;
      // A function that is not repeated may have kept it: it goes the way of other tensors.
      own.kept = false;
      if (recorded) own.dispose();
      else context().scope?.track(own);
    }
  }
}

type Ended = ReturnType<Recorder["end"]>;

/** The tree of arguments, or what in them cannot be watched. */
function argumentsOf(args: readonly unknown[], tensors: Tensor[]): Tree | string {
  try {
    const tree = treeOf([...args], tensors), odd = changeable(tree);
    return odd === null ? tree : `an argument is a ${odd}, whose contents nobody watches`;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return "an argument contains itself";
  }
}

/** What the function is given for its arguments. */
function prepare(users: readonly Tensor[]): Given[] {
  const aliases = new Map<Storage, Storage>();
  return withContext({ scope: null }, () =>
    users.map((user) => {
      const { storage } = user, shared = users.findIndex((it) => it.storage === storage), { version } = storage;
      if (users.some((it) => it.storage === storage && it.requiresGrad)) return { user, own: null, shared, version };
      let alias = aliases.get(storage);
      if (alias === undefined) aliases.set(storage, alias = aliasOf(storage, user.shape));
      const own = new Tensor(alias, user.shape, user.strides, user.offset, user.dtype);
      own.kept = true;
      return { user, own, shared, version };
    }));
}

/** Tells arguments what the function did with those that it was given for them. */
function writeBack(given: readonly Given[], copied: readonly Copied[], recorder: Recorder): void {
  const back = (value: unknown) => given.find(({ own }) => own !== null && own === value)?.user ?? value;
  for (const it of copied) {
    if (it.to !== copied.at(-1)!.to && copyBack(it, back)) recorder.refuse("it changes an array or object among its arguments");
  }
  given.forEach(({ user, own, shared, version }, i) => {
    if (own === null) return;
    if (shared === i) user.storage.version += own.storage.version - version;
    if (own.node !== null) {
      user.storage.graphVersion = own.storage.graphVersion;
      user.node = own.node;
      user.outputIndex = own.outputIndex;
      user.graphVersion = own.graphVersion;
    }
    if (!own.disposed) return;
    recorder.refuse("it disposes of an argument");
    user.dispose();
  });
}

/** A result with the arguments themselves in the place of what the function was given for them. */
function restore<R>(result: R, given: readonly Given[]): R {
  const all = new Set<Tensor>();
  collectTensors(result, all);
  const renamed = (x: Tensor) => given.find(({ own }) => own !== null && own.storage === x.storage);
  if (![...all].some(renamed)) return result;
  const tensors: Tensor[] = [], tree = treeOf(result, tensors);
  return valueOf(
    tree,
    tensors.map((x) => {
      const it = given.find(({ own }) => own === x) ?? renamed(x);
      if (it === undefined || x !== it.own && x.node !== null) return x;
      if (x === it.own) return it.user;
      const view = new Tensor(it.user.storage, x.shape, x.strides, x.offset, x.dtype);
      view.viewOf = it.user.viewOf ?? it.user;
      x.dispose();
      return view;
    }),
  ) as R;
}

/** Makes the plan of a recording from the notes. */
class Planner {
  readonly #recorder: Recorder;
  readonly #ended: Ended;
  readonly #tree: Tree;
  readonly #given: readonly Given[];
  readonly #results: Results;
  readonly #outputs: Output[] = [];
  readonly #output: Map<Storage, number> = new Map();
  readonly #slots: Map<Storage, number> = new Map(); // of storages that were there before
  readonly #lives: Map<number, { first: number; last: number }> = new Map();

  constructor(recorder: Recorder, ended: Ended, tree: Tree, given: readonly Given[], results: Results) {
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
    const taken = new Set<Storage>([...this.#given.map(memoryOf), ...leaves.storages]);
    const held: Held[] = [];
    for (const { storage, version, changes } of recorder.captured.values()) {
      if (recorder.constants.has(storage)) {
        if (storage.version !== version) throw new Refusal("it changes a tensor made of a number of the program in place");
        continue;
      }
      if (taken.has(storage)) continue;
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
      const life = this.#lives.get(slot);
      if (life !== undefined && !this.#output.has(storage) && !recorder.constants.has(storage)) {
        lives.push({ slot, bytes: storage.bytes, ...life });
      }
    }
    const { offsets, bytes } = place(lives);
    return {
      library: ended.library,
      device: recorder.device,
      program: ended.program,
      arguments: this.#tree,
      writes: held.some((it) => it.writes > 0) || inputs.some((it) => it.writes > 0),
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
  #readSlots({ library, program }: NonNullable<Ended>): void {
    const out = new Float64Array(8);
    check(library.dg_program_info(program, out), library);
    if (out[0] === 0) throw new Refusal("it makes no native call");
    for (let slot = 0, count = out[1]; slot < count; slot++) {
      check(library.dg_program_slot(program, slot, out), library);
      const [id, announced, headers, first, last] = out;
      if (headers === 0) continue;
      this.#lives.set(slot, { first, last });
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

  #input(given: Given): Input {
    const { user, own, shared, version } = given, { requiresGrad, isLeaf, dtype, device } = user, storage = memoryOf(given);
    const first = this.#given[shared].user === user;
    return {
      geometry: geometryOf(user),
      dtype,
      device,
      requiresGrad,
      isLeaf,
      shared,
      slot: first ? this.#slots.get(storage) ?? -1 : -1,
      writes: first ? storage.version - version : 0,
      offset: (own ?? user).offset,
      fixed: own === null ? user.storage : null,
    };
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
        if (grad !== null) throw new Refusal("it sets grad of an argument that does not require a gradient");
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
    return { plans, storages, after };
  }

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
      if (this.#recorder.made.has(x.storage)) throw new Refusal("it keeps a tensor that it returns");
      for (const { tensor } of this.#recorder.gradients.values()) {
        if (tensor === x) throw new Refusal("it returns a gradient that was there before");
      }
      return { kind: "tensor", tensor: x };
    }
    const common = { kind: "made" as const, geometry: geometryOf(x), dtype: x.dtype as DType, requiresGrad: x.requiresGrad };
    const { constants, made } = this.#recorder;
    if (made.has(x.storage) && !constants.has(x.storage)) return { ...common, memory: { output: this.#outputOf(x.storage) } };
    const argument = this.#given.findIndex((it) => memoryOf(it) === x.storage);
    if (argument >= 0) return { ...common, memory: { argument } };
    return { ...common, memory: x.storage };
  }

  /** Refuses memory that outlives the call without being returned: nobody could give it new memory in a repetition. */
  #checkLeft(): void {
    for (const storage of this.#recorder.made.keys()) {
      if (storage.id === 0 || this.#output.has(storage) || this.#recorder.constants.has(storage)) continue;
      throw new Refusal(`it keeps ${storage.bytes} bytes in a tensor that it does not return`);
    }
  }
}
