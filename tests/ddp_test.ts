import { assertEquals, assertThrows } from "@std/assert";
import { distributed, DistributedError, nn } from "../mod.ts";
import { runWorld } from "./world/mod.ts";

for (const size of [2, 3]) {
  Deno.test(`${size} ranks train as one with the joined batch: SGD and AdamW, 50 steps`, () => runWorld(size, "ddpTraining"));
  Deno.test(`gradients of ${size} ranks: accumulation, noSync(), hooks`, () => runWorld(size, "ddpGradients"));
  Deno.test(`uneven numbers of batches on ${size} ranks: join()`, () => runWorld(size, "ddpJoinExact"));
}
Deno.test("parameters of two dtypes and parameters without gradients", () => runWorld(2, "ddpSelection"));
Deno.test("models that differ are named; buffers, state dicts, failing ranks", () => runWorld(3, "ddpMisuse"));
Deno.test("join() with a convolution network and noSync()", () => runWorld(2, "ddpJoin"));

Deno.test("two ranks train as one over NCCL: SGD and AdamW, 50 steps [nccl]", () => runWorld(2, "ddpTraining", "nccl"));
for (const scenario of ["ddpGradients", "ddpSelection", "ddpJoin", "syncBatchNorm"]) {
  Deno.test(`DistributedDataParallel on devices: ${scenario} [nccl]`, () => runWorld(2, scenario, "nccl"));
}
Deno.test("two ranks train as one over NCCL with the streams in a random order [nccl]", () =>
  runWorld(2, "ddpGradients", "nccl", { DINOGRAD_EMULATED_STREAMS: "random" }));

Deno.test("DistributedDataParallel without a process group says how to make one", () => {
  assertThrows(() => new distributed.DistributedDataParallel(new nn.Linear(2, 2)), DistributedError, "await initProcessGroup()");
  assertEquals(distributed.isInitialized(), false);
});
