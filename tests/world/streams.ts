/** Collectives on a device that goes on while they run. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { cuda, DeviceError, distributed, DistributedError, full, memory, ones, type Tensor, zeros } from "../../mod.ts";

const first = (x: Tensor) => x.tolist() as number[];

/** What reads a result without waiting for the work must sometimes see it too early, and never what waits. */
export function missingWait(_rank: number, size: number): Promise<void> {
  let early = 0;
  for (let i = 1; i <= 30; i++) {
    const x = full([16], i), work = distributed.allReduce(x, { asyncOp: true }), unwaited = x.mul(1);
    work.wait();
    const waited = x.mul(1), ahead = full([4], i);
    distributed.allReduce(ahead);
    if (first(unwaited).some((it) => it !== i * size)) early++;
    assertEquals(first(waited), Array(16).fill(i * size));
    assertEquals(first(ahead), Array(4).fill(i * size));
  }
  console.log(JSON.stringify({ event: "read", early }));
  return Promise.resolve();
}

/** Steps as a training makes them: sums of what kernels have just written, in place and staged, and memory that is given back at once. */
export async function steps(rank: number, size: number): Promise<void> {
  const { device } = distributed.defaultGroup(), total = size * (size + 1) / 2;
  for (let i = 1; i <= 10; i++) {
    const a = full([33], rank + 1).mul(i), b = full([3, 5], rank + 1).mul(i);
    const works = [distributed.allReduce(a, { asyncOp: true }), distributed.allReduce(b.transpose(0, 1), { asyncOp: true })];
    const list = Array.from({ length: size }, () => zeros([7]));
    distributed.allGather(list, full([7], rank + i));
    const passing = ones([1000]);
    distributed.allReduce(passing, { asyncOp: true });
    passing.dispose();
    for (const work of works) work.wait();
    assertEquals(first(a.sub(i * total)), Array(33).fill(0));
    assertEquals(b.sub(i * total).abs().sum().item(), 0);
    list.forEach((it, r) => assertEquals(first(it), Array(7).fill(r + i)));
  }
  const before = cuda.runtimeStats(device).synchronisations;
  const x = ones([8]);
  for (let i = 0; i < 5; i++) distributed.allReduce(x).wait();
  assertEquals(cuda.runtimeStats(device).synchronisations, before, "waiting for a work must not wait for the device");
  assertEquals(first(x), Array(8).fill(size ** 5));
  assertThrows(
    () => cuda.capture(device, () => distributed.allReduce(x)),
    DeviceError,
    "allReduce: stream_handle: not while a step is captured",
  );
  assertThrows(() => distributed.allReduce(x.to("cpu")), DeviceError, `takes part over nccl with ${device}`);
  assertEquals([distributed.getBackend(), device.index], ["nccl", rank]);
  distributed.allReduce(x);
  assertEquals(first(x), Array(8).fill(size ** 6));
  await memory.collect();
}

/** A collective fails after `wait()` has returned: what reads the result says so, and the next collective, too. */
export async function failsLater(rank: number): Promise<void> {
  const group = (await distributed.newGroup())!;
  if (rank === 0) {
    const x = ones([5]), work = group.allReduce(x, { timeout: 300 });
    work.wait();
    const error = assertThrows(() => x.mul(2).tolist(), DistributedError, "timed out after 300 ms: rank 1 did not call it");
    assertEquals([error.rank, error.collective], [1, "allReduce"]);
    assertEquals(first(ones([2])), [1, 1]);
    assert(work.isCompleted());
    assertThrows(() => work.wait(), DistributedError, "did not call it");
    assertThrows(() => group.barrier().wait(), DistributedError, "cannot run, the process group has failed");
  }
  distributed.barrier();
  await group.close();
  const x = ones([2]);
  distributed.allReduce(x);
  assertEquals(first(x), [2, 2]);
}
