// Training steps reuse the memory of the step before.
import { memory, nn, optim, rand, randn, scope, type Tensor, tensor } from "@dinograd/dinograd";
import { BasicBlock, ResNet, UNet } from "@dinograd/dinograd/vision";
import { assert } from "@std/assert";
import { test } from "./leaks.ts";

/** The part of allocations after the second of 12 steps that the allocator served from memory that it had. */
function hitRate(model: nn.Layer, x: Tensor, labels: Tensor): number {
  using optimizer = new optim.SGD(model.parameters(), { lr: 0.01, momentum: 0.9 });
  const step = () =>
    scope(() => {
      optimizer.zeroGrad();
      nn.functional.crossEntropy(model.call(x), labels).backward();
      optimizer.step();
    });
  for (let i = 0; i < 2; i++) step();
  const before = memory.stats();
  for (let i = 0; i < 10; i++) step();
  const after = memory.stats(), count = after.allocations - before.allocations;
  assert(count > 1000, `${count} allocations`);
  optimizer.zeroGrad();
  return (after.cacheHits - before.cacheHits) / count;
}

test("more than 99 % of a residual network's allocations after the second step reuse memory", () => {
  using model = new ResNet(BasicBlock, [1, 1, 1, 1], { cifar: true, numClasses: 4 });
  const rate = hitRate(model, randn([4, 3, 16, 16]), tensor([0, 1, 2, 3], { dtype: "int64" }));
  assert(rate > 0.99, `${rate}`);
});

test("more than 99 % of a U-Net's allocations after the second step reuse memory", () => {
  using model = new UNet({ inChannels: 3, outChannels: 2, depth: 3, baseChannels: 8 });
  const labels = rand([2, 40, 24]).mul(2).floor().to("int64");
  const rate = hitRate(model, randn([2, 3, 40, 24]), labels);
  assert(rate > 0.99, `${rate}`);
});
