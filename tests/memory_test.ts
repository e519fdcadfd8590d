import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { cpu } from "../ffi/device.ts";
import { libraryOf } from "../ffi/library.ts";
import { DisposedError, fromArray, keep, memory, ones, OutOfMemoryError, scope, type Tensor, tensor, zeros } from "../mod.ts";
import { collected } from "./leaks.ts";

const live = () => memory.stats().tensors;

Deno.test("scope() frees what it made but for what it returns, nested in anything", () => {
  const before = live();
  const result = scope(() => {
    const lost = ones([10]).mul(2);
    assert(!lost.disposed);
    return { list: [ones([1])], map: new Map([["a", ones([2])]]), number: 3 };
  });
  assertEquals(live(), before + 2);
  result.list[0].dispose();
  result.map.get("a")!.dispose();
  assertEquals(live(), before);
});

Deno.test("scope() nests: what an inner one returns belongs to the outer one", () => {
  const before = live();
  scope(() => {
    const inner = scope(() => ones([3]).add(1));
    assertEquals(inner.tolist(), [2, 2, 2]);
  });
  assertEquals(live(), before);
});

Deno.test("scope() survives await, and interleaved scopes keep their own", async () => {
  const before = live();
  const tick = () => new Promise((done) => setTimeout(done, 1));
  const work = (value: number) =>
    scope(async () => {
      const x = ones([4]).mul(value);
      await tick();
      const y = x.add(1);
      await tick();
      return y.sum().item();
    });
  assertEquals(await Promise.all([work(1), work(2), work(3)]), [8, 12, 16]);
  assertEquals(live(), before);
});

Deno.test("scope() frees everything when its function throws or rejects", async () => {
  const before = live();
  assertThrows(() =>
    scope(() => {
      ones([4]);
      throw new RangeError("no");
    }), RangeError);
  await assertRejects(() =>
    scope(async () => {
      ones([4]);
      await Promise.resolve();
      throw new RangeError("no");
    }), RangeError);
  assertEquals(live(), before);
});

Deno.test("keep() and gradients outlive a scope", () => {
  const before = live();
  const w = ones([2]).requiresGrad_();
  const kept = scope(() => {
    w.mul(2).sum().backward();
    return keep(ones([1])).shape;
  });
  assertEquals(kept, [1]);
  assertEquals(w.grad!.tolist(), [2, 2]);
  assertEquals(live(), before + 3);
  w.grad!.dispose();
  w.dispose();
});

Deno.test("a graph that leaves a scope can still be differentiated; one that does not is freed", () => {
  const before = live();
  const w = ones([2]).requiresGrad_();
  const loss = scope(() => w.mul(w).exp().sum());
  loss.backward();
  assertEquals(w.grad!.numel(), 2);
  w.grad!.dispose();
  loss.dispose();
  scope(() => {
    w.mul(w).exp().sum(); // never differentiated
  });
  w.dispose();
  assertEquals(live(), before);
});

Deno.test("dispose() frees at once, leaves views alone, and later use is a DisposedError", () => {
  const before = live();
  const x = ones([2, 3]), row = x.select(0, 1);
  x.dispose();
  x.dispose();
  assertEquals(row.tolist(), [1, 1, 1]);
  assertThrows(() => x.add(1), DisposedError, "used after it was disposed");
  assertThrows(() => ones([2, 3]).add(x), DisposedError);
  row.dispose();
  assertEquals(`${x}`, "Tensor(disposed, shape=[2, 3], dtype=float32)");
  {
    using y = ones([5]);
    assertEquals(y.sum().item(), 5);
  }
  assert(live() <= before + 3);
});

Deno.test("setLimit() makes a synchronous loop fail with the largest groups and the way out", async () => {
  await memory.collect();
  memory.setLimit(memory.stats().bytes + 40e6);
  try {
    const error = assertThrows(
      () => {
        for (let i = 0; i < 1000; i++) zeros([250_000]);
      },
      OutOfMemoryError,
    );
    assert(/\[250000\] of 1000000 bytes/.test(error.message), error.message);
    assert(error.message.includes("scope(() =>"), error.message);
  } finally {
    memory.setLimit(0);
  }
  await memory.collect();
});

Deno.test("unreachable tensors are collected once the loop returns to the event loop", async () => {
  await collected(0);
  const before = live();
  (() => {
    for (let i = 0; i < 500; i++) ones([100]).mul(i);
  })();
  assert(live() >= before + 1000);
  assertEquals(await collected(before), before);
});

Deno.test("a plain asynchronous loop stays bounded when it collects under pressure", async () => {
  await memory.collect();
  memory.resetPeak();
  const start = memory.stats().bytes;
  for (let step = 0; step < 200; step++) {
    if (memory.pressed()) await memory.collect();
    ones([500_000]).mul(step).add(1); // 6 MB of garbage a step
    await Promise.resolve();
  }
  assert(memory.stats().peakBytes - start < 100e6, `peak ${memory.stats().peakBytes - start}`);
  await memory.collect();
});

Deno.test("fromArray() shares memory and refuses an array that was transferred away", () => {
  const array = new Float32Array([1, 2, 3]);
  const x = fromArray(array);
  array[1] = 20;
  assertEquals(x.tolist(), [1, 20, 3]);
  structuredClone(array, { transfer: [array.buffer] });
  assertThrows(() => x.add(1), DisposedError, "transferred");
  x.dispose();
});

Deno.test("the allocator reuses memory: no growth over equal steps", () => {
  const step = (): Tensor => scope(() => ones([64, 1024]).mul(2).exp().sum());
  for (let i = 0; i < 10; i++) step().dispose();
  const before = memory.stats();
  for (let i = 0; i < 100; i++) step().dispose();
  const after = memory.stats();
  assertEquals(after.reservedBytes, before.reservedBytes);
  assertEquals(after.cacheHits - before.cacheHits, after.allocations - before.allocations);
  tensor([1]).dispose();
});

Deno.test("a pinned storage keeps its memory past dispose() until it is unpinned", () => {
  const library = libraryOf(cpu), region = new BigUint64Array(3), reals = new Float64Array(region.buffer);
  const x = ones([1000]), id = x.storage.id, before = memory.stats().bytes;
  assertEquals(library.dg_storage_pin(id, region), 0);
  assertEquals(library.dg_storage_pin(id, region), 0);
  assertEquals(reals[1], 4000);
  x.dispose();
  assertEquals(library.dg_storage_pin(id, region), 5, "the id has ended");
  assertEquals(library.dg_storage_unpin(id), 0);
  assertEquals(memory.stats().bytes, before);
  const view = new Deno.UnsafePointerView(Deno.UnsafePointer.create(region[0])!);
  assertEquals(view.getFloat32(3996), 1);
  assertEquals(library.dg_storage_unpin(id), 0);
  assert(memory.stats().bytes <= before - 4000);
  assertEquals(library.dg_storage_unpin(id), 6);
  assertEquals(library.dg_storage_pin(0, region), 5);
});
