/**
 * The process group of this process and the collective operations on it: `torch.distributed`.
 *
 * @module
 */
import type { DeviceLike } from "../ffi/device.ts";
import { DistributedError } from "../ffi/errors.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type BackendName, chooseBackend } from "./backend.ts";
import { connect, type Exchange, exchangeOver } from "./connect.ts";
import { type CollectiveOptions, DEFAULT_TIMEOUT, type MessageOptions, type ProcessGroup, type ReduceOptions } from "./process_group.ts";
import { rendezvous } from "./rendezvous.ts";
import { PrefixStore, type Store } from "./store.ts";
import { allGatherObject } from "./objects.ts";
import { isInitialized, setWorld, theWorld, within } from "./world.ts";
import type { Work } from "./work.ts";

/** Options of {@linkcode initProcessGroup}. */
export interface InitOptions {
  /** What carries the collectives: `"gloo"`, for CPU tensors, or `"nccl"`, for CUDA tensors. Default: what `device` needs, `"gloo"` without one. */
  backend?: BackendName;
  /**
   * Where the tensors of the collectives are. Default: the CPU for `"gloo"`; for `"nccl"`, and for `"cuda"` without a number, the CUDA device with the number of
   * this process on its machine (`LOCAL_RANK`), counted over again where there are fewer devices.
   */
  device?: DeviceLike;
  /** Where the processes meet: `env://`, `tcp://host:port` or `file:///path`, see {@linkcode rendezvous}. Default `"env://"`. */
  initMethod?: string | URL;
  /** Number of processes. Default: from the environment. */
  worldSize?: number;
  /** Number of this process, from 0. Default: from the environment. */
  rank?: number;
  /** A store that all processes see, instead of `initMethod`; `rank` and `worldSize` must be given with it. It is left open at the end. */
  store?: Store;
  /** Milliseconds for meeting, and for each collective unless told otherwise. Default 300 000. */
  timeout?: number;
  /**
   * Host name, IP address or network interface that the other processes reach this one at. Default: loopback if all are on one machine, else
   * `GLOO_SOCKET_IFNAME` (for NCCL `NCCL_SOCKET_IFNAME`), else the first address of this machine.
   */
  address?: string;
}

/** Options of {@linkcode newGroup}. */
export interface NewGroupOptions extends Pick<InitOptions, "backend" | "device"> {
  /** Milliseconds for connecting, and for each collective. Default: that of `initProcessGroup`. */
  timeout?: number;
}

/** What a collective on the process group of this process may be given. */
export interface GroupOptions {
  /** Which ranks take part. Default: all. */
  group?: ProcessGroup;
  /** Return at once; the result is there once the work has ended. Default `false`: block until then. */
  asyncOp?: boolean;
}

let joining = false;

/** Tells the other ranks why this one ends, should it end by an error that nobody catches. */
function tellOnError(group: ProcessGroup): () => void {
  const say = (error: unknown) =>
    group.abort(`rank ${group.rank} raised ${error instanceof Error ? `${error.name}: ${error.message}` : String(error)}`);
  const onError = (event: ErrorEvent) => say(event.error), onRejection = (event: PromiseRejectionEvent) => say(event.reason);
  globalThis.addEventListener("error", onError);
  globalThis.addEventListener("unhandledrejection", onRejection);
  return () => {
    globalThis.removeEventListener("error", onError);
    globalThis.removeEventListener("unhandledrejection", onRejection);
  };
}

/**
 * Makes this process one of the ranks that train together (`torch.distributed.init_process_group`). All ranks must call it. A script that the launcher
 * started needs no arguments. Should the process end by an error that nothing catches, the other ranks are told which.
 *
 * @throws {DistributedError} If there is a process group already, a rank does not arrive within the timeout, or it cannot be reached.
 * @throws {LibraryNotFoundError} If the native library is not built; the message holds the command that does.
 *
 * @example A group of one, as a script has it without the launcher
 * ```ts
 * import { distributed, tensor } from "@dinograd/dinograd";
 * import { assertEquals } from "@std/assert";
 * await distributed.initProcessGroup({ store: new distributed.HashStore(), rank: 0, worldSize: 1 });
 * assertEquals([distributed.getRank(), distributed.getWorldSize(), distributed.getBackend()], [0, 1, "gloo"]);
 * const x = tensor([1, 2]);
 * distributed.allReduce(x);
 * assertEquals(x.tolist(), [1, 2]);
 * await distributed.destroyProcessGroup();
 * ```
 */
export async function initProcessGroup(options: InitOptions = {}): Promise<void> {
  const op = "initProcessGroup", timeout = options.timeout ?? DEFAULT_TIMEOUT;
  if (isInitialized() || joining) {
    throw new DistributedError(`${op}: there is a process group already: call await destroyProcessGroup() first`);
  }
  if (typeof timeout !== "number" || !(timeout > 0)) throw new RangeError(`${op}: timeout must be milliseconds above 0, got ${timeout}`);
  const backend = chooseBackend(op, options.backend, options.device, options.rank);
  joining = true;
  let store: Store | undefined;
  try {
    let rank: number, worldSize: number;
    if (options.store !== undefined) {
      if (options.initMethod !== undefined) throw new TypeError(`${op}: give a store or an initMethod, not both`);
      if (options.rank === undefined || options.worldSize === undefined) {
        throw new TypeError(`${op}: rank and worldSize must be given with a store`);
      }
      ({ store, rank, worldSize } = { store: options.store, rank: options.rank, worldSize: options.worldSize });
      if (!Number.isInteger(worldSize) || worldSize < 1) {
        throw new RangeError(`${op}: worldSize must be a whole number >= 1, got ${worldSize}`);
      }
      if (!Number.isInteger(rank) || rank < 0 || rank >= worldSize) {
        throw new RangeError(`${op}: rank must be 0 to ${worldSize - 1}, got ${rank}`);
      }
    } else {
      const { initMethod = "env://", rank: wantedRank, worldSize: wantedSize } = options;
      ({ store, rank, worldSize } = await rendezvous(initMethod, { rank: wantedRank, worldSize: wantedSize, timeout }));
    }
    const ranks = Array.from({ length: worldSize }, (_, i) => i), { address } = options;
    const exchange = exchangeOver(backend.name, new PrefixStore("world", store), rank, worldSize, timeout);
    const group = await connect({ backend, rank, ranks, exchange, timeout, address });
    setWorld({
      group,
      backend,
      store,
      ownStore: options.store === undefined,
      timeout,
      address,
      groups: new Set(),
      stop: tellOnError(group),
    });
    // Nobody goes on, to block in a collective perhaps, while another still needs the store that this process may serve.
    await group.barrier({ timeout }).done();
  } catch (error) {
    if (isInitialized()) await destroyProcessGroup();
    else if (options.store === undefined) await store?.close();
    throw error;
  } finally {
    joining = false;
  }
}

/** Number of this process among all, or in `group`. */
export function getRank(group?: ProcessGroup): number {
  return (group ?? theWorld("getRank").group).rank;
}

/** Number of all processes, or of those in `group`. */
export function getWorldSize(group?: ProcessGroup): number {
  return (group ?? theWorld("getWorldSize").group).size;
}

/** What carries the collectives: `"gloo"` or `"nccl"`. */
export function getBackend(group?: ProcessGroup): string {
  return (group ?? theWorld("getBackend").group).backend;
}

/**
 * Makes a group of some of the ranks (`torch.distributed.new_group`). All ranks must call it, those outside the group too, in the same order.
 *
 * @param ranks Global ranks, in the order that numbers them within the group. Default: all.
 * @param options.timeout Milliseconds for connecting, and for each collective. Default: that of `initProcessGroup`.
 * @param options.backend What carries its collectives. Default: that of `initProcessGroup`.
 * @param options.device Where its tensors are. Default: that of `initProcessGroup`, or with a `backend` what fits it.
 * @returns The group, or `null` for a rank outside it.
 */
export async function newGroup(ranks?: readonly number[], options: NewGroupOptions = {}): Promise<ProcessGroup | null> {
  const it = theWorld("newGroup"), { group } = it, list = [...ranks ?? group.ranks], timeout = options.timeout ?? it.timeout;
  if (list.length === 0) throw new RangeError("newGroup: ranks must not be empty");
  for (const rank of list) {
    if (!Number.isInteger(rank) || rank < 0 || rank >= group.size) {
      throw new RangeError(`newGroup: ranks must be 0 to ${group.size - 1}, got ${rank}`);
    }
  }
  if (new Set(list).size !== list.length) throw new RangeError(`newGroup: a rank is named twice: ${list.join(", ")}`);
  const backend = options.backend === undefined && options.device === undefined
    ? it.backend
    : chooseBackend("newGroup", options.backend, options.device, group.rank);
  const rank = list.indexOf(group.rank), nothing = new Uint8Array(1);
  // Over the group of all, so that whatever happens to a rank meanwhile is told to the others.
  const exchange: Exchange = async (what, value) => {
    const all = await allGatherObject([what, list.join(" "), value], { group, timeout });
    const other = all.findIndex(([, ranks]) => ranks !== list.join(" "));
    if (other >= 0) {
      throw new DistributedError(
        `newGroup: all ranks must name the same ranks: rank ${group.rank} names ${list.join(", ")}, rank ${other} ${
          String(all[other][1]).replaceAll(" ", ", ")
        }`,
        { rank: other },
      );
    }
    return list.map((member) => all[member][2] as Uint8Array);
  };
  let made: ProcessGroup | null = null, failure: unknown;
  try {
    if (rank < 0) {
      await exchange("machine", nothing);
      await exchange("blob", nothing);
    } else {
      made = await connect({ backend, rank, ranks: list, exchange, timeout, address: it.address });
      it.groups.add(made);
    }
  } catch (error) {
    failure = error;
  }
  const failures = await allGatherObject(failure === undefined ? null : String(failure), { group, timeout });
  if (failure !== undefined) throw failure;
  const failed = failures.findIndex((it) => it !== null);
  if (failed < 0) return made;
  await made?.close();
  throw new DistributedError(`newGroup: on rank ${failed}: ${failures[failed]}`, { rank: failed });
}

/**
 * Leaves a group, or all of them (`torch.distributed.destroy_process_group`). Works that have not ended fail.
 *
 * @param group A group of `newGroup`. Default: all groups; afterwards there is no process group.
 */
export async function destroyProcessGroup(group?: ProcessGroup): Promise<void> {
  const it = theWorld("destroyProcessGroup");
  if (group !== undefined && group !== it.group) {
    it.groups.delete(group);
    return await group.close();
  }
  setWorld(null);
  it.stop();
  for (const each of it.groups) await each.close();
  await it.group.close();
  if (it.ownStore) await it.store.close();
}

// ---- collectives

function ended(work: Work, options: GroupOptions | undefined): Work {
  if (options?.asyncOp !== true) work.wait();
  return work;
}

function groupOf(op: string, options: GroupOptions | undefined): ProcessGroup {
  return options?.group ?? theWorld(op).group;
}

/**
 * Replaces `tensor` on every rank by the reduction of those of all ranks, the same bits everywhere (`torch.distributed.all_reduce`).
 *
 * @param tensor Same dtype and number of elements on every rank; changed in place.
 * @param options.op `"sum"` (default), `"average"`, `"product"`, `"min"` or `"max"`.
 * @returns The work, which has ended unless `asyncOp` is true.
 * @throws {DistributedError} If a rank fails, calls something else or does not take part in time.
 */
export function allReduce(tensor: Tensor, options?: GroupOptions & ReduceOptions): Work {
  return ended(groupOf("allReduce", options).allReduce(tensor, options), options);
}

/** Replaces `tensor` on rank `dst` by the reduction of those of all ranks (`torch.distributed.reduce`). `dst` is a global rank. */
export function reduce(tensor: Tensor, dst: number, options?: GroupOptions & ReduceOptions): Work {
  const group = groupOf("reduce", options);
  return ended(group.reduce(tensor, within("reduce", group, dst, "dst"), options), options);
}

/** Replaces `tensor` on every rank by that of rank `src` (`torch.distributed.broadcast`). `src` is a global rank. */
export function broadcast(tensor: Tensor, src: number, options?: GroupOptions & CollectiveOptions): Work {
  const group = groupOf("broadcast", options);
  return ended(group.broadcast(tensor, within("broadcast", group, src, "src"), options), options);
}

/** Writes the tensor of every rank to the tensors of `list`, by rank (`torch.distributed.all_gather`). */
export function allGather(list: readonly Tensor[], tensor: Tensor, options?: GroupOptions & CollectiveOptions): Work {
  return ended(groupOf("allGather", options).allGather(list, tensor, options), options);
}

/**
 * Writes the tensors of all ranks to one (`torch.distributed.all_gather_into_tensor`).
 *
 * @param output Shape `[size, ...]`, or that of `tensor` with a first axis `size` times as long.
 */
export function allGatherIntoTensor(output: Tensor, tensor: Tensor, options?: GroupOptions & CollectiveOptions): Work {
  return ended(groupOf("allGatherIntoTensor", options).allGather(output, tensor, options), options);
}

/** Reduces the lists of all ranks and writes the part with this rank's number to `output` (`torch.distributed.reduce_scatter`). */
export function reduceScatter(output: Tensor, list: readonly Tensor[], options?: GroupOptions & ReduceOptions): Work {
  return ended(groupOf("reduceScatter", options).reduceScatter(output, list, options), options);
}

/** The same with the parts in one tensor, as {@linkcode allGatherIntoTensor} (`torch.distributed.reduce_scatter_tensor`). */
export function reduceScatterTensor(output: Tensor, input: Tensor, options?: GroupOptions & ReduceOptions): Work {
  return ended(groupOf("reduceScatterTensor", options).reduceScatter(output, input, options), options);
}

/**
 * Writes the tensor of every rank to the tensors of `list` on rank `dst` (`torch.distributed.gather`).
 *
 * @param list One tensor a rank on rank `dst`, `null` elsewhere.
 * @param options.dst Global rank that gathers. Default 0.
 */
export function gather(
  tensor: Tensor,
  list: readonly Tensor[] | null,
  options?: GroupOptions & CollectiveOptions & { dst?: number },
): Work {
  const group = groupOf("gather", options);
  return ended(group.gather(list, tensor, within("gather", group, options?.dst ?? 0, "dst"), options), options);
}

/**
 * Writes the tensors of `list` on rank `src` to the `tensor` of each rank (`torch.distributed.scatter`).
 *
 * @param list One tensor a rank on rank `src`, `null` elsewhere.
 * @param options.src Global rank that scatters. Default 0.
 */
export function scatter(
  tensor: Tensor,
  list: readonly Tensor[] | null,
  options?: GroupOptions & CollectiveOptions & { src?: number },
): Work {
  const group = groupOf("scatter", options);
  return ended(group.scatter(tensor, list, within("scatter", group, options?.src ?? 0, "src"), options), options);
}

/** Sends tensor `i` of `input` to rank `i`, which receives it as tensor (this rank) of its `output` (`torch.distributed.all_to_all`). */
export function allToAll(output: readonly Tensor[], input: readonly Tensor[], options?: GroupOptions & CollectiveOptions): Work {
  return ended(groupOf("allToAll", options).allToAll(output, input, options), options);
}

/** The same with one tensor of equal parts along the first axis (`torch.distributed.all_to_all_single`). */
export function allToAllSingle(output: Tensor, input: Tensor, options?: GroupOptions & CollectiveOptions): Work {
  return ended(groupOf("allToAllSingle", options).allToAll(output, input, options), options);
}

/** Sends a tensor to the global rank `dst` (`torch.distributed.send`, with `asyncOp` `isend`). */
export function send(tensor: Tensor, dst: number, options?: GroupOptions & MessageOptions): Work {
  const group = groupOf("send", options);
  return ended(group.send(tensor, within("send", group, dst, "dst"), options), options);
}

/**
 * Receives into a tensor (`torch.distributed.recv`, with `asyncOp` `irecv`).
 *
 * @param src Global rank, or `null` for what comes first from any; `sourceRank()` of the work tells from which. One tag is to be waited for in one of these
 * ways at a time: which of two such receives a message meets is not defined.
 */
export function recv(tensor: Tensor, src: number | null, options?: GroupOptions & MessageOptions): Work {
  const group = groupOf("recv", options);
  return ended(group.recv(tensor, src === null ? null : within("recv", group, src, "src"), options), options);
}

/** Ends when all ranks have called it (`torch.distributed.barrier`). */
export function barrier(options?: GroupOptions & CollectiveOptions): Work {
  return ended(groupOf("barrier", options).barrier(options), options);
}
