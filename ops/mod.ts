/**
 * Every operation, one line a family.
 *
 * @module
 */
import { bindOps } from "../tensor/tensor.ts";
import * as self from "./mod.ts";

export { backward, detach, grad, registerHook, retainGrad } from "../autograd/functional.ts";
export * from "./activation.ts";
<<<<<<< HEAD
export * from "./arrange.ts";
=======
export { batchNorm, type BatchNormOptions, composedBatchNorm } from "./batch_norm.ts";
>>>>>>> a9b84a6 (Add Philox random numbers, dropout and batch normalisation)
export * from "./binary.ts";
export * from "./copy.ts";
export * from "./creation.ts";
export * from "./embedding.ts";
export * from "./index_rows.ts";
export * from "./indexing.ts";
export * from "./inplace.ts";
<<<<<<< HEAD
export * from "./pooling.ts";
=======
export * from "./random.ts";
>>>>>>> a9b84a6 (Add Philox random numbers, dropout and batch normalisation)
export * from "./read.ts";
export * from "./reduction.ts";
export * from "./scan.ts";
export * from "./unary.ts";
export * from "./view.ts";

bindOps(self);
