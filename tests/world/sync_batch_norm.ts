/** SyncBatchNorm: ranks against BatchNorm on the joined batch. */
import { assertEquals, assertThrows } from "@std/assert";
import {
  AutogradError,
  distributed,
  DistributedError,
  type DType,
  Generator,
  memory,
  nn,
  noGrad,
  randn,
  scope,
  ShapeError,
  type Tensor,
} from "../../mod.ts";
import { close, same } from "./compare.ts";

interface Case {
  shape: readonly number[];
  /** Samples of each rank. */
  parts: readonly number[];
  dtype: DType;
  channelsLast?: boolean;
  relu?: boolean;
  residual?: boolean;
  options?: nn.NormOptions;
}

const cases: Case[] = [
  { shape: [3, 5, 4], parts: [2, 2, 2], dtype: "float32" },
  { shape: [3, 5, 4], parts: [1, 4, 0], dtype: "float32", channelsLast: true },
  { shape: [3], parts: [1, 1, 2], dtype: "float64", relu: true },
  { shape: [4, 6], parts: [0, 3, 1], dtype: "float64", residual: true, relu: true },
  { shape: [2, 3, 3], parts: [2, 1, 3], dtype: "float32", relu: true, residual: true, channelsLast: true, options: { momentum: null } },
  { shape: [2, 3, 3], parts: [1, 1, 1], dtype: "float32", options: { affine: false, trackRunningStats: false, eps: 0.1 } },
];

function compare(it: Case, rank: number, size: number): void {
  const generator = new Generator(4), parts = it.parts.slice(0, size), total = parts.reduce((a, b) => a + b);
  const start = parts.slice(0, rank).reduce((a, b) => a + b, 0), [channels] = it.shape;
  const layer = it.shape.length === 1 || it.shape.length === 2 ? nn.BatchNorm1d : nn.BatchNorm2d;
  const whole = new layer(channels, { dtype: it.dtype, ...it.options });
  const own = new nn.SyncBatchNorm(channels, { dtype: it.dtype, ...it.options });
  for (const parameter of ["weight", "bias"] as const) {
    if (whole[parameter] === null) continue;
    noGrad(() => whole[parameter]!.copy_(randn([channels], { generator })));
    noGrad(() => own[parameter]!.copy_(whole[parameter]!));
  }
  const tolerance = it.dtype === "float64" ? 1e-12 : 1e-5;
  const make = () => {
    const x = randn([total, ...it.shape], { generator, dtype: it.dtype }).mul(3).add(100); // far from 0: sums of squares would cancel
    return it.channelsLast ? x.channelsLast() : x;
  };
  for (let step = 0; step < 2; step++) {
    const x = make(), r = it.residual ? make() : null, dy = randn(x.shape, { generator, dtype: it.dtype });
    const mine = (t: Tensor) => (it.channelsLast ? t.narrow(0, start, parts[rank]).channelsLast() : t.narrow(0, start, parts[rank]));
    const run = (norm: nn.BatchNorm, input: Tensor, residual: Tensor | null, grad: Tensor) => {
      const leaves = [input, residual].map((t) => t?.detach().requiresGrad_() ?? null);
      const y = norm.fused(leaves[0]!, { activation: it.relu ? "relu" : null, residual: leaves[1] });
      y.backward(grad);
      return { y, grads: leaves.map((t) => t?.grad ?? null) };
    };
    const expected = run(whole, x, r, dy), got = run(own, mine(x), r && mine(r), mine(dy));
    assertEquals(got.y.shape, [parts[rank], ...it.shape]);
    if (parts[rank] > 0) {
      close(got.y, expected.y.narrow(0, start, parts[rank]), 20 * tolerance, "y");
      got.grads.forEach((grad, i) => grad && close(grad, expected.grads[i]!.narrow(0, start, parts[rank]), 50 * tolerance, "dx"));
      assertEquals(got.y.strides, mine(x).strides);
    }
    if (whole.weight !== null) {
      for (const parameter of ["weight", "bias"] as const) {
        const sum = own[parameter]!.grad!.clone();
        distributed.allReduce(sum);
        close(sum, whole[parameter]!.grad, 100 * tolerance, `gradient of ${parameter}`);
      }
    }
    if (whole.runningMean !== null) {
      close(own.runningMean, whole.runningMean, 10 * tolerance, "runningMean");
      close(own.runningVar, whole.runningVar, 10 * tolerance, "runningVar");
      assertEquals(own.numBatchesTracked!.item(), step + 1);
    }
    for (const it of [...expected.grads, ...got.grads]) it?.dispose();
  }
  whole.dispose();
  own.dispose();
}

export async function syncBatchNorm(rank: number, size: number): Promise<void> {
  for (const it of cases) {
    const before = memory.stats().tensors;
    scope(() => compare(it, rank, size));
    assertEquals(memory.stats().tensors, before, "tensors alive afterwards");
  }
  // One value a channel is too few only if it is that everywhere together.
  const norm = new nn.SyncBatchNorm(2);
  const single = (count: number) => norm.call(randn([count, 2]));
  assertThrows(() => single(rank === 0 ? 1 : 0), ShapeError, "all processes have 1 together");
  assertEquals(norm.numBatchesTracked!.item(), 0);
  assertEquals(single(0).shape, [0, 2]);
  assertEquals(single(1).shape, [1, 2]);
  assertEquals(norm.numBatchesTracked!.item(), 2);
  // Nobody is asked in evaluation mode.
  if (rank === 0) norm.eval().call(randn([3, 2]));
  norm.train();
  assertThrows(() => norm.call(randn([2, 3])), ShapeError, "C = 2");
  assertThrows(() => norm.call(randn([2])), ShapeError, "[N, C, ...]");
  const x = randn([2, 2]).requiresGrad_();
  assertThrows(
    () => {
      norm.call(x).square().sum().backward(null, { createGraph: true });
      x.grad!.sum().backward();
    },
    AutogradError,
    "second derivative",
  );

  // A network on several ranks, converted, equals one with the joined batch, under DistributedDataParallel.
  const network = () => {
    const model = new nn.Sequential(
      new nn.Conv2d(1, 3, 3),
      new nn.BatchNorm2d(3),
      new nn.ReLU(),
      new nn.Flatten(),
      new nn.Linear(12, 4),
      new nn.Sequential(new nn.BatchNorm1d(4)),
    );
    const generator = new Generator(5);
    for (const p of model.parameters()) noGrad(() => p.copy_(randn(p.shape, { generator })));
    return model;
  };
  const plain = network(), group = (await distributed.newGroup())!;
  const ddp = new distributed.DistributedDataParallel(nn.SyncBatchNorm.convertSyncBatchNorm(network(), group));
  const generator = new Generator(6);
  for (let step = 0; step < 3; step++) {
    const input = randn([2 * size, 1, 4, 4], { generator }), target = randn([2 * size, 4], { generator });
    const mine = (t: Tensor) => t.narrow(0, 2 * rank, 2);
    ddp.call(mine(input)).sub(mine(target)).square().mean().backward();
    plain.call(input).sub(target).square().mean().backward();
    for (const model of [ddp, plain]) {
      noGrad(() => [...model.parameters()].forEach((p) => p.add_(p.grad!.mul(-0.1))));
      model.zeroGrad();
    }
  }
  same(ddp, plain, 1e-4, "a converted network");
  const buffers = [...plain.buffers()];
  [...ddp.buffers()].forEach((it, i) => close(it.double(), buffers[i].double(), 1e-4, "a converted network's buffers"));
  // A failing rank fails the others.
  const late = (await distributed.newGroup())!;
  if (rank === 0) late.abort("rank 0 gives up");
  else {
    assertThrows(() => new nn.SyncBatchNorm(2, { processGroup: late }).call(randn([2, 2])), DistributedError, "rank 0 gives up");
  }
  distributed.barrier();
}
