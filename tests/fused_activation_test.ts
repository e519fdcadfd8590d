// Linear and convolutions with an activation in the memory of their result, against the layer and the activation one after the other.
import {
  type ActivationOptions,
  compile,
  conv1d,
  conv2d,
  conv3d,
  convTranspose1d,
  convTranspose2d,
  convTranspose3d,
  DTypeError,
  getThreads,
  grad,
  gradcheck,
  linear,
  manualSeed,
  memory,
  nn,
  noGrad,
  ones,
  optim,
  randn,
  relu,
  setThreads,
  sigmoid,
  tanh,
  type Tensor,
  tensor,
  zeros,
} from "../mod.ts";
import { assert, assertEquals } from "@std/assert";
import { batch, trainer, using_ } from "./compiled.ts";
import { assertThrows, device } from "./device.ts";
import { test } from "./leaks.ts";

const { leakyRelu } = nn.functional;
type DType = "float64" | "float32" | "float16" | "bfloat16";
interface Case {
  name: string;
  /** Shapes of input, weight and bias. */
  shapes: [number[], number[], number[]];
  fn: (x: Tensor, w: Tensor, b: Tensor | null, options?: ActivationOptions) => Tensor;
}

const cases: Case[] = [
  { name: "linear", shapes: [[3, 5], [17, 5], [17]], fn: linear },
  { name: "linear of three axes", shapes: [[2, 3, 4], [6, 4], [6]], fn: linear },
  { name: "linear of a vector", shapes: [[4], [6, 4], [6]], fn: linear },
  { name: "linear to a number", shapes: [[5, 4], [4], []], fn: linear },
  { name: "linear of nothing", shapes: [[0, 4], [6, 4], [6]], fn: linear },
  { name: "linear over nothing", shapes: [[3, 0], [6, 0], [6]], fn: linear },
  { name: "conv1d", shapes: [[2, 3, 5], [4, 3, 3], [4]], fn: (x, w, b, o) => conv1d(x, w, b, { padding: 1, ...o }) },
  { name: "conv2d", shapes: [[2, 2, 4, 3], [3, 2, 3, 3], [3]], fn: (x, w, b, o) => conv2d(x, w, b, { padding: 1, ...o }) },
  { name: "conv2d without batch", shapes: [[2, 5, 5], [3, 2, 3, 3], [3]], fn: (x, w, b, o) => conv2d(x, w, b, { stride: 2, ...o }) },
  { name: "conv2d of nothing", shapes: [[0, 3, 6, 5], [4, 3, 3, 3], [4]], fn: (x, w, b, o) => conv2d(x, w, b, o) },
  { name: "conv2d in groups", shapes: [[2, 4, 3, 3], [6, 2, 1, 1], [6]], fn: (x, w, b, o) => conv2d(x, w, b, { groups: 2, ...o }) },
  { name: "conv3d", shapes: [[1, 2, 3, 4, 3], [3, 2, 2, 2, 2], [3]], fn: (x, w, b, o) => conv3d(x, w, b, o) },
  { name: "convTranspose1d", shapes: [[2, 2, 4], [2, 3, 3], [3]], fn: (x, w, b, o) => convTranspose1d(x, w, b, { stride: 2, ...o }) },
  {
    name: "convTranspose2d",
    shapes: [[2, 2, 2, 3], [2, 2, 4, 4], [2]],
    fn: (x, w, b, o) => convTranspose2d(x, w, b, { stride: 2, padding: 1, ...o }),
  },
  { name: "convTranspose3d", shapes: [[1, 2, 2, 3, 2], [2, 3, 2, 2, 2], [3]], fn: (x, w, b, o) => convTranspose3d(x, w, b, o) },
];
const activations: readonly ActivationOptions[] = [
  { activation: "relu" },
  { activation: "leakyRelu" },
  { activation: "sigmoid" },
  { activation: "tanh" },
  { activation: "leakyRelu", negativeSlope: 0.2 },
  { activation: "leakyRelu", negativeSlope: 0 },
  { activation: "leakyRelu", negativeSlope: 1.5 },
  { activation: "leakyRelu", negativeSlope: -0.5 }, // the sign of the result tells nothing
  { activation: null },
];

function apart(y: Tensor, { activation, negativeSlope }: ActivationOptions): Tensor {
  return activation === "leakyRelu" ? leakyRelu(y, negativeSlope) : activation ? { relu, sigmoid, tanh }[activation](y) : y;
}

/** Leaves that require gradients; the input is not contiguous where it has several axes. */
function leaves({ shapes: [x, w, b] }: Case, dtype: DType): [Tensor, Tensor, Tensor] {
  const flipped = x.length > 1 ? randn([...x].reverse(), { dtype }).permute(x.map((_, i) => x.length - 1 - i)) : randn(x, { dtype });
  return [flipped.requiresGrad_(), randn(w, { dtype, requiresGrad: true }), randn(b, { dtype, requiresGrad: true })];
}

const bits = (x: Tensor | null) => x === null ? null : [x.dtype, x.shape, [...x.to("float64").contiguous().data()].map(String)];

for (const it of cases) {
  test(`${it.name}() with an activation gives the bits of both one after the other`, () => {
    manualSeed(1);
    for (const dtype of ["float64", "float32", "float16", "bfloat16"] as const) {
      for (const options of activations) {
        for (const biased of [true, false]) {
          const [x, w, bias] = leaves(it, dtype), b = biased ? bias : null, inputs = biased ? [x, w, bias] : [x, w];
          const y = it.fn(x, w, b, options), expected = apart(it.fn(x, w, b), options), label = JSON.stringify({ dtype, options, biased });
          assertEquals(bits(y), bits(expected), label);
          const g = randn(y.shape, { dtype });
          const grads = grad([y], inputs, { gradOutputs: [g] }), wanted = grad([expected], inputs, { gradOutputs: [g] });
          grads.forEach((dx, i) => assertEquals(bits(dx), bits(wanted[i]), `${label} gradient ${i}`));
          assertEquals(bits(noGrad(() => it.fn(x, w, b, options))), bits(expected), label);
        }
      }
    }
  });

  test(`${it.name}() with an activation has the derivatives that differences give, twice`, () => {
    manualSeed(2);
    for (const options of activations.slice(0, 4)) {
      const inputs = leaves(it, "float64");
      gradcheck((x, w, b) => it.fn(x, w, b, options), inputs);
      gradcheck((x, w, b) => {
        const y = it.fn(x, w, b, options);
        return grad(y.mul(y).mul(y).sum(), [x, w, b], { createGraph: true }) as Tensor[];
      }, inputs);
    }
  });
}

test("an activation in place meets its kinks, NaN and infinities as the activation by itself", () => {
  const x = tensor([[-1], [0], [-0], [2], [NaN], [Infinity], [-Infinity], [1e-45], [-1e-45]]).requiresGrad_();
  for (const options of activations) {
    const w = ones([1, 1]), wide = (v: Tensor) => v.reshape([9, 1, 1, 1]), kernel = ones([1, 1, 1, 1]);
    const [expected] = grad([apart(linear(x, w), options).sum()], [x]), values = bits(apart(linear(x, w), options));
    for (const y of [linear(x, w, null, options), conv2d(wide(x), kernel, null, options).reshape([9, 1])]) {
      assertEquals(bits(y), values, JSON.stringify(options));
      assertEquals(bits(grad([y.sum()], [x])[0]), bits(expected), JSON.stringify(options));
    }
  }
  const [dx] = grad([linear(x, ones([1, 1]), null, { activation: "relu" }).sum()], [x]);
  assertEquals(dx!.flatten().slice(0, 0, 4).tolist(), [0, 0, 0, 1]);
});

test("an activation in place keeps no tensor from before it, and only needs what gradients are asked for", () => {
  const x = randn([64, 64]), w = randn([64, 64], { requiresGrad: true });
  const held = (make: () => Tensor) => {
    const before = memory.stats().tensors, y = make(), after = memory.stats().tensors - before;
    y.dispose();
    return after;
  };
  assertEquals(held(() => linear(x, w, null, { activation: "relu" })), 1);
  const b = randn([64], { requiresGrad: true }), y = linear(x, w.detach(), b, { activation: "relu" });
  assertEquals(bits(grad([y.sum()], [b])[0]), bits(y.gt(0).to("float32").sum(0)));
});

test("backward leaves alone a gradient that others hold", () => {
  const x = randn([4, 3], { requiresGrad: true }), w = randn([5, 3], { requiresGrad: true }), given = randn([4, 5]);
  const before = bits(given);
  for (
    const f of [
      (v: Tensor) => linear(v, w, null, { activation: "relu" }),
      (v: Tensor) => relu(linear(v, w)),
      (v: Tensor) => nn.functional.silu(linear(v, w)),
    ]
  ) {
    const y = f(x), seen: Tensor[] = [];
    y.registerHook((g: Tensor) => void seen.push(g));
    const twice = y.mul(1), inputs = [x, y], gradOutputs = [given];
    const first = grad([twice], inputs, { gradOutputs, retainGraph: true }).map(bits);
    assertEquals(first[1], before);
    assertEquals(bits(seen[0]), before);
    assertEquals(bits(given), before);
    assertEquals(grad([twice], inputs, { gradOutputs }).map(bits), first);
    assertEquals(bits(seen[0]), before);
    // A sum hands one gradient to both of its inputs.
    assertEquals(bits(grad([f(x).add(f(x.detach().requiresGrad_()))], [x], { gradOutputs })[0]), first[0]);
  }
});

test("a result with an activation in place must not be changed before backward", () => {
  const w = randn([3, 3], { requiresGrad: true }), y = linear(randn([2, 3]), w, null, { activation: "relu" });
  noGrad(() => y.add_(1));
  assertThrows(() => y.sum().backward(), Error, "changed in place");
});

test("an activation in place answers bad input", () => {
  const x = ones([2, 3]), w = ones([4, 3]), kernel = ones([1, 2, 1, 1]), picture = ones([1, 2, 3, 3]);
  const wrong = { activation: "gelu" as "relu" };
  assertThrows(
    () => linear(x, w, null, wrong),
    RangeError,
    'linear: activation must be "relu", "leakyRelu", "sigmoid", "tanh" or null, got "gelu"',
  );
  assertThrows(() => conv2d(picture, kernel, null, wrong), RangeError, "conv2d: activation must be");
  assertThrows(() => convTranspose2d(picture, ones([2, 1, 1, 1]), null, wrong), RangeError, "convTranspose2d: activation must be");
  using layer = new nn.Linear(3, 4);
  assertThrows(() => layer.fused(x, wrong), RangeError, "activation must be");
  const whole = zeros([2, 3], { dtype: "int64" });
  assertThrows(() => linear(whole, zeros([4, 3], { dtype: "int64" }), null, { activation: "relu" }), DTypeError, "floating point");
  assertThrows(() => linear(x, ones([4, 2]), null, { activation: "leakyRelu", negativeSlope: NaN }), Error, "linear: the last axis");
});

const layers: [string, () => nn.Layer, number[]][] = [
  ["Linear", () => new nn.Linear(3, 4), [10, 3]],
  ["Conv1d", () => new nn.Conv1d(3, 4, 3, { padding: "same" }), [2, 3, 6]],
  ["Conv2d", () => new nn.Conv2d(3, 4, 3, { padding: 1, paddingMode: "reflect" }), [2, 3, 5, 5]],
  ["Conv3d", () => new nn.Conv3d(3, 4, 2), [1, 3, 3, 3, 3]],
  ["ConvTranspose1d", () => new nn.ConvTranspose1d(3, 4, 2, { stride: 2 }), [2, 3, 5]],
  ["ConvTranspose2d", () => new nn.ConvTranspose2d(3, 4, 3, { outputPadding: 1, stride: 2 }), [2, 3, 4, 4]],
  ["ConvTranspose3d", () => new nn.ConvTranspose3d(3, 4, 2), [1, 3, 2, 2, 2]],
];
for (const [name, make, shape] of layers) {
  test(`Sequential runs ${name} and the activation behind it as one step, unless a hook looks in between`, () => {
    const behinds: [() => nn.Layer, ActivationOptions][] = [
      [() => new nn.ReLU(), { activation: "relu" }],
      [() => new nn.ReLU(true), { activation: "relu" }],
      [() => new nn.LeakyReLU(0.2), { activation: "leakyRelu", negativeSlope: 0.2 }],
      [() => new nn.LeakyReLU(-0.2), { activation: "leakyRelu", negativeSlope: -0.2 }],
      [() => new nn.Sigmoid(), { activation: "sigmoid" }],
      [() => new nn.Tanh(), { activation: "tanh" }],
    ];
    for (const [behind, options] of behinds) {
      const x = randn(shape), layer = make(), seen: unknown[] = [], parameters = [...layer.parameters()];
      const run = (model: nn.Layer, last: (y: Tensor) => Tensor) => {
        const y = last(model.call(x));
        return [y.node!.name, [y, ...grad([y.mul(y).sum()], parameters)].map(bits)];
      };
      const [, expected] = run(layer, (y) => apart(y, options)), names = ["relu", "relu_", "leakyRelu", "sigmoid", "tanh"];
      for (const hook of ["none", "layer", "activation"]) {
        const model = new nn.Sequential(layer, behind());
        const handle = hook === "none" ? null : model.at(hook === "layer" ? 0 : 1).registerForwardHook(() => void seen.push(hook));
        const [name, found] = run(model, (y) => y);
        assertEquals(found, expected, hook);
        assertEquals(names.includes(name as string), hook !== "none" || options.negativeSlope === -0.2, `${hook} ${name}`);
        handle?.remove();
      }
      layer.dispose();
      assertEquals(seen, ["layer", "activation"]);
    }
  });
}

test("fused() of a subclass with its own forward, and of a layer with hooks, does one after the other", () => {
  class Shifted extends nn.Linear {
    override forward(x: Tensor): Tensor {
      return super.forward(x).sub(1);
    }
  }
  class Doubled extends nn.Conv2d {
    override forward(x: Tensor): Tensor {
      return super.forward(x).mul(2);
    }
  }
  const rows = randn([3, 4]), picture = randn([1, 2, 4, 4]);
  using shifted = new Shifted(4, 5);
  using doubled = new Doubled(2, 3, 3);
  assertEquals(bits(new nn.Sequential(shifted, new nn.ReLU()).call(rows)), bits(relu(shifted.call(rows))));
  assertEquals(bits(new nn.Sequential(doubled, new nn.LeakyReLU()).call(picture)), bits(leakyRelu(doubled.call(picture))));
  assertEquals(bits(doubled.fused(picture, { activation: null })), bits(doubled.call(picture)));
  using layer = new nn.Linear(4, 5);
  layer.registerForwardHook((_, __, y) => (y as Tensor).add(1));
  assertEquals(bits(layer.fused(rows, { activation: "relu" })), bits(relu(layer.call(rows))));
  class Loud extends nn.ReLU {
    override forward(x: Tensor): Tensor {
      return super.forward(x).add(7);
    }
  }
  assertEquals(bits(new nn.Sequential(shifted, new Loud()).call(rows)), bits(relu(shifted.call(rows)).add(7)));
});

test("an activation in place does not depend on the number of threads", () => {
  manualSeed(3);
  const threads = getThreads(), x = randn([4, 16, 65, 67], { requiresGrad: true }), w = randn([24, 16, 3, 3], { requiresGrad: true });
  const rows = randn([1500, 130], { requiresGrad: true }), matrix = randn([257, 130], { requiresGrad: true });
  const b = randn([24], { requiresGrad: true }), c = randn([257], { requiresGrad: true });
  const once = (count: number) => {
    setThreads(count);
    const y = conv2d(x, w, b, { padding: 1, activation: "leakyRelu" }), z = linear(rows, matrix, c, { activation: "relu" });
    return [y, z, ...grad([y.mul(y).sum().add(z.mul(z).sum())], [x, w, b, rows, matrix, c])].map((v) => v!.contiguous().data());
  };
  try {
    assertEquals(once(2), once(1));
  } finally {
    setThreads(threads);
  }
});

test("compile() replays activations in place as they run by themselves", () => {
  const make = () =>
    new nn.Sequential(new nn.Linear(8, 16), new nn.ReLU(), new nn.Linear(16, 16), new nn.LeakyReLU(0.1), new nn.Linear(16, 5)).to(device);
  const one = make() as nn.Sequential, other = make() as nn.Sequential;
  other.loadStateDict(one.stateDict());
  const steps = [one, other].map((model) => trainer(model, new optim.SGD(model.parameters(), { lr: 0.1 })));
  using_(compile(steps[1]), (compiled) => {
    for (let i = 0; i < 8; i++) {
      const [x, y] = batch(i);
      assertEquals(bits(compiled(x, y)), bits(steps[0](x, y)), `step ${i}`);
    }
    assert([...one.parameters()].every((p, i) => String(bits(p)) === String(bits([...other.parameters()][i]))));
  });
  one.dispose();
  other.dispose();
});

test("compile() notices changes of layers that run together", () => {
  const model = new nn.Sequential(new nn.Linear(8, 4), new nn.LeakyReLU(0.1), new nn.BatchNorm1d(4), new nn.ReLU()).eval().to(
    device,
  ) as nn.Sequential;
  const [x] = batch(1), seen: unknown[] = [];
  using_(compile((x: Tensor) => noGrad(() => model.call(x))), (fn) => {
    const expect = (recordings: number) => {
      assertEquals(bits(fn(x)), bits(noGrad(() => model.call(x))));
      assertEquals(fn.recordings, recordings);
    };
    expect(1);
    expect(1);
    (model.at(1) as unknown as { negativeSlope: number }).negativeSlope = 0.5;
    expect(2);
    const first = model.at(0) as nn.Linear;
    first.bias!.dispose();
    first.bias = null;
    expect(3);
    model.at(3).registerForwardHook(() => void seen.push(1));
    fn(x);
    assertEquals(seen.length, 1);
    assert(fn.reason!.includes("ReLU has hooks"));
  });
  model.dispose();
});
