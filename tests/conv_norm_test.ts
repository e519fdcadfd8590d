// A convolution that normalises its results where it writes them, against its definition in float64 and the composed form.
import { assert, assertEquals } from "@std/assert";
import { compile, empty, getThreads, nn, noGrad, ones, randn, scope, setThreads, Tensor, tensor, zeros } from "../mod.ts";
import { check, libraryOf } from "../ffi/library.ts";
import { frame } from "../ffi/frame.ts";
import { isChannelsLast } from "../tensor/shape.ts";
import { using_ } from "./compiled.ts";
import { calls, type Case, cases, gap, layers, numbers } from "./conv_norm_data.ts";
import { assertThrows, device } from "./device.ts";
import { test } from "./leaks.ts";

/** The definition in float64, summed position by position, and the largest sum of the terms' magnitudes. */
function definition(
  it: Case,
  conv: nn.Convolution,
  norm: nn.BatchNorm,
  x: Tensor,
  residual: Tensor | null,
  relu: boolean,
): [number[], number] {
  const { stride = 1, padding = 0, groups = 1, dilation = 1 } = it, axes = it.x.length - 2;
  const three = (list: readonly number[], fill: number) => [...new Array<number>(3 - axes).fill(fill), ...list];
  const input = three(it.x.slice(2), 1), kernel = three(it.w.slice(2), 1), pad = three(new Array<number>(axes).fill(padding), 0);
  const output = input.map((n, i) => i < 3 - axes ? 1 : Math.floor((n + 2 * pad[i] - dilation * (kernel[i] - 1) - 1) / stride) + 1);
  const area = ([a, b, c]: number[]) => a * b * c;
  const place = (at: number, s: number[]) => [Math.floor(at / s[2] / s[1]), Math.floor(at / s[2]) % s[1], at % s[2]];
  const [N, C] = it.x, O = it.w[0], per = C / groups, [positions, pixels, taps] = [output, input, kernel].map(area);
  const [data, weight] = [x, conv.weight].map((v) => Float64Array.from(numbers(v)));
  const [bias, mean, variance, scale, shift, added] = [conv.bias, norm.runningMean, norm.runningVar, norm.weight, norm.bias, residual].map((
    v,
  ) => v && numbers(v));
  const y = new Array<number>(N * O * positions);
  let most = 0;
  for (let p = 0; p < positions; p++) {
    const to = place(p, output), sources: [number, number][] = [];
    for (let t = 0; t < taps; t++) {
      const k = place(t, kernel), from = to.map((v, i) => v * (i < 3 - axes ? 1 : stride) - pad[i] + k[i] * dilation);
      if (from.every((v, i) => v >= 0 && v < input[i])) sources.push([t, (from[0] * input[1] + from[1]) * input[2] + from[2]]);
    }
    for (let n = 0; n < N; n++) {
      for (let o = 0; o < O; o++) {
        const first = n * C + Math.floor(o / (O / groups)) * per, at = (n * O + o) * positions + p;
        let sum = (bias?.[o] ?? 0) - mean![o], size = Math.abs(bias?.[o] ?? 0) + Math.abs(mean![o]);
        for (const [t, pixel] of sources) {
          for (let c = 0; c < per; c++) {
            const term = data[(first + c) * pixels + pixel] * weight[(o * per + c) * taps + t];
            sum += term, size += Math.abs(term);
          }
        }
        const slope = (scale?.[o] ?? 1) / Math.sqrt(variance![o] + norm.eps);
        const value = sum * slope + (shift?.[o] ?? 0) + (added?.[at] ?? 0);
        most = Math.max(most, size * Math.abs(slope) + Math.abs(shift?.[o] ?? 0) + Math.abs(added?.[at] ?? 0));
        y[at] = relu ? Math.max(value, 0) : value;
      }
    }
  }
  return [y, most];
}

/** The steps one after the other. */
function composed(conv: nn.Layer, norm: nn.BatchNorm, x: Tensor, residual: Tensor | null, relu: boolean): Tensor {
  const y = (norm as nn.BatchNorm2d).call(conv.call(x)), sum = residual === null ? y : y.add(residual);
  return relu ? sum.relu() : sum;
}

/** With bias, relu, residual. */
const variants = [[false, true, false], [true, false, true], [false, true, true], [true, false, false]];

// Of the largest sum of magnitudes: the steps one after the other, which round a half after the convolution, and the definition, which is that of
// wide dtypes.
const tolerances: Readonly<Record<string, readonly [number, number]>> = {
  float64: [1e-15, 1e-15],
  float32: [3e-7, 3e-6],
  float16: [1e-3, 0],
  bfloat16: [8e-3, 0],
};

for (const dtype of ["float64", "float32", "float16", "bfloat16"] as const) {
  test(`BatchNorm.after() a convolution is the composed form and its definition, ${dtype}`, () => {
    const [near, far] = tolerances[dtype];
    cases.forEach((it, i) =>
      scope(() => {
        for (const [v, [bias, relu, added]] of variants.entries()) {
          if (near > 1e-6 && v % 2 !== i % 2) continue; // halves take long to read
          const { conv, norm } = layers(it, dtype, bias, { affine: relu || added }), label = JSON.stringify({ ...it, bias, relu, added });
          const x = randn(it.x, { dtype }), shape = conv.call(x).shape, residual = added ? randn(shape, { dtype }) : null;
          const given = { activation: relu ? "relu" : null, residual } as const;
          const fused = noGrad(() => norm.after(conv, x.channelsLast(), { ...given, residual: residual && residual.channelsLast() }));
          assertEquals([fused.dtype, isChannelsLast(fused.shape, fused.strides)], [dtype, true], label);
          // Any order of memory.
          assertEquals(numbers(noGrad(() => norm.after(conv, x, given))), numbers(fused), label);
          const steps = numbers(noGrad(() => composed(conv, norm, x, residual, relu)));
          if (v === i % variants.length && dtype !== "float16" && dtype !== "bfloat16") { // the definition takes its time
            const [expected, most] = definition(it, conv, norm, x, residual, relu);
            assert(gap(fused, expected, most) < far, `${label} ${gap(fused, expected, most)}`);
            assert(gap(fused, steps, most) <= near, `${label} ${gap(fused, steps, most)}`);
          } else {
            const most = numbers(conv.call(x)).concat(steps).reduce((a, v) => Math.max(a, Math.abs(v)), 1);
            assert(gap(fused, steps, most) <= 4 * near, `${label} ${gap(fused, steps, most)}`);
          }
          conv.dispose();
          norm.dispose();
        }
      })
    );
  });
}

test("BatchNorm.after() a convolution is one native call and takes memory for its result alone", () => {
  for (const it of cases) {
    const { conv, norm } = layers(it, "float32", true), x = randn(it.x).channelsLast(), residual = conv.call(x).detach();
    const counts = calls(() => void noGrad(() => norm.after(conv, x, { residual, activation: "relu" })));
    assertEquals(
      [counts.dg_alloc, counts.dg_conv_norm, counts.dg_conv_forward ?? 0, counts.dg_batch_norm_apply ?? 0],
      [1, 1, 0, 0],
      it.name,
    );
    conv.dispose();
    norm.dispose();
  }
});

test("BatchNorm.after() gives the same bits for any thread count", () => {
  const threads = getThreads();
  try {
    for (const it of cases) {
      const { conv, norm } = layers(it, "float32", true), x = randn(it.x), residual = conv.call(x).detach(), results: number[][] = [];
      for (const count of [1, 2]) {
        setThreads(count);
        results.push(numbers(noGrad(() => norm.after(conv, x, { residual, activation: "relu" }))));
      }
      assertEquals(results[0], results[1], it.name);
      conv.dispose();
      norm.dispose();
    }
  } finally {
    setThreads(threads);
  }
});

test("NaN passes the relu of a convolution that normalises, infinities end where they end in the composed form", () => {
  for (const it of cases.filter(({ x }) => x.length === 4 && x[2] > 1)) {
    const { conv, norm } = layers(it, "float32", true), x = randn(it.x);
    const residual = zeros(conv.call(x).shape), values = residual.data();
    [NaN, Infinity, -Infinity].forEach((v, i) => values[i * 7] = v);
    const given = tensor(Array.from(values, Number)).reshape(residual.shape).to(device);
    const fused = numbers(noGrad(() => norm.after(conv, x, { residual: given, activation: "relu" })));
    assertEquals([fused[0], fused[7], fused[14]], [NaN, Infinity, 0], it.name);
    assertEquals(fused.filter((v) => !Number.isFinite(v)).length, 2, it.name);
    conv.dispose();
    norm.dispose();
  }
});

test("BatchNorm.after() a convolution of padded, sliced and empty inputs", () => {
  using norm = new nn.BatchNorm2d(20);
  norm.eval();
  for (const paddingMode of ["reflect", "replicate", "circular"] as const) {
    for (const padding of [1, "same", "valid"] as const) {
      using conv = new nn.Conv2d(8, 20, 3, { padding, paddingMode });
      const x = randn([2, 8, 7, 6]);
      assert(gap(noGrad(() => norm.after(conv, x)), numbers(composed(conv, norm, x, null, false))) < 1e-6);
    }
  }
  using conv = new nn.Conv2d(8, 20, 1);
  const slice = randn([2, 14, 5, 5]).channelsLast().slice(1, 3, 11);
  assert(gap(noGrad(() => norm.after(conv, slice)), numbers(composed(conv, norm, slice, null, false))) < 1e-6);
  assertEquals(noGrad(() => norm.after(conv, zeros([0, 8, 5, 5]))).shape, [0, 20, 5, 5]);
});

test("BatchNorm.after() records where a gradient may be asked for, with the gradients of the composed form", () => {
  using conv = new nn.Conv2d(5, 18, 3, { padding: 1 });
  using norm = new nn.BatchNorm2d(18);
  for (const training of [false, true]) {
    norm.train(training);
    const x = randn([2, 5, 6, 6]).requiresGrad_(), dy = randn([2, 18, 6, 6]), residual = randn([2, 18, 6, 6]).requiresGrad_();
    const outcomes = [
      () => norm.after(conv, x, { residual, activation: "relu" }),
      () => norm.fused(conv.call(x), { residual, activation: "relu" }),
    ].map((run) => {
      norm.resetRunningStats();
      for (const module of [conv, norm]) module.zeroGrad();
      x.grad?.dispose();
      x.grad = null;
      residual.grad?.dispose();
      residual.grad = null;
      const y = run();
      assertEquals(y.node!.name, "batchNorm");
      y.backward(dy);
      const grads = [x, residual, conv.weight, conv.bias!, norm.weight!, norm.bias!].map((v) => numbers(v.grad!));
      return [numbers(y), ...grads, numbers(norm.runningMean!), numbers(norm.runningVar!), [norm.numBatchesTracked!.item()]];
    });
    assertEquals(outcomes[0], outcomes[1]);
    assertEquals(outcomes[0].at(-1), [Number(training)]);
    x.grad?.dispose();
    residual.grad?.dispose();
  }
  for (const module of [conv, norm]) module.zeroGrad();
  // Each operand alone asks for a record.
  norm.eval();
  const x = randn([1, 5, 4, 4]), operands = [conv.weight, conv.bias!, norm.weight!, norm.bias!];
  for (const wanted of operands) {
    for (const operand of operands) operand.requiresGrad = operand === wanted;
    assert(norm.after(conv, x).requiresGrad);
  }
  for (const operand of operands) operand.requiresGrad = false;
  assert(!norm.after(conv, x).requiresGrad);
  assert(norm.after(conv, x, { residual: randn([1, 18, 4, 4]).requiresGrad_() }).requiresGrad);
});

test("BatchNorm.after() in training mode and without running statistics uses those of the batch", () => {
  using conv = new nn.Conv2d(4, 6, 3);
  const x = randn([3, 4, 6, 6]).mul(3);
  using own = new nn.BatchNorm2d(6, { trackRunningStats: false });
  using running = new nn.BatchNorm2d(6);
  noGrad(() => {
    const expected = numbers(own.call(conv.call(x)));
    assertEquals(numbers(own.eval().after(conv, x)), expected);
    assertEquals(numbers(running.after(conv, x)), expected);
    assertEquals(running.numBatchesTracked!.item(), 1);
    assertThrows(() => running.after(conv, zeros([1, 4, 3, 3])), Error, "expected more than 1 value per channel when training");
    assertEquals(running.numBatchesTracked!.item(), 1);
  });
});

test("BatchNorm.after() looks at hooks and at a subclass's own ways", () => {
  const x = randn([2, 4, 6, 6]);
  const once = (fn: () => Tensor) => calls(() => void noGrad(fn)).dg_conv_norm ?? 0;
  const make = () => ({ conv: new nn.Conv2d(4, 6, 3).eval(), norm: new nn.BatchNorm2d(6).eval() });
  for (const at of ["conv", "norm"] as const) {
    for (const kind of ["registerForwardHook", "registerForwardPreHook", "registerFullBackwardHook"] as const) {
      const both = make();
      assertEquals(once(() => both.norm.after(both.conv, x)), 1);
      let seen = 0;
      const handle = both[at][kind](() => void seen++);
      assertEquals(once(() => both.norm.after(both.conv, x)), 0);
      if (kind !== "registerFullBackwardHook") assertEquals(seen, 1);
      handle.remove();
      assertEquals(once(() => both.norm.after(both.conv, x)), 1);
      both.conv.dispose();
      both.norm.dispose();
    }
  }
  class Doubled extends nn.Conv2d {
    override forward(x: Tensor): Tensor {
      return super.forward(x).mul(2);
    }
  }
  class Tripled extends nn.Conv2d {
    protected override run(x: Tensor): Tensor {
      return super.run(x).mul(3);
    }
  }
  class Shifted extends nn.BatchNorm2d {
    override forward(x: Tensor): Tensor {
      return super.forward(x).add(1);
    }
  }
  const { conv, norm } = make();
  noGrad(() => {
    for (const [other, factor] of [[new Doubled(4, 6, 3), 2], [new Tripled(4, 6, 3), 3]] as const) {
      other.loadStateDict(conv.stateDict());
      assertEquals(numbers(norm.after(other, x)), numbers(norm.call(conv.call(x).mul(factor))));
      other.dispose();
    }
    const shifted = new Shifted(6).eval() as Shifted;
    assertEquals(numbers(shifted.after(conv, x, { activation: "relu" })), numbers(norm.call(conv.call(x)).add(1).relu()));
    shifted.dispose();
    const own = new nn.BatchNorm2d(6).eval() as nn.BatchNorm2d;
    own.forward = (x) => x.mul(0);
    assertEquals(numbers(own.after(conv, x)).every((v) => v === 0), true);
    own.dispose();
    // Layers that are no convolution, or a transposed one.
    const up = new nn.ConvTranspose2d(4, 6, 2, { stride: 2 });
    for (const layer of [up, new nn.Conv2d(4, 6, 1)]) {
      assert(gap(norm.after(layer, x, { activation: "relu" }), numbers(composed(layer, norm, x, null, true))) < 1e-6);
      layer.dispose();
    }
    const relu = new nn.ReLU(), y = randn([2, 6, 3, 3]);
    assertEquals(numbers(norm.after(relu, y)), numbers(norm.call(y.relu())));
  });
  conv.dispose();
  norm.dispose();
});

test("Sequential joins a convolution, a BatchNorm and a ReLU in evaluation mode", () => {
  const x = randn([2, 4, 8, 8]),
    build = () =>
      new nn.Sequential(
        new nn.Conv2d(4, 6, 3),
        new nn.BatchNorm2d(6),
        new nn.ReLU(),
        new nn.Conv2d(6, 5, 1),
        new nn.BatchNorm2d(5),
        new nn.Conv2d(5, 3, 1),
        new nn.ReLU(),
      ).eval() as nn.Sequential;
  const joined = (model: nn.Sequential) => calls(() => void noGrad(() => model.call(x))).dg_conv_norm ?? 0;
  const model = build(), expected = numbers(model.call(x)), state = model.stateDict();
  assertEquals(joined(model), 2);
  assert(gap(noGrad(() => model.call(x)), expected) < 1e-6);
  assertEquals(Object.keys(state).filter((key) => key.startsWith("1.")).length, 5);
  for (const [i, left] of [[0, 1], [1, 1], [2, 2], [4, 1], [5, 2]]) {
    let seen = 0;
    const handle = model.at(i).registerForwardHook((_, [input], output) => {
      seen++;
      assertEquals([(input as Tensor).disposed, (output as Tensor).disposed], [false, false]);
    });
    assertEquals([joined(model), seen], [left, 1]);
    assert(gap(noGrad(() => model.call(x)), expected) < 1e-6);
    handle.remove();
  }
  (model.at(2) as nn.ReLU).forward = (x) => x;
  assertEquals(joined(model), 2);
  assert(noGrad(() => model.call(x)).sub(tensor(expected).reshape([2, 3, 6, 6]).to(device)).abs().max().item() > 1e-4);
  model.train();
  assertEquals(joined(model), 0);
  model.dispose();
});

test("BatchNorm.after() refuses what the layers one after the other refuse, in the same words", () => {
  using conv = new nn.Conv2d(4, 6, 3);
  using norm = new nn.BatchNorm2d(6);
  using other = new nn.BatchNorm2d(7);
  using flat = new nn.BatchNorm1d(6);
  for (const module of [norm, other, flat]) module.eval();
  const x = randn([2, 4, 6, 6]), gone = randn([2, 4, 6, 6]), wrong = randn([2, 6, 4, 5]), dtype = "float64" as const;
  gone.dispose();
  const attempts: [nn.BatchNorm, Tensor, nn.FusedOptions][] = [
    [norm, randn([2, 5, 6, 6]), {}],
    [norm, randn([2, 4, 2, 6]), {}],
    [norm, randn([4, 6, 6]), {}],
    [norm, randn([2, 4, 6]), {}],
    [norm, gone, {}],
    [norm, randn([2, 4, 6, 6], { dtype }), {}],
    [norm, null as unknown as Tensor, {}],
    [norm, [1] as unknown as Tensor, {}],
    [other, x, {}],
    [flat, x, {}],
    [norm, x, { residual: wrong }],
    [norm, x, { residual: gone }],
    [norm, x, { residual: zeros([2, 6, 4, 4], { dtype }) }],
    [norm, x, { residual: 3 as unknown as Tensor }],
    [norm, x, { activation: "tanh" as unknown as "relu" }],
  ];
  for (const [layer, input, options] of attempts) {
    const messages = [() => layer.after(conv, input, options), () => layer.fused(conv.call(input), options)].map((run) =>
      assertThrows(() => noGrad(run), Error).message
    );
    assertEquals(messages[0], messages[1]);
  }
});

test("compile() makes a convolution that normalises again, with the statistics of then", () => {
  const model = new nn.Sequential(new nn.Conv2d(4, 6, 3), new nn.BatchNorm2d(6), new nn.ReLU()).to(device).eval() as nn.Sequential;
  const norm = model.at(1) as nn.BatchNorm2d;
  using_(compile((x: Tensor) => noGrad(() => model.call(x))), (fast) => {
    for (let i = 0; i < 5; i++) {
      const x = randn([2, 4, 5, 5]);
      noGrad(() => (norm.runningMean!.add_(0.5), norm.runningVar!.mul_(1.5)));
      assertEquals(numbers(fast(x)), numbers(noGrad(() => model.call(x))));
    }
    assertEquals(fast.recordings, 1);
    norm.train();
    const x = randn([2, 4, 5, 5]), y = numbers(fast(x));
    assertEquals(norm.numBatchesTracked!.item(), 1);
    norm.resetRunningStats();
    assertEquals(numbers(noGrad(() => model.call(x))), y);
  });
  model.dispose();
});

test("dg_conv_norm refuses what does not belong together", () => {
  const library = libraryOf(device), values = ones([3]), x = zeros([2, 4, 5, 5]).channelsLast(), w = zeros([3, 4, 1, 1]);
  const call = (
    y: Tensor,
    mean: Tensor | null,
    variance: Tensor | null,
    weight: Tensor | null,
    residual: Tensor | null,
    bias: Tensor | null = null,
  ) => {
    frame.begin();
    type Slots = [number, number, number, number, number, number, number, number, number];
    const slots = [y, x, w, bias, mean, variance, weight, null, residual].map((v) => frame.put(v)) as Slots;
    check(library.dg_conv_norm(frame.pointer, ...slots, 1e-5, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1), library);
  };
  const y = zeros([2, 3, 5, 5]).channelsLast(), rows = empty([2, 3, 5, 5]);
  call(y, values, values, null, null);
  call(rows, values, values, values, rows);
  assertThrows(() => call(y, null, values, null, null), Error, "both statistics must be given");
  assertThrows(() => call(y, values, null, null, null), Error, "both statistics must be given");
  assertThrows(() => call(y, ones([4]), values, null, null), Error, "of size [3]");
  assertThrows(() => call(y, values, values, ones([3], { dtype: "float64" }), null), Error, "float32");
  assertThrows(() => call(y, values, values, null, rows), Error, "must all be contiguous or all be channels-last");
  assertThrows(() => call(y, values, values, null, zeros([2, 3, 5, 4])), Error, "conv_norm");
  assertThrows(() => call(y, values, values, null, null, ones([4])), Error, "bias");
  assertThrows(() => call(zeros([2, 4, 5, 5]), values, values, null, null), Error, "do not belong together");
});
