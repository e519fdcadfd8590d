/**
 * dinograd: deep learning and scientific computing for Deno.
 *
 * @module
 */

// Tensors
export { type NestedArray, Tensor, type TypedArray } from "./tensor/tensor.ts";
export { type DType, getDefaultDType, type Promotable, promoteTypes, resultType, setDefaultDType } from "./tensor/dtype.ts";
export type { Shape } from "./tensor/shape.ts";
export { Device, device, type DeviceLike, type DeviceType } from "./ffi/device.ts";

// Operations
export {
  arange,
  defaultDevice,
  empty,
  emptyLike,
  eye,
  fromArray,
  full,
  fullLike,
  isFloatingPoint,
  linspace,
  ones,
  onesLike,
  setDefaultDevice,
  tensor,
  type TensorArray,
  type TensorOptions,
  zeros,
  zerosLike,
} from "./ops/mod.ts";
export {
  abs,
  acos,
  acosh,
  asin,
  asinh,
  atan,
  atanh,
  bitwiseNot,
  ceil,
  clamp,
  cos,
  cosh,
  erf,
  erfc,
  exp,
  exp2,
  expm1,
  floor,
  frac,
  isfinite,
  isinf,
  isnan,
  log,
  log10,
  log1p,
  log2,
  logicalNot,
  neg,
  reciprocal,
  round,
  rsqrt,
  sign,
  sin,
  sinh,
  sqrt,
  square,
  tan,
  tanh,
  trunc,
  type Unary,
} from "./ops/mod.ts";
export {
  add,
  atan2,
  type Binary,
  bitwiseAnd,
  bitwiseLeftShift,
  bitwiseOr,
  bitwiseRightShift,
  bitwiseXor,
  div,
  eq,
  floorDivide,
  fmod,
  ge,
  gt,
  le,
  lerp,
  logicalAnd,
  logicalOr,
  logicalXor,
  lt,
  maximum,
  minimum,
  mul,
  ne,
  pow,
  rdiv,
  remainder,
  rsub,
  sub,
  where,
} from "./ops/mod.ts";
export { glu, prelu, relu, sigmoid } from "./ops/mod.ts";
export {
  broadcastTensors,
  broadcastTo,
  cat,
  chunk,
  diagonal,
  expand,
  flatten,
  movedim,
  narrow,
  permute,
  repeat,
  reshape,
  select,
  slice,
  split,
  squeeze,
  stack,
  transpose,
  unbind,
  unflatten,
  unsqueeze,
  view,
} from "./ops/mod.ts";
export {
  adaptiveAvgPool1d,
  adaptiveAvgPool2d,
  adaptiveAvgPool3d,
  adaptiveMaxPool1d,
  adaptiveMaxPool2d,
  adaptiveMaxPool3d,
  type AdaptiveMaxPoolOptions,
  type AdaptiveSize,
  avgPool1d,
  avgPool2d,
  avgPool3d,
  type AvgPoolOptions,
  maxPool1d,
  maxPool2d,
  maxPool3d,
  type MaxPoolOptions,
  maxUnpool1d,
  maxUnpool2d,
  maxUnpool3d,
  type MaxUnpoolOptions,
  type Pooled,
  type PoolSize,
} from "./ops/mod.ts";
export {
  argwhere,
  gather,
  index,
  indexAdd,
  indexAdd_,
  indexCopy,
  indexCopy_,
  indexFill,
  indexFill_,
  type IndexItem,
  indexPut,
  indexPut_,
  indexSelect,
  maskedFill,
  maskedFill_,
  maskedScatter,
  maskedSelect,
  nonzero,
  oneHot,
  put,
  scatter,
  scatter_,
  scatterAdd,
  scatterAdd_,
  scatterReduce,
  type ScatterReduction,
  take,
  takeAlongDim,
} from "./ops/mod.ts";
export { cartesianProd, diag, diagEmbed, flip, meshgrid, roll, rot90, tril, triu } from "./ops/mod.ts";
export { embedding, embeddingBag, type EmbeddingBagOptions, type EmbeddingOptions } from "./ops/mod.ts";
export { interpolate, type InterpolateOptions, type InterpolationMode, upsample } from "./ops/mod.ts";
export {
  channelShuffle,
  fold,
  type FoldOptions,
  pad,
  type PadModeName,
  type PadOptions,
  pixelShuffle,
  pixelUnshuffle,
  unfold,
  type UnfoldOptions,
} from "./ops/mod.ts";
export {
  conv1d,
  conv2d,
  conv3d,
  type ConvOptions,
  convTranspose1d,
  convTranspose2d,
  convTranspose3d,
  type ConvTransposeOptions,
} from "./ops/mod.ts";
export { backends, type CpuBackend, type CudaBackend } from "./ops/mod.ts";
export { channelsLast, clone, contiguous, pinMemory, to, type TransferOptions } from "./ops/mod.ts";
export {
  all,
  amax,
  amin,
  any,
  argmax,
  argmin,
  countNonzero,
  cumprod,
  cumsum,
  type Dims,
  type Extremum,
  max,
  mean,
  min,
  nansum,
  norm,
  type Position,
  prod,
  type Reduction,
  type ReductionOptions,
  std,
  sum,
  type ValuesAndIndices,
  variance,
  type VarianceOptions,
  varMean,
} from "./ops/mod.ts";
export {
  alphaDropout,
  bernoulli,
  defaultGenerator,
  dropout,
  dropout1d,
  dropout2d,
  dropout3d,
  type DropoutOptions,
  featureAlphaDropout,
  Generator,
  type GeneratorState,
  manualSeed,
  multinomial,
  normal,
  rand,
  randint,
  randLike,
  randn,
  randnLike,
  type RandomOptions,
  randperm,
  type StreamPart,
} from "./ops/mod.ts";
export { logSoftmax, logsumexp, softmax } from "./ops/mod.ts";
export { type AttentionOptions, scaledDotProductAttention } from "./ops/mod.ts";
export {
  binaryCrossEntropy,
  type BinaryCrossEntropyOptions,
  binaryCrossEntropyWithLogits,
  crossEntropy,
  type CrossEntropyOptions,
  huberLoss,
  klDiv,
  l1Loss,
  type LossReduction,
  mseLoss,
  nllLoss,
  type NllLossOptions,
  type Reducing,
  smoothL1Loss,
} from "./ops/mod.ts";
export {
  type ActivationOptions,
  addmm,
  type AddProductOptions,
  baddbmm,
  bilinear,
  bmm,
  dot,
  einsum,
  linear,
  matmul,
  mm,
  mv,
  outer,
} from "./ops/mod.ts";
export {
  argsort,
  bincount,
  histc,
  kthvalue,
  type Median,
  median,
  searchsorted,
  sort,
  type SortOptions,
  topk,
  type TopkOptions,
  type Unique,
  unique,
} from "./ops/mod.ts";
export {
  type AffineOptions,
  batchNorm,
  type BatchNormOptions,
  groupNorm,
  instanceNorm,
  type InstanceNormOptions,
  layerNorm,
  localResponseNorm,
  normalize,
  rmsNorm,
} from "./ops/mod.ts";
export { type DataArray, equal } from "./ops/mod.ts";

// Differentiation
export {
  backward,
  detach,
  detectAnomaly,
  enableGrad,
  grad,
  inferenceMode,
  isGradEnabled,
  noGrad,
  registerHook,
  registerPostAccumulateGradHook,
  retainGrad,
} from "./autograd/functional.ts";
export { gradcheck, type GradcheckOptions } from "./autograd/gradcheck.ts";
export type { Edge, GradHook, Gradients, MultiRule, Node, OutputLike, PostAccumulateGradHook } from "./autograd/tape.ts";
export type { Keeper, Storage } from "./ffi/storage.ts";

// Neural networks
export * as nn from "./nn/mod.ts";

// Data
export {
  ArrayDataset,
  ConcatDataset,
  type Dataset,
  IterableDataset,
  MapDataset,
  randomSplit,
  Subset,
  TensorDataset,
} from "./data/dataset.ts";
export {
  BatchSampler,
  RandomSampler,
  type RandomSamplerOptions,
  Sampler,
  type SamplerState,
  SeededSampler,
  SequentialSampler,
  type Sized,
  SubsetRandomSampler,
  WeightedRandomSampler,
} from "./data/sampler.ts";
export { type Collated, defaultCollate } from "./data/collate.ts";
export { Random } from "./data/random.ts";
export { DataLoader, type DataLoaderOptions, type DataLoaderState, workerDataset } from "./data/loader.ts";
export { WorkerError } from "./data/pool.ts";
export { type WorkerInfo, workerInfo } from "./data/worker_info.ts";

// Files
export {
  loadSafetensors,
  type NamedTensors,
  openSafetensors,
  Safetensors,
  type SafetensorsInfo,
  type SafetensorsLoadOptions,
  type SafetensorsSaveOptions,
  saveSafetensors,
  serializeSafetensors,
} from "./io/safetensors.ts";
export { readIdx } from "./io/idx.ts";
export { decodePng, encodePng, type Picture } from "./io/png.ts";
export { type BarChart, barChart, type BarSeries } from "./io/bar_chart.ts";
export { type Chart, lineChart, type Series } from "./io/plot.ts";

// Vision
export {
  Compose,
  Normalize,
  RandomCrop,
  type RandomCropOptions,
  RandomErasing,
  type RandomErasingOptions,
  RandomHorizontalFlip,
  RandomTransform,
  type RandomTransformState,
  ToFloat,
  type Transform,
} from "./vision/transforms.ts";
export { makeGrid, readImage, writeImage } from "./vision/image.ts";
export { mnist, mnistStatistics } from "./vision/mnist.ts";

// Optimisers, clipping and schedules
export * as optim from "./optim/mod.ts";

// Several devices
export * as distributed from "./distributed/mod.ts";

// Memory, GPUs and threads
export { keep, scope } from "./tensor/scope.ts";
export { compile, type Compiled, type CompileOptions } from "./compile/mod.ts";
export * as memory from "./tensor/memory.ts";
export * as cuda from "./tensor/cuda.ts";
export { getThreads, setThreads } from "./ffi/threads.ts";

// Errors
export * from "./ffi/errors.ts";
