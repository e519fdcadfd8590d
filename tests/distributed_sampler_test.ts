import { DataLoader, type Dataset, distributed, DistributedError, RandomSampler, type Tensor, workerDataset } from "@dinograd/dinograd";
import { assertEquals, assertNotEquals, assertThrows } from "@std/assert";

const { DistributedEvaluationSampler, DistributedSampler } = distributed;
const ranks = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const copy = <T>(value: T): T => JSON.parse(JSON.stringify(value));

Deno.test("DistributedSampler() follows torch's rules of padding and dropping", () => {
  // What torch.utils.data.DistributedSampler gives without shuffling.
  const cases: [size: number, replicas: number, dropLast: boolean, expected: number[][]][] = [
    [7, 3, false, [[0, 3, 6], [1, 4, 0], [2, 5, 1]]],
    [7, 3, true, [[0, 3], [1, 4], [2, 5]]],
    [6, 3, true, [[0, 3], [1, 4], [2, 5]]],
    [2, 5, false, [[0], [1], [0], [1], [0]]],
    [2, 5, true, [[], [], [], [], []]],
    [1, 1, false, [[0]]],
    [0, 2, false, [[], []]],
  ];
  for (const [size, numReplicas, dropLast, expected] of cases) {
    const samplers = ranks(numReplicas).map((rank) =>
      new DistributedSampler({ length: size }, { numReplicas, rank, dropLast, shuffle: false })
    );
    assertEquals(samplers.map((it) => [...it]), expected);
    assertEquals(samplers.map((it) => it.length), expected.map((it) => it.length));
  }
});

Deno.test("DistributedSampler() shuffles alike on all ranks, as RandomSampler does", () => {
  const make = (numReplicas: number, rank: number, seed = 5) => new DistributedSampler(20, { numReplicas, rank, seed });
  const four = ranks(4).map((rank) => make(4, rank)), epochs = [0, 1].map(() => four.map((it) => [...it]));
  const random = new RandomSampler({ length: 20 }, { seed: 5 });
  for (const epoch of epochs) {
    const whole = [...random];
    epoch.forEach((part, rank) => assertEquals(part, whole.filter((_, i) => i % 4 === rank)));
  }
  assertNotEquals(epochs[0], epochs[1]);
  for (const it of four) it.setEpoch(0);
  assertEquals(four.map((it) => [...it]), epochs[0]);
  assertNotEquals([...make(1, 0, 6)], [...make(1, 0, 5)]);
  assertEquals([...new DistributedSampler(20, { numReplicas: 1, rank: 0 })], [...new RandomSampler({ length: 20 }, { seed: 0 })]);
});

Deno.test("DistributedSampler() goes on in mid-epoch", () => {
  const make = () => new DistributedSampler(23, { numReplicas: 2, rank: 1, seed: 9 });
  const sampler = make(), first = [...sampler], iterator = sampler[Symbol.iterator]();
  const drawn = ranks(5).map(() => iterator.next().value as number), state = copy(sampler.stateDict());
  const rest: number[] = [];
  for (let next = iterator.next(); !next.done; next = iterator.next()) rest.push(next.value);
  const third = [...sampler];
  for (const before of [() => {}, (it: distributed.DistributedSampler) => it.setEpoch(1)]) {
    const resumed = make();
    resumed.loadStateDict(state);
    before(resumed);
    assertEquals(copy(resumed.stateDict()), state);
    assertEquals([[...resumed], [...resumed]], [rest, third]);
  }
  const again = make();
  again.loadStateDict(state);
  again.setEpoch(0);
  assertEquals([[...again], [...again]], [first, [...drawn, ...rest]]);
  const other = new DistributedSampler(23, { numReplicas: 3, rank: 1 });
  assertThrows(() => other.loadStateDict(state), RangeError, "that of 23 samples for 2 processes, here are 23 for 3");
  other.loadStateDict({ ...state, position: 0 });
  assertThrows(() => other.loadStateDict({}), RangeError, "position of the state");
  assertThrows(() => other.loadStateDict({ position: 0, seed: 1 }), RangeError, "setEpoch");
});

Deno.test("DistributedEvaluationSampler() gives each sample to one rank", () => {
  for (const [size, numReplicas] of [[7, 3], [6, 3], [2, 5], [0, 2], [5, 1]]) {
    const parts = ranks(numReplicas).map((rank) => new DistributedEvaluationSampler(size, { numReplicas, rank }));
    assertEquals(parts.flatMap((it) => [...it]).sort((a, b) => a - b), ranks(size));
    for (const part of parts) assertEquals(part.length, [...part].length);
  }
});

Deno.test("DistributedSampler() and DistributedEvaluationSampler() say what is wrong, and ask the environment", async () => {
  for (const make of [DistributedSampler, DistributedEvaluationSampler]) {
    assertThrows(() => new make(4, { numReplicas: 0, rank: 0 }), RangeError, "numReplicas");
    assertThrows(() => new make(4, { numReplicas: 2, rank: 2 }), RangeError, "rank must be a whole number from 0 to 1, got 2");
    assertThrows(() => new make(-1, { numReplicas: 2, rank: 1 }), RangeError, "number of samples");
    assertThrows(() => new make(4), DistributedError, "RANK");
    Deno.env.set("RANK", "1");
    Deno.env.set("WORLD_SIZE", "3");
    try {
      const { rank, numReplicas } = new make(4);
      assertEquals([rank, numReplicas], [1, 3]);
      await distributed.initProcessGroup({ store: new distributed.HashStore(), rank: 0, worldSize: 1 });
      const within = new make(4); // the process group knows better
      assertEquals([within.rank, within.numReplicas], [0, 1]);
    } finally {
      await distributed.destroyProcessGroup();
      Deno.env.delete("RANK");
      Deno.env.delete("WORLD_SIZE");
    }
  }
  assertThrows(() => new DistributedSampler(4, { numReplicas: 1, rank: 0, seed: 0.5 }), RangeError, "seed");
});

/** The batches of an epoch of single numbers; `after` is called when so many were handed out. */
async function epoch(loader: DataLoader<number, Tensor>, after = -1, call = () => {}): Promise<number[][]> {
  const batches: number[][] = [];
  for await (const batch of loader) {
    batches.push(batch.tolist() as number[]);
    batch.dispose();
    if (batches.length === after) call();
  }
  return batches;
}

Deno.test("DataLoader() goes on in mid-epoch with exactly the batches that are left", async () => {
  const data = ranks(23), sampler = () => new DistributedSampler(data, { numReplicas: 2, rank: 1, seed: 4 });
  const positions = await workerDataset<Dataset<number>>(new URL("./data/datasets.ts", import.meta.url), "positions", 23);
  const kinds: Record<string, () => DataLoader<number, Tensor>> = {
    shuffled: () => new DataLoader<number, Tensor>(data, { batchSize: 2, shuffle: true }),
    distributed: () => new DataLoader<number, Tensor>(data, { batchSize: 3, sampler: sampler() }),
    workers: () => new DataLoader<number, Tensor>(positions, { batchSize: 3, sampler: sampler(), numWorkers: 2 }),
  };
  for (const make of Object.values(kinds)) {
    const loader = make();
    await epoch(loader);
    let state = loader.stateDict();
    assertEquals([state.epoch, state.batch], [1, 0]);
    const second = await epoch(loader, 2, () => state = copy(loader.stateDict()));
    assertEquals([state.epoch, state.batch], [1, 2]);
    const third = await epoch(loader);
    const resumed = make();
    resumed.loadStateDict(state);
    assertEquals(copy(resumed.stateDict()), state);
    assertEquals(await epoch(resumed), second.slice(2));
    assertEquals(await epoch(resumed), third);
    resumed.loadStateDict(state);
    resumed.setEpoch(1);
    assertEquals(await epoch(resumed), second.slice(2));
    resumed.loadStateDict(state);
    resumed.setEpoch(2);
    assertEquals(await epoch(resumed), third);
  }
});

Deno.test("DataLoader() that was left early tells where; the next loop is the next epoch", async () => {
  const make = () =>
    new DataLoader<number, Tensor>(ranks(12), { sampler: new DistributedSampler(12, { numReplicas: 2, rank: 0 }), batchSize: 2 });
  const whole = make(), epochs = [await epoch(whole), await epoch(whole)];
  const loader = make();
  for await (const batch of loader) {
    batch.dispose();
    break;
  }
  const resumed = make();
  resumed.loadStateDict(copy(loader.stateDict()));
  assertEquals(await epoch(resumed), epochs[0].slice(1));
  let state = loader.stateDict();
  assertEquals(await epoch(loader, 3, () => state = copy(loader.stateDict())), epochs[1]);
  resumed.loadStateDict(state);
  assertEquals(await epoch(resumed), []);
});

Deno.test("DataLoader() of an iterable dataset goes on behind the samples that it has handed out", async () => {
  const numbers = {
    async *[Symbol.asyncIterator]() {
      yield* ranks(7);
    },
  };
  const make = () => new DataLoader<number, Tensor>(numbers, { batchSize: 2 });
  const loader = make(), resumed = make();
  const whole = await epoch(loader, 2, () => resumed.loadStateDict(copy(loader.stateDict())));
  assertEquals(await epoch(resumed), whole.slice(2));
});

Deno.test("DataLoader.loadStateDict() refuses what is not the state of an equal loader", () => {
  const loader = new DataLoader(ranks(10), { batchSize: 2, shuffle: true, seed: 1 }), state = loader.stateDict();
  const cases: [object, string][] = [
    [{ epoch: -1 }, "epoch of the state must be a whole number"],
    [{ batch: undefined }, "batch of the state"],
    [{ seed: 0.5 }, "seed must be a whole number"],
    [{ sampler: null }, "sampler of the state must be an object"],
    [{ sampler: {} }, "seed must be a whole number"],
    [{ batch: 1, batches: 4 }, "in the middle of an epoch of 4 batches, here an epoch has 5"],
  ];
  for (const [change, message] of cases) assertThrows(() => loader.loadStateDict({ ...state, ...change }), RangeError, message);
});
