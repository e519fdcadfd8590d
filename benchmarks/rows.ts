/**
 * The dinograd side of the benchmarks: what each row computes, on inputs that both sides read from one file. `pytorch.py` holds the other side.
 * A family of rows has a file in `rows/`.
 *
 * @module
 */
import { attentionRows } from "./rows/attention.ts";
import { convolutionRows } from "./rows/convolution.ts";
import { elementwiseRows } from "./rows/elementwise.ts";
import { modelRows } from "./rows/models.ts";
import { normalizationRows } from "./rows/normalization.ts";
import type { Row } from "./rows/row.ts";
import { smallRows } from "./rows/small.ts";

export type { Ready, Row } from "./rows/row.ts";

/** The rows, in the order of the table. */
export const rows: readonly Row[] = [
  ...smallRows,
  ...modelRows,
  ...attentionRows,
  ...elementwiseRows,
  ...normalizationRows,
  ...convolutionRows,
];
