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
export { bilinear, linear } from "../ops/mod.ts";
export { batchNorm } from "../ops/mod.ts";
export { alphaDropout, dropout, dropout1d, dropout2d, dropout3d, featureAlphaDropout } from "../ops/mod.ts";
export { embedding, embeddingBag } from "../ops/mod.ts";
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
