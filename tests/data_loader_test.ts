import {
  arange,
  BatchSampler,
  ConcatDataset,
  DataLoader,
  type DataLoaderOptions,
  type Dataset,
  defaultCollate,
  type IterableDataset,
  MapDataset,
  memory,
  ones,
  randomSplit,
  scope,
  SequentialSampler,
  ShapeError,
  Subset,
  type Tensor,
  tensor,
  TensorDataset,
  workerDataset,
  WorkerError,
} from "@dinograd/dinograd";
import { assert, assertEquals, assertNotEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { counting } from "./data/datasets.ts";
import { collected } from "./leaks.ts";

const module = new URL("./data/datasets.ts", import.meta.url);
const numbers = (length: number): number[] => Array.from({ length }, (_, i) => i);

/** The batches of an epoch of a loader of single numbers, as arrays. */
async function epoch(loader: DataLoader<number, Tensor>): Promise<number[][]> {
  const batches: number[][] = [];
  for await (const batch of loader) {
    batches.push(batch.tolist() as number[]);
    batch.dispose();
  }
  return batches;
}

Deno.test("DataLoader() makes batches in order", async () => {
  assertEquals(await epoch(new DataLoader(numbers(5), { batchSize: 2 })), [[0, 1], [2, 3], [4]]);
  assertEquals(await epoch(new DataLoader(numbers(5), { batchSize: 2, dropLast: true })), [[0, 1], [2, 3]]);
  assertEquals(await epoch(new DataLoader(numbers(2))), [[0], [1]]);
  assertEquals(await epoch(new DataLoader<number, Tensor>([], { batchSize: 3 })), []);
  const batchSampler = new BatchSampler(new SequentialSampler(numbers(4)), 3);
  assertEquals(await epoch(new DataLoader(numbers(4), { batchSampler })), [[0, 1, 2], [3]]);
  assertEquals(new DataLoader(numbers(5), { batchSize: 2 }).length, 3);
  assertEquals(new DataLoader(numbers(5), { batchSize: 2, dropLast: true }).length, 2);
});

Deno.test("DataLoader() shuffles anew in each epoch, equally for equal seeds and epochs", async () => {
  const options = { batchSize: 4, shuffle: true, seed: 11 };
  const a = new DataLoader(numbers(30), options), b = new DataLoader(numbers(30), options);
  const first = await epoch(a), second = await epoch(a);
  assertEquals(first.flat().sort((x, y) => x - y), numbers(30));
  assertNotEquals(first, second);
  assertNotEquals(first.flat(), numbers(30));
  b.setEpoch(1);
  assertEquals(await epoch(b), second);
  b.setEpoch(0);
  assertEquals(await epoch(b), first);
  assertNotEquals(await epoch(new DataLoader(numbers(30), { ...options, seed: 12 })), first);
});

Deno.test("DataLoader() takes a collate function", async () => {
  const loader = new DataLoader(numbers(4), { batchSize: 2, collate: (samples) => samples.join("+") });
  const seen: string[] = [];
  for await (const text of loader) seen.push(text.toUpperCase());
  assertEquals(seen, ["0+1", "2+3"]);
});

Deno.test("DataLoader() gathers the rows of tensors", async () => {
  const before = memory.stats().tensors;
  const images = scope(() => arange(48).view([6, 2, 2, 2]).clone()), last = images.channelsLast(), labels = arange(6);
  const spread = scope(() => images.permute([3, 1, 2, 0]).contiguous().permute([3, 1, 2, 0]));
  for (const x of [images, last, spread]) {
    const indices: number[] = [];
    for await (const [image, label] of new DataLoader(new TensorDataset(x, labels), { batchSize: 4, shuffle: true, seed: 2 })) {
      const order = label.tolist() as number[];
      assertEquals(image.tolist(), order.map((i) => (images.tolist() as number[][])[i]));
      assertEquals(scope(() => image.channelsLast() === image), x === last);
      indices.push(...order);
      image.dispose();
      label.dispose();
    }
    assertEquals(indices.sort(), numbers(6));
  }
  for (const x of [images, last, spread, labels]) x.dispose();
  const left = await collected(before);
  assert(left <= before, `${left - before} tensors stay`);
});

Deno.test("DataLoader() over an iterable dataset", async () => {
  assertEquals(await epoch(new DataLoader(counting(5), { batchSize: 2 })), [[0, 1], [2, 3], [4]]);
  assertEquals(await epoch(new DataLoader(counting(5), { batchSize: 2, dropLast: true })), [[0, 1], [2, 3]]);
  const loader = new DataLoader(counting(5));
  assertThrows(() => loader.length, TypeError, "no length");
  assertThrows(() => new DataLoader(counting(5), { shuffle: true }), TypeError, "iterable");
});

Deno.test("DataLoader() answers options that do not fit", () => {
  const refused = (options: DataLoaderOptions<number, unknown>, error: new (message: string) => Error, text: string) =>
    assertThrows(() => new DataLoader(numbers(3), options), error, text);
  refused({ batchSize: 0 }, RangeError, "batchSize must be a whole number >= 1, got 0");
  refused({ batchSize: 1.5 }, RangeError, "batchSize");
  refused({ seed: 0.5 }, RangeError, "seed");
  refused({ numWorkers: -1 }, RangeError, "numWorkers");
  refused({ prefetch: 2 }, TypeError, "prefetch needs numWorkers");
  refused({ numWorkers: 1 }, TypeError, "workerDataset");
  refused({ shuffle: true, sampler: new SequentialSampler(numbers(3)) }, TypeError, "exclude");
  refused({ batchSize: 2, batchSampler: new BatchSampler(new SequentialSampler([]), 1) }, TypeError, "excludes");
  assertThrows(() => new DataLoader(numbers(3)).setEpoch(-1), RangeError, "epoch");
});

Deno.test("DataLoader() raises the dataset's errors in the loop and ends there", async () => {
  const dataset = new MapDataset({ length: 4, get: (i: number) => i }, (i) => {
    if (i === 2) throw new RangeError("bad sample 2");
    return i;
  });
  const iterator = new DataLoader(dataset)[Symbol.asyncIterator]();
  for (let i = 0; i < 2; i++) (await iterator.next()).value!.dispose();
  await assertRejects(() => iterator.next(), RangeError, "bad sample 2");
  assertEquals((await iterator.next()).done, true);
});

Deno.test("DataLoader() bounds the memory of a plain loop", async () => {
  await memory.collect();
  const before = memory.stats();
  const data = ones([64, 10_000]);
  const loader = new DataLoader(new TensorDataset(data), { batchSize: 32, shuffle: true });
  let most = 0, total = 0;
  for (let round = 0; round < 60; round++) {
    for await (const [x] of loader) {
      const y = x.mul(2).add(1);
      total += y.sum().item();
      most = Math.max(most, memory.stats().bytes - before.bytes);
    }
  }
  assertEquals(total, 60 * 64 * 10_000 * 3);
  // The 120 steps make 470 MB.
  assert(most < 80e6, `${most} bytes were live at once`);
  data.dispose();
  await memory.collect();
  assert(memory.stats().tensors - before.tensors < 20, `${memory.stats().tensors - before.tensors} tensors stay`);
});

Deno.test("defaultCollate() joins each kind of sample", () => {
  assertEquals(defaultCollate([1, 2]).dtype, "int64");
  assertEquals(defaultCollate([1, 2.5]).dtype, "float32");
  assertEquals(defaultCollate([true, false]).tolist(), [true, false]);
  assertEquals(defaultCollate([1n, 2n]).dtype, "int64");
  assertEquals(defaultCollate([null, null]), [null, null]);
  assertEquals(defaultCollate([new Uint8Array([1, 2]), new Uint8Array([3, 4])]).tolist(), [[1, 2], [3, 4]]);
  const [x, { y, name }] = defaultCollate<[Tensor, { y: number; name: string }]>([[tensor(1), { y: 2, name: "a" }], [
    tensor(3),
    { y: 4, name: "b" },
  ]]);
  assertEquals([x.tolist(), y.tolist(), name], [[1, 3], [2, 4], ["a", "b"]]);
});

Deno.test("defaultCollate() names samples that do not fit each other", () => {
  assertThrows(() => defaultCollate([]), ShapeError, "at least one");
  assertThrows(
    () => defaultCollate([{ x: tensor([1]) }, { x: tensor([1, 2]) }]),
    ShapeError,
    "sample.x has shape [1] in the first sample and [2]",
  );
  assertThrows(() => defaultCollate<unknown>([1, "a"]), ShapeError, "a number in the first sample and a string in sample 1");
  assertThrows(() => defaultCollate([[1], [1, 2]]), ShapeError, "1 entries in the first sample and 2 in sample 1");
  assertThrows(() => defaultCollate<unknown>([{ a: 1 }, { b: 1 }]), ShapeError, "the keys a");
  assertThrows(() => defaultCollate([new Uint8Array(1), new Uint8Array(2)]), ShapeError, "elements");
});

Deno.test("datasets combine", async () => {
  const data = new TensorDataset(arange(10), arange(10).mul(-1));
  assertEquals(data.get(3).map((x) => x.item()), [3, -3]);
  assertThrows(() => data.get(10), RangeError, "position 10 is outside the 10 samples");
  assertThrows(() => new TensorDataset(arange(3), arange(4)), ShapeError, "axis 0 of tensor 1");
  const some = new Subset(data, [7, 1]);
  assertEquals([some.length, (await some.get(1))[0].item()], [2, 1]);
  assertThrows(() => new Subset(data, [10]), RangeError);
  const both = new ConcatDataset([some, data]);
  assertEquals([both.length, (await both.get(0))[0].item(), (await both.get(2))[0].item(), (await both.get(11))[0].item()], [12, 7, 0, 9]);
  const loader = new DataLoader(new MapDataset(both, ([a, b]) => ({ sum: a.add(b), a })), { batchSize: 12 });
  for await (const { sum, a } of loader) {
    assertEquals(sum.tolist(), new Array(12).fill(0));
    assertEquals(a.tolist(), [7, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  }
});

Deno.test("randomSplit() divides by sizes and fractions", () => {
  const data = { length: 10, get: (i: number): number => i };
  const parts = randomSplit(data, [7, 3], { seed: 5 });
  assertEquals(parts.map((it) => it.length), [7, 3]);
  assertEquals([...parts[0].indices, ...parts[1].indices].sort((a, b) => a - b), numbers(10));
  assertEquals(randomSplit(data, [7, 3], { seed: 5 })[0].indices, parts[0].indices);
  assertNotEquals(randomSplit(data, [7, 3], { seed: 6 })[0].indices, parts[0].indices);
  assertEquals(randomSplit(data, [1 / 3, 1 / 3, 1 / 3]).map((it) => it.length), [4, 3, 3]);
  assertThrows(() => randomSplit(data, [7, 4]), RangeError, "add up to 11, expected 10");
  assertThrows(() => randomSplit(data, [0.5, 0.6]), RangeError, "add up to 1.1");
});

Deno.test("DataLoader() with workers keeps the order and the structure", async () => {
  const dataset = await workerDataset<Dataset<{ x: Tensor; n: number; name: string }>>(module, "squares", 11);
  for (const numWorkers of [1, 2]) {
    let at = 0;
    for await (const { x, n, name } of new DataLoader(dataset, { batchSize: 3, numWorkers })) {
      const wanted = numbers(11).slice(at, at += 3);
      assertEquals([x.dtype, x.tolist()], ["bfloat16", wanted.map((i) => [i, i * i])]);
      assertEquals([n.dtype, n.tolist(), name], ["int64", wanted, wanted.map((i) => `sample ${i}`)]);
      assertEquals(x.add(1).shape, x.shape);
    }
    assertEquals(at, 12);
  }
});

Deno.test("DataLoader() with workers makes the same batches as without", async () => {
  const dataset = await workerDataset<TensorDataset<[Tensor, Tensor]>>(module, "rows", 50);
  const [part] = randomSplit(dataset, [30, 20], { seed: 1 });
  const options = { batchSize: 8, shuffle: true, seed: 9 };
  const here: unknown[] = [], there: unknown[] = [];
  for await (const [x, y] of new DataLoader(part, options)) here.push([x.tolist(), y.tolist()]);
  for await (const [x, y] of new DataLoader(part, { ...options, numWorkers: 2, prefetch: 1 })) there.push([x.tolist(), y.tolist()]);
  assertEquals(there, here);
});

Deno.test("DataLoader() with workers hands out slow batches in order", async () => {
  const dataset = await workerDataset<Dataset<[number, number]>>(module, "slow", 12);
  const seen: number[] = [], makers = new Set<number>();
  for await (const [i, worker] of new DataLoader(dataset, { numWorkers: 2 })) {
    seen.push(i.item());
    makers.add(worker.item());
  }
  assertEquals(seen, numbers(12));
  assertEquals([...makers].sort(), [0, 1]);
});

Deno.test("DataLoader() raises a worker's error in the loop, with its stack", async () => {
  const loader = new DataLoader(await workerDataset<Dataset<number>>(module, "failing", 7), { batchSize: 2, numWorkers: 2 });
  const seen: number[] = [];
  const error = await assertRejects(
    async () => {
      for await (const batch of loader) seen.push(...batch.tolist() as number[]);
    },
    WorkerError,
    "RangeError: sample 7 is broken",
  );
  assertEquals(seen, [0, 1, 2, 3, 4, 5]);
  assertStringIncludes(error.stack!, "datasets.ts");
  const unmakeable = new DataLoader(await workerDataset<Dataset<number>>(module, "unmakeable"), { numWorkers: 1 });
  await assertRejects(() => unmakeable[Symbol.asyncIterator]().next(), WorkerError, "cannot be made here");
  const functions = new DataLoader(await workerDataset<Dataset<number>>(module, "functions"), { numWorkers: 1 });
  await assertRejects(() => functions[Symbol.asyncIterator]().next(), WorkerError, "DataCloneError");
});

Deno.test("DataLoader() ends its workers and frees their memory when the loop is left", async () => {
  await memory.collect();
  const dataset = await workerDataset<TensorDataset<[Tensor, Tensor]>>(module, "rows", 100_000);
  const before = memory.stats().bytes; // of the whole process, workers included
  for (let round = 0; round < 3; round++) {
    for await (const [x] of new DataLoader(dataset, { batchSize: 2, numWorkers: 2 })) {
      assertEquals(x.shape, [2, 3]);
      break;
    }
    await assertRejects(
      async () => {
        for await (const _ of new DataLoader(dataset, { batchSize: 2, numWorkers: 1 })) throw new Error("from the body");
      },
      Error,
      "from the body",
    );
  }
  // Nine workers made 2 MB each.
  const left = await collected(before + 4e6, "bytes") - before;
  assert(left <= 4e6, `${left} bytes left behind`);
});

Deno.test("DataLoader() with a worker over an iterable dataset", async () => {
  const dataset = await workerDataset<IterableDataset<number>>(module, "counting", 7);
  assertEquals(await epoch(new DataLoader(dataset, { batchSize: 3, numWorkers: 1 })), [[0, 1, 2], [3, 4, 5], [6]]);
  assertEquals(await epoch(new DataLoader(dataset, { batchSize: 3, numWorkers: 1, dropLast: true })), [[0, 1, 2], [3, 4, 5]]);
  assertThrows(() => new DataLoader(dataset, { numWorkers: 2 }), RangeError, "one worker");
});

Deno.test("workerDataset() answers a wrong module or name", async () => {
  await assertRejects(() => workerDataset(module, "absent"), TypeError, 'exports no function "absent"');
  await assertRejects(() => workerDataset(module, "nothing"), TypeError, "returned no dataset");
  await assertRejects(() => workerDataset("./datasets.ts", "rows"), TypeError);
  const dataset = await workerDataset<Dataset<number>>(module, "failing", 3);
  assertThrows(() => new DataLoader(dataset, { numWorkers: 1, collate: (it) => it }), TypeError, "batch(indices)");
});
