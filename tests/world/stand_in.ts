/** The stand-in for NCCL, called directly: two emulated devices of one process. Writes what each case came to as a line of JSON. */
import { assertEquals, assertMatch, assertNotEquals, assertThrows } from "@std/assert";
import { device as deviceOf, type DeviceLike } from "../../ffi/device.ts";
import { check, libraryOf, openedPath } from "../../ffi/library.ts";
import { ncclPath } from "../../ffi/locate.ts";
import { cuda, DeviceError, full, type Tensor, zeros } from "../../mod.ts";

const kernels = libraryOf(deviceOf("cuda"));
const library = Deno.dlopen(
  openedPath("cuda")!,
  {
    dg_stream_handle: { parameters: ["u32", "u32", "buffer"], result: "i32" },
    dg_mark_create: { parameters: ["u32"], result: "u32" },
    dg_mark_free: { parameters: ["u32"], result: "i32" },
    dg_mark_record: { parameters: ["u32", "u32"], result: "i32" },
    dg_mark_wait: { parameters: ["u32", "u32"], result: "i32" },
    dg_mark_done: { parameters: ["u32", "buffer"], result: "i32" },
  } as const,
).symbols;
const id = { struct: Array(128).fill("u8") } as const;
const operation = ["usize", "usize", "usize", "i32", "i32", "usize", "usize"] as const; // in, out, count, type, op, comm, stream
const nccl = Deno.dlopen(
  ncclPath(openedPath("cuda")!),
  {
    ncclGetUniqueId: { parameters: ["buffer"], result: "i32" },
    ncclCommInitRankConfig: { parameters: ["buffer", "i32", id, "i32", "buffer"], result: "i32" },
    ncclCommAbort: { parameters: ["usize"], result: "i32" },
    ncclCommDestroy: { parameters: ["usize"], result: "i32" },
    ncclCommCount: { parameters: ["usize", "buffer"], result: "i32" },
    ncclCommGetAsyncError: { parameters: ["usize", "buffer"], result: "i32" },
    ncclGetLastError: { parameters: ["usize"], result: "pointer" },
    ncclGroupStart: { parameters: [], result: "i32" },
    ncclGroupEnd: { parameters: [], result: "i32" },
    ncclAllReduce: { parameters: operation, result: "i32" },
    ncclBroadcast: { parameters: operation, result: "i32" },
    ncclSend: { parameters: ["usize", "usize", "i32", "i32", "usize", "usize"], result: "i32" },
    ncclRecv: { parameters: ["usize", "usize", "i32", "i32", "usize", "usize"], result: "i32" },
  } as const,
).symbols;
const Result = { success: 0, invalidArgument: 4, invalidUsage: 5, inProgress: 7 }, FLOAT = 7, SUM = 0, COMMUNICATION = 1;

/** Address of a tensor's first element. */
function address(x: Tensor): bigint {
  const region = new BigUint64Array(3);
  check(kernels.dg_storage_pin(x.storage.id, region as unknown as Uint8Array<ArrayBuffer>), kernels);
  check(kernels.dg_storage_unpin(x.storage.id), kernels);
  return region[0];
}

/** Makes a device the current one of this thread and gives its communication stream. */
function stream(index: number): bigint {
  const handle = new BigUint64Array(1);
  check(library.dg_stream_handle(index, COMMUNICATION, handle as unknown as Uint8Array<ArrayBuffer>), kernels);
  return handle[0];
}

function uniqueId(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(128);
  assertEquals(nccl.ncclGetUniqueId(bytes), Result.success);
  return bytes;
}

/** A configuration as of release 2.18 with only `blocking` set. */
function config(blocking: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(48), view = new DataView(bytes.buffer), unset = -(2 ** 31);
  view.setBigUint64(0, 48n, true);
  view.setUint32(8, 0xcafebeef, true);
  view.setUint32(12, 21800, true);
  [blocking, unset, unset, unset].forEach((value, i) => view.setInt32(16 + 4 * i, value, true));
  view.setInt32(40, unset, true);
  return bytes;
}

function init(
  size: number,
  rank: number,
  name: Uint8Array<ArrayBuffer>,
  device: number,
  blocking = 1,
): { status: number; comm: BigUint64Array } {
  stream(device);
  const comm = new BigUint64Array(1);
  const status = nccl.ncclCommInitRankConfig(comm as unknown as Uint8Array<ArrayBuffer>, size, name, rank, config(blocking));
  return { status, comm };
}

const lastError = () => new Deno.UnsafePointerView(nccl.ncclGetLastError(0n)!).getCString();

/** Two ranks of this process, in one group call. */
function pair(devices: [number, number] = [0, 1]): { status: number; comms: bigint[] } {
  const name = uniqueId();
  assertEquals(nccl.ncclGroupStart(), Result.success);
  const ranks = devices.map((device, rank) => init(2, rank, name, device));
  const status = nccl.ncclGroupEnd();
  return { status, comms: ranks.map((it) => it.comm[0]) };
}

const allReduce = (x: Tensor, comm: bigint, index: number) => {
  const at = address(x);
  return nccl.ncclAllReduce(at, at, BigInt(x.numel()), FLOAT, SUM, comm, stream(index));
};
const on = (index: number) => ({ device: `cuda:${index}` as DeviceLike });

function both(fn: (index: number) => number): number {
  assertEquals(nccl.ncclGroupStart(), Result.success);
  for (const index of [0, 1]) assertEquals(fn(index), Result.success);
  return nccl.ncclGroupEnd();
}

const cases: Record<string, () => void | Promise<void>> = {
  /** Several devices of one process, each with a rank. */
  group() {
    assertEquals(nccl.ncclGroupEnd(), Result.invalidUsage);
    const { status, comms } = pair(), count = new Int32Array(1);
    assertEquals(status, Result.success);
    assertEquals(nccl.ncclCommCount(comms[1], count as unknown as Uint8Array<ArrayBuffer>), Result.success);
    assertEquals(count[0], 2);
    const x = [0, 1].map((i) => full([5], i + 1, on(i)));
    [0, 1].forEach((i) => cuda.synchronize(on(i).device));
    assertEquals(both((i) => allReduce(x[i], comms[i], i)), Result.success);
    [0, 1].forEach((i) => cuda.synchronize(on(i).device));
    assertEquals(x.map((it) => it.tolist()), [[3, 3, 3, 3, 3], [3, 3, 3, 3, 3]]);
    // Messages in a group: each rank sends before it receives.
    const y = [0, 1].map((i) => zeros([5], on(i)));
    [0, 1].forEach((i) => cuda.synchronize(on(i).device));
    const status2 = both((i) => {
      const sent = nccl.ncclSend(address(x[i]), 5n, FLOAT, 1 - i, comms[i], stream(i));
      return sent || nccl.ncclRecv(address(y[i]), 5n, FLOAT, 1 - i, comms[i], stream(i));
    });
    assertEquals(status2, Result.success);
    [0, 1].forEach((i) => cuda.synchronize(on(i).device));
    assertEquals(y[1].tolist(), [3, 3, 3, 3, 3]);
    for (const comm of comms) assertEquals(nccl.ncclCommDestroy(comm), Result.success);
    assertEquals(nccl.ncclCommDestroy(comms[0]), Result.invalidArgument);
  },

  /** What a call is refused for. */
  arguments() {
    const { comms } = pair(), x = full([5], 1, on(0)), at = address(x), s = stream(0);
    assertEquals(nccl.ncclAllReduce(at, at, 5n, FLOAT, SUM, 0n, s), Result.invalidArgument);
    assertEquals(nccl.ncclAllReduce(at, at, 5n, 99, SUM, comms[0], s), Result.invalidArgument);
    assertEquals(nccl.ncclAllReduce(at, at, 5n, FLOAT, 9, comms[0], s), Result.invalidArgument);
    assertEquals(nccl.ncclBroadcast(at, at, 5n, FLOAT, 2, comms[0], s), Result.invalidArgument);
    assertMatch(lastError(), /invalid root 2/);
    assertEquals(nccl.ncclAllReduce(16n, 16n, 5n, FLOAT, SUM, comms[0], s), Result.invalidArgument);
    assertEquals(nccl.ncclAllReduce(at, at, 5n, FLOAT, SUM, comms[1], s), Result.invalidArgument);
    assertMatch(lastError(), /not memory of device 1/);
    assertEquals(init(2, 2, uniqueId(), 0).status, Result.invalidArgument);
    assertEquals(init(2, 0, new Uint8Array(128), 0).status, Result.invalidArgument);
    assertMatch(lastError(), /not a unique id/);
    assertEquals(pair([1, 1]).status, Result.invalidUsage);
    assertMatch(lastError(), /Duplicate GPU detected: rank 0 and rank 1 both on CUDA device 1/);
    for (const comm of comms) assertEquals(nccl.ncclCommAbort(comm), Result.success);
  },

  /** Communicators that do not block must be asked until they are done. */
  async nonBlocking() {
    const name = uniqueId(), ranks = [0, 1].map((rank) => init(2, rank, name, rank, 0));
    assertEquals(ranks.map((it) => it.status), [Result.inProgress, Result.inProgress]);
    const comms = ranks.map((it) => it.comm[0]), state = new Int32Array(1);
    const ended = async () => {
      for (const comm of comms) {
        do {
          await new Promise((wake) => setTimeout(wake, 1));
          assertEquals(nccl.ncclCommGetAsyncError(comm, state as unknown as Uint8Array<ArrayBuffer>), Result.success);
        } while (state[0] === Result.inProgress);
        assertEquals(state[0], Result.success);
      }
    };
    await ended();
    const x = [0, 1].map((i) => full([5], i + 1, on(i)));
    [0, 1].forEach((i) => cuda.synchronize(on(i).device));
    assertEquals(allReduce(x[0], comms[0], 0), Result.inProgress); // it connects at the first use
    assertEquals(allReduce(x[0], comms[0], 0), Result.invalidArgument);
    assertMatch(lastError(), /before the previous operation returned ncclSuccess/);
    assertEquals(allReduce(x[1], comms[1], 1), Result.inProgress);
    await ended();
    [0, 1].forEach((i) => cuda.synchronize(on(i).device));
    assertEquals(x[0].tolist(), [3, 3, 3, 3, 3]);
    for (const comm of comms) assertEquals(nccl.ncclCommDestroy(comm), Result.success);
  },

  /** An operation that only one rank calls stands still until the communicator is aborted. */
  abort() {
    const { comms } = pair(), x = full([5], 1, on(0)), done = new Uint32Array(1), mark = library.dg_mark_create(0);
    cuda.synchronize(on(0).device);
    assertEquals(allReduce(x, comms[0], 0), Result.success);
    check(library.dg_mark_record(mark, COMMUNICATION), kernels);
    const passed = () => {
      check(library.dg_mark_done(mark, done as unknown as Uint8Array<ArrayBuffer>), kernels);
      return done[0] === 1;
    };
    for (let i = 0; i < 50; i++) assertEquals(passed(), false);
    assertEquals(nccl.ncclCommAbort(comms[0]), Result.success);
    cuda.synchronize(on(0).device);
    assertEquals(passed(), true);
    check(library.dg_mark_free(mark), kernels);
    assertEquals(nccl.ncclCommAbort(comms[1]), Result.success);
  },

  /** With a wait for the stream that writes its operand an operation is right, and without one the emulator finds it. */
  missingWait() {
    const { comms } = pair(), marks = [0, 1].map((i) => library.dg_mark_create(i));
    const round = (wait: boolean) => {
      const x = [0, 1].map((i) => full([64], i + 1, on(i)));
      const status = both((i) => {
        if (wait) {
          check(library.dg_mark_record(marks[i], 0), kernels);
          check(library.dg_mark_wait(marks[i], COMMUNICATION), kernels);
        }
        return allReduce(x[i], comms[i], i);
      });
      assertEquals(status, Result.success);
      [0, 1].forEach((i) => cuda.synchronize(on(i).device));
      return x[0].tolist();
    };
    for (let i = 0; i < 10; i++) assertEquals(round(true), Array(64).fill(3));
    const error = assertThrows(() => {
      for (let i = 0; i < 50; i++) assertNotEquals(round(false), null);
    }, DeviceError);
    assertMatch(error.message, /ncclAllReduce (reads what was never written|reads outside its buffers)/);
  },
};

await cases[Deno.args[0]]();
