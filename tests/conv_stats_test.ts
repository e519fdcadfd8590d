// A convolution that makes the batch statistics of its results, against the layers one after the other and the definition in float64.
import { assert, assertEquals } from "@std/assert";
import { compile, getThreads, nn, noGrad, ones, randn, scope, setThreads, type Tensor, zeros } from "../mod.ts";
import { check, libraryOf } from "../ffi/library.ts";
import { frame } from "../ffi/frame.ts";
import { using_ } from "./compiled.ts";
import { calls, cases, gap, layers, numbers } from "./conv_norm_data.ts";
import { assertThrows, device } from "./device.ts";
import { test } from "./leaks.ts";

/** Winograd's products by tiles have statistics of their own: several jobs, tiles that reach over the edge, tails of vectors. */
const tiles = [
  ...cases.filter(({ name }) => name !== "one value"),
  ...(device.type === "cpu"
    ? [
      { name: "several jobs", x: [2, 32, 33, 37], w: [48, 32, 3, 3], padding: 1 },
      { name: "several jobs, tails", x: [3, 17, 30, 23], w: [35, 17, 3, 3] },
    ]
    : []),
];

/** Mean and biased variance of each channel in float64, in two passes. */
function moments(y: Tensor): [number[], number[]] {
  const values = numbers(y), channels = y.shape[1], inner = values.length / y.shape[0] / channels, count = values.length / channels;
  const sums = (f: (v: number, c: number) => number) => {
    const total = new Array<number>(channels).fill(0);
    values.forEach((v, i) => {
      const c = Math.floor(i / inner) % channels;
      total[c] += f(v, c) / count;
    });
    return total;
  };
  const mean = sums((v) => v);
  return [mean, sums((v, c) => (v - mean[c]) ** 2)];
}

for (const dtype of ["float32", "float64", "bfloat16"] as const) {
  test(`BatchNorm.after() in training mode is the layers one after the other, ${dtype}`, () => {
    const [far, unit] = { float32: [1e-5, 1e-6], float64: [1e-12, 1e-14], bfloat16: [1e-2, 1e-6] }[dtype];
    tiles.forEach((it, i) =>
      scope(() => {
        const { conv, norm } = layers(it, dtype, i % 2 === 0), label = JSON.stringify(it), x = randn(it.x, { dtype }).requiresGrad_();
        for (const layer of [conv, norm]) layer.train();
        const plain = conv.call(x), dy = randn(plain.shape, { dtype }), residual = i % 3 === 0 ? randn(plain.shape, { dtype }) : null;
        const options = { activation: i % 4 < 2 ? "relu" : null, residual } as const;
        const start = [norm.runningMean!, norm.runningVar!].map((v) => v.clone());
        const runs = [() => norm.after(conv, x, options), () => norm.fused(conv.call(x), options)].map((run) => {
          noGrad(() => [norm.runningMean!, norm.runningVar!].forEach((v, i) => v.copy_(start[i])));
          let y: Tensor;
          const made = calls(() => void (y = run()));
          y!.backward(dy);
          const grads = [x, conv.weight, norm.weight!, norm.bias!].map((leaf) => {
            const grad = leaf.grad!.clone();
            leaf.grad!.dispose();
            leaf.grad = null;
            return grad;
          });
          if (conv.bias) conv.bias.grad!.dispose(), conv.bias.grad = null;
          return { y: y!, made, grads, running: [norm.runningMean!.clone(), norm.runningVar!.clone()] };
        });
        const [joined, steps] = runs;
        assertEquals([joined.made.dg_conv_stats, joined.made.dg_batch_norm_stats ?? 0, joined.made.dg_conv_forward ?? 0], [1, 0, 0], label);
        assertEquals([steps.made.dg_conv_stats ?? 0, steps.made.dg_batch_norm_stats], [0, 1], label);
        assert(gap(joined.y, numbers(steps.y)) <= far, label);
        joined.grads.forEach((grad, k) => assert(gap(grad, numbers(steps.grads[k])) <= far, `${label} ${k}`));
        joined.running.forEach((v, k) => assert(gap(v, numbers(steps.running[k])) <= unit, `${label} ${k}`));
        assertEquals(norm.numBatchesTracked!.item(), 2);
        // The running statistics after one batch, from the results themselves.
        const [mean, variance] = moments(plain), count = plain.numel() / plain.shape[1];
        const expected = [mean, variance.map((v) => v * count / (count - 1))];
        joined.running.forEach((v, k) => {
          const before = numbers(start[k]), share = numbers(v).map((now, c) => now - 0.9 * before[c]);
          const scale = Math.max(...expected[k].map(Math.abs), ...before.map(Math.abs));
          share.forEach((s, c) => assert(Math.abs(s - 0.1 * expected[k][c]) <= unit * scale, `${label} ${k} ${c}`));
        });
        conv.dispose();
        norm.dispose();
      })
    );
  });
}

test("BatchNorm.after() a convolution: variances far from a mean of 0 keep their digits", () => {
  for (const it of tiles) {
    const { conv, norm } = layers(it, "float32", true, { momentum: 1 }), x = randn(it.x);
    for (const layer of [conv, norm]) layer.train();
    noGrad(() => conv.bias!.copy_(randn([it.w[0]]).mul(1e3).add(5e3)));
    const plain = conv.call(x).detach(), [mean, variance] = moments(plain), count = plain.numel() / plain.shape[1];
    noGrad(() => norm.after(conv, x));
    numbers(norm.runningMean!).forEach((v, c) => assert(Math.abs(v - mean[c]) <= 1e-7 * Math.abs(mean[c]), `${it.name} ${v} ${mean[c]}`));
    numbers(norm.runningVar!).forEach((v, c) => {
      const expected = variance[c] * count / (count - 1);
      assert(Math.abs(v - expected) <= 2e-6 * expected + 1e-12, `${it.name} ${v} ${expected}`);
    });
    conv.dispose();
    norm.dispose();
  }
});

test("BatchNorm.after() in training mode gives the same bits for any thread count and in any memory order", () => {
  const threads = getThreads();
  try {
    for (const it of tiles) {
      const { conv, norm } = layers(it, "float32", true, { momentum: 1 }), x = randn(it.x), results: number[][] = [];
      for (const layer of [conv, norm]) layer.train();
      for (const [count, input] of [[1, x], [2, x], [2, x.channelsLast()]] as const) {
        setThreads(count);
        results.push([...numbers(noGrad(() => norm.after(conv, input))), ...numbers(norm.runningMean!), ...numbers(norm.runningVar!)]);
      }
      assertEquals(results[0], results[1], it.name);
      assertEquals(results[0], results[2], it.name);
      conv.dispose();
      norm.dispose();
    }
  } finally {
    setThreads(threads);
  }
});

test("BatchNorm.after() averages all batches without a momentum, and refuses a batch without a trace", () => {
  using conv = new nn.Conv2d(4, 6, 3);
  using norm = new nn.BatchNorm2d(6, { momentum: null });
  using other = new nn.BatchNorm2d(6, { momentum: null });
  using wrong = new nn.BatchNorm2d(7);
  for (let i = 0; i < 3; i++) {
    const x = randn([2, 4, 6, 6]);
    assertEquals(numbers(norm.after(conv, x)), numbers(other.call(conv.call(x))));
  }
  assertEquals(numbers(norm.runningVar!), numbers(other.runningVar!));
  assertEquals(norm.numBatchesTracked!.item(), 3);
  const attempts: [nn.BatchNorm, Tensor, nn.FusedOptions][] = [
    [norm, zeros([1, 4, 3, 3]), {}],
    [norm, randn([2, 4, 2, 6]), {}],
    [norm, randn([4, 6, 6]), {}],
    [wrong, randn([2, 4, 6, 6]), {}],
    [norm, randn([2, 4, 6, 6]), { residual: randn([2, 6, 4, 5]) }],
  ];
  for (const [layer, x, options] of attempts) {
    const state = numbers(layer.runningMean!);
    const messages = [() => layer.after(conv, x, options), () => layer.fused(conv.call(x), options)].map((run) =>
      assertThrows(run, Error).message
    );
    assertEquals(messages[0], messages[1]);
    assertEquals(numbers(layer.runningMean!), state);
  }
  // Nothing in the batch: the steps one after the other.
  assertEquals(norm.after(conv, zeros([0, 4, 6, 6])).shape, [0, 6, 4, 4]);
});

test("BatchNorm.after() in training mode looks at hooks, and lets go of what lies between", () => {
  using conv = new nn.Conv2d(4, 6, 3);
  using norm = new nn.BatchNorm2d(6);
  const x = randn([2, 4, 6, 6]);
  assertEquals(calls(() => void norm.after(conv, x)).dg_conv_stats, 1);
  for (const layer of [conv, norm]) {
    let seen: Tensor | null = null;
    const handle = layer.registerForwardHook((_, __, output) => void (seen = output as Tensor));
    assertEquals(calls(() => void norm.after(conv, x)).dg_conv_stats ?? 0, 0);
    assert(seen !== null && !(seen as Tensor).disposed);
    handle.remove();
  }
  const before = norm.after(conv, x).node!;
  assertEquals([before.name, before.edges[0]!.node!.name], ["batchNorm", "conv2d"]);
});

test("compile() repeats a training step with statistics from the convolution", () => {
  const build = () =>
    new nn.Sequential(
      new nn.Conv2d(3, 32, 3, { padding: 1 }),
      new nn.BatchNorm2d(32),
      new nn.ReLU(),
      new nn.Conv2d(32, 40, 3),
      new nn.BatchNorm2d(40),
    )
      .to(device) as nn.Sequential;
  const model = build(), other = build();
  other.loadStateDict(model.stateDict());
  const step = (model: nn.Sequential) => (x: Tensor) => {
    model.zeroGrad();
    const y = model.call(x), loss = y.mul(y).mul(x.mean()).sum();
    loss.backward();
    return loss.detach();
  };
  using_(compile(step(model)), (fast) => {
    for (let i = 0; i < 5; i++) {
      const x = randn([2, 3, 30, 30]);
      assertEquals(fast(x).item(), step(other)(x).item());
      const values = (model: nn.Sequential) =>
        [...model.parameters()].map((p) => numbers(p.grad!)).concat([...model.buffers()].map(numbers));
      assertEquals(values(model), values(other));
    }
    assertEquals(fast.reason, null);
  });
  for (const it of [model, other]) {
    it.zeroGrad();
    it.dispose();
  }
});

test("dg_conv_stats refuses what does not belong together", () => {
  const library = libraryOf(device), x = zeros([2, 4, 5, 5]).channelsLast(), w = zeros([3, 4, 1, 1]), one = ones([3]), two = ones([3]);
  const call = (
    y: Tensor,
    mean: Tensor | null,
    variance: Tensor | null,
    runningMean: Tensor | null = null,
    bias: Tensor | null = null,
    from = x,
  ) => {
    frame.begin();
    type Slots = [number, number, number, number, number, number, number, number, number, number];
    const slots = [y, from, w, bias, mean, variance, null, runningMean, null, null].map((v) => frame.put(v)) as Slots;
    check(library.dg_conv_stats(frame.pointer, ...slots, 0.1, 1e-5, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1), library);
  };
  const y = zeros([2, 3, 5, 5]).channelsLast();
  call(y, one, two);
  assertThrows(() => call(y, null, two), Error, "both outputs must be given");
  assertThrows(() => call(y, one, null), Error, "both outputs must be given");
  assertThrows(() => call(y, one, ones([4])), Error, "of size [3]");
  assertThrows(() => call(y, one, two, ones([3])), Error, "both running statistics must be given, or none");
  assertThrows(() => call(y, one, two, null, ones([4])), Error, "bias");
  assertThrows(() => call(zeros([2, 4, 5, 5]), one, two), Error, "do not belong together");
  assertThrows(() => call(zeros([0, 3, 5, 5]), one, two, null, null, zeros([0, 4, 5, 5])), Error, "no values");
});
