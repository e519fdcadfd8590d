/** Wrong calls, each answered before anything is sent, and works that fail; the default group lives on. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  AutogradError,
  device as deviceOf,
  DisposedError,
  distributed,
  DistributedError,
  DTypeError,
  fromArray,
  ones,
  ShapeError,
  tensor,
  zeros,
} from "../../mod.ts";

type Failing = (group: distributed.ProcessGroup) => distributed.Work;

/** Both ranks fail with one text. */
async function differ(rank: number, first: Failing, second: Failing, text: RegExp): Promise<void> {
  const group = (await distributed.newGroup())!;
  const work = (rank === 0 ? first : second)(group);
  const error = await assertRejects(() => work.done(), DistributedError);
  assert(text.test(error.message), `${error.message} is not ${text}`);
  assertThrows(() => work.wait(), DistributedError);
  const later = assertThrows(() => group.barrier().wait(), DistributedError, "cannot run, the process group has failed");
  assertEquals(later.collective, "barrier");
  await group.close();
}

export async function misuse(rank: number, size: number): Promise<void> {
  const world = distributed.defaultGroup(), cpu = deviceOf("cpu"), bad = (it: unknown) => it as never;
  assertThrows(() => distributed.allReduce(bad([1, 2])), TypeError, "must be a tensor");
  assertThrows(() => distributed.allReduce(ones([2]), { op: bad("mean") }), TypeError, "sum, average, product, min, max");
  assertThrows(() => distributed.allReduce(ones([2], { dtype: "int32" }), { op: "average" }), DTypeError, "floating point");
  assertThrows(() => distributed.allReduce(tensor([true])), DTypeError, "bool");
  assertThrows(() => distributed.allReduce(ones([2]), { timeout: 0 }), RangeError, "timeout");
  assertThrows(() => distributed.broadcast(ones([2]), size), RangeError, "src must be one of the group's ranks");
  assertThrows(() => world.broadcast(ones([2]), -1), RangeError, "root must be a rank of the group");
  assertThrows(() => distributed.allGatherIntoTensor(ones([3, 2]), ones([2])), ShapeError, "[2, 2] or [4]");
  assertThrows(() => distributed.allGatherIntoTensor(ones([2, 2], { dtype: "float64" }), ones([2])), DTypeError, "float32");
  assertThrows(() => distributed.allGather([ones([2])], ones([2])), ShapeError, "each of the 2 ranks");
  assertThrows(() => distributed.allGather([ones([2]), ones([3])], ones([2])), ShapeError, "[3]");
  assertThrows(
    () => distributed.gather(ones([2]), rank === 0 ? null : [ones([2]), ones([2])]),
    TypeError,
    rank === 0 ? "must give" : "must be null",
  );
  assertThrows(() => distributed.allToAllSingle(ones([3]), ones([3])), ShapeError, "2 equal parts");
  assertThrows(() => distributed.send(ones([1]), rank), RangeError, "this rank itself");
  assertThrows(() => distributed.send(ones([1]), 1 - rank, { tag: -1 }), RangeError, "tag");
  const whole = ones([4]);
  assertThrows(() => distributed.allGatherIntoTensor(whole, whole.narrow(0, 1, 2)), RangeError, "share memory");
  assertThrows(() => distributed.allReduce(ones([1]).expand([4])), ShapeError, "single memory location");
  const leaf = tensor([1, 2], { requiresGrad: true });
  assertThrows(() => distributed.allReduce(leaf), AutogradError, "noGrad");
  assertThrows(() => distributed.allReduce(leaf.mul(2)), AutogradError, "not differentiable");
  const gone = ones([2]);
  gone.dispose();
  assertThrows(() => distributed.allReduce(gone), DisposedError);
  if (world.device === cpu) { // memory of JavaScript's that is taken away while the ranks talk
    const lent = new Float32Array(1 << 20), over = fromArray(lent), work = distributed.allReduce(over, { asyncOp: true });
    structuredClone(lent.buffer, { transfer: [lent.buffer] });
    work.wait();
    assertThrows(() => over.tolist(), DisposedError, "transferred");
  }
  await assertRejects(() => distributed.initProcessGroup(), DistributedError, "already");
  await assertRejects(() => distributed.newGroup([0, 0]), RangeError, "twice");
  await assertRejects(() => distributed.newGroup([]), RangeError, "empty");
  await assertRejects(() => distributed.newGroup([size]), RangeError, "0 to 1");

  const sum = (count: number): Failing => (group) => group.allReduce(ones([count]));
  await differ(
    rank,
    sum(10),
    (g) => g.broadcast(ones([10]), 0),
    /rank 0 called allReduce #1 of float32\[10\] \(sum\), rank 1 called broadcast #1 of float32\[10\] \(root 0\)/,
  );
  await differ(rank, sum(10), sum(11), /allReduce #1 of float32\[10\].*allReduce #1 of float32\[11\]/);
  await differ(rank, sum(10), (g) => g.allReduce(ones([10], { dtype: "float64" })), /float32\[10\].*float64\[10\]/);
  await differ(rank, sum(10), (g) => g.allReduce(ones([10]), { op: "max" }), /\(sum\).*\(max\)/);
  await differ(rank, (g) => g.broadcast(ones([1]), 0), (g) => g.broadcast(ones([1]), 1), /root 0\).*root 1\)/);
  await differ(rank, (g) => g.reduce(ones([1]), 0), (g) => g.gather(rank === 0 ? zeros([2]) : null, ones([1]), 0), /reduce.*gather/);

  // Too late: the one that is waited for is named, by both.
  const slow = (await distributed.newGroup())!;
  if (rank === 0) {
    const error = assertThrows(() => slow.allReduce(ones([3]), { timeout: 200 }).wait(20_000), DistributedError);
    assert(
      /allReduce #1 of float32\[3\] \(sum\) on rank 0 timed out after 200 ms: rank 1 did not call it/.test(error.message),
      error.message,
    );
    assertEquals([error.rank, error.collective], [1, "allReduce"]);
  }
  distributed.barrier();
  if (rank === 1) assertThrows(() => slow.allReduce(ones([3])).wait(20_000), DistributedError, "rank 1 did not call it");
  // Waiting may end before the work does.
  const waited = (await distributed.newGroup())!;
  const aside = world.device === cpu ? world : (await distributed.newGroup(undefined, { backend: "gloo" }))!; // groups of a GPU have one order
  const work = rank === 0 ? waited.barrier() : null;
  if (work !== null) assertThrows(() => work.wait(20), DistributedError, "it goes on");
  aside.barrier().wait();
  if (rank === 1) waited.barrier().wait();
  work?.wait();
  // What nobody receives.
  const silent = (await distributed.newGroup())!;
  if (rank === 0) assertThrows(() => silent.recv(zeros([1]), 1, { timeout: 200 }).wait(20_000), DistributedError, "rank 1 does not answer");
  distributed.barrier();

  // Closing ends what is under way.
  const closed = (await distributed.newGroup())!,
    many = Array.from({ length: 5 }, () => rank === 0 ? closed.allReduce(ones([1 << 20])) : null);
  const message = rank === 0 ? closed.recv(zeros([4]), 1) : null;
  if (rank === 0) {
    const ends = [...many, message].map((it) => assertRejects(() => it!.done(), DistributedError, "was closed"));
    await closed.close();
    await Promise.all(ends);
    assertThrows(() => closed.barrier(), DistributedError, "was closed");
    await closed.close();
  }
  distributed.barrier();
  if (rank === 1) {
    const error = assertThrows(() => closed.allReduce(ones([1 << 20]), { timeout: 5000 }).wait(20_000), DistributedError);
    assert(/rank 0 has closed the process group/.test(error.message), error.message);
  }
  // Giving up tells the others why.
  const given = (await distributed.newGroup())!;
  if (rank === 0) given.abort("rank 0 has had enough");
  else assertThrows(() => given.barrier().wait(), DistributedError, "rank 0 has had enough");
  distributed.barrier();
}
