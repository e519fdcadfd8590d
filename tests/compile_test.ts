import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  AutogradError,
  compile,
  type Compiled,
  cuda,
  defaultGenerator,
  DisposedError,
  dropout,
  enableGrad,
  Generator,
  keep,
  manualSeed,
  memory,
  nn,
  noGrad,
  ones,
  optim,
  rand,
  randn,
  scope,
  ShapeError,
  Tensor,
  tensor,
  zeros,
} from "../mod.ts";
import { device } from "./device.ts";
import { test } from "./leaks.ts";

const warnings: string[] = [];
console.warn = (text: string) => void warnings.push(text);

/** Runs `fn` with a compiled function that is disposed afterwards. */
function using_<A extends unknown[], R>(compiled: Compiled<A, R>, fn: (compiled: Compiled<A, R>) => void): void {
  try {
    fn(compiled);
  } finally {
    compiled.dispose();
  }
}

const batch = (i: number, classes = 5, size = 6, features = 8): [Tensor, Tensor] => {
  const generator = new Generator(100 + i);
  return [
    randn([size, features], { generator }),
    tensor(BigInt64Array.from({ length: size }, (_, k) => BigInt((k * 7 + i) % classes))).to(device),
  ];
};

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

const mlp = () =>
  new nn.Sequential(new nn.Linear(8, 16), new nn.ReLU(), new nn.Dropout(0.3), new nn.Linear(16, 5)).to(device) as nn.Sequential;

function trainer(model: nn.Layer, optimizer: optim.Optimizer, between: () => void = () => {}): (x: Tensor, y: Tensor) => Tensor {
  return (x, y) => {
    optimizer.zeroGrad();
    const loss = nn.functional.crossEntropy(model.call(x), y);
    loss.backward();
    between();
    optimizer.step();
    return loss.detach();
  };
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

test("compile() notices modes, settings, parameters and states that change", () => {
  const model = mlp(), optimizer = new optim.AdamW(model.parameters(), { lr: 0.01 });
  const fn = compile((x: Tensor) => model.call(x)), [x] = batch(1);
  const infer = () => noGrad(() => fn(x));
  const expect = (recordings: number) => {
    manualSeed(1);
    const found = infer().tolist();
    manualSeed(1);
    assertEquals(found, noGrad(() => model.call(x)).tolist());
    assertEquals(fn.recordings, recordings);
  };
  using_(fn, () => {
    expect(1);
    expect(1);
    model.eval();
    expect(2);
    model.train();
    expect(2);
    (model.at(2) as unknown as { p: number }).p = 0.6;
    expect(3);
    const first = model.at(0) as nn.Linear;
    noGrad(() => first.weight.mul_(2));
    expect(3); // elements alone
    const before = first.weight;
    before.grad?.dispose();
    first.weight = new nn.Parameter(before.detach().add(1));
    expect(4);
    before.dispose();
    first.weight.setData(rand([16, 8]));
    expect(5);
    model.append(new nn.ReLU());
    expect(6);
    model.loadStateDict(model.stateDict());
    expect(6);
    assertEquals(fn.reason, null);
  });
  const train = compile(trainer(model, optimizer));
  using_(train, () => {
    for (let i = 0; i < 4; i++) train(...batch(i));
    assertEquals([train.recordings, train.replays], [1, 2]);
    optimizer.loadStateDict(optimizer.stateDict());
    train(...batch(4));
    assertEquals(train.recordings, 2);
    optimizer.paramGroups[0].lr = 0.5;
    optimizer.paramGroups[0].betas = [0.5, 0.6];
    train(...batch(5));
    assertEquals(train.recordings, 2);
    optimizer.paramGroups[0].maximize = true;
    train(...batch(6));
    assertEquals(train.recordings, 3);
    (model.at(0) as nn.Linear).requiresGrad_(false);
    optimizer.zeroGrad();
    train(...batch(7)); // without gradients at first
    train(...batch(7));
    assertEquals([train.recordings, train.reason], [5, null]);
  });
  optimizer.dispose();
  model.dispose();
});

test("compile() repeats modes that the function sets", () => {
  const model = mlp(),
    fn = compile((x: Tensor) => {
      model.train();
      return noGrad(() => model.call(x));
    });
  using_(fn, () => {
    const [x] = batch(1);
    for (let i = 0; i < 4; i++) {
      fn(x);
      assert(model.training && (model.at(2) as nn.Dropout).training);
      model.eval();
    }
    assertEquals([fn.recordings, fn.replays], [1, 3]);
  });
  model.dispose();
});

test("compile() goes on with the generators where they stand", () => {
  const own = new Generator(5), fn = compile((x: Tensor) => dropout(x, 0.5).add(rand([4], { generator: own })));
  using_(fn, () => {
    const x = ones([4]),
      run = (f: (x: Tensor) => Tensor) => {
        const seen: unknown[] = [];
        own.manualSeed(9);
        manualSeed(9);
        for (let i = 0; i < 4; i++) {
          if (i === 2) manualSeed(1n << 40n);
          seen.push(f(x).tolist(), rand([1]).item());
        }
        seen.push(own.getState(), defaultGenerator.getState());
        return seen;
      };
    const expected = run((x) => dropout(x, 0.5).add(rand([4], { generator: own })));
    assertEquals(run(fn), expected);
    assertEquals(run(fn), expected);
    assertEquals([fn.recordings, fn.replays], [1, 7]);
  });
});

const w0 = () => keep(ones([3], { requiresGrad: true }));
const survivors: Tensor[] = [];
const refusals: Record<string, [(x: Tensor) => unknown, string]> = {
  "item()": [(x) => x.sum().item() > 0 ? x.add(1) : x.sub(1), "reads values"],
  "printing": [(x) => `${x.add(1)}`, "reads values"],
  "an array": [(x) => x.add(tensor([1, 2, 3])), "array of the program"],
  "a graph": [(x) => x.mul(ones([3], { requiresGrad: true })), "with its graph"],
  "a kept tensor": [(x) => survivors[survivors.push(keep(x.add(1))) - 1], "keeps a tensor"],
  "a tensor that stays": [(x) => void survivors.push(keep(x.add(1))), "in a tensor that it does not return"],
  "seeding": [(x) => (manualSeed(1), x.add(1)), "seeds a generator"],
  "numbers for the program": [(x) => (defaultGenerator.take(1), x.add(1)), "draws random numbers"],
  "a Map": [(x) => new Map([["y", x.add(1)]]), "Map or a Set"],
  "no work": [(x) => x, "no native call"],
};
for (const [name, [body, reason]] of Object.entries(refusals)) {
  test(`compile() runs a function with ${name} as it is and says why`, () => {
    const fn = compile(body);
    warnings.length = 0;
    using_(fn, () => {
      for (let i = 0; i < 3; i++) {
        const x = tensor([i, i + 1, i - 2]), found = fn(x), expected = body(x);
        const plain = (it: unknown) =>
          it instanceof Map ? [...it.values()].map((t) => t.tolist()) : it instanceof Tensor ? it.tolist() : it;
        assertEquals(plain(found), plain(expected));
      }
      assert(fn.reason?.includes(reason), `${fn.reason}`);
      assertEquals([fn.recordings, fn.replays, warnings.length], [0, 0, 1]);
      assert(warnings[0].startsWith("compile: "));
    });
    const strict = compile(body, { fullGraph: true });
    using_(strict, () => {
      assertThrows(() => strict(tensor([1, 2, 3])), Error, reason);
      assertThrows(() => strict(tensor([1, 2, 3])), Error, reason);
    });
    for (const it of survivors.splice(0)) it.dispose();
  });
}

test("compile() refuses hooks, host counts and graphs from outside", () => {
  const model = mlp(), [x] = batch(1), w = w0();
  const check = (fn: Compiled<[Tensor], unknown>, reason: string, argument = x) => {
    using_(fn, () => {
      for (let i = 0; i < 2; i++) fn(argument);
      assert(fn.reason?.includes(reason), `${fn.reason}, expected ${reason}`);
    });
  };
  const handle = model.at(0).registerForwardHook(() => {});
  check(compile((x) => noGrad(() => model.call(x))), "has hooks");
  handle.remove();
  const hook = w.registerHook(() => {});
  check(compile((x) => w.mul(x).sum().backward()), "hook", ones([3]));
  hook.remove();
  class Counting extends nn.Module {
    calls = 0;
    override forward(x: Tensor): Tensor {
      this.calls++;
      return x.add(1);
    }
  }
  const counting = new Counting();
  check(compile((x) => counting.call(x)), "changes calls of Counting");
  assertEquals(counting.calls, 2);
  const loss = w.mul(2).sum();
  check(compile(() => loss.backward(null, { retainGraph: true })), "graph that was made outside");
  const freeze = (x: Tensor) => {
    w.requiresGrad_(false);
    const y = w.mul(x);
    w.requiresGrad_(true);
    return y;
  };
  check(compile(freeze), "stands for", ones([3]));
  check(compile((x) => void w.setData(x.mul(1))), "in a tensor that it does not return", ones([3]));
  const greedy = compile((x: Tensor) => {
    const y = x.mul(1);
    x.dispose();
    return y;
  });
  using_(greedy, () => {
    const x = ones([3]);
    greedy(x);
    assert(x.disposed && greedy.reason?.includes("disposes of an argument"));
  });
  w.grad?.dispose();
  w.dispose();
  model.dispose();
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
  assertEquals(memory.stats().tensors, live - 1, "the block of temporaries");
  assertThrows(() => fn(...data), DisposedError, "has been disposed");
  optimizer.dispose();
  model.dispose();
});

test("compile() leaves arguments to a function that it cannot repeat", () => {
  const seen: Tensor[] = [],
    fn = compile((state: { h: Tensor; all: Tensor[]; old?: Tensor }, x: Tensor) => {
      seen.push(x);
      state.old = state.h;
      state.h = state.h.add(x);
      state.all.push(state.h);
      return state;
    });
  using_(fn, () => {
    const first = zeros([2]), state: { h: Tensor; all: Tensor[]; old?: Tensor } = { h: first, all: [] };
    assertEquals(fn(state, ones([2])).h.tolist(), [1, 1]);
    assert(fn.reason?.includes("changes an array or object"), `${fn.reason}`);
    assert(state.old === first);
    assertEquals([state.h.tolist(), state.all.length, seen[0].tolist()], [[1, 1], 1, [1, 1]]);
    fn(state, ones([2]));
    assertEquals([state.h.tolist(), state.all.length], [[2, 2], 2]);
  });
  const w = ones([2], { requiresGrad: true }), mul = compile((x: Tensor) => x.mul_(w));
  using_(mul, () => {
    for (let i = 0; i < 2; i++) {
      const x = ones([2]), y = mul(x);
      assert(y === x && x.node !== null);
      y.sum().backward();
    }
    assertEquals(w.grad!.tolist(), [2, 2]);
    assert(mul.reason !== null);
  });
  w.grad!.dispose();
});

test("compile() inlines a compiled function, and stops at its limit", () => {
  const inner = compile((x: Tensor) => x.mul(2)), outer = compile((x: Tensor) => inner(x).add(1), { limit: 2 });
  using_(outer, () => {
    for (let n = 1; n < 5; n++) for (let i = 0; i < 2; i++) assertEquals(outer(ones([n])).tolist(), Array(n).fill(3));
    assertEquals([inner.recordings, outer.recordings, outer.replays], [2, 2, 2]);
    assert(outer.reason?.includes("2 recordings were made") && outer.reason.includes("shape"), `${outer.reason}`);
    outer(ones([1]));
    assertEquals(outer.replays, 3, "what is recorded is still used");
  });
  inner.dispose();
});

test("compile() passes on what the function throws and refuses misuse", () => {
  let fail = true;
  const fn = compile((x: Tensor) => {
    const y = x.add(1);
    if (fail) throw new ShapeError("mine");
    return y;
  });
  using_(fn, () => {
    for (let i = 0; i < 2; i++) assertThrows(() => fn(ones([2])), ShapeError, "mine");
    fail = false;
    fn(ones([2]));
    assertEquals([fn(ones([2])).tolist(), fn.recordings], [[2, 2], 1]);
    assertThrows(() =>
      fn(scope(() => {
        const x = ones([2]);
        x.dispose();
        return x;
      })), DisposedError);
  });
  const slow = compile(async (x: Tensor) => await Promise.resolve(x.add(1)));
  using_(slow, () => assertThrows(() => void slow(ones([1])), TypeError, "must not be asynchronous"));
  for (const bad of [null, 1, "x", {}]) assertThrows(() => compile(bad as never), TypeError, "takes a function");
  for (const limit of [0, 1.5, NaN, "2"]) assertThrows(() => compile(() => {}, { limit: limit as never }), RangeError, "limit");
});

test("compile() heeds the gradient mode and arguments that require gradients", () => {
  const fn = compile((x: Tensor) => {
    x.mul(x).sum().backward();
    return x.grad!;
  });
  const x = tensor([1, 2], { requiresGrad: true });
  using_(fn, () => {
    for (let i = 0; i < 4; i++) {
      x.grad?.dispose();
      x.grad = null;
      assert(fn(x) === x.grad);
      assertEquals((x.grad as Tensor).tolist(), [2, 4]);
    }
    assertEquals([fn.recordings, fn.replays], [1, 3]);
    x.grad!.dispose();
    x.grad = null;
    assertThrows(() => noGrad(() => fn(x)), AutogradError);
  });
  const mode = compile((x: Tensor) => enableGrad(() => x.mul(3).detach()));
  using_(mode, () => {
    mode(x);
    noGrad(() => mode(x));
    mode(x);
    assertEquals([mode.recordings, mode.replays], [2, 1]);
  });
  x.grad?.dispose();
});

Deno.test("compile() of an asynchronous function that fails leaves no unhandled rejection", async () => {
  const fn = compile(() => Promise.reject(new Error("late")));
  assertThrows(() => void fn(), TypeError);
  await assertRejects(() => Promise.reject(new Error("x")), Error);
  fn.dispose();
});
