import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  AutogradError,
  compile,
  type Compiled,
  defaultGenerator,
  DisposedError,
  dropout,
  enableGrad,
  Generator,
  getDefaultDType,
  keep,
  manualSeed,
  nn,
  noGrad,
  ones,
  optim,
  rand,
  scope,
  setDefaultDType,
  ShapeError,
  Tensor,
  tensor,
  zeros,
} from "../mod.ts";

import { test } from "./leaks.ts";

import { batch, mlp, trainer, using_ } from "./compiled.ts";

const warnings: string[] = [];
console.warn = (text: string) => void warnings.push(text);

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
  const toggle = (x: Tensor) => {
    setDefaultDType(getDefaultDType() === "float32" ? "float64" : "float32");
    return x.add(1);
  };
  check(compile(toggle), "sets the default dtype", ones([3]));
  assertEquals(getDefaultDType(), "float32");
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
