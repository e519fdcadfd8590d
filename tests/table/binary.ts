import { add, floorDivide, maximum, mul, ShapeError, where } from "../../mod.ts";
import { binarySamples, input, type Row } from "../op_table.ts";

export const binary: readonly Row[] = [
  {
    name: "add",
    fn: add,
    torch: "a + b",
    samples: [...binarySamples(), { inputs: [input([3])], args: [2.5], torch: "a + 2.5" }],
    errors: [{
      inputs: [input([2, 3]), input([4])],
      error: ShapeError,
      message: "add: shapes do not broadcast: [2, 3] and [4] differ in axis -1 (3 and 4)",
    }],
  },
  { name: "mul", fn: mul, torch: "a * b", samples: binarySamples() },
  {
    name: "maximum",
    fn: maximum,
    torch: "torch.maximum(a, b)",
    samples: [...binarySamples(), { inputs: [input([3], { values: [1, 2, 3] }), input([3], { values: [1, 5, 0] })], kink: true }],
  },
  {
    name: "floorDivide",
    fn: floorDivide,
    torch: "torch.floor_divide(a, b)",
    samples: [{ inputs: [input([9], { dtype: "int64", low: -9, high: 9 }), input([9], { dtype: "int64", low: 1, high: 5 })] }],
    errors: [{
      inputs: [input([2], { dtype: "int32", low: 1, high: 5 })],
      args: [0],
      error: RangeError,
      message: "integer division by zero",
    }],
  },
  {
    name: "where",
    fn: where,
    torch: "torch.where(a, b, c)",
    samples: [{ inputs: [input([2, 3], { dtype: "bool", low: 0, high: 2 }), input([3]), input([2, 1], { seed: 2 })] }],
  },
];
