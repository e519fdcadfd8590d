// Batch normalisation in evaluation mode, one native call, against its definition in float64.
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import {
  batchNorm,
  compile,
  type DType,
  empty,
  getThreads,
  gradcheck,
  nn,
  noGrad,
  rand,
  randn,
  scope,
  setThreads,
  Tensor,
  zeros,
} from "../mod.ts";
import { check, libraryOf } from "../ffi/library.ts";
import { frame } from "../ffi/frame.ts";
import { using_ } from "./compiled.ts";
import { assertThrows, device } from "./device.ts";
import { test } from "./leaks.ts";

const numbers = (x: Tensor): number[] => Array.from(x.contiguous().data(), Number);

interface Case {
  x: Tensor;
  mean: Tensor;
  variance: Tensor;
  weight: Tensor | null;
  bias: Tensor | null;
  residual: Tensor | null;
  relu: boolean;
  eps: number;
}

/** Orders of memory: as it is, channels innermost, and every second position of a larger tensor. */
const orders: Readonly<Record<string, (x: Tensor) => Tensor>> = {
  "row-major": (x) => x,
  "channels-last": (x) => x.channelsLast(),
  gaps: (x) => {
    const wide = empty([...x.shape.slice(0, -1), 2 * x.shape.at(-1)!], { dtype: x.dtype });
    return wide.slice(-1, 0, wide.shape.at(-1), 2).copy_(x);
  },
};

/** An input of a dtype and a memory order, with parameters in the dtype that it is computed in. */
function sample(shape: readonly number[], dtype: DType, order: string, { affine = true, residual = false, relu = false } = {}): Case {
  const wide = dtype === "float64" ? "float64" : "float32", channels = shape[1], arrange = orders[order];
  return {
    x: arrange(randn(shape, { dtype }).mul(2).add(1)),
    mean: randn([channels], { dtype: wide }),
    variance: rand([channels], { dtype: wide }).add(0.2),
    weight: affine ? rand([channels], { dtype: wide }).sub(0.3) : null,
    bias: affine ? randn([channels], { dtype: wide }) : null,
    residual: residual ? arrange(randn(shape, { dtype })) : null,
    relu,
    eps: 1e-3,
  };
}

const run = ({ x, mean, variance, weight, bias, residual, relu, eps }: Case) =>
  batchNorm(x, mean, variance, { weight, bias, residual, eps, activation: relu ? "relu" : null });

/** Per element: the definition, how large its summands are, and the derivative by the normalised value before the weight. */
function definition(it: Case): { y: number[]; size: number[]; scale: number[]; channel: number[]; centred: number[] } {
  const [x, mean, variance] = [it.x, it.mean, it.variance].map(numbers),
    channels = it.x.shape[1],
    inner = x.length / it.x.shape[0] / channels;
  const [weight, bias, residual] = [it.weight, it.bias, it.residual].map((v) => v && numbers(v));
  const channel = x.map((_, i) => Math.floor(i / inner) % channels);
  const scale = channel.map((c) => (weight?.[c] ?? 1) / Math.sqrt(variance[c] + it.eps));
  const centred = x.map((v, i) => v - mean[channel[i]]);
  const sum = centred.map((v, i) => v * scale[i] + (bias?.[channel[i]] ?? 0) + (residual?.[i] ?? 0));
  const size = centred.map((v, i) => Math.abs(v * scale[i]) + Math.abs(bias?.[channel[i]] ?? 0) + Math.abs(residual?.[i] ?? 0));
  return { y: it.relu ? sum.map((v) => Math.max(v, 0)) : sum, size, scale, channel, centred };
}

/** Half a unit in the last place of a result of the dtype, and the error of what it is computed in. */
const units: Readonly<Record<string, readonly [number, number]>> = {
  float64: [2 ** -53, 4e-16],
  float32: [2 ** -24, 3e-7],
  float16: [2 ** -11, 3e-7],
  bfloat16: [2 ** -8, 3e-7],
};

const shapes = [[3, 5], [2, 33, 7], [1, 512, 4, 4], [2, 65, 3, 3], [2, 3, 5, 2, 4], [1, 1030, 2, 2], [3, 1, 3, 5], [1, 2, 150, 130]];

for (const dtype of ["float64", "float32", "float16", "bfloat16"] as const) {
  test(`batchNorm() in evaluation mode is its definition, ${dtype}`, () => {
    const [unit, error] = units[dtype];
    for (const shape of shapes) {
      for (const order of Object.keys(orders)) {
        for (const options of [{ affine: false }, {}, { relu: true }, { residual: true }, { residual: true, relu: true }]) {
          scope(() => {
            const it = sample(shape, dtype, order, options),
              { y, size } = definition(it),
              label = JSON.stringify({ shape, order, options });
            const actual = noGrad(() => run(it)), values = numbers(actual);
            assertEquals(actual.dtype, dtype, label);
            const long = (x: Tensor) => x.strides.filter((_, i) => shape[i] > 1);
            if (order !== "gaps") assertEquals(long(actual), long(it.x), label);
            // float16 ends at 2^-24.
            values.forEach((v, i) =>
              assertAlmostEquals(
                v,
                y[i],
                unit * Math.abs(y[i]) * 1.01 + error * size[i] + 2 ** -25 * Number(dtype === "float16"),
                `${label}[${i}]`,
              )
            );
          });
        }
      }
    }
  });

  test(`batchNorm() in evaluation mode: gradients of the buffers that it was given, ${dtype}`, () => {
    const [unit, error] = units[dtype];
    for (const shape of [[6, 5], [2, 33, 7], [2, 65, 3, 3]]) {
      for (const order of Object.keys(orders)) {
        for (const [residual, relu] of [[false, false], [false, true], [true, false], [true, true]]) {
          scope(() => {
            const it = sample(shape, dtype, order, { residual, relu }), label = JSON.stringify({ shape, order, residual, relu });
            const { y, scale, channel, centred } = definition(it);
            for (const leaf of [it.x, it.weight, it.bias, it.residual]) leaf?.requiresGrad_();
            const out = run(it), dy = randn(shape, { dtype });
            // Another batch in training mode, and a change by hand, before backward.
            batchNorm(randn(shape, { dtype }), it.mean, it.variance, { training: true });
            noGrad(() => (it.mean.mul_(3), it.variance.add_(5)));
            out.backward(dy);
            // The draws are the same in every run: no result is so close to 0 that its rounding decides.
            const passes = y.map((v) => relu ? v > 0 : true), flow = numbers(dy).map((g, i) => passes[i] ? g : 0);
            const sums = (f: (i: number) => number) => {
              const total = new Array<number>(shape[1]).fill(0), size = new Array<number>(shape[1]).fill(0);
              channel.forEach((c, i) => (total[c] += f(i), size[c] += Math.abs(f(i))));
              return [total, size];
            };
            const weight = numbers(it.weight!),
              expected: [string, Tensor | null, number[], number[]][] = [
                ["x", it.x.grad, flow.map((g, i) => g * scale[i]), flow.map((g, i) => Math.abs(g * scale[i]))],
                ["weight", it.weight!.grad, ...sums((i) => flow[i] * centred[i] * scale[i] / weight[channel[i]]) as [number[], number[]]],
                ["bias", it.bias!.grad, ...sums((i) => flow[i]) as [number[], number[]]],
                ...(residual ? [["residual", it.residual!.grad, flow, flow.map(Math.abs)] as [string, Tensor, number[], number[]]] : []),
              ];
            for (const [name, actual, values, size] of expected) {
              const half = actual!.dtype === dtype ? unit : 2 ** -24;
              numbers(actual!).forEach((v, i) =>
                assertAlmostEquals(
                  v,
                  values[i],
                  half * Math.abs(values[i]) * 1.01 + 4 * error * size[i] + 2 ** -25 * Number(dtype === "float16"),
                  `${label} ${name}[${i}]`,
                )
              );
              actual!.dispose();
            }
          });
        }
      }
    }
  });
}

test("batchNorm() in evaluation mode passes gradcheck in every memory order", () => {
  for (const order of Object.keys(orders)) {
    for (const relu of [false, true]) {
      const it = sample([3, 4, 2, 3], "float64", order, { residual: true, relu });
      const inputs = [it.x, it.weight!, it.bias!, it.residual!].map((leaf) => leaf.detach().requiresGrad_());
      gradcheck((x, weight, bias, residual) => run({ ...it, x, weight, bias, residual }), inputs);
      gradcheck((x, weight, bias) => run({ ...it, x, weight, bias, residual: null }), inputs.slice(0, 3));
    }
  }
});

test("batchNorm() in evaluation mode takes buffers and parameters of another dtype or with gaps", () => {
  for (const [dtype, other] of [["float32", "float64"], ["float64", "float32"], ["float16", "float16"], ["bfloat16", "float16"]] as const) {
    for (const recorded of [false, true]) {
      const it = sample([2, 6, 3, 3], dtype, "channels-last", { relu: true }), wide = it.mean.dtype;
      const pairs = (v: Tensor) => {
        const gaps = empty([2 * v.numel()], { dtype: other });
        return gaps.slice(0, 0, gaps.numel(), 2).copy_(v);
      };
      const narrow = { ...it, mean: pairs(it.mean), variance: pairs(it.variance), weight: pairs(it.weight!), bias: it.bias!.to(other) };
      const converted = {
        ...it,
        mean: narrow.mean.to(wide),
        variance: narrow.variance.to(wide),
        weight: narrow.weight.to(wide),
        bias: narrow.bias.to(wide),
      };
      const results = [narrow, converted].map((given) => {
        const x = it.x.detach().requiresGrad_(recorded), y = run({ ...given, x });
        if (recorded) y.sum().backward();
        const result = [numbers(y), recorded ? numbers(x.grad!) : []];
        x.grad?.dispose();
        return result;
      });
      assertEquals(results[0], results[1], `${dtype} ${other}`);
    }
  }
});

/** Native calls that `fn` makes, by name. */
function calls(fn: () => void): Record<string, number> {
  // deno-lint-ignore no-explicit-any
  const library = libraryOf(device) as any, before = { ...library }, counts: Record<string, number> = {};
  for (const [name, call] of Object.entries<(...args: unknown[]) => unknown>(before)) {
    library[name] = (...args: unknown[]) => (counts[name] = (counts[name] ?? 0) + 1, call(...args));
  }
  try {
    fn();
  } finally {
    Object.assign(library, before);
  }
  return counts;
}

test("batchNorm() in evaluation mode is one native call, and takes memory for its result alone if nothing is recorded", () => {
  const once = { dg_alloc: 1, dg_batch_norm_apply: 1 };
  for (const order of ["row-major", "channels-last"]) {
    for (const dtype of ["float32", "float64", "float16", "bfloat16"] as const) {
      const it = sample([2, 6, 3, 3], dtype, order, { residual: true, relu: true });
      assertEquals(calls(() => void run(it)), once); // nothing asks for a gradient
      it.x.requiresGrad_();
      assertEquals(calls(() => void noGrad(() => run(it))), once);
      assertEquals(calls(() => void run(it)), { ...once, dg_alloc: 3 });
    }
  }
  using norm = new nn.BatchNorm2d(6);
  norm.eval();
  const x = randn([2, 6, 3, 3]);
  assertEquals(calls(() => void noGrad(() => norm.fused(x, { activation: "relu", residual: x }))), once);
});

test("batchNorm() in evaluation mode gives the same bits for any thread count and in any memory order", () => {
  const threads = getThreads();
  try {
    for (const shape of [[1, 512, 4, 4], [4, 40, 33, 31], [2, 3, 200, 100], [40, 3000, 1]]) {
      scope(() => {
        const it = sample(shape, "float32", "row-major", { residual: true, relu: true });
        const last = { ...it, x: it.x.channelsLast(), residual: it.residual!.channelsLast() };
        const expected = numbers(run(it));
        for (const count of [1, 2]) {
          setThreads(count);
          for (const given of [it, last]) assertEquals(numbers(run(given)), expected, `${shape} ${count}`);
        }
      });
    }
  } finally {
    setThreads(threads);
  }
});

test("a layer in evaluation mode gives what it gave in training mode, if its statistics are those of the batch", () => {
  using norm = new nn.BatchNorm2d(5, { momentum: 1 });
  const x = randn([4, 5, 3, 3]), y = norm.call(x);
  // The running variance is the unbiased one.
  noGrad(() => norm.runningVar!.mul_(35 / 36));
  const z = norm.eval().call(x);
  assert(z.sub(y).abs().max().item() < 2e-6);
});

test("compile() makes batch normalisation in evaluation mode again, with the statistics of then", () => {
  using norm = new nn.BatchNorm2d(4);
  norm.to(device).eval();
  using_(compile((x: Tensor) => noGrad(() => norm.fused(x, { activation: "relu" }))), (fast) => {
    for (let i = 0; i < 5; i++) {
      const x = randn([2, 4, 3, 3]);
      noGrad(() => (norm.runningMean!.add_(0.5), norm.runningVar!.mul_(1.5)));
      assertEquals(numbers(fast(x)), numbers(noGrad(() => norm.fused(x, { activation: "relu" }))));
    }
    assertEquals(fast.recordings, 1);
  });
  const step = (x: Tensor) => {
    norm.zeroGrad();
    const y = norm.call(x);
    // Statistics move on between forward and backward.
    noGrad(() => (norm.runningMean!.add_(0.5), norm.runningVar!.mul_(1.5)));
    y.mul(y).sum().backward();
    return y.detach();
  };
  using_(compile(step), (fast) => {
    for (let i = 0; i < 5; i++) {
      const x = randn([2, 4, 3, 3]), mean = norm.runningMean!.clone(), variance = norm.runningVar!.clone();
      const outcome = [numbers(fast(x)), numbers(norm.weight!.grad!), numbers(norm.bias!.grad!)];
      noGrad(() => (norm.runningMean!.copy_(mean), norm.runningVar!.copy_(variance)));
      assertEquals(outcome, [numbers(step(x)), numbers(norm.weight!.grad!), numbers(norm.bias!.grad!)]);
    }
    assertEquals([fast.recordings, fast.reason], [2, null]); // without gradients to begin with, and with them
  });
  norm.zeroGrad();
});

test("dg_batch_norm_apply refuses statistics that do not belong together", () => {
  const library = libraryOf(device), x = zeros([2, 3]), y = zeros([2, 3]), values = zeros([3]), one = zeros([3]), two = zeros([3]);
  const call = (
    keptMean: Tensor | null,
    keptInvstd: Tensor | null,
    mean: Tensor | null,
    invstd: Tensor | null,
    variance: Tensor | null,
  ) => {
    frame.begin();
    type Slots = [number, number, number, number, number, number, number, number, number, number];
    const slots = [y, keptMean, keptInvstd, x, mean, invstd, variance, null, null, null].map((v) => frame.put(v)) as Slots;
    check(library.dg_batch_norm_apply(frame.pointer, ...slots, 1e-5, 0), library);
  };
  call(one, two, values, null, values);
  call(null, null, values, null, values);
  call(null, null, values, values, null);
  assertThrows(() => call(null, null, values, values, values), Error, "a variance comes with a mean and without invstd");
  assertThrows(() => call(null, null, null, null, values), Error, "a variance comes with a mean");
  assertThrows(() => call(one, null, values, null, values), Error, "kept together");
  assertThrows(() => call(one, two, values, values, null), Error, "kept together");
  assertThrows(() => call(one, two, values, null, zeros([4])), Error, "of size [3]");
  assertThrows(() => call(one, zeros([3], { dtype: "float64" }), values, null, values), Error, "float32");
});
