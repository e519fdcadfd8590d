import { DTypeError, relu } from "../../mod.ts";
import { input, type Row, unarySamples } from "../op_table.ts";

export const activation: readonly Row[] = [
  {
    name: "relu",
    fn: relu,
    torch: "F.relu(a)",
    samples: [...unarySamples(), { inputs: [input([3], { values: [-1, 0, 2] })], kink: true }],
    errors: [{ inputs: [input([2], { dtype: "int64" })], error: DTypeError, message: "relu: takes a floating point tensor, got int64" }],
  },
];
