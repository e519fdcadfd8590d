/**
 * `nn.functional`: every layer as a function, by PyTorch's names in camelCase.
 *
 * @module
 */
export {
  celu,
  elu,
  gelu,
  hardshrink,
  hardsigmoid,
  hardswish,
  hardtanh,
  leakyRelu,
  logSigmoid,
  mish,
  relu,
  relu6,
  relu_,
  selu,
  sigmoid,
  silu,
  softplus,
  softshrink,
  softsign,
  tanh,
  tanhshrink,
  threshold,
} from "../ops/mod.ts";
export { glu, prelu } from "../ops/mod.ts";
export { logSoftmax, softmax } from "../ops/mod.ts";
export { type AttentionOptions, scaledDotProductAttention } from "../ops/mod.ts";
export { bilinear, linear } from "../ops/mod.ts";
export { conv1d, conv2d, conv3d, convTranspose1d, convTranspose2d, convTranspose3d } from "../ops/mod.ts";
export { batchNorm, groupNorm, instanceNorm, layerNorm, rmsNorm } from "../ops/mod.ts";
export { alphaDropout, dropout, dropout1d, dropout2d, dropout3d, featureAlphaDropout } from "../ops/mod.ts";
export { embedding, embeddingBag, oneHot } from "../ops/mod.ts";
export {
  binaryCrossEntropy,
  binaryCrossEntropyWithLogits,
  crossEntropy,
  huberLoss,
  klDiv,
  l1Loss,
  mseLoss,
  nllLoss,
  smoothL1Loss,
} from "../ops/mod.ts";
export {
  adaptiveAvgPool1d,
  adaptiveAvgPool2d,
  adaptiveAvgPool3d,
  adaptiveMaxPool1d,
  adaptiveMaxPool2d,
  adaptiveMaxPool3d,
  avgPool1d,
  avgPool2d,
  avgPool3d,
  maxPool1d,
  maxPool2d,
  maxPool3d,
  maxUnpool1d,
  maxUnpool2d,
  maxUnpool3d,
} from "../ops/mod.ts";
export { channelShuffle, fold, interpolate, pad, pixelShuffle, pixelUnshuffle, unfold, upsample } from "../ops/mod.ts";
export { localResponseNorm, normalize } from "../ops/mod.ts";
