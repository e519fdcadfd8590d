/**
 * How a bucket of gradients is reduced: communication hooks.
 *
 * @module
 */
import { copyInto } from "../../ops/copy.ts";
import type { DType } from "../../tensor/dtype.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { defaultGroup } from "../world.ts";
import type { ProcessGroup } from "../process_group.ts";
import { type GradBucket, unowned } from "./buckets.ts";

/** A reduction under way. */
export interface BucketReduction {
  /** Blocks until it has ended. What it returns, if a tensor, is copied to the bucket's `buffer`. */
  wait(): Tensor | void;
}

/**
 * Starts the reduction of a bucket, which must end with the average of all ranks. Called on every rank for every bucket in the same order.
 *
 * @param state What `registerCommHook` was given.
 * @param bucket The gradients of this rank.
 */
export type CommHook<S = unknown> = (state: S, bucket: GradBucket) => BucketReduction;

/** The average over a group, as without a hook. `state`: the group, or `null` for that of all ranks. */
export function allReduceHook(state: ProcessGroup | null, bucket: GradBucket): BucketReduction {
  return (state ?? defaultGroup()).allReduce(bucket.buffer, { op: "average" });
}

function compressed(state: ProcessGroup | null, bucket: GradBucket, dtype: DType): BucketReduction {
  const { buffer } = bucket;
  if (buffer.dtype === "float16" || buffer.dtype === "bfloat16") return allReduceHook(state, bucket);
  const small = unowned(() => buffer.to(dtype));
  try {
    const work = (state ?? defaultGroup()).allReduce(small, { op: "average" });
    return {
      wait: () => {
        try {
          work.wait();
          copyInto(buffer, small);
        } finally {
          small.dispose();
        }
      },
    };
  } catch (error) {
    small.dispose();
    throw error;
  }
}

/** The average of the gradients rounded to float16: half the bytes of float32, with values of at most 65504. `state` as for {@linkcode allReduceHook}. */
export function fp16CompressHook(state: ProcessGroup | null, bucket: GradBucket): BucketReduction {
  return compressed(state, bucket, "float16");
}

/** The average of the gradients rounded to bfloat16: half the bytes of float32, with 8 bits of precision. `state` as for {@linkcode allReduceHook}. */
export function bf16CompressHook(state: ProcessGroup | null, bucket: GradBucket): BucketReduction {
  return compressed(state, bucket, "bfloat16");
}
