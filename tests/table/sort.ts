import * as dg from "../../mod.ts";
import { DTypeError, ShapeError, type Tensor } from "../../mod.ts";
import { input, type Row } from "../op_table.ts";

type Pair = { values: Tensor; indices: Tensor };
// deno-lint-ignore no-explicit-any
const pair = (fn: (...args: any[]) => Pair) => (...args: unknown[]): Tensor[] => {
  const { values, indices } = fn(...args);
  return [values, indices];
};
const nans = input([7], { values: [2, NaN, -1, Infinity, 2, NaN, -0] });
const outside = { inputs: [input([2, 3])], args: [2], error: RangeError, message: "dim 2 is outside -2 .. 1" };

export const sort: readonly Row[] = [
  {
    name: "sort",
    fn: pair(dg.sort),
    torch: "torch.sort(a, stable=True)",
    samples: [
      { inputs: [input([33])] },
      { inputs: [input([])] },
      { inputs: [input([0, 3])] },
      { inputs: [input([3, 31])], args: [1, { descending: true }], torch: "torch.sort(a, dim=1, descending=True, stable=True)" },
      { inputs: [input([9, 2, 3])], args: [0], torch: "torch.sort(a, dim=0, stable=True)" },
      { inputs: [nans], kink: true },
      { inputs: [nans], args: [0, { descending: true }], torch: "torch.sort(a, dim=0, descending=True, stable=True)", kink: true },
      { inputs: [input([20], { dtype: "int64", low: -4, high: 4 })] },
      {
        inputs: [input([20], { dtype: "bool", low: 0, high: 2 })],
        args: [0, { descending: true }],
        torch: "torch.sort(a, dim=0, descending=True, stable=True)",
      },
    ],
    errors: [outside],
  },
  {
    name: "argsort",
    fn: dg.argsort,
    torch: "torch.argsort(a, stable=True)",
    gradient: false,
    samples: [{ inputs: [input([3, 7])] }, { inputs: [input([5, 2])], args: [0], torch: "torch.argsort(a, dim=0, stable=True)" }],
    errors: [outside],
  },
  {
    name: "topk",
    fn: pair(dg.topk),
    torch: "torch.topk(a, 2)",
    samples: [
      { inputs: [input([3, 31])], args: [4], torch: "torch.topk(a, 4)" },
      { inputs: [input([9, 3])], args: [3, 0, { largest: false }], torch: "torch.topk(a, 3, dim=0, largest=False)" },
      { inputs: [input([5])], args: [5], torch: "torch.topk(a, 5)" },
    ],
    errors: [{ inputs: [input([3])], args: [4], error: RangeError, message: "topk: k must be 0 to 3" }],
  },
  {
    name: "kthvalue",
    fn: pair(dg.kthvalue),
    torch: "torch.kthvalue(a, 1)",
    samples: [
      { inputs: [input([3, 9])], args: [4], torch: "torch.kthvalue(a, 4)" },
      { inputs: [input([9, 3])], args: [9, 0, { keepdim: true }], torch: "torch.kthvalue(a, 9, dim=0, keepdim=True)" },
    ],
    errors: [{ inputs: [input([3])], args: [0], error: RangeError, message: "kthvalue: k must be 1 to 3" }],
  },
  {
    name: "median",
    fn: (x: Tensor, ...args: number[]) => args.length === 0 ? dg.median(x) : pair(dg.median)(x, ...args),
    torch: "torch.median(a)",
    samples: [
      { inputs: [input([3, 4])] },
      { inputs: [input([3, 8])], args: [1], torch: "torch.median(a, 1)" },
      { inputs: [input([7, 3])], args: [0, { keepdim: true }], torch: "torch.median(a, 0, keepdim=True)" },
      { inputs: [input([2, 3], { values: [1, NaN, 2, 5, 4, 3] })], args: [1], torch: "torch.median(a, 1)", kink: true },
    ],
    errors: [{ inputs: [input([2, 0])], args: [1], error: ShapeError, message: "median: no elements in [2, 0]" }],
  },
  {
    name: "unique",
    fn: (x: Tensor) => {
      const { values, inverse, counts } = dg.unique(x);
      return [values, inverse, counts];
    },
    torch: "torch.unique(a, return_inverse=True, return_counts=True)",
    gradient: false,
    samples: [
      { inputs: [input([4, 5], { dtype: "int64", low: -2, high: 3 })] },
      { inputs: [input([6], { values: [1, 2, 1, -0, 0, 2] })] },
      { inputs: [input([9], { dtype: "bool", low: 0, high: 2 })] },
    ],
  },
  {
    name: "searchsorted",
    fn: dg.searchsorted,
    torch: "torch.searchsorted(a, b)",
    gradient: false,
    samples: [
      { inputs: [input([5], { values: [-1, 0, 0, 1, 2] }), input([3, 4])] },
      {
        inputs: [input([5], { values: [-1, 0, 0, 1, 2] }), input([6], { values: [0, -1, 2, 3, -5, 1] })],
        args: [{ right: true }],
        torch: "torch.searchsorted(a, b, right=True)",
      },
      { inputs: [input([2, 3], { values: [1, 2, 3, -3, 0, 1] }), input([2, 4])] },
    ],
    errors: [
      { inputs: [input([2, 3]), input([3, 4])], error: ShapeError, message: "sequences [2, 3] do not fit values [3, 4]" },
      { inputs: [input([2]), input([2], { dtype: "int64" })], error: DTypeError, message: "the values must be float64" },
    ],
  },
  {
    name: "bincount",
    fn: (x: Tensor, weights?: Tensor) => dg.bincount(x, weights instanceof dg.Tensor ? { weights, minLength: 12 } : undefined),
    torch: "torch.bincount(a)",
    gradient: false,
    samples: [{ inputs: [input([30], { dtype: "int64", low: 0, high: 9 })] }],
    errors: [
      { inputs: [input([2], { dtype: "int64", values: [1, -1] })], error: RangeError, message: "bincount: takes numbers >= 0, got -1" },
      { inputs: [input([2])], error: DTypeError, message: "takes an integer tensor" },
    ],
  },
  {
    name: "histc",
    fn: dg.histc,
    torch: "torch.histc(a, 7)",
    gradient: false,
    dtypes: ["float32"],
    samples: [
      { inputs: [input([50])], args: [7] },
      { inputs: [input([5, 9])], args: [4, -1, 1.5], torch: "torch.histc(a, 4, -1, 1.5)" },
    ],
    errors: [{ inputs: [input([3])], args: [0], error: RangeError, message: "histc: bins must be a whole number" }],
  },
];
