/** Every row, by family. A family's recorded values are in `tests/fixtures/ops/<family>.json`. */
import type { Row } from "../op_table.ts";
import { activation } from "./activation.ts";
import { arrange } from "./arrange.ts";
import { attention } from "./attention.ts";
import { binary } from "./binary.ts";
import { convolution } from "./convolution.ts";
import { indexing } from "./indexing.ts";
import { loss } from "./loss.ts";
import { matmul } from "./matmul.ts";
import { softmax } from "./softmax.ts";
import { reduction } from "./reduction.ts";
import { sort } from "./sort.ts";
import { interpolation } from "./interpolate.ts";
import { pooling } from "./pooling.ts";
import { shuffle } from "./shuffle.ts";
import { normalization } from "./normalization.ts";
import { unary } from "./unary.ts";
import { viewFamily } from "./view.ts";

export const families: Readonly<Record<string, readonly Row[]>> = {
  activation,
  arrange,
  attention,
  binary,
  convolution,
  indexing,
  loss,
  matmul,
  softmax,
  reduction,
  sort,
  interpolate: interpolation,
  pooling,
  shuffle,
  normalization,
  unary,
  view: viewFamily,
};
