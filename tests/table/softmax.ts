import { DTypeError, logSoftmax, logsumexp, softmax as softmaxOf } from "../../mod.ts";
import { input, type Row, type Sample } from "../op_table.ts";

const inf = Infinity;

function samples(call: (dim: number) => string): Sample[] {
  const along = (shape: number[], dim: number): Sample => ({ inputs: [input(shape)], args: [dim], torch: call(dim) });
  return [
    along([7], 0),
    along([], 0),
    along([3, 31], 1),
    along([3, 33], -1),
    along([33, 3], 0),
    along([2, 3, 5], 1),
    along([2, 3, 2, 4], 1),
    along([2, 3, 2, 4], -2),
    along([3, 1], 1),
    along([0, 3], 1),
    along([3, 0], 1),
    // Large scores, and a row in which some are impossible.
    { inputs: [input([2, 3], { values: [200, 201, 199, -200, -199, -202] })], args: [1], torch: call(1) },
    { inputs: [input([4], { values: [-inf, 1, 2, -inf] })], args: [0], torch: call(0), kink: true },
  ];
}

/** Rows that are NaN: nothing but -inf, and a +inf. */
const undefinedRows = (call: (dim: number) => string): Sample => ({
  inputs: [input([3, 3], { values: [-inf, -inf, -inf, 0, inf, 1, 0, NaN, 1], grad: false })],
  args: [1],
  torch: call(1),
});

const errors: Row["errors"] = [
  { inputs: [input([2, 3])], args: [2], error: RangeError, message: "dim 2 is outside -2 .. 1" },
  {
    inputs: [input([2, 3], { dtype: "int64", low: 0, high: 5 })],
    args: [0],
    error: DTypeError,
    message: "takes a floating point tensor, got int64",
  },
];

export const softmax: readonly Row[] = [
  {
    name: "softmax",
    fn: softmaxOf,
    torch: "",
    samples: [...samples((dim) => `torch.softmax(a, ${dim})`), undefinedRows((dim) => `torch.softmax(a, ${dim})`)],
    errors,
  },
  {
    name: "logSoftmax",
    fn: logSoftmax,
    torch: "",
    samples: [...samples((dim) => `torch.log_softmax(a, ${dim})`), undefinedRows((dim) => `torch.log_softmax(a, ${dim})`)],
    tolerance: 5e-5,
    errors,
  },
  {
    name: "logsumexp",
    fn: logsumexp,
    torch: "torch.logsumexp(a, tuple(range(a.dim())))",
    tolerance: 5e-5,
    samples: [
      { inputs: [input([2, 3, 5])] },
      { inputs: [input([2, 3, 5])], args: [1], torch: "torch.logsumexp(a, 1)" },
      { inputs: [input([2, 3, 5])], args: [[0, -1], { keepdim: true }], torch: "torch.logsumexp(a, (0, 2), keepdim=True)" },
      { inputs: [input([3, 0])], args: [1], torch: "torch.logsumexp(a, 1)" },
      { inputs: [input([2, 2], { values: [200, 200, -200, -201] })], args: [1], torch: "torch.logsumexp(a, 1)" },
      {
        inputs: [input([4, 3], { values: [-inf, -inf, -inf, 0, inf, 1, -inf, 2, 3, 0, NaN, 1], grad: false })],
        args: [1],
        torch: "torch.logsumexp(a, 1)",
      },
      { inputs: [input([2, 2], { values: [-inf, -inf, -inf, 2] })], args: [1], torch: "torch.logsumexp(a, 1)", kink: true },
    ],
    errors,
  },
];
