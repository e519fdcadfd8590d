/** Every collective in every dtype, against plain loops. */
import { assert, assertEquals } from "@std/assert";
import { distributed, type DType, memory, noGrad, rand, type Tensor, tensor, zeros } from "../../mod.ts";
import { collected } from "../leaks.ts";

const dtypes: DType[] = ["float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8"];
const ops: distributed.ReduceOp[] = ["sum", "average", "product", "min", "max"];

/** Numbers of elements, fewer where many ranks share the processor. */
const countsOf = (size: number) => size > 4 ? [0, 1000] : [0, 1, 7, 1000];

/** Small whole numbers, so that results are exact in every dtype; products of eight stay below 256. */
const value = (rank: number, i: number) => 1 + (rank + i) % 2 + (rank + i === 4 ? 1 : 0);
const values = (rank: number, count: number) => Array.from({ length: count }, (_, i) => value(rank, i));
const numbers = (x: Tensor) => Array.from(x.data(), Number);
const make = (list: number[], dtype: DType) => list.length === 0 ? zeros([0], { dtype }) : tensor(list, { dtype });

function reduced(size: number, op: distributed.ReduceOp, count: number): number[] {
  return Array.from({ length: count }, (_, i) => {
    const all = Array.from({ length: size }, (_, rank) => value(rank, i));
    const sum = all.reduce((a, b) => a + b);
    return { sum, average: sum / size, product: all.reduce((a, b) => a * b), min: Math.min(...all), max: Math.max(...all) }[op];
  });
}

function near(actual: number[], expected: number[], dtype: DType, what: string): void {
  const tolerance = dtype === "bfloat16" ? 0.01 : dtype === "float16" ? 0.001 : 1e-6;
  assertEquals(actual.length, expected.length, what);
  actual.forEach((it, i) =>
    assert(Math.abs(it - expected[i]) <= tolerance * Math.abs(expected[i]), `${what}: ${it} at ${i}, expected ${expected[i]}`)
  );
}

function reductions(rank: number, size: number, dtype: DType): void {
  for (const op of ops) {
    if (op === "average" && !zeros([], { dtype }).isFloat) continue;
    for (const count of countsOf(size)) {
      const what = `${op} of ${count} ${dtype}`;
      const x = make(values(rank, count), dtype);
      distributed.allReduce(x, { op });
      near(numbers(x), reduced(size, op, count), dtype, `allReduce ${what}`);
      const root = count % size, y = make(values(rank, count), dtype);
      distributed.reduce(y, root, { op });
      near(numbers(y), rank === root ? reduced(size, op, count) : values(rank, count), dtype, `reduce ${what}`);
      const whole = make(values(rank, count * size), dtype), part = zeros([count], { dtype });
      distributed.reduceScatterTensor(part, whole, { op });
      near(numbers(part), reduced(size, op, count * size).slice(rank * count, (rank + 1) * count), dtype, `reduceScatter ${what}`);
    }
  }
}

function copies(rank: number, size: number, dtype: DType): void {
  const bool = dtype === "bool";
  const of = (r: number, count: number) => bool ? values(r, count).map((it) => it % 2) : values(r, count);
  const make_ = (r: number, count: number) => bool ? make(of(r, count), "uint8").to("bool") : make(of(r, count), dtype);
  const everyone = Array.from({ length: size }, (_, r) => r);
  for (const count of countsOf(size)) {
    const what = `of ${count} ${dtype}`, root = count % size;
    const x = make_(rank, count);
    distributed.broadcast(x, root);
    assertEquals(numbers(x), of(root, count), `broadcast ${what}`);
    const all = zeros([size, count], { dtype });
    distributed.allGatherIntoTensor(all, make_(rank, count));
    assertEquals(numbers(all), everyone.flatMap((r) => of(r, count)), `allGather ${what}`);
    const list = everyone.map(() => zeros([count], { dtype }));
    distributed.allGather(list, make_(rank, count));
    assertEquals(list.map(numbers), everyone.map((r) => of(r, count)), `allGather list ${what}`);
    const gathered = rank === root ? everyone.map(() => zeros([count], { dtype })) : null;
    distributed.gather(make_(rank, count), gathered, { dst: root });
    if (gathered !== null) assertEquals(gathered.map(numbers), everyone.map((r) => of(r, count)), `gather ${what}`);
    const mine = zeros([count], { dtype });
    distributed.scatter(mine, rank === root ? everyone.map((r) => make_(r + 1, count)) : null, { src: root });
    assertEquals(numbers(mine), of(rank + 1, count), `scatter ${what}`);
    const out = zeros([size * count], { dtype });
    distributed.allToAllSingle(out, make_(rank, size * count));
    assertEquals(numbers(out), everyone.flatMap((r) => of(r, size * count).slice(rank * count, (rank + 1) * count)), `allToAll ${what}`);
    const parts = everyone.map(() => zeros([count], { dtype }));
    distributed.allToAll(parts, everyone.map((r) => make_(rank * size + r, count)));
    assertEquals(parts.map(numbers), everyone.map((r) => of(r * size + rank, count)), `allToAll list ${what}`);
  }
}

/** More than goes in one message: an odd number of elements, several segments of memory. */
function large(rank: number, size: number): void {
  if (size > 4) return;
  for (const dtype of ["float32", "bfloat16", "int64", "uint8"] as DType[]) {
    for (const op of ["sum", "max"] as const) {
      const count = 700_001,
        times = [Math.ceil(count / 10)],
        period = make(values(rank, 10), dtype),
        expected = make(reduced(size, op, 10), dtype);
      const x = period.repeat(times).slice(0, 0, count).clone();
      distributed.allReduce(x, { op });
      assertEquals(x.eq(expected.repeat(times).slice(0, 0, count)).all().item(), 1, `allReduce ${op} of ${count} ${dtype}`);
    }
  }
}

/** Rounding must not differ between ranks, whatever the size. */
function sameBits(rank: number, dtype: DType): void {
  for (const count of [1, 1001, 300_000]) {
    const x = rand([count]).add(rank).to(dtype);
    distributed.allReduce(x);
    const first = x.clone();
    distributed.broadcast(first, 0);
    assertEquals(x.eq(first).all().item(), 1, `the same bits, ${count} ${dtype}`);
  }
}

function strided(rank: number, size: number): void {
  const x = tensor([[1, 2, 3], [4, 5, 6]]).mul(rank + 1), column = x.transpose(0, 1), sum = size * (size + 1) / 2;
  distributed.allReduce(column);
  assertEquals(x.tolist(), [[sum, 2 * sum, 3 * sum], [4 * sum, 5 * sum, 6 * sum]]);
  const out = zeros([3, 2, size]).permute([2, 1, 0]);
  distributed.allGatherIntoTensor(out, tensor([[1, 2], [3, 4], [5, 6]]).add(rank).transpose(0, 1));
  assertEquals(out.tolist(), Array.from({ length: size }, (_, r) => [[1 + r, 3 + r, 5 + r], [2 + r, 4 + r, 6 + r]]));
  const slice = tensor([[1, 2, 3], [4, 5, 6]]).narrow(1, 1, 2), before = slice.version;
  distributed.broadcast(slice, size - 1);
  assertEquals(slice.version, before + (rank === size - 1 ? 0 : 1));
  const leaf = tensor([rank + 1], { dtype: "float32", requiresGrad: true });
  noGrad(() => distributed.allReduce(leaf));
  assertEquals(leaf.tolist(), [sum]);
}

async function asynchronous(rank: number, size: number): Promise<void> {
  const list = Array.from({ length: 40 }, (_, i) => tensor([rank + i, i]));
  const works = list.map((x) => distributed.allReduce(x, { asyncOp: true }));
  await Promise.all(works.reverse().map((it) => it.done()));
  list.forEach((x, i) => assertEquals(x.tolist(), [size * (size - 1) / 2 + size * i, size * i]));
  works[3].wait();
  works[3].wait();
  await works[3].done();
  assert(works.every((it) => it.isCompleted()));
  // Disposed of while it runs: the memory is given back when the work has ended.
  const large = rand([1 << 20]), work = distributed.allReduce(large, { asyncOp: true });
  large.dispose();
  work.wait();
}

export async function conformance(rank: number, size: number): Promise<void> {
  const before = memory.stats().tensors;
  for (const dtype of dtypes) reductions(rank, size, dtype);
  for (const dtype of [...dtypes, "bool"] as DType[]) copies(rank, size, dtype);
  for (const dtype of ["float32", "float64", "float16", "bfloat16"] as DType[]) sameBits(rank, dtype);
  large(rank, size);
  strided(rank, size);
  await asynchronous(rank, size);
  for (let i = 0; i < 3; i++) distributed.barrier();
  assertEquals(await collected(before), before, "tensors left behind");
}
