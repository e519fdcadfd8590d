/**
 * Every operation, one line a family.
 *
 * @module
 */
import { bindOps } from "../tensor/tensor.ts";
import * as self from "./mod.ts";

export { backward, detach, grad, registerHook, registerPostAccumulateGradHook, retainGrad } from "../autograd/functional.ts";
export * from "./activation.ts";
export * from "./arrange.ts";
export * from "./attention.ts";
export { batchNorm, type BatchNormOptions, composedBatchNorm } from "./batch_norm.ts";
export * from "./backends.ts";
export * from "./bilinear.ts";
export * from "./binary.ts";
export {
  conv1d,
  conv2d,
  conv3d,
  type ConvOptions,
  convTranspose1d,
  convTranspose2d,
  convTranspose3d,
  type ConvTransposeOptions,
} from "./convolution.ts";
export * from "./copy.ts";
export * from "./creation.ts";
export * from "./cross_entropy.ts";
export * from "./dropout.ts";
export * from "./einsum.ts";
export * from "./embedding.ts";
export * from "./index_rows.ts";
export * from "./indexing.ts";
export * from "./inplace.ts";
export * from "./loss.ts";
export * from "./matmul.ts";
export { activate, type ActivationOptions } from "./fused_activation.ts";
export * from "./interpolate.ts";
export * from "./normalization.ts";
export * from "./pooling.ts";
export * from "./prelu.ts";
export { defaultGenerator, Generator, type GeneratorState, manualSeed, type StreamPart } from "./generator.ts";
export * from "./random.ts";
export * from "./read.ts";
export * from "./reduction.ts";
export * from "./scan.ts";
export * from "./softmax.ts";
export * from "./sort.ts";
export * from "./shuffle.ts";
export * from "./unary.ts";
export * from "./view.ts";

bindOps(self);
