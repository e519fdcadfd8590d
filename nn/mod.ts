/**
 * Neural network modules: `nn.Module`, layers, containers, losses; `nn.functional`, `nn.init`.
 *
 * @module
 */
export { type Layer, Module, type WalkOptions } from "./module.ts";
export { Parameter, type Placement } from "./parameter.ts";
export type { ForwardHook, ForwardPreHook, FullBackwardHook, Handle } from "./hooks.ts";
export type { LoadResult, StateDict } from "./state_dict.ts";
export { ModuleDict, ModuleList, ParameterList, Sequential } from "./container.ts";
export * from "./activation.ts";
export * from "./padding.ts";
export * from "./pooling.ts";
export * from "./shape.ts";
export * from "./shuffle.ts";
export * from "./upsampling.ts";
export { GLU, LogSoftmax, PReLU, Softmax, Softmax2d, Softmin } from "./activation_dim.ts";
export { BatchNorm, BatchNorm1d, BatchNorm2d, BatchNorm3d, ChannelNorm, type FusedOptions, type NormOptions } from "./batch_norm.ts";
export { SyncBatchNorm, type SyncBatchNormOptions } from "./sync_batch_norm.ts";
export type { StatisticsGroup } from "../ops/sync_batch_norm.ts";
export {
  GroupNorm,
  InstanceNorm,
  InstanceNorm1d,
  InstanceNorm2d,
  InstanceNorm3d,
  LayerNorm,
  LocalResponseNorm,
  RMSNorm,
} from "./normalization.ts";
export { Bilinear, Linear } from "./linear.ts";
export {
  MultiheadAttention,
  type MultiheadAttentionInputs,
  type MultiheadAttentionOptions,
  type MultiheadAttentionOutput,
} from "./attention.ts";
export * from "./transformer.ts";
export * from "./convolution.ts";
export * from "./dropout.ts";
export * from "./embedding.ts";
export * from "./loss.ts";
export * as functional from "./functional.ts";
export * as init from "./init.ts";
export * as utils from "./utils.ts";
