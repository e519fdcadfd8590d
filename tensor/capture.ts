/**
 * Captured steps: the native work of a function as one graph, launched again and again without running the function.
 *
 * @module
 */
import type { Node } from "../autograd/tape.ts";
import { type Device, device as deviceOf, type DeviceLike } from "../ffi/device.ts";
import { DeviceError, DisposedError } from "../ffi/errors.ts";
import { check, errorOf, lastError, libraryOf } from "../ffi/library.ts";
import { context, type Owner, withContext } from "./context.ts";
import { recorder, unrepeatable } from "./recorder.ts";
import { scope } from "./scope.ts";
import type { Tensor } from "./tensor.ts";

/** Moves a number on the host by `by`. */
type Advance = (by: number) => void;

interface Count {
  readonly advance: Advance;
  by: number;
  readonly random: boolean;
}

/** Counts that the function being captured has moved, by their owners; `null` when none is. */
let counts: Map<object, Count> | null = null;

/** True while a step is being captured. */
export function capturing(): boolean {
  return counts !== null;
}

/**
 * Tells a capture under way that `owner` has moved a count of its own by `by`, such as a generator the numbers that were drawn. Nothing has run by then, so
 * the count goes back when the capture ends, and on with each replay.
 *
 * @param random These are counters of a generator; the native side moves those of all generators on by one number, the largest.
 */
export function counted(owner: object, by: number, random: boolean, advance: Advance): void {
  if (recorder !== null && !random) recorder.count(() => advance(by), () => advance(-by));
  if (counts === null) return;
  const known = counts.get(owner);
  if (known === undefined) counts.set(owner, { advance, by, random });
  else known.by += by;
}

/** Refuses `what`, which a graph cannot repeat, while a step is being captured. */
export function refuseInCapture(what: string): void {
  if (counts !== null) throw new DeviceError(`capture: ${what}`);
}

/** Holds what a captured function makes and returns. */
class Results implements Owner {
  readonly tensors: Tensor[] = [];
  readonly #outer: Owner | null = context().scope;
  track(tensor: Tensor): void {
    this.tensors.push(tensor);
  }
  trackNode(node: Node): void {
    this.#outer?.trackNode(node);
  }
}

interface Graph {
  readonly device: Device;
  readonly id: number;
}

function free({ device, id }: Graph): void {
  libraryOf(device).dg_graph_free(id);
}

const finalizers = new FinalizationRegistry<Graph>(free);

/** A function whose native work {@linkcode capture} recorded. */
export class CapturedStep<T> implements Disposable {
  /** What the function returned. Its tensors get new elements with each {@linkcode CapturedStep.replay}; before the first they hold nothing. */
  readonly result: T;
  readonly #graph: Graph;
  readonly #made: readonly Tensor[];
  readonly #counts: readonly Count[];
  readonly #fn: () => T; // what it refers to, the graph works on
  #disposed = false;

  /** Use {@linkcode capture}. */
  constructor(graph: Graph, fn: () => T, result: T, made: readonly Tensor[], counts: readonly Count[]) {
    this.#graph = graph;
    this.#fn = fn;
    this.result = result;
    this.#made = made;
    this.#counts = counts;
    for (const tensor of made) tensor.kept = true;
    finalizers.register(this, graph, this);
  }

  /** The device of the graph. */
  get device(): Device {
    return this.#graph.device;
  }

  /** Runs the recorded work on the elements that its tensors now hold. Does not wait for it. @throws {DisposedError} After `dispose()`. */
  replay(): void {
    if (this.#disposed) throw new DisposedError(`replay: the captured step ${this.#fn.name || "(without a name)"} has been disposed`);
    const { device, id } = this.#graph, library = libraryOf(device);
    check(library.dg_graph_launch(id), library);
    for (const { advance, by } of this.#counts) advance(by);
    for (const tensor of this.#made) tensor.storage.version++;
  }

  /** Frees the graph, its memory and the tensors of {@linkcode CapturedStep.result} that were made inside. A second call does nothing. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    finalizers.unregister(this);
    for (const tensor of this.#made) tensor.dispose();
    free(this.#graph);
  }

  /** The same as {@linkcode CapturedStep.dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Records the native work of `fn` on a GPU as a graph, without running it (compare `torch.cuda.graph`). {@linkcode CapturedStep.replay} then starts all of
 * it with one call, which spares small steps most of their time.
 *
 * A replay works on the same tensors: write each batch into the inputs that `fn` reads (`input.copy_(batch)`). Random numbers go on from replay to replay, and
 * so do optimisers' steps; all other numbers, learning rates among them, stay what they were. `fn` may not wait for the device: no `item()`, no printing, no
 * operation whose result has a size that depends on the elements. Run it once or twice before, so that optimisers have their states.
 *
 * @param device A CUDA device.
 * @param fn Not asynchronous. Tensors that it makes are freed as by `scope()`, their memory with the graph.
 * @throws {DeviceError} Without that device, or when `fn` does what a graph cannot hold.
 *
 * @example A training step
 * ```ts
 * import { cuda, nn, optim, rand } from "@dinograd/dinograd";
 * if (cuda.isAvailable()) {
 *   const model = new nn.Linear(4, 1).cuda(), optimizer = new optim.Adam(model.parameters());
 *   const x = rand([8, 4], { device: "cuda" });
 *   const train = () => {
 *     optimizer.zeroGrad();
 *     const loss = model.call(x).square().mean();
 *     loss.backward();
 *     optimizer.step();
 *     return loss.detach();
 *   };
 *   train();
 *   using step = cuda.capture("cuda", train);
 *   for (let i = 0; i < 10; i++) {
 *     x.copy_(rand([8, 4]));
 *     step.replay();
 *   }
 *   console.log(step.result.item());
 * }
 * ```
 */
export function capture<T>(device: DeviceLike, fn: () => T): CapturedStep<T> {
  const place = deviceOf(device), library = libraryOf(place);
  unrepeatable("it captures a step");
  refuseInCapture("a step is being captured already");
  check(library.dg_capture_begin(place.index), library);
  const results = new Results(), moved: Map<object, Count> = counts = new Map();
  let result: T, graph = 0, counters = 0;
  try {
    result = withContext({ scope: results }, () => scope(() => synchronous(fn())));
    for (const { by, random } of moved.values()) if (random) counters = Math.max(counters, by);
    graph = library.dg_capture_end(place.index, counters);
    if (graph === 0) throw errorOf(3, lastError(library));
  } catch (error) {
    if (graph === 0) {
      const rest = library.dg_capture_end(place.index, 0);
      if (rest !== 0) library.dg_graph_free(rest);
    }
    for (const tensor of results.tensors) tensor.dispose();
    throw error;
  } finally {
    counts = null;
    for (const { advance, by } of moved.values()) advance(-by);
  }
  return new CapturedStep(
    { device: place, id: graph },
    fn,
    result,
    results.tensors,
    [...moved.values()].map((it) => it.random ? { ...it, by: counters } : it),
  );
}

function synchronous<T>(result: T): T {
  if (!(result instanceof Promise)) return result;
  result.catch(() => {});
  throw new TypeError("capture: the function must not be asynchronous");
}
