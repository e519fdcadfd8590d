import {
  addmm,
  baddbmm,
  bilinear,
  bmm,
  dot,
  DTypeError,
  einsum,
  linear,
  matmul as product,
  mm,
  mv,
  outer,
  ShapeError,
  type Tensor,
} from "../../mod.ts";
import { input, type Row, type Sample } from "../op_table.ts";

const pair = (a: number[], b: number[]) => [input(a, { low: -1, high: 1 }), input(b, { low: -1, high: 1, seed: 2 })];
const einsumSample = (equation: string, ...shapes: number[][]): Sample => ({
  inputs: shapes.map((shape, i) => input(shape, { low: -1, high: 1, seed: i + 1 })),
  args: [equation],
  torch: `torch.einsum("${equation}", ${shapes.map((_, i) => "abcd"[i]).join(", ")})`,
});
const integers: Sample = {
  inputs: [input([3, 4], { dtype: "int64", low: -9, high: 9 }), input([4, 5], { dtype: "int64", low: -9, high: 9 })],
};
// Vector widths and tile heights of the kernel, a bit less and a bit more; row counts around one and two tiles.
const edges = [[1, 1, 1], [13, 16, 7], [14, 17, 8], [15, 33, 9], [29, 31, 3], [3, 0, 2], [3, 2, 0]];

export const matmul: readonly Row[] = [
  {
    name: "matmul",
    fn: product,
    torch: "torch.matmul(a, b)",
    samples: [
      ...[
        [[3], [3]],
        [[3], [3, 4]],
        [[2, 3], [3]],
        [[5], [2, 5, 3]],
        [[2, 3, 5], [5]],
        [[2, 3, 4], [4, 5]],
        [[3, 4], [2, 4, 5]],
        [[2, 3, 4], [2, 4, 5]],
        [[2, 1, 3, 4], [5, 4, 2]],
        [[1, 3, 4], [2, 4, 2]],
        [[2, 0, 4], [4, 3]],
        [[0, 3, 4], [0, 4, 2]],
        [[2, 2, 3, 0], [2, 0, 2]],
      ].map(([a, b]) => ({ inputs: pair(a, b) })),
      integers,
    ],
    errors: [
      { inputs: pair([2, 3], [4, 5]), error: ShapeError, message: "matmul: inner sizes differ: [2, 3] @ [4, 5]" },
      { inputs: pair([], [3]), error: ShapeError, message: "matmul: both operands must have axes: [] @ [3]" },
      { inputs: pair([2, 3, 4], [3, 4, 5]), error: ShapeError, message: "matmul: shapes do not broadcast: [2] and [3]" },
      {
        inputs: [input([2, 2]), input([2, 2], { dtype: "int32", low: 0, high: 9 })],
        error: DTypeError,
        message: "matmul: operands must have one dtype, got float64 and int32",
      },
      {
        inputs: [input([2, 2], { dtype: "bool", low: 0, high: 2 }), input([2, 2], { dtype: "bool", low: 0, high: 2 })],
        error: DTypeError,
        message: "matmul: takes a numeric dtype, got bool",
      },
    ],
  },
  {
    name: "mm",
    fn: mm,
    torch: "torch.mm(a, b)",
    samples: [...edges.map(([m, n, k]) => ({ inputs: pair([m, k], [k, n]) })), integers],
    tolerance: 2e-5,
    errors: [
      { inputs: pair([2, 3], [3]), error: ShapeError, message: "mm: the second operand must have 2 axes, got [3]" },
      { inputs: pair([2, 3], [2, 3]), error: ShapeError, message: "mm: inner sizes differ: [2, 3] @ [2, 3]" },
    ],
  },
  {
    name: "bmm",
    fn: bmm,
    torch: "torch.bmm(a, b)",
    samples: [{ inputs: pair([3, 2, 5], [3, 5, 4]) }, { inputs: pair([2, 1, 3], [2, 3, 1]) }, { inputs: pair([0, 2, 3], [0, 3, 4]) }],
    errors: [{ inputs: pair([2, 2, 3], [3, 3, 2]), error: ShapeError, message: "bmm: batch sizes differ: [2, 2, 3] @ [3, 3, 2]" }],
  },
  {
    name: "mv",
    fn: mv,
    torch: "torch.mv(a, b)",
    samples: [{ inputs: pair([5, 33], [33]) }, { inputs: pair([0, 3], [3]) }],
    errors: [{ inputs: pair([2, 3], [2]), error: ShapeError, message: "mv: inner sizes differ: [2, 3] @ [2]" }],
  },
  {
    name: "dot",
    fn: dot,
    torch: "torch.dot(a, b)",
    samples: [{ inputs: pair([33], [33]) }, { inputs: pair([0], [0]) }],
    errors: [{ inputs: pair([2], [3]), error: ShapeError, message: "dot: inner sizes differ: [2] @ [3]" }],
  },
  {
    name: "outer",
    fn: outer,
    torch: "torch.outer(a, b)",
    samples: [{ inputs: pair([3], [5]) }],
    errors: [{ inputs: pair([2, 2], [3]), error: ShapeError, message: "outer: the first operand must have 1 axes, got [2, 2]" }],
  },
  {
    name: "bilinear",
    fn: bilinear,
    torch: "F.bilinear(a, b, c, d)",
    samples: [
      { inputs: [...pair([3], [2]), input([1, 3, 2], { seed: 3 })], torch: "F.bilinear(a, b, c)" },
      { inputs: [...pair([2, 5, 3], [2, 5, 4]), input([6, 3, 4], { seed: 3 }), input([6], { seed: 4 })] },
    ],
    errors: [
      {
        inputs: [...pair([2, 3], [2, 4]), input([6, 4, 3])],
        error: ShapeError,
        message: "bilinear: inputs [2, 3] and [2, 4] with a weight [6, 4, 3], expected [..., I], [..., J] and [K, I, J]",
      },
      {
        inputs: [...pair([2, 3], [2, 4]), input([6, 3, 4]), input([3])],
        error: ShapeError,
        message: "bilinear: the bias has shape [3], expected [6]",
      },
    ],
  },
  {
    name: "linear",
    fn: linear,
    torch: "F.linear(a, b, c)",
    samples: [
      { inputs: pair([3, 17], [33, 17]), torch: "F.linear(a, b)" },
      { inputs: [...pair([4, 7], [5, 7]), input([5], { seed: 3 })] },
      { inputs: [...pair([2, 3, 7], [5, 7]), input([5], { seed: 3 })] },
      { inputs: [...pair([7], [5, 7]), input([5], { seed: 3 })] },
      { inputs: [...pair([0, 7], [5, 7]), input([5], { seed: 3 })] },
      { inputs: [...pair([4, 0], [5, 0]), input([5], { seed: 3 })] },
      { inputs: pair([2, 3, 4], [4]), torch: "F.linear(a, b)" },
    ],
    errors: [
      {
        inputs: pair([4, 7], [5, 6]),
        error: ShapeError,
        message: "linear: the last axis of [4, 7] must be that of the weight [out, in], got [5, 6]",
      },
      { inputs: [...pair([4, 7], [5, 7]), input([7])], error: ShapeError, message: "linear: the bias must be [5], got [7]" },
    ],
  },
  {
    name: "addmm",
    fn: addmm,
    torch: "torch.addmm(a, b, c)",
    samples: [
      { inputs: [input([4], { seed: 3 }), ...pair([3, 5], [5, 4])] },
      { inputs: [input([3, 1], { seed: 3 }), ...pair([3, 5], [5, 4])] },
      {
        inputs: [input([3, 4], { seed: 3 }), ...pair([3, 5], [5, 4])],
        args: [{ beta: 0.5, alpha: -2 }],
        torch: "torch.addmm(a, b, c, beta=0.5, alpha=-2)",
      },
      { inputs: [input([3, 4], { grad: false }), ...pair([3, 5], [5, 4])], args: [{ beta: 0 }], torch: "torch.addmm(a, b, c, beta=0)" },
    ],
    errors: [{
      inputs: [input([3]), ...pair([3, 5], [5, 4])],
      error: ShapeError,
      message: "addmm: shapes do not broadcast: [3] and [3, 4]",
    }],
  },
  {
    name: "baddbmm",
    fn: baddbmm,
    torch: "torch.baddbmm(a, b, c)",
    samples: [
      { inputs: [input([2, 3, 4], { seed: 3 }), ...pair([2, 3, 5], [2, 5, 4])] },
      {
        inputs: [input([1, 4], { seed: 3 }), ...pair([2, 3, 5], [2, 5, 4])],
        args: [{ beta: 2, alpha: 0.5 }],
        torch: "torch.baddbmm(a, b, c, beta=2, alpha=0.5)",
      },
    ],
  },
  {
    name: "einsum",
    fn: (...all: unknown[]) => einsum(all.at(-1) as string, ...all.slice(0, -1) as Tensor[]),
    torch: "",
    tolerance: 2e-5,
    samples: [
      einsumSample("ii", [3, 3]),
      einsumSample("ii->i", [3, 3]),
      einsumSample("iji->j", [3, 2, 3]),
      einsumSample("ij->ji", [2, 3]),
      einsumSample("ij->", [2, 3]),
      einsumSample("ba", [2, 3]),
      einsumSample("i,i->i", [4], [4]),
      einsumSample("i,j", [3], [4]),
      einsumSample("ij,jk", [2, 3], [3, 4]),
      einsumSample("ik,jk->ij", [2, 3], [4, 3]),
      einsumSample("bij,bjk->bik", [2, 3, 4], [2, 4, 2]),
      einsumSample("bij,bjk->ki", [2, 3, 4], [2, 4, 2]),
      einsumSample("bn,anm,bm->ba", [2, 3], [4, 3, 2], [2, 2]),
      einsumSample("...ij,...jk->...ik", [2, 1, 3, 4], [5, 4, 2]),
      einsumSample("i...,i...", [2, 3, 4], [2, 1, 4]),
      einsumSample("...ii->...i", [2, 3, 3]),
      einsumSample("bhqd, bhkd -> bhqk", [2, 2, 3, 4], [2, 2, 5, 4]),
      einsumSample("ij,ik,jk->", [2, 3], [2, 4], [3, 4]),
      einsumSample("ij,ij->i", [2, 3], [1, 3]),
    ],
    errors: [
      { inputs: pair([2, 3], [4, 5]), args: ["ij,jk->ik"], error: ShapeError, message: 'einsum: "j" stands for sizes 3 and 4' },
      { inputs: [input([2, 3])], args: ["ii->i"], error: ShapeError, message: '"i" stands for sizes 2 and 3' },
      { inputs: [input([2, 3])], args: ["ijk"], error: ShapeError, message: '"ijk" in "ijk" does not name the axes of [2, 3]' },
      { inputs: [input([2, 3])], args: ["ij,jk"], error: ShapeError, message: "has 2 terms for 1 operands" },
      { inputs: [input([2, 3])], args: ["ij->ijj"], error: ShapeError, message: '"j" occurs twice in the result' },
      { inputs: [input([2, 3])], args: ["ij->k"], error: ShapeError, message: '"k" in the result of "ij->k" names no axis' },
      { inputs: [input([2, 3])], args: ["i1"], error: ShapeError, message: 'unexpected "1"' },
    ],
  },
];
