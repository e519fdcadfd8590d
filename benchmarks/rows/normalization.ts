/**
 * Softmax, cross entropy and normalisations on 16 M elements.
 *
 * @module
 */
import { nn, type Tensor } from "../../mod.ts";
import { bothWays, labels, N, type Row, values } from "./row.ts";

const normInputs = (channels: number) => () => ({
  x: values([32, channels, 64, N / 32 / channels / 64]),
  g: values([32, channels, 64, N / 32 / channels / 64], 2),
  w: values([channels], 3),
  b: values([channels], 4),
});

const batchNorm = (x: Tensor, t: Record<string, Tensor>) =>
  nn.functional.batchNorm(x, null, null, { weight: t.w, bias: t.b, training: true });

/** The rows. */
export const normalizationRows: readonly Row[] = [
  bothWays("softmax_16m", "softmax over 4096, forward and backward", (x) => nn.functional.softmax(x, 1), { bytes: 20 * N }),
  bothWays("cross_entropy_16m", "cross entropy over 4096 classes, forward and backward", (x, t) => nn.functional.crossEntropy(x, t.y), {
    bytes: 12 * N,
    inputs: () => ({ x: values([4096, 4096]), y: labels(4096, 4096) }),
  }),
  bothWays("batch_norm_16m", "BatchNorm of 32x64x64x128, training, forward and backward", batchNorm, {
    bytes: 32 * N,
    inputs: normInputs(64),
  }),
  bothWays("batch_norm_16m_channels_last", "BatchNorm, the same, both sides in channels-last", (x, t) => batchNorm(x, t), {
    bytes: 32 * N,
    inputs() {
      const made = normInputs(64)();
      return { ...made, x: made.x.channelsLast(), g: made.g.channelsLast() };
    },
  }),
  bothWays(
    "layer_norm_16m",
    "LayerNorm of rows of 4096, forward and backward",
    (x, t) => nn.functional.layerNorm(x, [4096], { weight: t.w, bias: t.b }),
    {
      bytes: 28 * N,
      inputs: () => ({ x: values([4096, 4096]), g: values([4096, 4096], 2), w: values([4096], 3), b: values([4096], 4) }),
    },
  ),
];
