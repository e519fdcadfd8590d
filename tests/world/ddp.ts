/** DistributedDataParallel: ranks against one process with the joined batch. */
import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  AutogradError,
  distributed,
  DistributedError,
  type DType,
  Generator,
  grad,
  memory,
  nn,
  noGrad,
  ones,
  optim,
  randn,
  scope,
  type Tensor,
  tensor,
  zeros,
} from "../../mod.ts";
import { close, same } from "./compare.ts";

const { DistributedDataParallel } = distributed;
type Model = nn.Layer;

/** A network with convolution weights that are channels-last in memory, made of one seed. */
function network(seed = 7): nn.Sequential {
  const model = new nn.Sequential(
    new nn.Conv2d(2, 4, 3, { padding: 1 }),
    new nn.ReLU(),
    new nn.Conv2d(4, 3, 3),
    new nn.Flatten(),
    new nn.Linear(3 * 4, 5),
  );
  fill(model, seed);
  return model;
}

function fill(model: nn.Module, seed: number): void {
  const generator = new Generator(seed);
  for (const p of model.parameters()) noGrad(() => p.copy_(randn(p.shape, { generator }).mul(0.3)));
}

const batch = (step: number, count: number) => {
  const generator = new Generator(1000 + step);
  return { x: randn([count, 2, 4, 4], { generator }), y: randn([count, 5], { generator }) };
};

const lossOf = (model: Model, x: Tensor, y: Tensor) => nn.functional.mseLoss(model.call(x) as Tensor, y);

/** Refuses parameters that are not the same bits on all ranks. */
function equalEverywhere(model: nn.Module): void {
  const numbers = [...model.parameters()].flatMap((p) => Array.from(p.data(), Number));
  const own = new Float64Array(numbers);
  scope(() => {
    const low = zeros([own.length], { dtype: "float64" }).add(fromNumbers(own)), high = low.clone();
    distributed.allReduce(low, { op: "min" });
    distributed.allReduce(high, { op: "max" });
    assertEquals(low.tolist(), high.tolist());
  });
}

const fromNumbers = (values: Float64Array) => {
  const x = zeros([values.length], { dtype: "float64" });
  values.forEach((it, i) => x.select(0, i).fill_(it));
  return x;
};

type Made = optim.Optimizer<never>;
const optimizers: Record<string, (model: nn.Module) => Made> = {
  SGD: (model) => new optim.SGD(model.parameters(), { lr: 0.05, momentum: 0.9 }) as unknown as Made,
  AdamW: (model) => new optim.AdamW(model.parameters(), { lr: 0.01 }) as unknown as Made,
};

/** 50 steps on the ranks against 50 with the joined batch. */
export function ddpTraining(rank: number, size: number): Promise<void> {
  const part = 4;
  for (const [name, make] of Object.entries(optimizers)) {
    for (const gradientAsBucketView of [true, false]) {
      const before = memory.stats().tensors;
      scope(() => {
        const model = network(rank), plain = network(0); // rank 0's values are everybody's
        const ddp = new DistributedDataParallel(model, { bucketCapMb: 0.0005, gradientAsBucketView });
        const optimizer = make(ddp), other = make(plain);
        const losses: number[] = [], wholes: number[] = [];
        let tensors = 0;
        for (let step = 0; step < (gradientAsBucketView ? 50 : 8); step++) {
          scope(() => {
            const { x, y } = batch(step, part * size);
            const loss = lossOf(ddp, x.narrow(0, rank * part, part), y.narrow(0, rank * part, part)), whole = lossOf(plain, x, y);
            losses.push(loss.item());
            wholes.push(whole.item());
            optimizer.zeroGrad({ setToNone: step % 2 === 0 });
            loss.backward();
            optimizer.step();
            other.zeroGrad();
            whole.backward();
            other.step();
          });
          if (step === 3) tensors = memory.stats().tensors;
        }
        assertEquals(memory.stats().tensors, tensors, "tensors alive between steps");
        const mean = tensor(losses, { dtype: "float64" });
        distributed.allReduce(mean, { op: "average" });
        wholes.forEach((it, step) =>
          assertAlmostEquals(mean.select(0, step).item(), it, 2e-5 * Math.max(1, it), `${name}: the loss of step ${step}`)
        );
        same(model, plain, name === "SGD" ? 1e-5 : 2e-4, name);
        equalEverywhere(model);
        for (const it of [ddp, plain, optimizer, other]) it.dispose();
      });
      assertEquals(memory.stats().tensors, before, "tensors alive after training");
    }
  }
  return Promise.resolve();
}

/** What gradients are after backward in all kinds of ways. */
export async function ddpGradients(rank: number, size: number): Promise<void> {
  const part = 3;
  const mine = (x: Tensor) => x.narrow(0, rank * part, part);
  const expected = (steps: readonly number[]): nn.Module => {
    const plain = network();
    for (const step of steps) {
      const { x, y } = batch(step, part * size);
      lossOf(plain, x, y).backward();
    }
    return plain;
  };
  const check = (model: nn.Module, steps: readonly number[], what: string, tolerance = 1e-5) => {
    const others = [...expected(steps).parameters()];
    [...model.namedParameters()].forEach(([name, p], i) => close(p.grad, others[i].grad, tolerance, `${what}: ${name}`));
  };
  const backward = (ddp: Model, step: number) => {
    const { x, y } = batch(step, part * size);
    lossOf(ddp, mine(x), mine(y)).backward();
  };
  const ddp = new DistributedDataParallel(network());

  // Views of one bucket, in the parameters' memory order.
  backward(ddp, 0);
  check(ddp, [0], "one batch");
  const [weight] = ddp.parameters();
  assertEquals(new Set([...ddp.parameters()].map((p) => p.grad!.storage)).size, 1);
  assertEquals(weight.grad!.strides, weight.strides);
  assertEquals(weight.grad!.strides, [18, 1, 6, 2]);

  // Accumulation: apart, then together; each backward reduced; asynchronous.
  for (const setToNull of [true, false]) {
    ddp.zeroGrad({ setToNull });
    ddp.noSync(() => backward(ddp, 1));
    await ddp.noSync(async () => {
      await Promise.resolve();
      backward(ddp, 2);
    });
    backward(ddp, 3);
    check(ddp, [1, 2, 3], "noSync");
    ddp.zeroGrad({ setToNull });
    for (const step of [4, 5]) backward(ddp, step);
    check(ddp, [4, 5], "two reduced");
  }
  assertThrows(() =>
    ddp.noSync(() => {
      throw new RangeError("from inside");
    }), RangeError);
  ddp.zeroGrad();
  // Two forwards before backward, and two backwards of one forward.
  const [first, second] = [6, 7].map((step) => batch(step, part * size));
  lossOf(ddp, mine(first.x), mine(first.y)).add(lossOf(ddp, mine(second.x), mine(second.y))).backward();
  check(ddp, [6, 7], "two forwards");
  ddp.zeroGrad();
  const loss = lossOf(ddp, mine(first.x), mine(first.y));
  loss.backward(null, { retainGraph: true });
  loss.backward();
  check(ddp, [6, 6], "backward twice");
  ddp.zeroGrad();
  assertThrows(() => lossOf(ddp, mine(first.x), mine(first.y)).backward(null, { createGraph: true }), AutogradError, "createGraph");
  ddp.zeroGrad();
  // grad() is this rank's affair.
  const [own] = grad(lossOf(ddp, mine(first.x), mine(first.y)), [weight]), alone = network();
  lossOf(alone, mine(first.x), mine(first.y)).backward();
  close(own, [...alone.parameters()][0].grad, 0, "grad()");
  ddp.dispose();

  // Hooks: a user's own, and the two that compress.
  for (
    const [hook, tolerance] of [[distributed.allReduceHook, 1e-5], [distributed.fp16CompressHook, 2e-3], [
      distributed.bf16CompressHook,
      2e-2,
    ]] as const
  ) {
    const hooked = new DistributedDataParallel(network());
    hooked.registerCommHook(null, hook);
    assertThrows(() => hooked.registerCommHook(null, hook), TypeError, "already");
    backward(hooked, 8);
    check(hooked, [8], hook.name, tolerance);
    hooked.dispose();
  }
  const seen: number[] = [], custom = new DistributedDataParallel(network(), { bucketCapMb: 0.0002 });
  custom.registerCommHook(2, (factor: number, bucket) => {
    seen.push(bucket.index);
    assertEquals(bucket.gradients().map((it) => it.shape), bucket.parameters.map((it) => it.shape));
    assertEquals(bucket.isLast, bucket.parameters.some((it) => it === [...custom.parameters()][0]));
    const scaled = bucket.buffer.mul(1 / (factor * size)), work = distributed.allReduce(scaled, { asyncOp: true });
    return {
      wait: () => {
        work.wait();
        return scaled.mul(factor);
      },
    };
  });
  backward(custom, 9);
  check(custom, [9], "a hook");
  assertEquals(seen, seen.map((_, i) => i));
  assert(seen.length > 2);
  custom.dispose();
  const wrong = new DistributedDataParallel(network());
  wrong.registerCommHook(null, () => 3 as never);
  assertThrows(() => backward(wrong, 0), TypeError, "wait()");
  wrong.dispose();
}

/** Layers of two dtypes. */
class Mixed extends nn.Module {
  a = new nn.Linear(4, 4, { dtype: "float64" });
  b = new nn.Linear(4, 4);
  c = new nn.Linear(4, 2, { dtype: "float64" });
  override forward(x: Tensor): Tensor {
    return this.c.call(this.b.call(this.a.call(x).to("float32")).to("float64"));
  }
}

/** Branches that are not always taken. */
class Branches extends nn.Module {
  left = new nn.Linear(3, 2);
  right = new nn.Linear(3, 2);
  never = new nn.Linear(3, 2);
  override forward(x: Tensor, way: "left" | "right" | "both"): Tensor {
    const parts = [...way === "right" ? [] : [this.left.call(x)], ...way === "left" ? [] : [this.right.call(x)]];
    return parts.reduce((a, b) => a.add(b));
  }
}

/** Parameters of several dtypes; parameters that get no gradient. */
export function ddpSelection(rank: number, size: number): Promise<void> {
  const generator = new Generator(3);
  const mixed = new Mixed(), plain = new Mixed();
  for (const it of [mixed, plain]) fill(it, 5);
  const ddp = new DistributedDataParallel(mixed), x = randn([2 * size, 4], { generator }).to("float64");
  ddp.call(x.narrow(0, 2 * rank, 2)).square().mean().backward();
  plain.call(x).square().mean().backward();
  const others = [...plain.parameters()];
  [...mixed.parameters()].forEach((p, i) => {
    assertEquals(p.grad!.dtype, p.dtype);
    close(p.grad, others[i].grad, p.dtype === "float64" ? 1e-6 : 1e-5, "mixed dtypes");
  });
  assertEquals(new Set([...mixed.parameters()].map((p) => p.grad!.storage)).size, 2);

  const some = new Branches();
  const bound = new Branches();
  for (const it of [some, bound]) fill(it, 6);
  const y = randn([2, 3], { generator }).add(rank);
  const strict = new DistributedDataParallel(bound);
  assertThrows(
    () => strict.call(y, "left").sum().backward(),
    AutogradError,
    "no gradient to 4 of 6 parameters: right.weight, right.bias, never.weight, never.bias. Pass { findUnusedParameters: true }",
  );
  strict.zeroGrad();
  // Through the module itself, backward is this rank's affair.
  if (rank === 0) strict.module.call(y, "left").sum().backward();
  const find = new DistributedDataParallel(some, { findUnusedParameters: true });
  const average = (of: (rank: number) => number) => Array.from({ length: size }, (_, i) => of(i)).reduce((a, b) => a + b) / size;
  // Each rank goes its own way: what some rank used has a gradient everywhere, what none used has none.
  find.call(y, rank === 0 ? "left" : "right").sum().backward();
  assertAlmostEquals(some.left.bias!.grad!.tolist()[0 as never], average((i) => i === 0 ? 2 : 0), 1e-6);
  assertAlmostEquals(some.right.bias!.grad!.tolist()[0 as never], average((i) => i === 0 ? 0 : 2), 1e-6);
  assertEquals(some.never.bias!.grad, null);
  // What was added up without others counts as used.
  find.zeroGrad();
  find.noSync(() => find.call(y, "left").sum().backward());
  find.call(y, "right").sum().backward();
  assertEquals([some.left.bias!.grad!.tolist(), some.right.bias!.grad!.tolist()], [[2, 2], [2, 2]]);
  assertEquals(some.never.bias!.grad, null);
  find.zeroGrad();
  find.call(y, "both").sum().backward();
  assertEquals(some.left.bias!.grad!.tolist(), [2, 2]);

  const fixed = new Branches(), still = new DistributedDataParallel(fixed, { staticGraph: true, broadcastBuffers: false });
  for (let step = 0; step < 3; step++) {
    still.zeroGrad();
    still.call(y, "left").sum().backward();
    assertEquals(fixed.left.bias!.grad!.tolist(), [2, 2]);
    assertEquals([fixed.right.bias!.grad, fixed.never.weight.grad], [null, null]);
  }
  assertThrows(() => still.call(y, "both").sum().backward(), AutogradError, "right.weight was not reached in the first one");
  // A penalty on parameters, one of which the module does not use in this pass: its gradient is complete before the outputs are passed.
  const penal = new Branches(), penalised = new DistributedDataParallel(penal);
  penalised.call(y, "left").sum().add(penal.right.weight.sum()).add(penal.right.bias!.sum()).add(penal.never.weight.sum()).add(
    penal.never.bias!.sum().mul(rank),
  ).backward();
  assertEquals([penal.left.bias!.grad!.tolist(), penal.right.bias!.grad!.tolist()], [[2, 2], [1, 1]]);
  assertEquals(penal.never.bias!.grad!.tolist(), [average((i) => i), average((i) => i)]);
  // The parameters that learn are chosen before.
  const learning = new Branches();
  learning.never.requiresGrad_(false);
  const chosen = new DistributedDataParallel(learning);
  chosen.call(y, "both").sum().backward();
  return Promise.resolve();
}

/** Models that differ, wrong calls, state dicts. */
export async function ddpMisuse(rank: number, size: number): Promise<void> {
  const last = rank === size - 1;
  const differs = (make: () => nn.Module, text: string, options?: distributed.DistributedDataParallelOptions) => {
    const error = assertThrows(() => new DistributedDataParallel(make(), options), DistributedError);
    assert(error.message.includes(text), error.message);
    assertEquals(error.rank, size - 1);
  };
  differs(
    () => new nn.Sequential(new nn.Linear(3, 4), new nn.Linear(4, last ? 2 : 5)),
    `rank ${size - 1} has parameter 1.weight [2, 4] of float32 where rank 0 has parameter 1.weight [5, 4] of float32`,
  );
  differs(
    () => new nn.Linear(3, 4, { dtype: last ? "float64" : "float32" as DType }),
    "parameter weight [4, 3] of float64 where rank 0 has parameter weight [4, 3] of float32",
  );
  differs(
    () => new nn.Linear(3, 4, { bias: !last }),
    `rank ${size - 1} has option bucketCapMb 25 where rank 0 has parameter bias [4] of float32`,
  );
  differs(() => {
    const model = new nn.Linear(3, 4);
    if (last) model.bias!.requiresGrad_(false);
    return model;
  }, "parameter bias [4] of float32 without gradient where");
  differs(() => last ? new nn.Sequential(new nn.Linear(3, 4)) : new nn.Linear(3, 4), "parameter 0.weight");
  differs(() => new nn.Linear(3, 4), "option bucketCapMb 7 where rank 0 has option bucketCapMb 25", { bucketCapMb: last ? 7 : 25 });
  assertThrows(() => new DistributedDataParallel(3 as never), TypeError, "takes a Module, got number");
  assertThrows(() => new DistributedDataParallel(new nn.ReLU()), RangeError, "no parameter of ReLU requires a gradient");
  assertThrows(() => new DistributedDataParallel(new nn.Linear(2, 2), { bucketCapMb: 0 }), RangeError, "bucketCapMb must be above 0");

  // Everybody has the parameters and buffers of rank 0; buffers again before each forward in training mode.
  const model = new nn.Sequential(new nn.Linear(3, 4), new nn.BatchNorm1d(4));
  noGrad(() => (model.at(1) as nn.BatchNorm1d).runningMean!.fill_(rank + 1));
  const ddp = new DistributedDataParallel(model), norm = model.at(1) as nn.BatchNorm1d;
  equalEverywhere(ddp);
  assertEquals(norm.runningMean!.tolist(), [1, 1, 1, 1]);
  noGrad(() => norm.runningMean!.fill_(rank));
  ddp.eval().call(ones([2, 3]));
  assertEquals(norm.runningMean!.tolist(), [rank, rank, rank, rank]);
  assertEquals([norm.training, ddp.module.training], [false, false]);
  norm.eval();
  ddp.training = true;
  ddp.call(ones([2, 3]));
  assertEquals(norm.runningMean!.tolist(), [0, 0, 0, 0]);

  // State dicts with and without PyTorch's prefix go into either.
  const own = ddp.stateDict(), prefixed = Object.fromEntries(Object.entries(own).map(([name, x]) => [`module.${name}`, x]));
  assertEquals(Object.keys(own), Object.keys(model.stateDict()));
  assertEquals([...ddp.namedParameters()][0][0], "module.0.weight");
  for (const state of [own, prefixed]) {
    ddp.loadStateDict(state);
    model.loadStateDict(state);
    ddp.loadStateDict(new Map(Object.entries(state)));
  }
  assertThrows(() => ddp.loadStateDict({ "module.0.weight": own["0.weight"] }), Error, "missing");
  assertThrows(() => ddp.loadStateDict(null as never), TypeError);

  model.double();
  assertThrows(() => ddp.call(ones([2, 3], { dtype: "float64" })).sum().backward(), Error, "convert the module before it is wrapped");
  assertThrows(() => ddp.registerCommHook(null, 3 as never), TypeError, "must be a function");

  // A rank that fails ends the backward of the others.
  const group = (await distributed.newGroup())!;
  const late = new DistributedDataParallel(new nn.Linear(3, 4), { processGroup: group });
  if (last) group.abort("the last rank gives up");
  else {
    const error = assertThrows(() => late.call(ones([2, 3])).sum().backward(), DistributedError, "the last rank gives up");
    assertEquals(error.collective, "allReduce");
  }
  distributed.barrier();
}

/** Ranks with different numbers of batches. */
export async function ddpJoin(rank: number, size: number): Promise<void> {
  const data = (r: number, step: number) => batch(100 * r + step, 2);
  for (const divideByInitialWorldSize of [true, false]) {
    const ddp = new DistributedDataParallel(network(1), { bucketCapMb: 0.0005 }), plain = network(1);
    const make = (it: nn.Module) => new optim.SGD(it.parameters(), { lr: 0.05 });
    const optimizer = make(ddp), other = make(plain), batches = (r: number) => 2 + 2 * r;
    const result = await ddp.join(async () => {
      for (let step = 0; step < batches(rank); step++) {
        await Promise.resolve();
        const { x, y } = data(rank, step), backward = () => lossOf(ddp, x, y).backward();
        if (step % 3 === 1) ddp.noSync(backward);
        else {
          backward();
          optimizer.step();
          optimizer.zeroGrad();
        }
      }
      return rank;
    }, { divideByInitialWorldSize });
    assertEquals(result, rank);
    for (let step = 0; step < batches(size - 1); step++) {
      const there = Array.from({ length: size }, (_, r) => r).filter((r) => step + (step % 3 === 1 ? 1 : 0) < batches(r)); // what a rank adds up apart before it ends is lost
      if (there.length === 0) continue;
      const losses = there.map((r) => lossOf(plain, data(r, step).x, data(r, step).y));
      losses.reduce((a, b) => a.add(b)).mul(1 / (divideByInitialWorldSize ? size : there.length)).backward();
      if (step % 3 === 1) continue;
      other.step();
      other.zeroGrad();
    }
    equalEverywhere(ddp);
    same(ddp.module, plain, 1e-5, "join");
    ddp.dispose();
  }
  const ddp = new DistributedDataParallel(network());
  const loop = () => {
    for (let step = 0; step <= rank; step++) lossOf(ddp, data(rank, step).x, data(rank, step).y).backward();
  };
  await assertRejects(() => ddp.join(loop, { throwOnEarlyTermination: true }), DistributedError, "rank 0 had fewer batches");
}

/** Exact joins: the mean over the ranks that are there. */
export async function ddpJoinExact(rank: number, size: number): Promise<void> {
  for (const divideByInitialWorldSize of [true, false]) {
    const model = new nn.Linear(1, 1, { bias: false });
    noGrad(() => model.weight.fill_(0));
    const ddp = new DistributedDataParallel(model, { findUnusedParameters: divideByInitialWorldSize });
    const optimizer = new optim.SGD(ddp.parameters(), { lr: 1 }), seen: number[] = [];
    await ddp.join(() => {
      for (let step = 0; step <= rank; step++) {
        optimizer.zeroGrad();
        ddp.call(ones([1, 1])).sum().backward();
        seen.push(model.weight.grad!.item());
        optimizer.step();
      }
    }, { divideByInitialWorldSize });
    const shares = Array.from({ length: size }, (_, step) => divideByInitialWorldSize ? (size - step) / size : 1);
    seen.forEach((it, step) => assertAlmostEquals(it, shares[step], 1e-6));
    // The rank that ended first has the parameters of the one that ended last.
    assertAlmostEquals(model.weight.item(), -shares.reduce((a, b) => a + b), 1e-6);
    assertEquals(await ddp.join(() => 5, { enable: false }), 5);
  }
  const norm = new DistributedDataParallel(new nn.SyncBatchNorm(2));
  await assertRejects(() => norm.join(() => 1), TypeError, "SyncBatchNorm");
}
