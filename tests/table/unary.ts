import { abs, bitwiseNot, clamp, DTypeError, exp, log, sqrt } from "../../mod.ts";
import { input, type Row, unarySamples } from "../op_table.ts";

export const unary: readonly Row[] = [
  {
    name: "abs",
    fn: abs,
    torch: "torch.abs(a)",
    samples: [...unarySamples(), { inputs: [input([3], { values: [-1, 0, 2] })], kink: true }],
  },
  { name: "exp", fn: exp, torch: "torch.exp(a)", samples: unarySamples() },
  { name: "log", fn: log, torch: "torch.log(a)", samples: unarySamples(0.25, 4) },
  { name: "sqrt", fn: sqrt, torch: "torch.sqrt(a)", samples: unarySamples(0.25, 4) },
  {
    name: "clamp",
    fn: clamp,
    torch: "torch.clamp(a, -0.5, 1)",
    samples: [
      { inputs: [input([2, 9])], args: [-0.5, 1] },
      { inputs: [input([4], { values: [-0.5, 1, 0, 3] })], args: [-0.5, 1], kink: true },
    ],
    errors: [{ inputs: [input([2])], args: [null, null], error: RangeError, message: "at least one of min and max" }],
  },
  {
    name: "bitwiseNot",
    fn: bitwiseNot,
    torch: "torch.bitwise_not(a)",
    samples: [{ inputs: [input([5], { dtype: "int32", low: -9, high: 9 })] }],
    errors: [{ inputs: [input([2])], error: DTypeError, message: "got float64" }],
  },
];
