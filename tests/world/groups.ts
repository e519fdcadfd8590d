/** Sub-groups and collectives of objects. */
import { assertEquals, assertRejects } from "@std/assert";
import { distributed, DistributedError, tensor, zeros } from "../../mod.ts";

export async function subgroups(rank: number, size: number): Promise<void> {
  const even = await distributed.newGroup([0, 2]),
    backwards = await distributed.newGroup([2, 1, 0]),
    single = await distributed.newGroup([1]);
  assertEquals([even === null, single === null], [rank % 2 === 1, rank !== 1]);
  const x = tensor([rank + 1]);
  distributed.allReduce(x, { group: backwards! });
  assertEquals(x.item(), size * (size + 1) / 2);
  assertEquals(distributed.getRank(backwards!), size - 1 - rank);
  assertEquals(distributed.getWorldSize(backwards!), 3);
  const y = tensor([rank]);
  distributed.broadcast(y, 2, { group: backwards! });
  assertEquals(y.item(), 2);
  if (even !== null) {
    assertEquals(await distributed.allGatherObject(rank, { group: even }), [0, 2]);
    assertEquals(even.ranks, [0, 2]);
  }
  if (single !== null) distributed.allReduce(tensor([1]), { group: single });
  // A failed group leaves the others alone; its ranks are named by their global numbers.
  const doomed = await distributed.newGroup([2, 0]);
  if (doomed !== null) {
    const work = rank === 0 ? doomed.barrier() : doomed.broadcast(tensor([1]), 0);
    const error = await assertRejects(() => work.done(), DistributedError, "in the group of ranks 2, 0");
    assertEquals(error.rank !== null && [0, 2].includes(error.rank), true);
  }
  await assertRejects(() => distributed.newGroup(rank === 0 ? [0, 1] : [1, 0]), DistributedError, "must name the same ranks");
  distributed.allReduce(tensor([1]));
  await distributed.destroyProcessGroup(backwards!);
  distributed.barrier();
}

/** A rank that is done leaves; what it has sent still reaches those that are not. */
export async function leavingInTurn(): Promise<void> {
  for (let i = 0; i < 40; i++) {
    const group = (await distributed.newGroup())!, x = zeros([[16, 252, 4000, 20000][i % 4]]);
    for (let k = 0; k < 3; k++) group.allReduce(x, { op: "max" }).wait();
    await group.close();
    distributed.barrier();
  }
}

export async function objects(rank: number, size: number): Promise<void> {
  const value = (r: number) => ({
    rank: r,
    list: Array.from({ length: r * 100 }, (_, i) => `${i}`),
    map: new Map([["x", new Float32Array(r)]]),
  });
  assertEquals(await distributed.broadcastObject(rank === 1 ? value(7) : null, 1), value(7));
  const all = Array.from({ length: size }, (_, r) => value(r));
  assertEquals(await distributed.allGatherObject(value(rank)), all);
  assertEquals(await distributed.gatherObject(value(rank), 2), rank === 2 ? all : null);
  assertEquals(await distributed.scatterObject(rank === 1 ? all : null, 1), value(rank));
  assertEquals(await distributed.broadcastObject(undefined), undefined);
  await assertRejects(() => distributed.allGatherObject({ deep: [tensor([1])] }), TypeError, "tensors have collectives of their own");
  await assertRejects(() => distributed.allGatherObject(() => 1), TypeError, "cannot be serialised");
  if (rank === 1) await assertRejects(() => distributed.scatterObject([1], 1), TypeError, `each of the ${size} ranks`);
}
