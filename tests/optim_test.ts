/** Optimisers against trajectories recorded from PyTorch (`fixtures/record_optim.py`), clipping, state dictionaries, bad input. */
import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertStrictEquals } from "@std/assert";
import {
  AutogradError,
  type DType,
  DTypeError,
  FormatError,
  getThreads,
  memory,
  optim,
  scope,
  setThreads,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from "../mod.ts";
import { assertThrows } from "./device.ts";
import { test } from "./leaks.ts";

interface Case {
  name: "SGD" | "Adam" | "AdamW" | "RMSprop" | "Adagrad";
  options: Record<string, unknown>;
  dtype: DType;
  path: number[][][];
  state: Record<string, Record<string, number | number[]>>;
}
const recorded: {
  optimizers: Case[];
  clips: { normType: string; maxNorm: number; total: number; grads: number[][] }[];
} = JSON.parse(Deno.readTextFileSync(new URL("fixtures/optim.json", import.meta.url)));

const camel = (options: Record<string, unknown>) =>
  Object.fromEntries(Object.entries(options).map(([key, value]) => [key.replace(/_([a-z])/g, (_, c) => c.toUpperCase()), value]));

function make(it: Case, params: Tensor[]): optim.Optimizer {
  // deno-lint-ignore no-explicit-any
  return new optim[it.name](params, camel(it.options) as any) as unknown as optim.Optimizer;
}

const start = [[0.5, -1.25, 2, 0.25, -0.75, 1.5], [1, -0.5]];

/** One step of the recorded problem: the second parameter has no gradient in the second step. */
function train(params: Tensor[], optimizer: optim.Optimizer, t: number): void {
  optimizer.zeroGrad();
  scope(() => {
    params.forEach((p, i) => {
      if (i === 1 && t === 1) return;
      const loss = p.sub(0.3 * (i + 1)).square().mul(1 + 0.5 * t).sum().add(p.sin().sum());
      loss.backward();
    });
  });
  optimizer.step();
}

function assertNear(actual: ArrayLike<number | bigint>, expected: readonly number[], tolerance: number, what: string): void {
  assertEquals(actual.length, expected.length, what);
  expected.forEach((want, i) =>
    assertAlmostEquals(Number(actual[i]), want, tolerance * Math.max(1, Math.abs(want)), `${what}, element ${i}`)
  );
}

for (const it of recorded.optimizers) {
  test(`${it.name}() follows PyTorch: ${JSON.stringify(it.options)} in ${it.dtype}`, () => {
    const params = start.map((values) => tensor(values, { dtype: it.dtype, requiresGrad: true }));
    using optimizer = make(it, params);
    const tolerance = it.dtype === "float64" ? 1e-8 : 3e-6;
    it.path.forEach((values, t) => {
      train(params, optimizer, t);
      params.forEach((p, i) => assertNear(p.data(), values[i], tolerance, `step ${t}, parameter ${i}`));
    });
    const { state } = optimizer.stateDict();
    assertEquals(Object.keys(state), Object.keys(it.state));
    for (const [number, expected] of Object.entries(it.state)) {
      assertEquals(Object.keys(state[number]).sort(), Object.keys(expected).sort(), `state of parameter ${number}`);
      for (const [key, value] of Object.entries(expected)) {
        const own = state[number][key];
        if (typeof own === "number") assertEquals(own, value);
        else assertNear(own.data(), value as number[], tolerance, `${key} of parameter ${number}`);
      }
    }
    optimizer.zeroGrad();
  });
}

const optimizers = {
  SGD: (p: Tensor[]) => new optim.SGD(p, { lr: 0.1, momentum: 0.9 }),
  Adam: (p: Tensor[]) => new optim.Adam(p, { lr: 0.1, amsgrad: true }),
  AdamW: (p: Tensor[]) => new optim.AdamW(p, { lr: 0.1 }),
  RMSprop: (p: Tensor[]) => new optim.RMSprop(p, { lr: 0.1, momentum: 0.5, centered: true }),
  Adagrad: (p: Tensor[]) => new optim.Adagrad(p, { lr: 0.1 }),
};

for (const [name, create] of Object.entries(optimizers)) {
  test(`${name}() gives the same for other memory orders, gradients of other strides, one and all threads`, () => {
    const values = Float32Array.from({ length: 3 * 50 * 401 }, (_, i) => Math.sin(i)), n = values.length;
    const slopes = tensor(Float32Array.from({ length: n }, (_, i) => Math.cos(i * 0.7))).reshape([3, 50, 401]);
    const run = (reorder: (x: Tensor) => Tensor, gradient: (x: Tensor) => Tensor, threads: number): number[] => {
      const before = getThreads();
      setThreads(threads);
      const p = reorder(tensor(values).reshape([3, 50, 401])).clone().detach().requiresGrad_();
      using optimizer = create([p]) as unknown as optim.Optimizer;
      for (let t = 0; t < 3; t++) {
        p.grad = gradient(slopes.mul(t + 1));
        optimizer.step();
      }
      setThreads(before);
      p.grad = null;
      return [...p.contiguous().data()].map(Number);
    };
    const same = (x: Tensor) => x, turned = (x: Tensor) => x.permute([2, 0, 1]).contiguous().permute([1, 2, 0]);
    const want = run(same, same, 1);
    assertEquals(run(same, same, getThreads()), want);
    assertEquals(run(turned, same, getThreads()), want);
    assertEquals(run(same, turned, getThreads()), want);
    assertEquals(run(turned, turned, 1), want);
  });

  test(`${name}() keeps states of halves in float32, counts versions and holds a constant number of tensors`, () => {
    const half = tensor([0.5, -1], { dtype: "bfloat16", requiresGrad: true }), full = tensor([0.5, -1], { requiresGrad: true });
    using optimizer = create([half, full]) as unknown as optim.Optimizer;
    let count = 0;
    for (let t = 0; t < 4; t++) {
      scope(() => half.mul(half).sum().add(full.mul(full).sum()).backward());
      const version = half.version;
      optimizer.step();
      assert(half.version > version);
      optimizer.zeroGrad();
      assertStrictEquals(half.grad, null);
      if (t === 0) count = memory.stats().tensors;
    }
    assertEquals(memory.stats().tensors, count);
    for (const value of Object.values(optimizer.stateDict().state[0])) if (typeof value !== "number") assertEquals(value.dtype, "float32");
    assertNear(half.float().data(), [...full.data()].map(Number), 0.02, "half against float32");
  });

  test(`${name}() goes on from its state dictionary as if it had not stopped`, () => {
    const params = () => start.map((values) => tensor(values, { requiresGrad: true }));
    const one = params(), two = params();
    using first = create(one) as unknown as optim.Optimizer;
    for (let t = 0; t < 3; t++) train(one, first, t);
    using second = create(two) as unknown as optim.Optimizer;
    second.paramGroups[0].lr = 7;
    two.forEach((p, i) => p.detach().copy_(one[i].detach()));
    second.loadStateDict(first.stateDict());
    assertEquals(second.paramGroups[0].lr, 0.1);
    for (let t = 3; t < 5; t++) {
      train(one, first, t);
      train(two, second, t);
    }
    one.forEach((p, i) => assertEquals(p.tolist(), two[i].tolist()));
    first.zeroGrad();
    second.zeroGrad();
  });
}

test("stateDict() has PyTorch's structure and names", () => {
  const [a, b, c] = [1, 2, 3].map((n) => zeros([n], { requiresGrad: true }));
  using optimizer = new optim.AdamW([{ params: [a], lr: 0.5 }, { params: [b, c], weightDecay: 0 }], { lr: 0.1 });
  for (const p of [a, c]) p.grad = zeros(p.shape);
  optimizer.step();
  const { state, param_groups } = optimizer.stateDict();
  assertEquals(Object.keys(state), ["0", "2"]);
  assertEquals(Object.keys(state[2]), ["step", "exp_avg", "exp_avg_sq"]);
  assertEquals(state[2].step, 1);
  const rest = { betas: [0.9, 0.999], eps: 1e-8, amsgrad: false, maximize: false };
  assertEquals(param_groups, [
    { ...rest, lr: 0.5, weight_decay: 0.01, params: [0] },
    { ...rest, lr: 0.1, weight_decay: 0, params: [1, 2] },
  ]);
});

test("loadStateDict() takes PyTorch's extra options and step tensors, and changes nothing when something does not fit", () => {
  const p = zeros([2], { requiresGrad: true });
  using optimizer = new optim.Adam([p], { lr: 0.1 });
  const state = { 0: { step: tensor(3), exp_avg: tensor([1, 2]), exp_avg_sq: tensor([3, 4], { dtype: "float64" }) } };
  const group = { lr: 0.2, betas: [0.8, 0.9], eps: 1e-7, weight_decay: 0, amsgrad: false, foreach: null, fused: null, params: [0] };
  optimizer.loadStateDict({ state, param_groups: [group] });
  assertEquals(optimizer.paramGroups[0].lr, 0.2);
  assert(!("foreach" in optimizer.paramGroups[0]));
  assertEquals(optimizer.state.get(p)!.step, 3);
  const mean = optimizer.state.get(p)!.exp_avg_sq as Tensor;
  assertEquals([mean.dtype, mean.tolist()], ["float32", [3, 4]]);
  const bad = (dict: unknown, message: string, kind: new (text: string) => Error = FormatError) =>
    assertThrows(() => optimizer.loadStateDict(dict as optim.OptimizerState), kind, message);
  bad({ state: {}, param_groups: [] }, "Adam.loadStateDict: 0 groups, the optimiser has 1");
  bad({ state: {}, param_groups: [{ ...group, params: [0, 1] }] }, "group 0 has 2 parameters, the optimiser's has 1");
  bad({ state: { 5: { step: 1 } }, param_groups: [group] }, "a state for parameter 5, which no group has");
  bad({ state: { 0: { exp_avg: zeros([3]) } }, param_groups: [{ ...group, lr: 9 }] }, "exp_avg of parameter 0 is [3], the parameter [2]");
  bad({ state: {}, param_groups: [{ ...group, lr: -1 }] }, "lr must be a number >= 0, got -1", RangeError);
  assertEquals(optimizer.paramGroups[0].lr, 0.2);
  assertEquals(optimizer.state.get(p)!.step, 3);
});

test("step() runs a closure with recording on and returns what it returns", () => {
  const p = tensor([1, 2], { requiresGrad: true });
  const optimizer = new optim.SGD([p], { lr: 0.5 });
  const loss = optimizer.step(() => {
    optimizer.zeroGrad();
    const loss = p.square().sum();
    loss.backward();
    return loss.item();
  });
  assertEquals([loss, p.tolist()], [5, [0, 0]]);
  optimizer.zeroGrad();
});

test("zeroGrad() fills with zeros on request", () => {
  const p = tensor([1, 2], { requiresGrad: true });
  const optimizer = new optim.SGD([p]);
  p.square().sum().backward();
  optimizer.zeroGrad({ setToNone: false });
  assertEquals(p.grad!.tolist(), [0, 0]);
  optimizer.zeroGrad();
  assertStrictEquals(p.grad, null);
});

test("step() is noticed by a graph that saved a parameter", () => {
  const p = tensor([1, 2], { requiresGrad: true });
  const y = p.square().sum();
  const optimizer = new optim.SGD([p], { lr: 0.1 });
  p.grad = tensor([1, 1]);
  optimizer.step();
  assertThrows(() => y.backward(), AutogradError, "was changed in place");
  optimizer.zeroGrad();
});

test("step() updates more parameters than one call takes", () => {
  const params = Array.from({ length: 3000 }, (_, i) => tensor([i], { requiresGrad: true }));
  using optimizer = new optim.SGD(params, { lr: 1, momentum: 0.9 });
  for (const p of params) p.grad = tensor([1]);
  assertAlmostEquals(optim.clipGradNorm(params, Infinity).item(), Math.sqrt(3000), 1e-3);
  optimizer.step();
  params.forEach((p, i) => assertEquals(p.item(), i - 1));
  optimizer.zeroGrad();
});

test("Optimizer refuses what it cannot optimise", () => {
  const p = zeros([2], { requiresGrad: true });
  const bad = (params: unknown, options: object, kind: new (text: string) => Error, message: string) =>
    assertThrows(() => new optim.SGD(params as Tensor[], options), kind, message);
  bad([], {}, RangeError, "SGD: no parameters were given");
  bad(p, {}, TypeError, "params must be an iterable of tensors or groups, got one tensor");
  bad([p, 3], {}, TypeError, "parameter 1 must be a tensor, got number");
  bad([p.mul(2)], {}, AutogradError, "parameter 0 was made by mul: only leaves can be optimised");
  bad([p, p], {}, RangeError, "parameter 1 of [2] appears twice");
  bad([zeros([2], { dtype: "int32" })], {}, DTypeError, "parameter 0 must be floating point, got int32");
  bad([zeros([2, 4]).slice(1, 0, 2).detach()], {}, ShapeError, "has gaps in memory");
  bad([p], { lr: -1 }, RangeError, "SGD: lr must be a number >= 0, got -1");
  bad([p], { lr: NaN }, RangeError, "lr must be a number >= 0, got NaN");
  bad([p], { nesterov: true }, RangeError, "nesterov needs momentum > 0 and dampening 0, got 0 and 0");
  assertThrows(() => new optim.AdamW([p], { betas: [0.9, 1] }), RangeError, "AdamW: betas[1] must be a number >= 0 and < 1, got 1");
  const optimizer = new optim.SGD([p]);
  p.grad = zeros([3]);
  assertThrows(() => optimizer.step(), ShapeError, "the gradient is float32 of [3], its parameter float32 of [2]");
  p.grad = null;
});

for (const it of recorded.clips) {
  test(`clipGradNorm() equals PyTorch: norm ${it.normType} to ${it.maxNorm}`, () => {
    const params = [[0.5, -1.25, 2], [[1, -0.5]]].map((values) => tensor(values, { dtype: "float64", requiresGrad: true }));
    for (const p of params) p.grad = p.detach().mul(1.5);
    const normType = it.normType === "inf" ? Infinity : Number(it.normType);
    assertAlmostEquals(optim.clipGradNorm(params, it.maxNorm, { normType }).item(), it.total, 1e-12);
    params.forEach((p, i) => assertNear(p.grad!.data(), it.grads[i], 1e-12, `gradient ${i}`));
    for (const p of params) p.grad = null;
  });
}

test("clipGradNorm() does not depend on threads or memory order, and treats what is not finite as PyTorch does", () => {
  const p = zeros([3, 401, 50], { requiresGrad: true }), q = zeros([2], { requiresGrad: true });
  const values = tensor(Float32Array.from({ length: 3 * 401 * 50 }, (_, i) => Math.sin(i))).reshape([3, 401, 50]);
  const norm = (grad: Tensor, threads: number) => {
    const before = getThreads();
    setThreads(threads);
    p.grad = grad;
    const total = optim.clipGradNorm([p], 1).item();
    setThreads(before);
    return [total, ...[...p.grad.contiguous().data()].map(Number)];
  };
  const want = norm(values.clone(), 1);
  assertEquals(norm(values.clone(), getThreads()), want);
  const [spread] = norm(values.unsqueeze(-1).expand([3, 401, 50, 2]).contiguous().select(-1, 0), 1);
  assertAlmostEquals(spread, want[0], 1e-4);
  p.grad = null;
  q.grad = tensor([Infinity, 1]);
  assertThrows(() => optim.clipGradNorm([q], 1, { errorIfNonfinite: true }), RangeError, "the total norm of the gradients is inf");
  assertEquals(q.grad.tolist(), [Infinity, 1]);
  assertEquals(optim.clipGradNorm([q], 1).item(), Infinity);
  assertEquals(q.grad.tolist(), [NaN, 0]);
  q.grad = null;
  assertEquals(optim.clipGradNorm([q], 1).item(), 0);
  assertThrows(() => optim.clipGradNorm([q], -1), RangeError, "maxNorm must be 0 or more, got -1");
  assertThrows(() => optim.clipGradNorm([q], 1, { normType: 0 }), RangeError, "normType must be positive, got 0");
});

test("clipGradValue() limits each element", () => {
  const p = zeros([4], { requiresGrad: true });
  p.grad = tensor([-3, 0.5, NaN, 2]);
  optim.clipGradValue([p], 1);
  assertEquals(p.grad.tolist(), [-1, 0.5, NaN, 1]);
  assertThrows(() => optim.clipGradValue([p], NaN), RangeError, "clipValue must be 0 or more, got NaN");
  p.grad = null;
});

test("addParamGroup() adds parameters between steps", () => {
  const [a, b] = [1, 2].map(() => tensor([1], { requiresGrad: true }));
  using optimizer = new optim.Adam([a], { lr: 0.5 });
  a.grad = tensor([1]);
  optimizer.step();
  optimizer.addParamGroup({ params: b, lr: 0.25 });
  b.grad = tensor([1]);
  optimizer.step();
  assertAlmostEquals(b.item(), 0.75, 1e-6);
  assertNotEquals(a.item(), 1);
  assertThrows(() => optimizer.addParamGroup({ params: [a] }), RangeError, "appears twice");
  optimizer.zeroGrad();
});
