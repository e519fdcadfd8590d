import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import {
  AutogradError,
  binaryCrossEntropyWithLogits,
  crossEntropy,
  type DType,
  getThreads,
  grad,
  huberLoss,
  l1Loss,
  logSoftmax,
  logsumexp,
  mseLoss,
  nllLoss,
  randint,
  randn,
  setThreads,
  softmax,
  type Tensor,
  tensor,
  zeros,
} from "../mod.ts";
import { assertThrows } from "./device.ts";
import { test } from "./leaks.ts";

/** Largest difference of two tensors. */
function distance(a: Tensor, b: Tensor): number {
  assertEquals([...a.shape], [...b.shape]);
  const p = a.double().data(), q = b.double().data();
  let most = 0;
  for (let i = 0; i < p.length; i++) most = Math.max(most, Math.abs(Number(p[i]) - Number(q[i])));
  return most;
}

/** Value and gradient of a loss of `x`. */
function both(x: Tensor, loss: (x: Tensor) => Tensor): [Tensor, Tensor] {
  const leaf = x.detach().clone().requiresGrad_();
  const y = loss(leaf);
  return [y.detach(), grad(y, [leaf])[0]!];
}

test("crossEntropy() equals its composed form around block widths", () => {
  for (const classes of [1, 2, 15, 16, 17, 31, 32, 33, 1000, 5000]) {
    for (const smoothing of [0, 0.1]) {
      const x = randn([9, classes]).mul(3), labels = randint(0, classes, [9]), weight = randn([classes]).abs().add(0.1);
      const [value, gradient] = both(x, (it) => crossEntropy(it, labels, { weight, labelSmoothing: smoothing }));
      const [expected, slope] = both(x.double(), (it) => {
        const lp = logSoftmax(it, 1), w = weight.double();
        const picked = nllLoss(lp, labels, { weight: w }).mul(1 - smoothing);
        const total = nllLoss(zeros([9, classes], { dtype: "float64" }).sub(1), labels, { weight: w, reduction: "sum" });
        return picked.sub(lp.mul(w).sum().mul(smoothing / classes).div(total));
      });
      assert(distance(value, expected) < 2e-6 * Math.max(1, expected.item()), `${classes} classes`);
      assert(distance(gradient, slope) < 1e-6, `gradient with ${classes} classes`);
    }
  }
});

test("crossEntropy() takes any layout and integer labels of any width", () => {
  const x = randn([3, 5, 4, 6]), labels = randint(0, 5, [3, 4, 6]);
  const [value, gradient] = both(x, (it) => crossEntropy(it, labels));
  for (const seen of [x.channelsLast(), x.permute([3, 1, 0, 2]).contiguous().permute([2, 1, 3, 0])]) {
    const [same, slope] = both(seen, (it) => crossEntropy(it, labels));
    assertEquals(same.item(), value.item());
    assertEquals(distance(slope, gradient), 0);
  }
  for (const dtype of ["int32", "uint8"] as DType[]) assertEquals(crossEntropy(x, labels.to(dtype)).item(), value.item());
});

test("crossEntropy() of few classes over positions equals its composed form in every layout, in and outside of blocks", () => {
  const threads = getThreads();
  for (const classes of [1, 2, 3, 4, 5, 10, 16, 17]) {
    for (const [N, H, W] of [[1, 1, 1], [2, 3, 5], [3, 16, 16], classes === 2 ? [2, 129, 67] : [1, 41, 31]]) {
      const x = randn([N, classes, H, W]).mul(4), weight = randn([classes]).abs().add(0.1);
      const ignored = (i: number) => i % 7 === 3;
      const labels = tensor(Array.from({ length: N * H * W }, (_, i) => ignored(i) ? -100 : (i * 2654435761 >>> 8) % classes)).to("int64")
        .reshape([N, H, W]);
      const mask = labels.ne(-100).to("float64"), smoothing = H === 16 ? 0.2 : 0;
      for (const reduction of ["mean", "sum", "none"] as const) {
        const outer = randn(reduction === "none" ? [N, H, W] : []);
        const run = (it: Tensor, dtype: DType): [Tensor, Tensor] => {
          const leaf = it.to(dtype).detach().clone().requiresGrad_();
          const y = crossEntropy(leaf, labels, { weight: weight.to(dtype), labelSmoothing: smoothing, reduction });
          return [y.detach(), grad(y.mul(outer.to(dtype)).sum(), [leaf])[0]!];
        };
        const exact = x.double().requiresGrad_(), w = weight.double();
        const lp = logSoftmax(exact, 1), hit = nllLoss(lp, labels, { weight: w, reduction: "none" });
        const every = lp.mul(w.reshape([1, classes, 1, 1])).sum(1).mul(mask).mul(smoothing / classes);
        const each = hit.mul(1 - smoothing).sub(every);
        const total = nllLoss(lp.detach().mul(0).sub(1), labels, { weight: w, reduction: "sum" });
        const expected = reduction === "none" ? each : reduction === "sum" ? each.sum() : each.sum().div(total);
        const slope = grad(expected.mul(outer.double()).sum(), [exact])[0]!;
        const at = `${classes} classes, [${N}, ${H}, ${W}], ${reduction}`, scale = reduction === "sum" ? N * H * W : 1;
        for (const seen of [x, x.channelsLast(), x.permute([3, 1, 0, 2]).contiguous().permute([2, 1, 3, 0])]) {
          const [value, gradient] = run(seen, "float32");
          assert(distance(value, expected) < 1e-5 * scale, `${at}: ${distance(value, expected)}`);
          assert(distance(gradient, slope) < 2e-5, `gradient of ${at}: ${distance(gradient, slope)}`);
          setThreads(1);
          const [one, other] = run(seen, "float32");
          setThreads(threads);
          assertEquals([distance(one, value), distance(other, gradient)], [0, 0], at);
        }
        const [value, gradient] = run(x, "float64");
        assert(distance(value, expected) < 1e-12 * scale && distance(gradient, slope) < 1e-12, `${at} in float64`);
      }
    }
  }
});

test("crossEntropy() names the first label that is outside, on any number of threads", () => {
  const x = zeros([50000, 4]), labels = randint(0, 4, [50000]);
  labels.narrow(0, 31000, 1).fill_(4);
  labels.narrow(0, 49000, 1).fill_(-7);
  const threads = getThreads();
  for (const count of [1, threads]) {
    setThreads(count);
    assertThrows(() => crossEntropy(x, labels), RangeError, "crossEntropy: label 4 is outside 0 .. 3: the input has 4 classes");
  }
  setThreads(threads);
  assertThrows(() => nllLoss(x.narrow(0, 40000, 10000), labels.narrow(0, 40000, 10000)), RangeError, "nllLoss: label -7 is outside 0 .. 3");
  assertEquals(nllLoss(x.narrow(0, 0, 2).sub(1), tensor([9, 1], { dtype: "int64" }), { ignoreIndex: 9 }).item(), 1);
});

test("crossEntropy() is NaN without labels to count, and refuses a weight that wants a gradient", () => {
  const x = randn([2, 3]).requiresGrad_(), ignored = tensor([-100, -100], { dtype: "int64" });
  assert(Number.isNaN(crossEntropy(x, ignored).item()));
  assertEquals(crossEntropy(x, ignored, { reduction: "sum" }).item(), 0);
  assertEquals(crossEntropy(x, ignored, { reduction: "none" }).tolist(), [0, 0]);
  const weight = randn([3]).requiresGrad_();
  assertThrows(() => crossEntropy(x, ignored, { weight }), AutogradError, "the weight has no derivative");
});

test("softmax() is exact for long rows and shifted scores", () => {
  const x = randn([2, 100_003]).mul(4).add(500);
  const want = softmax(x.double(), 1), y = softmax(x, 1);
  const off = y.double().sub(want).abs().div(want).amax().item();
  assert(off < 5e-6, `relative error ${off}`);
  assertAlmostEquals(y.double().sum().item(), 2, 1e-5);
  assert(distance(logSoftmax(x, 1), want.log()) < 5e-6);
  assert(distance(logsumexp(x, 1), logsumexp(x.double(), 1)) < 1e-4);
});

test("softmax() along outer axes equals that along the last", () => {
  for (const n of [31, 32, 33, 129]) {
    const x = randn([3, 7, n], { dtype: "float64" });
    for (const along of [softmax, logSoftmax]) {
      const [y, dx] = both(x, (it) => along(it, 1).mul(x).sum());
      const [z, dz] = both(x.permute([0, 2, 1]).contiguous(), (it) => along(it, 2).mul(x.permute([0, 2, 1])).sum());
      assertAlmostEquals(y.item(), z.item(), 1e-10);
      assert(distance(dx, dz.permute([0, 2, 1])) < 1e-13);
    }
  }
});

test("losses equal their composed forms and do not depend on the number of threads", () => {
  const threads = getThreads();
  for (const n of [31, 32, 33, 70_001]) {
    const x = randn([n]), t = randn([n]), p = t.sigmoid();
    const pairs: [(x: Tensor) => Tensor, (x: Tensor) => Tensor][] = [
      [(it) => mseLoss(it, t), (it) => it.sub(t.double()).square().mean()],
      [(it) => l1Loss(it, t, { reduction: "sum" }), (it) => it.sub(t.double()).abs().sum()],
      [(it) => huberLoss(it, t), (it) =>
        it.sub(t.double()).abs().clamp(null, 1).mul(it.sub(t.double()).abs()).sub(
          it.sub(t.double()).abs().clamp(null, 1).square().mul(0.5),
        ).mean()],
      [
        (it) => binaryCrossEntropyWithLogits(it, p),
        (it) => it.sigmoid().log().mul(p.double()).add(it.neg().sigmoid().log().mul(p.double().neg().add(1))).mean().neg(),
      ],
    ];
    pairs.forEach(([fused, composed], i) => {
      const [value, gradient] = both(x, fused), [expected, slope] = both(x.double(), composed);
      assert(distance(value, expected) <= 1e-6 * Math.max(1, expected.item()), `loss ${i} of ${n}: ${value.item()} and ${expected.item()}`);
      assert(distance(gradient, slope) < 1e-6, `gradient of loss ${i} of ${n}`);
      setThreads(1);
      const [one, other] = both(x, fused);
      setThreads(threads);
      assertEquals(one.item(), value.item());
      assertEquals(distance(other, gradient), 0);
    });
  }
  const scores = randn([3000, 40]), labels = randint(0, 40, [3000]);
  const all = both(scores, (it) => crossEntropy(it, labels));
  setThreads(1);
  const one = both(scores, (it) => crossEntropy(it, labels));
  setThreads(threads);
  assertEquals(one[0].item(), all[0].item());
  assertEquals(distance(one[1], all[1]), 0);
});
