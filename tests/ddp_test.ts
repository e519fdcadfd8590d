import { assertEquals, assertThrows } from "@std/assert";
import { assignBuckets } from "../distributed/ddp/buckets.ts";
import { distributed, DistributedError, nn, zeros } from "../mod.ts";
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

Deno.test("buckets: in reverse order, a small one first and a small one last, each dtype by itself", () => {
  /** Sizes of the parameters of each bucket, in KiB, for parameters of these sizes. */
  const buckets = (sizes: readonly number[], dtype: "float32" | "float64" = "float32", limit = 4096) => {
    const width = dtype === "float32" ? 4 : 8;
    const made = assignBuckets(sizes.map((size, i) => [`p${i}`, zeros([size * 1024 / width], { dtype })]), limit * 1024);
    return made.map((it) => {
      const parts = it.slots.map((slot) => slot.parameter.numel() * width / 1024);
      it.buffer.dispose();
      return parts;
    });
  };
  assertEquals(buckets([300, 700, 3000, 2000, 500, 1500, 100, 900, 200]), [[200, 900], [100, 1500, 500, 2000], [3000], [700, 300]]);
  assertEquals(buckets([300, 700, 3000], "float64"), [[3000], [700, 300]]);
  assertEquals(buckets([700, 600, 100, 1024]), [[1024], [100, 600, 700]]); // the tail would be more than half
  assertEquals(buckets([2000, 3000, 1024]), [[1024], [3000, 2000]]);
  assertEquals(buckets([10]), [[10]]);
});
