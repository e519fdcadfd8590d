/** Datasets that data_loader_test.ts makes in workers. */
import { arange, type Dataset, IterableDataset, type Tensor, tensor, TensorDataset, workerInfo } from "@dinograd/dinograd";

/** Sample `i` is a row of `i` in bfloat16, the number `i` and its name. */
export function squares(length: number): Dataset<{ x: Tensor; n: number; name: string }> {
  return { length, get: (i) => ({ x: tensor([i, i * i]).bfloat16(), n: i, name: `sample ${i}` }) };
}

/** In-memory rows, gathered by batches. */
export function rows(length: number): TensorDataset<[Tensor, Tensor]> {
  return new TensorDataset(arange(length * 3).reshape([length, 3]).float(), arange(length));
}

/** Fails at one sample. */
export function failing(at: number): Dataset<number> {
  return {
    length: 20,
    get(i) {
      if (i === at) throw new RangeError(`sample ${i} is broken`);
      return i;
    },
  };
}

/** Fails when it is made in a worker. */
export function unmakeable(): Dataset<number> {
  if (workerInfo() !== null) throw new TypeError("cannot be made here");
  return { length: 4, get: (i) => i };
}

/** Returns what cannot cross threads. */
export function functions(): Dataset<() => number> {
  return { length: 4, get: (i) => () => i, batch: () => (() => 1) as never };
}

/** Later batches are ready earlier; each says which worker made it. */
export function slow(length: number): Dataset<[number, number]> {
  return {
    length,
    async get(i) {
      await new Promise((done) => setTimeout(done, i % 2 === 0 ? 30 : 0));
      return [i, workerInfo()?.id ?? -1];
    },
  };
}

class Counting extends IterableDataset<number> {
  constructor(readonly end: number) {
    super();
  }
  async *[Symbol.asyncIterator](): AsyncGenerator<number> {
    for (let i = 0; i < this.end; i++) yield await Promise.resolve(i);
  }
}

/** 0, 1, 2, ... */
export function counting(end: number): IterableDataset<number> {
  return new Counting(end);
}

/** Each sample is its position. */
export function positions(length: number): Dataset<number> {
  return { length, get: (i) => i };
}

/** Not a dataset. */
export function nothing(): object {
  return {};
}
