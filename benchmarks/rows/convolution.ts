/**
 * Convolutions and pooling of real networks, forward and backward.
 *
 * @module
 */
import { nn, type Tensor } from "../../mod.ts";
import { bothWays, type Row, values } from "./row.ts";

const channelsLast = (shape: number[], salt?: number) => values(shape, salt).channelsLast();

interface Settings {
  stride?: number;
  padding?: number;
  groups?: number;
}

function weighted(name: string, what: string, x: number[], w: number[], y: number[], fn: (x: Tensor, w: Tensor) => Tensor, flops: number) {
  return bothWays(name, what, (x, t) => fn(x, t.w), {
    leaves: ["x", "w"],
    flops,
    inputs: () => ({ x: channelsLast(x), g: channelsLast(y, 2), w: values(w, 3).mul(0.1).channelsLast() }),
  });
}

function convolution(name: string, what: string, x: number[], w: number[], settings: Settings): Row {
  const { stride = 1, padding = 0 } = settings, [O, perGroup, k] = w;
  const size = Math.floor((x[2] + 2 * padding - k) / stride) + 1;
  const flops = 2 * x[0] * size * size * O * perGroup * k * k;
  return weighted(name, what, x, w, [x[0], O, size, size], (x, w) => nn.functional.conv2d(x, w, null, settings), 3 * flops);
}

function transposed(name: string, what: string, x: number[], w: number[], settings: Settings): Row {
  const { stride = 1, padding = 0 } = settings, [I, O, k] = w;
  const size = (x[2] - 1) * stride - 2 * padding + k;
  const flops = 2 * x[0] * x[2] * x[3] * I * O * k * k;
  return weighted(name, what, x, w, [x[0], O, size, size], (x, w) => nn.functional.convTranspose2d(x, w, null, settings), 3 * flops);
}

function pooling(name: string, what: string, x: number[], size: number, bytes: number, fn: (x: Tensor) => Tensor): Row {
  const elements = x[0] * x[1] * (x[2] * x[3] * 2 + size * size * 2);
  return bothWays(name, what, fn, {
    bytes: 4 * elements + bytes * x[0] * x[1] * size * size,
    inputs: () => ({ x: channelsLast(x), g: channelsLast([x[0], x[1], size, size], 2) }),
  });
}

/** The rows. */
export const convolutionRows: readonly Row[] = [
  convolution("conv_3x3", "3x3 convolution, 32x64x32x32 to 64 channels", [32, 64, 32, 32], [64, 64, 3, 3], { padding: 1 }),
  convolution("conv_3x3_small", "3x3, 32x512x4x4 to 512", [32, 512, 4, 4], [512, 512, 3, 3], { padding: 1 }),
  convolution("conv_3x3_large", "3x3, 8x64x128x128 to 32", [8, 64, 128, 128], [32, 64, 3, 3], { padding: 1 }),
  convolution("conv_3x3_s2", "3x3, stride 2, 32x64x32x32 to 128", [32, 64, 32, 32], [128, 64, 3, 3], { stride: 2, padding: 1 }),
  convolution("conv_4x4_s2", "4x4, stride 2, 1x64x128x128 to 128", [1, 64, 128, 128], [128, 64, 4, 4], { stride: 2, padding: 1 }),
  convolution("conv_4x4", "4x4, 1x256x32x32 to 512", [1, 256, 32, 32], [512, 256, 4, 4], { padding: 1 }),
  transposed("conv_transposed_4x4_s2", "transposed 4x4, stride 2, 1x128x64x64 to 64", [1, 128, 64, 64], [128, 64, 4, 4], {
    stride: 2,
    padding: 1,
  }),
  transposed("conv_transposed_2x2_s2", "transposed 2x2, stride 2, 8x64x64x64 to 32", [8, 64, 64, 64], [64, 32, 2, 2], { stride: 2 }),
  convolution("conv_1x1", "1x1, 32x256x16x16 to 64", [32, 256, 16, 16], [64, 256, 1, 1], {}),
  convolution("conv_1x1_s2", "1x1, stride 2, 32x64x32x32 to 128", [32, 64, 32, 32], [128, 64, 1, 1], { stride: 2 }),
  convolution("conv_1x1_two", "1x1, 8x32x128x128 to 2", [8, 32, 128, 128], [2, 32, 1, 1], {}),
  convolution("conv_stem", "3x3, 32x3x32x32 to 64", [32, 3, 32, 32], [64, 3, 3, 3], { padding: 1 }),
  convolution("conv_7x7_s2", "7x7, stride 2, 4x3x224x224 to 64", [4, 3, 224, 224], [64, 3, 7, 7], { stride: 2, padding: 3 }),
  convolution("conv_depthwise", "3x3 depthwise, 32x116x32x32", [32, 116, 32, 32], [116, 1, 3, 3], { padding: 1, groups: 116 }),
  convolution("conv_depthwise_s2", "3x3 depthwise, stride 2, 32x58x32x32", [32, 58, 32, 32], [58, 1, 3, 3], {
    stride: 2,
    padding: 1,
    groups: 58,
  }),
  convolution("conv_grouped_32", "3x3 in 32 groups, 32x128x32x32", [32, 128, 32, 32], [128, 4, 3, 3], { padding: 1, groups: 32 }),
  convolution("conv_grouped_4", "3x3 in 4 groups, 32x64x32x32", [32, 64, 32, 32], [64, 16, 3, 3], { padding: 1, groups: 4 }),
  convolution("conv_grouped_1x1", "1x1 in 3 groups, 32x240x16x16", [32, 240, 16, 16], [240, 80, 1, 1], { groups: 3 }),
  pooling("max_pool_2", "maxPool2d of 2, 32x64x64x64", [32, 64, 64, 64], 32, 2, (x) => nn.functional.maxPool2d(x, 2)),
  pooling(
    "max_pool_3_s2",
    "maxPool2d of 3, stride 2, 8x64x112x112",
    [8, 64, 112, 112],
    56,
    2,
    (x) => nn.functional.maxPool2d(x, 3, { stride: 2, padding: 1 }),
  ),
  pooling("avg_pool_2", "avgPool2d of 2, 32x64x64x64", [32, 64, 64, 64], 32, 0, (x) => nn.functional.avgPool2d(x, 2)),
  pooling(
    "avg_pool_3_s1",
    "avgPool2d of 3, stride 1, 8x64x64x64",
    [8, 64, 64, 64],
    64,
    0,
    (x) => nn.functional.avgPool2d(x, 3, { stride: 1, padding: 1 }),
  ),
  pooling("avg_pool_all", "adaptiveAvgPool2d to 1, 32x512x16x16", [32, 512, 16, 16], 1, 0, (x) => nn.functional.adaptiveAvgPool2d(x, 1)),
];
