/**
 * Models for images.
 *
 * @module
 */
export { BasicBlock, type BlockClass, Bottleneck, ResNet, resnet18, resnet34, resnet50, type ResNetOptions } from "./models/resnet.ts";
export { UNet, unet, type UNetOptions } from "./models/unet.ts";
export { type AutoencoderOptions, ConvAutoencoder } from "./models/autoencoder.ts";
