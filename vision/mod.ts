/**
 * Models for images.
 *
 * @module
 */
export { BasicBlock, type BlockClass, Bottleneck, ResNet, resnet18, resnet34, resnet50, type ResNetOptions } from "./models/resnet.ts";
export { UNet, unet, type UNetOptions } from "./models/unet.ts";
export { type AutoencoderOptions, ConvAutoencoder } from "./models/autoencoder.ts";
export { type ShuffleNetOptions, ShuffleNetV2, shufflenetV2X0_5, shufflenetV2X1_0, ShuffleUnit } from "./models/shufflenet.ts";
export { PatchGan, type PatchGanOptions, Pix2PixGenerator, type Pix2PixGeneratorOptions } from "./models/pix2pix.ts";
