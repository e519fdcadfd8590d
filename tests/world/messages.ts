/** Messages between two ranks. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { distributed, DistributedError, tensor, zeros } from "../../mod.ts";

export async function messages(rank: number, size: number): Promise<void> {
  const next = (rank + 1) % size, previous = (rank + size - 1) % size;
  // Everybody receives before it sends.
  const got = zeros([3]), receiving = distributed.recv(got, previous, { asyncOp: true });
  const sending = distributed.send(tensor([rank, 1, 2]), next, { asyncOp: true });
  receiving.wait();
  sending.wait();
  assertEquals(got.tolist(), [previous, 1, 2]);
  assertEquals(receiving.sourceRank(), previous);
  // Tags tell messages apart, and those of one tag keep their order.
  const works = [3, 1, 1, 2].map((tag, i) => distributed.send(tensor([10 * rank + i]), next, { tag, asyncOp: true }));
  const into = (tag: number) => {
    const x = zeros([1]);
    distributed.recv(x, previous, { tag });
    return x.item() - 10 * previous;
  };
  assertEquals([into(1), into(2), into(1), into(3)], [1, 3, 2, 0]);
  for (const work of works) work.wait();
  // A message does not wait for a collective that the other rank enters only once it has it.
  if (rank === 0) {
    const x = tensor([1]), collective = distributed.allReduce(x, { asyncOp: true });
    distributed.send(tensor([5]), 1, { tag: 7 });
    collective.wait();
    assertEquals(x.item(), size);
  } else {
    const x = tensor([1]);
    if (rank === 1) distributed.recv(zeros([1]), 0, { tag: 7 });
    distributed.allReduce(x);
  }
  // From any rank, column by column of something larger.
  if (rank === 0) {
    const whole = zeros([size - 1, 2]), sources = new Set<number | null>();
    for (let i = 1; i < size; i++) sources.add(distributed.recv(whole.select(0, i - 1), null).sourceRank());
    assertEquals([...sources].sort(), Array.from({ length: size - 1 }, (_, i) => i + 1));
    assertEquals(whole.sum().item(), size * (size - 1));
  } else {
    distributed.send(tensor([rank, rank]), 0);
  }
  // Sizes that differ fail on both sides, with both of them.
  const group = (await distributed.newGroup())!;
  if (rank < 2) {
    const work = rank === 0 ? group.send(tensor([1, 2, 3]), 1) : group.recv(zeros([2]), 0);
    const error = await assertRejects(() => work.done(), DistributedError);
    assert(/rank 0 sent float32\[3\] with tag 0 to rank 1, which receives float32\[2\]/.test(error.message), error.message);
  }
  distributed.barrier();
}

/** Without tags and without "from any", where messages are matched in their order. */
export async function orderedMessages(rank: number, size: number): Promise<void> {
  const next = (rank + 1) % size, previous = (rank + size - 1) % size, got = zeros([3]);
  const send = () => distributed.send(tensor([rank, 1, 2]), next), recv = () => distributed.recv(got, previous);
  for (const step of rank === 0 ? [send, recv] : [recv, send]) step().wait();
  assertEquals(got.tolist(), [previous, 1, 2]);
  if (rank === 0) { for (let i = 0; i < 5; i++) distributed.send(tensor([i]), 1); }
  else if (rank === 1) {
    const whole = zeros([5, 1]);
    for (let i = 0; i < 5; i++) assertEquals(distributed.recv(whole.select(0, i), 0, { asyncOp: true }).collective, "recv");
    distributed.barrier();
    assertEquals(whole.tolist(), [[0], [1], [2], [3], [4]]);
  }
  if (rank !== 1) distributed.barrier();
  assertThrows(() => distributed.send(tensor([1]), next, { tag: 3 }), RangeError, "NCCL has no tags");
  assertThrows(() => distributed.recv(got, null), RangeError, "give the source");
  const group = (await distributed.newGroup())!;
  if (rank === 0) {
    const error = await assertRejects(() => group.recv(got, 1, { timeout: 300 }).done(), DistributedError, "rank 1 does not answer");
    assertEquals([error.rank, error.collective], [1, "recv"]);
  }
  distributed.barrier();
}
