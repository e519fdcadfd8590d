/**
 * Process groups: ranks that take part in collective operations together.
 *
 * @module
 */
import { reductions, refusal } from "../ffi/communicator.ts";
import type { CommunicatorLibrary } from "../ffi/communicator_symbols.ts";
import { AutogradError, DeviceError, DistributedError, DTypeError, ShapeError } from "../ffi/errors.ts";
import { type Frame, frame, NONE } from "../ffi/frame.ts";
import type { Device } from "../ffi/device.ts";
import { findFailures } from "../ffi/library.ts";
import { copyInto } from "../ops/copy.ts";
import { checkWritable } from "../ops/inplace.ts";
import { checkTensor } from "../ops/native.ts";
import { context } from "../tensor/context.ts";
import { unrepeatable } from "../tensor/recorder.ts";
import { sameShape, textOf } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { lies, type Part, piece, putBack, staged } from "./staging.ts";
import { NativeWork, type ReduceOp, type Work, type WorkOwner } from "./work.ts";

/** How long a collective may take. */
export interface CollectiveOptions {
  /** Milliseconds from the call. Default: the group's, five minutes unless it was made with another. */
  timeout?: number;
}

/** Options of collectives that reduce. */
export interface ReduceOptions extends CollectiveOptions {
  /** How values are combined. `"average"` takes floating-point tensors; float16 and bfloat16 are combined in float. Default `"sum"`. */
  op?: ReduceOp;
}

/** Options of messages between two ranks. */
export interface MessageOptions extends CollectiveOptions {
  /** Whole number from 0 to 2^24 - 1 that sender and receiver name alike. Default 0. */
  tag?: number;
}

/**
 * Ranks that take part in collective operations together.
 *
 * All of them must call the same collectives in the same order, with tensors of the same dtype and number of elements: a rank that differs is named in the
 * error that all get. Ranks are numbered within the group, from 0. The first failure fails the group: works under way and all later ones end with its cause.
 *
 * Over NCCL all groups of a device take turns: their collectives must be called in one order on all ranks, those of different groups too.
 *
 * Tensors that a collective writes to are changed in place, as by other in-place operations: not if they are leaves that require gradients, unless in
 * `noGrad()`. Collectives are not differentiable.
 */
export interface ProcessGroup {
  /** What carries the operations. */
  readonly backend: string;
  /** Where the tensors of its operations are. */
  readonly device: Device;
  /** Number of this process in the group. */
  readonly rank: number;
  /** Number of ranks. */
  readonly size: number;
  /** The global rank of each rank of the group. */
  readonly ranks: readonly number[];
  /** Replaces `x` on every rank by the reduction of all of them, the same bits everywhere. */
  allReduce(x: Tensor, options?: ReduceOptions): Work;
  /** Replaces `x` on rank `root` by the reduction of all of them. */
  reduce(x: Tensor, root: number, options?: ReduceOptions): Work;
  /** Replaces `x` on every rank by that of rank `root`. */
  broadcast(x: Tensor, root: number, options?: CollectiveOptions): Work;
  /** Writes the `x` of every rank to `out`: one tensor, shape `[size, ...]` or concatenated along the first axis, or a list of tensors. */
  allGather(out: Tensor | readonly Tensor[], x: Tensor, options?: CollectiveOptions): Work;
  /** Reduces `x`, which holds a part for each rank (as `out` of `allGather`), and writes this rank's part to `out`. */
  reduceScatter(out: Tensor, x: Tensor | readonly Tensor[], options?: ReduceOptions): Work;
  /** Writes the `x` of every rank to `out` on rank `root`; `out` is `null` elsewhere. */
  gather(out: Tensor | readonly Tensor[] | null, x: Tensor, root: number, options?: CollectiveOptions): Work;
  /** Writes the parts of `x` on rank `root` to the `out` of each rank; `x` is `null` elsewhere. */
  scatter(out: Tensor, x: Tensor | readonly Tensor[] | null, root: number, options?: CollectiveOptions): Work;
  /** Writes part `i` of the `x` of rank `j` to part `j` of the `out` of rank `i`. */
  allToAll(out: Tensor | readonly Tensor[], x: Tensor | readonly Tensor[], options?: CollectiveOptions): Work;
  /** Sends `x` to rank `target`. */
  send(x: Tensor, target: number, options?: MessageOptions): Work;
  /** Receives into `out` from rank `source`, or from any with `null`. Do not wait for one tag in both ways at once: which of them a message meets is not defined. */
  recv(out: Tensor, source: number | null, options?: MessageOptions): Work;
  /** Ends when all ranks have called it. */
  barrier(options?: CollectiveOptions): Work;
  /** Fails the group on all ranks, with a reason that they are told. */
  abort(reason: string): void;
  /** Leaves the group. Works that have not ended fail. */
  close(): Promise<void>;
}

/** Five minutes, in milliseconds. */
export const DEFAULT_TIMEOUT = 300_000;

/** What a {@linkcode CommunicatorGroup} is made of. */
export interface CommunicatorParts {
  /** The open library. */
  library: CommunicatorLibrary;
  /** Native id of the communicator, connected. */
  id: number;
  /** Name of the back end. */
  backend: string;
  /** Device that it serves. */
  device: Device;
  /** Number of this process in the group. */
  rank: number;
  /** Global ranks. */
  ranks: readonly number[];
  /** Milliseconds that a collective may take unless told otherwise. */
  timeout: number;
}

/** Groups of devices, which go on while a collective fails. */
const open = new Set<CommunicatorGroup>();
findFailures((text) => {
  for (const group of open) {
    const found = group.failure(text);
    if (found !== null) return found;
  }
  return null;
});

/** A process group over a communicator library. */
export class CommunicatorGroup implements ProcessGroup, WorkOwner {
  readonly backend: string;
  readonly device: Device;
  readonly rank: number;
  readonly size: number;
  readonly ranks: readonly number[];
  /** The open library. */
  readonly library: CommunicatorLibrary;
  readonly #timeout: number;
  #id: number;
  #pending = new Set<NativeWork>();
  #tail: Promise<void> = Promise.resolve();
  #unseen: DistributedError | null = null; // of the first work that failed when the device was already to go on with its results

  /** Use `initProcessGroup` or `newGroup`. */
  constructor(parts: CommunicatorParts) {
    this.library = parts.library;
    this.backend = parts.backend;
    this.rank = parts.rank;
    this.ranks = parts.ranks;
    this.size = parts.ranks.length;
    this.device = parts.device;
    this.#timeout = parts.timeout;
    this.#id = parts.id;
    if (parts.device.type === "cuda") open.add(this);
  }

  allReduce(x: Tensor, options: ReduceOptions = {}): Work {
    const op = this.#reduction("allReduce", x, options), part = this.#written("allReduce", x);
    return this.#start(
      "allReduce",
      [part],
      options,
      (comm, f, timeout) => this.library.dg_comm_all_reduce(comm, f.pointer, f.put(part.tensor), op, timeout),
    );
  }

  reduce(x: Tensor, root: number, options: ReduceOptions = {}): Work {
    this.#checkRank("reduce", root, "root");
    const op = this.#reduction("reduce", x, options);
    const part = this.rank === root ? this.#written("reduce", x) : this.#read("reduce", x);
    return this.#start(
      "reduce",
      [part],
      options,
      (comm, f, timeout) => this.library.dg_comm_reduce(comm, f.pointer, f.put(part.tensor), op, root, timeout),
    );
  }

  broadcast(x: Tensor, root: number, options: CollectiveOptions = {}): Work {
    this.#checkRank("broadcast", root, "root");
    const part = this.rank === root ? this.#read("broadcast", x) : this.#written("broadcast", x);
    return this.#start(
      "broadcast",
      [part],
      options,
      (comm, f, timeout) => this.library.dg_comm_broadcast(comm, f.pointer, f.put(part.tensor), root, timeout),
    );
  }

  allGather(out: Tensor | readonly Tensor[], x: Tensor, options: CollectiveOptions = {}): Work {
    const part = this.#read("allGather", x), whole = this.#wholeOut("allGather", out, x);
    return this.#start(
      "allGather",
      [whole, part],
      options,
      (comm, f, timeout) => this.library.dg_comm_all_gather(comm, f.pointer, f.put(whole.tensor), f.put(part.tensor), timeout),
    );
  }

  reduceScatter(out: Tensor, x: Tensor | readonly Tensor[], options: ReduceOptions = {}): Work {
    const op = this.#reduction("reduceScatter", out, options);
    const part = this.#written("reduceScatter", out), whole = this.#wholeIn("reduceScatter", x, out);
    return this.#start(
      "reduceScatter",
      [part, whole],
      options,
      (comm, f, timeout) => this.library.dg_comm_reduce_scatter(comm, f.pointer, f.put(part.tensor), f.put(whole.tensor), op, timeout),
    );
  }

  gather(out: Tensor | readonly Tensor[] | null, x: Tensor, root: number, options: CollectiveOptions = {}): Work {
    this.#checkRank("gather", root, "root");
    this.#checkOnRoot("gather", "out", out, root);
    const part = this.#read("gather", x), whole = out === null ? null : this.#wholeOut("gather", out, x);
    return this.#start("gather", whole === null ? [part] : [part, whole], options, (comm, f, timeout) => {
      const at = f.put(part.tensor);
      return this.library.dg_comm_gather(comm, f.pointer, whole === null ? NONE : f.put(whole.tensor), at, root, timeout);
    });
  }

  scatter(out: Tensor, x: Tensor | readonly Tensor[] | null, root: number, options: CollectiveOptions = {}): Work {
    this.#checkRank("scatter", root, "root");
    this.#checkOnRoot("scatter", "x", x, root);
    const part = this.#written("scatter", out), whole = x === null ? null : this.#wholeIn("scatter", x, out);
    return this.#start("scatter", whole === null ? [part] : [part, whole], options, (comm, f, timeout) => {
      const at = f.put(part.tensor);
      return this.library.dg_comm_scatter(comm, f.pointer, at, whole === null ? NONE : f.put(whole.tensor), root, timeout);
    });
  }

  allToAll(out: Tensor | readonly Tensor[], x: Tensor | readonly Tensor[], options: CollectiveOptions = {}): Work {
    const name = "allToAll";
    const first = (it: Tensor | readonly Tensor[], what: string) => {
      const one = Array.isArray(it) ? it[0] : it;
      checkTensor(one, name, what);
      if (Array.isArray(it)) return one;
      if (one.rank === 0 || one.shape[0] % this.size !== 0) {
        throw new ShapeError(`${name}: the first axis of ${what} must divide into ${this.size} equal parts, got ${textOf(one.shape)}`);
      }
      return new Tensor(one.storage, [one.shape[0] / this.size, ...one.shape.slice(1)], one.strides, one.offset, one.dtype, false);
    };
    const part = first(x, "x"), outPart = first(out, "out");
    if (!sameShape(part.shape, outPart.shape) || part.dtype !== outPart.dtype) {
      throw new ShapeError(
        `${name}: the parts of out must be like those of x, ${textOf(part.shape)} of ${part.dtype}, got ${
          textOf(outPart.shape)
        } of ${outPart.dtype}`,
      );
    }
    const from = this.#wholeIn(name, x, part), to = this.#wholeOut(name, out, part);
    return this.#start(
      name,
      [to, from],
      options,
      (comm, f, timeout) => this.library.dg_comm_all_to_all(comm, f.pointer, f.put(to.tensor), f.put(from.tensor), timeout),
    );
  }

  send(x: Tensor, target: number, options: MessageOptions = {}): Work {
    const tag = this.#message("send", target, "target", options), part = this.#read("send", x);
    return this.#start(
      "send",
      [part],
      options,
      (comm, f, timeout) => this.library.dg_comm_send(comm, f.pointer, f.put(part.tensor), target, tag, timeout),
      true,
    );
  }

  recv(out: Tensor, source: number | null, options: MessageOptions = {}): Work {
    const tag = this.#message("recv", source ?? (this.rank + 1) % this.size, "source", options), part = this.#written("recv", out);
    return this.#start(
      "recv",
      [part],
      options,
      (comm, f, timeout) => this.library.dg_comm_recv(comm, f.pointer, f.put(part.tensor), source ?? NONE, tag, timeout),
      true,
    );
  }

  barrier(options: CollectiveOptions = {}): Work {
    return this.#start("barrier", [], options, (comm, _f, timeout) => this.library.dg_comm_barrier(comm, timeout));
  }

  abort(reason: string): void {
    if (this.#id !== 0) this.library.dg_comm_abort(this.#id, new TextEncoder().encode(`${String(reason).slice(0, 1000)}\0`));
  }

  async close(): Promise<void> {
    // What the device goes on with is let end; whoever relies on it has the errors.
    await Promise.allSettled([...this.#pending].filter((it) => it.joined).map((it) => it.done()));
    if (this.#id === 0) return;
    this.library.dg_comm_close(this.#id);
    this.#id = 0;
    this.#sweep(true);
    open.delete(this);
  }

  /** The error of a work whose results the device went on with, if it is the one that this text tells of. */
  failure(text: string): DistributedError | null {
    this.#sweep(true);
    return this.#unseen?.message.startsWith(text) ? this.#unseen : null;
  }

  errorOf(text: string, rank: number, collective: string): DistributedError {
    const whole = this.ranks.every((global, i) => global === i);
    const where = whole ? "" : ` (in the group of ranks ${this.ranks.join(", ")}, counted within it)`;
    return new DistributedError(text + where, { collective, ...rank >= 0 ? { rank: this.globalRank(rank) } : {} });
  }

  globalRank(rank: number): number {
    return this.ranks[rank];
  }

  inOrder(wait: () => Promise<void>): Promise<void> {
    return this.#tail = this.#tail.then(wait, wait);
  }

  #start(
    name: string,
    parts: readonly Part[],
    options: CollectiveOptions,
    call: (comm: number, frame: Frame, timeout: number) => number,
    message = false,
  ): Work {
    const timeout = options.timeout ?? this.#timeout;
    if (typeof timeout !== "number" || !(timeout > 0)) {
      throw new RangeError(`${name}: timeout must be milliseconds above 0, got ${timeout}`);
    }
    if (this.#id === 0) throw new DistributedError(`${name}: the process group was closed`, { collective: name });
    unrepeatable("it talks to other processes");
    this.#sweep();
    try {
      frame.begin();
      const id = call(this.#id, frame, Math.min(timeout, 1e10));
      if (id === 0) throw refusal(this.library);
      const finishes = parts.flatMap((it) => it.finish ?? []);
      const finish = finishes.length === 0 ? undefined : () => finishes.forEach((it) => it());
      const work = new NativeWork(this, { id, collective: name, tensors: parts.map((it) => it.tensor), message, finish });
      if (!work.isCompleted()) this.#pending.add(work);
      return work;
    } finally {
      for (const part of parts) if (part.staged) part.tensor.storage.release(); // the work holds it
    }
  }

  /** Forgets works that have ended, oldest first: what nobody waited for gives its memory back. */
  #sweep(all = false): void {
    for (const work of this.#pending) {
      if (work.isCompleted()) {
        this.#pending.delete(work);
        if (work.joined) this.#unseen ??= work.error;
      } else if (!all) {
        return;
      }
    }
  }

  // ---- checks

  #checkRank(name: string, rank: number, what: string): void {
    if (!Number.isInteger(rank) || rank < 0 || rank >= this.size) {
      throw new RangeError(`${name}: ${what} must be a rank of the group, 0 to ${this.size - 1}, got ${rank}`);
    }
  }

  #checkOnRoot(name: string, what: string, value: unknown, root: number): void {
    if (this.rank === root && (value === null || value === undefined)) {
      throw new TypeError(`${name}: rank ${root} is the root and must give ${what}`);
    }
    if (this.rank !== root && value !== null) {
      throw new TypeError(`${name}: ${what} must be null on rank ${this.rank}: only the root ${root} has it`);
    }
  }

  #message(name: string, rank: number, what: string, options: MessageOptions): number {
    this.#checkRank(name, rank, what);
    if (rank === this.rank) throw new RangeError(`${name}: ${what} ${rank} is this rank itself`);
    const tag = options.tag ?? 0;
    if (!Number.isInteger(tag) || tag < 0 || tag >= 2 ** 24) throw new RangeError(`${name}: tag must be 0 to 2^24 - 1, got ${tag}`);
    return tag;
  }

  #reduction(name: string, x: Tensor, options: ReduceOptions): number {
    const op = options.op ?? "sum", code = (reductions as readonly ReduceOp[]).indexOf(op);
    if (code < 0) throw new TypeError(`${name}: op must be one of ${reductions.join(", ")}, got ${JSON.stringify(op)}`);
    checkTensor(x, name, "the tensor");
    if (x.dtype === "bool") throw new DTypeError(`${name}: takes a numeric dtype, got bool: convert with .to("uint8")`);
    if (op === "average" && !x.isFloat) throw new DTypeError(`${name}: an average takes a floating point tensor, got ${x.dtype}`);
    return code;
  }

  #check(name: string, x: Tensor): void {
    checkTensor(x, name, "the tensor");
    if (x.device !== this.device) {
      throw new DeviceError(
        `${name}: this process takes part over ${this.backend} with ${this.device}, got a tensor on ${x.device}: move it with .to("${this.device}")`,
      );
    }
  }

  #read(name: string, x: Tensor): Part {
    this.#check(name, x);
    return lies(x) ? { tensor: x, staged: false, finish: null } : { tensor: copyInto(staged(x.shape, x), x), staged: true, finish: null };
  }

  #checkWritten(name: string, x: Tensor): void {
    this.#check(name, x);
    checkWritable(x, name);
    if (context().grad && x.requiresGrad) {
      throw new AutogradError(
        `${name}: is not differentiable, and the tensor to write to was recorded: detach() it or use noGrad(() => ...)`,
      );
    }
    x.storage.version++;
  }

  #written(name: string, x: Tensor): Part {
    this.#checkWritten(name, x);
    if (lies(x)) return { tensor: x, staged: false, finish: null };
    const copy = copyInto(staged(x.shape, x), x);
    return { tensor: copy, staged: true, finish: () => putBack(x, copy) };
  }

  /** The part of each rank, one after the other, as one tensor to write to. */
  #wholeOut(name: string, out: Tensor | readonly Tensor[], part: Tensor): Part {
    if (!Array.isArray(out)) {
      this.#checkWhole(name, "out", out as Tensor, part);
      return this.#written(name, out as Tensor);
    }
    this.#checkList(name, "out", out, part);
    for (const it of out) this.#checkWritten(name, it);
    const whole = staged([this.size, ...part.shape], part), list = [...out];
    return { tensor: whole, staged: true, finish: () => list.forEach((it, i) => putBack(it, piece(whole, part.shape, i))) };
  }

  /** The same to read from. */
  #wholeIn(name: string, x: Tensor | readonly Tensor[], part: Tensor): Part {
    if (!Array.isArray(x)) {
      this.#checkWhole(name, "x", x as Tensor, part);
      return this.#read(name, x as Tensor);
    }
    this.#checkList(name, "x", x, part);
    const whole = staged([this.size, ...part.shape], part);
    x.forEach((it, i) => copyInto(piece(whole, part.shape, i), it));
    return { tensor: whole, staged: true, finish: null };
  }

  #checkWhole(name: string, what: string, whole: Tensor, part: Tensor): void {
    this.#check(name, whole);
    const { shape } = part, stacked = [this.size, ...shape], joined = [this.size * (shape[0] ?? 1), ...shape.slice(1)];
    if (!sameShape(whole.shape, stacked) && !sameShape(whole.shape, joined)) {
      throw new ShapeError(
        `${name}: ${what} must have shape ${textOf(stacked)} or ${textOf(joined)}, ${this.size} times ${textOf(shape)}, got ${
          textOf(whole.shape)
        }`,
      );
    }
    if (whole.dtype !== part.dtype) throw new DTypeError(`${name}: ${what} must be ${part.dtype} as the other tensor, got ${whole.dtype}`);
  }

  #checkList(name: string, what: string, list: readonly Tensor[], part: Tensor): void {
    if (list.length !== this.size) {
      throw new ShapeError(`${name}: ${what} must have a tensor for each of the ${this.size} ranks, got ${list.length}`);
    }
    for (const it of list) {
      this.#check(name, it);
      if (!sameShape(it.shape, part.shape) || it.dtype !== part.dtype) {
        throw new ShapeError(
          `${name}: each tensor of ${what} must have shape ${textOf(part.shape)} and dtype ${part.dtype}, got ${
            textOf(it.shape)
          } of ${it.dtype}`,
        );
      }
    }
  }
}
