import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  AutogradError,
  compile,
  type Compiled,
  cuda,
  defaultGenerator,
  DisposedError,
  Generator,
  manualSeed,
  memory,
  nn,
  noGrad,
  ones,
  optim,
  rand,
  randn,
  scope,
  Tensor,
  tensor,
  zeros,
} from "../mod.ts";
import { device } from "./device.ts";
import { test } from "./leaks.ts";

import { batch, mlp, trainer, using_ } from "./compiled.ts";

/** Elements of everything that training changes. */
function stateOf(model: nn.Module, optimizer: optim.Optimizer): unknown {
  return [
    Object.entries(model.stateDict()).map(([name, x]) => [name, [...x.data()].map(Number)]),
    Object.values(optimizer.stateDict().state).map((state) =>
      Object.entries(state).map(([key, it]) => [key, it instanceof Tensor ? [...it.data()].map(Number) : it])
    ),
    [...model.parameters()].map((p) => p.grad === null ? null : [...p.grad.data()].map(Number)),
    defaultGenerator.getState(),
  ];
}

interface Setup {
  readonly model: nn.Layer;
  readonly optimizer: optim.Optimizer;
  readonly step: (x: Tensor, y: Tensor, i: number) => Tensor;
  /** After each step, outside. */
  readonly after?: (i: number) => void;
}

/** Trains as it is and compiled, and compares all of the state after every step. */
function follows(make: () => Setup, data: (i: number) => [Tensor, Tensor], steps = 20, recordings = 1): void {
  const run = (compiled: boolean): unknown[] =>
    scope(() => {
      manualSeed(7);
      const { model, optimizer, step, after } = make(), seen: unknown[] = [];
      const train = (x: Tensor, y: Tensor) => step(x, y, 0);
      const fn = compiled ? compile(train) : train;
      for (let i = 0; i < steps; i++) {
        scope(() => {
          const loss = fn(...data(i));
          seen.push([loss.item(), stateOf(model, optimizer)]);
        });
        after?.(i);
      }
      if (compiled) {
        const it = fn as Compiled<[Tensor, Tensor], Tensor>;
        assertEquals([it.reason, it.recordings], [null, recordings]);
        assert(it.replays >= steps - recordings - 2, `${it.replays} replays`);
        it.dispose();
      }
      optimizer.dispose();
      model.dispose();
      return seen;
    });
  const expected = run(false), found = run(true);
  found.forEach((it, i) => assertEquals(it, expected[i], `step ${i}`));
}

const optimizers: Record<string, (p: Iterable<Tensor>) => optim.Optimizer> = {
  SGD: (p) => new optim.SGD(p, { lr: 0.1 }),
  "SGD with momentum": (p) => new optim.SGD(p, { lr: 0.1, momentum: 0.9, nesterov: true, weightDecay: 0.01 }),
  Adam: (p) => new optim.Adam(p, { lr: 0.01 }),
  "AdamW with amsgrad": (p) => new optim.AdamW(p, { lr: 0.01, amsgrad: true }),
  RMSprop: (p) => new optim.RMSprop(p, { centered: true, momentum: 0.5 }),
  Adagrad: (p) => new optim.Adagrad(p, { lrDecay: 0.1 }),
};
for (const [name, make] of Object.entries(optimizers)) {
  test(`compile() an MLP with dropout and ${name} follows the uncompiled run`, () => {
    // Without states the first call is recorded as well; the second finds gradients.
    follows(
      () => {
        const model = mlp(), optimizer = make(model.parameters());
        return { model, optimizer, step: trainer(model, optimizer) };
      },
      batch,
      20,
      name === "SGD" ? 2 : 1,
    );
  });
}

const pictures = (i: number): [Tensor, Tensor] => {
  const [, y] = batch(i, 4, 4);
  return [randn([4, 3, 8, 8], { generator: new Generator(i) }), y];
};

class Net extends nn.Module {
  conv1 = new nn.Conv2d(3, 8, 3, { padding: 1 });
  norm = new nn.BatchNorm2d(8);
  drop = new nn.Dropout2d(0.2);
  conv2 = new nn.Conv2d(8, 8, 3, { padding: 1, stride: 2 });
  pool = new nn.AdaptiveAvgPool2d(1);
  out = new nn.Linear(8, 4);
  override forward(x: Tensor): Tensor {
    const y = this.drop.call(this.norm.call(this.conv1.call(x)).relu());
    return this.out.call(this.pool.call(this.conv2.call(y)).flatten(1));
  }
}

for (const inside of [false, true]) {
  test(`compile() convolutions with BatchNorm, dropout, clipping and a scheduler ${inside ? "inside" : "outside"}`, () => {
    follows(() => {
      const model = new Net().to(device), optimizer = new optim.Adam(model.parameters(), { lr: 0.01 });
      const schedule = new optim.SequentialLR(optimizer, [
        new optim.LinearLR(optimizer, { startFactor: 0.1, totalIters: 5 }),
        new optim.CosineAnnealingLR(optimizer, 15),
      ], [5]);
      const train = trainer(model, optimizer, () => void optim.clipGradNorm(model.parameters(), 0.5));
      return {
        model,
        optimizer,
        step: (x, y) => {
          const loss = train(x, y);
          if (inside) schedule.step();
          return loss;
        },
        after: () => inside || schedule.step(),
      };
    }, pictures);
  });
}

test("compile() records shapes apart, and finds them again", () => {
  const fn = compile((x: Tensor) => x.mul(2).add(1).sum(0));
  using_(fn, () => {
    for (const [rows, recordings] of [[3, 1], [3, 1], [4, 2], [3, 2], [4, 2], [5, 3]]) {
      const x = rand([rows, 4]);
      assertEquals(fn(x).tolist(), x.mul(2).add(1).sum(0).tolist());
      assertEquals(fn.recordings, recordings);
    }
    const columns = rand([4, 3]).T;
    assertEquals(fn(columns).tolist(), columns.mul(2).add(1).sum(0).tolist());
    assertEquals([fn.recordings, fn(ones([3, 4], { dtype: "float64" })).dtype, fn.recordings], [4, "float64", 5]);
    assertEquals(fn.replays, 3);
  });
});

test("compile() returns fresh tensors in the structure of the function's result", () => {
  const c = rand([2, 3]);
  const fn = compile((x: Tensor, { scale }: { scale: number }) => {
    const y = x.mul(scale);
    return { list: [y, y.T, "text"], y, x, view: x.select(0, 1), c, none: null, part: c.narrow(0, 1, 1) };
  });
  using_(fn, () => {
    const kept: { sums: unknown; of: Tensor }[] = [];
    for (let i = 0; i < 4; i++) {
      const x = rand([2, 3]), r = fn(x, { scale: 3 });
      const y = r.list[0] as Tensor;
      assertEquals(y.tolist(), x.mul(3).tolist());
      assertEquals((r.list[1] as Tensor).tolist(), x.mul(3).T.tolist());
      assertEquals([r.list[2], r.none], ["text", null]);
      assert(r.y === y && r.x === x && r.c === c);
      assertEquals(r.view.tolist(), x.select(0, 1).tolist());
      assert(r.view.storage === x.storage && r.part.storage === c.storage && (r.list[1] as Tensor).storage === y.storage);
      kept.push({ sums: y.tolist(), of: y });
    }
    for (const { sums, of } of kept) assertEquals(of.tolist(), sums, "a later call leaves it alone");
    assertEquals([fn.reason, fn.recordings, fn.replays], [null, 1, 3]);
    fn(rand([2, 3]), { scale: 4 });
    assertEquals(fn.recordings, 2, "numbers are compared");
  });
});

test("compile() reads arguments where they lie, whatever shares their memory", () => {
  const all = rand([10, 4]), fn = compile((x: Tensor, y: Tensor) => x.mul(y).add(all.sum()));
  using_(fn, () => {
    for (let i = 0; i < 5; i++) {
      const x = all.narrow(0, i, 2), y = all.narrow(0, i + 2, 2);
      assertEquals(fn(x, y).tolist(), x.mul(y).add(all.sum()).tolist());
    }
    const x = rand([2, 4]), y = rand([2, 4]);
    assertEquals(fn(x, y).tolist(), x.mul(y).add(all.sum()).tolist(), "memory of their own");
    assertEquals(fn(x, x).tolist(), x.mul(x).add(all.sum()).tolist(), "one tensor for both");
    assertEquals(fn.reason, null);
  });
});

test("compile() tells an argument from the same tensor that the function knows anyway", () => {
  const c = tensor([1, 2]), fn = compile((x: Tensor) => x.mul(10).add(c));
  using_(fn, () => {
    assertEquals(fn(c).tolist(), [11, 22]);
    assertEquals(fn(tensor([5, 6])).tolist(), [51, 62]);
    assertEquals([fn.recordings, fn.replays], [1, 1]);
  });
});

test("compile() writes to arguments and captured tensors in place", () => {
  const total = zeros([2]),
    fn = compile((x: Tensor) => {
      x.mul_(2);
      total.add_(x);
    });
  using_(fn, () => {
    for (let i = 1; i <= 4; i++) {
      const x = tensor([i, 1]), view = ones([3, 2]), before = [x.version, total.version];
      fn(x);
      assertEquals(x.tolist(), [2 * i, 2]);
      assertEquals([x.version - before[0], total.version - before[1]], [1, 1]);
      fn(view.select(0, 1));
      assertEquals(view.tolist(), [[1, 1], [2, 2], [1, 1]]);
    }
    assertEquals(total.tolist(), [2 * 10 + 8, 8 + 8]);
    assertEquals([fn.reason, fn.recordings], [null, 1]);
    fn(total); // what it is given is what it writes to
    assertEquals(total.tolist(), [112, 64]);
  });
});

test("compile() gives saved tensors' versions their counts", () => {
  const w = ones([2], { requiresGrad: true }), x = ones([2]), fn = compile(() => void noGrad(() => x.mul_(2)));
  using_(fn, () => {
    fn();
    fn();
    const y = w.mul(x).sum();
    fn();
    assertThrows(() => y.backward(), AutogradError, "changed in place");
    assertEquals(x.tolist(), [8, 8]);
    assertEquals(fn.replays, 2);
  });
  w.grad?.dispose();
});

test("compile() accumulates gradients in one function and steps in another", () => {
  const run = (wrap: <A extends unknown[], R>(fn: (...args: A) => R) => (...args: A) => R) => {
    manualSeed(3);
    const model = mlp(), optimizer = new optim.AdamW(model.parameters());
    const gather = wrap((x: Tensor, y: Tensor) => void nn.functional.crossEntropy(model.call(x), y).div(2).backward());
    const apply = wrap(() => {
      optimizer.step();
      optimizer.zeroGrad();
    });
    for (let i = 0; i < 12; i++) {
      gather(...batch(i));
      if (i % 2 === 1) apply();
    }
    const state = stateOf(model, optimizer);
    optimizer.dispose();
    model.dispose();
    return state;
  };
  const made: Compiled<unknown[], unknown>[] = [];
  const expected = run((fn) => fn);
  const found = run((fn) => {
    const compiled = compile(fn);
    made.push(compiled as unknown as Compiled<unknown[], unknown>);
    return compiled;
  });
  assertEquals(found, expected);
  assertEquals(made.map((it) => [it.reason, it.recordings, it.replays]), [[null, 2, 10], [null, 1, 4]]);
  for (const it of made) it.dispose();
});

test("compile() gives gradients of earlier calls back and keeps what is shared", () => {
  const w = ones([3], { requiresGrad: true }),
    fn = compile((x: Tensor) => {
      w.grad?.dispose();
      w.grad = null;
      w.mul(x).sum().backward();
    });
  using_(fn, () => {
    for (let i = 0; i < 3; i++) fn(tensor([i, 1, 2]));
    const old = w.grad!, shared = old.alias();
    fn(tensor([7, 8, 9]));
    assert(old.disposed);
    assertEquals([shared.tolist(), w.grad!.tolist()], [[2, 1, 2], [7, 8, 9]]);
    const now = w.grad!;
    fn(now.clone());
    fn(w.grad!.alias());
    assertEquals(w.grad!.tolist(), [7, 8, 9]);
    assert(now.disposed && w.grad!.kept);
    w.grad!.dispose();
    w.grad = null; // another state: recorded again or found
    fn(tensor([1, 1, 1]));
    assertEquals(w.grad!.tolist(), [1, 1, 1]);
    assertEquals(fn.reason, null);
  });
  w.grad!.dispose();
});

test("compile() says that an error of the data is one, and leaves the state of the uncompiled function", () => {
  const run = (compiled: boolean) => {
    manualSeed(2);
    const model = mlp(), optimizer = new optim.Adam(model.parameters()), train = trainer(model, optimizer);
    const fn = compiled ? compile(train) : train;
    const seen: unknown[] = [];
    for (let i = 0; i < 6; i++) {
      const [x, y] = batch(i);
      const bad = tensor([0n, 1n, 2n, 99n, 1n, 1n]).to(device);
      if (i === 4) {
        seen.push(
          assertThrows(() => {
            fn(x, bad);
            if (device.type === "cuda") cuda.synchronize(device);
          }, RangeError).message,
        );
      } else fn(x, y);
      if (device.type === "cpu" || i < 4) seen.push(stateOf(model, optimizer));
    }
    if (compiled) (fn as Compiled<[Tensor, Tensor], Tensor>).dispose();
    optimizer.dispose();
    model.dispose();
    return seen;
  };
  assertEquals(run(true), run(false));
});

test("compile() leaves memory flat over 1000 calls, and nothing after dispose()", () => {
  const model = mlp(), optimizer = new optim.AdamW(model.parameters()), fn = compile(trainer(model, optimizer));
  const data = batch(1);
  for (let i = 0; i < 10; i++) fn(...data).dispose();
  const before = memory.stats(), allocated = before.bytes;
  for (let i = 0; i < 1000; i++) fn(...data).dispose();
  const after = memory.stats();
  assertEquals([after.tensors, after.bytes], [before.tensors, allocated]);
  assertEquals([fn.recordings, fn.replays], [1, 1008]);
  const live = memory.stats().tensors;
  fn.dispose();
  fn.dispose();
  assertEquals(
    memory.stats().tensors,
    live - (device.type === "cpu" ? 1 : 4),
    "the block of temporaries; places of a graph's arguments and result",
  );
  assertThrows(() => fn(...data), DisposedError, "has been disposed");
  optimizer.dispose();
  model.dispose();
});

test("compile() on a GPU becomes a graph while only counts change", () => {
  const model = mlp(), optimizer = new optim.AdamW(model.parameters(), { lr: 0.01 }), fn = compile(trainer(model, optimizer));
  const graphs = () => cuda.runtimeStats(device).graphLaunches;
  using_(fn, () => {
    const launched: number[] = [];
    for (let i = 0; i < 12; i++) {
      const before = graphs();
      if (i === 5) optimizer.paramGroups[0].lr = 0.02;
      if (i === 8) rand([1]); // the generator has moved otherwise
      fn(...batch(i));
      launched.push(graphs() - before);
    }
    // Made as it is, recorded, then twice alike before a graph is made; again after each change.
    assertEquals(launched, [0, 0, 0, 1, 1, 0, 1, 1, 0, 1, 1, 1]);
    assertEquals([fn.reason, fn.recordings], [null, 1]);
    const shared = (model.at(0) as nn.Linear).weight.grad!.alias(); // the next gradient needs other memory
    const before = graphs();
    fn(...batch(12));
    assertEquals(graphs() - before, 0);
    shared.dispose();
  });
  optimizer.dispose();
  model.dispose();
}, { ignore: device.type !== "cuda" });
