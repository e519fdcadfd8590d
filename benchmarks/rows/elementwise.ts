/**
 * Element-wise operations and reductions on 16 M elements.
 *
 * @module
 */
import { nn } from "../../mod.ts";
import { bothWays, forwardOnly, N, type Row } from "./row.ts";

/** The rows. */
export const elementwiseRows: readonly Row[] = [
  forwardOnly("add_16m", "x + y, 16 M elements", (x, t) => x.add(t.g), 12 * N),
  forwardOnly("mul_16m", "x * y", (x, t) => x.mul(t.g), 12 * N),
  forwardOnly("exp_16m", "exp(x)", (x) => x.exp(), 8 * N),
  bothWays("relu_16m", "relu, forward and backward", (x) => x.relu(), { bytes: 20 * N }),
  bothWays("gelu_16m", "gelu, forward and backward", (x) => nn.functional.gelu(x), { bytes: 20 * N }),
  bothWays("tanh_16m", "tanh, forward and backward", (x) => x.tanh(), { bytes: 20 * N }),
  bothWays("sigmoid_16m", "sigmoid, forward and backward", (x) => x.sigmoid(), { bytes: 20 * N }),
  forwardOnly("sum_16m", "sum of all", (x) => x.sum(), 4 * N),
  forwardOnly("mean_rows_16m", "mean of each of 4096 rows", (x) => x.mean(1), 4 * N),
];
