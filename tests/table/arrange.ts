import { cartesianProd, diag, diagEmbed, flip, meshgrid, roll, rot90, ShapeError, type Tensor, tril, triu } from "../../mod.ts";
import { input, type Row } from "../op_table.ts";

const x = input([2, 3, 4]);
const matrices = ([-2, 0, 1, 4] as const).flatMap((d) => [input([2, 3, 4]), input([5, 3])].map((it) => ({ it, d })));

export const arrange: readonly Row[] = [
  {
    name: "flip",
    fn: flip,
    torch: "",
    samples: [[0], [1, 2], [-1, 0], []].map((dims) => ({ inputs: [x], args: [dims], torch: `a.flip(${JSON.stringify(dims)})` })),
    errors: [
      { inputs: [x], args: [3], error: RangeError, message: "flip: dim 3 is outside -3 .. 2" },
      { inputs: [x], args: [[1, 1]], error: ShapeError, message: "flip: an axis appears twice" },
    ],
  },
  {
    name: "roll",
    fn: roll,
    torch: "",
    samples: [
      { inputs: [x], args: [5], torch: "a.roll(5)" },
      { inputs: [x], args: [[1, -3], [0, 2]], torch: "a.roll((1, -3), (0, 2))" },
      { inputs: [x], args: [7, 1], torch: "a.roll(7, 1)" },
      { inputs: [x], args: [4, 2], torch: "a.roll(4, 2)" },
      { inputs: [input([0, 3])], args: [1, 0], torch: "a.roll(1, 0)" },
    ],
    errors: [
      { inputs: [x], args: [[1, 2], 0], error: ShapeError, message: "2 shifts and 1 dims" },
      { inputs: [x], args: [0.5], error: RangeError, message: "shifts must be whole numbers, got [0.5]" },
    ],
  },
  {
    name: "rot90",
    fn: rot90,
    torch: "",
    samples: [-1, 0, 1, 2, 3, 6].map((k) => ({ inputs: [x], args: [k, [0, 2]], torch: `torch.rot90(a, ${k}, (0, 2))` })),
    errors: [{ inputs: [x], args: [1, [1, 1]], error: ShapeError, message: "dims must be two different axes" }],
  },
  {
    name: "tril",
    fn: tril,
    torch: "",
    samples: matrices.map(({ it, d }) => ({ inputs: [it], args: [d], torch: `a.tril(${d})` })),
    errors: [{ inputs: [input([3])], error: ShapeError, message: "tril: takes at least 2 axes, got [3]" }],
  },
  {
    name: "triu",
    fn: triu,
    torch: "",
    samples: matrices.map(({ it, d }) => ({ inputs: [it], args: [d], torch: `a.triu(${d})` })),
    errors: [{ inputs: [x], args: [0.5], error: RangeError, message: "triu: the diagonal must be a whole number, got 0.5" }],
  },
  {
    name: "diag",
    fn: diag,
    torch: "",
    samples: [-1, 0, 2].flatMap((d) => [[3], [3, 4]].map((shape) => ({ inputs: [input(shape)], args: [d], torch: `a.diag(${d})` }))),
    errors: [{ inputs: [x], error: ShapeError, message: "diag: takes 1 or 2 axes, got [2, 3, 4]" }],
  },
  {
    name: "diagEmbed",
    fn: diagEmbed,
    torch: "",
    samples: [-1, 0, 2].flatMap((d) => [
      { inputs: [input([2, 3])], args: [d], torch: `torch.diag_embed(a, ${d})` },
      { inputs: [input([2, 3])], args: [d, 0, 2], torch: `torch.diag_embed(a, ${d}, 0, 2)` },
    ]),
    errors: [{ inputs: [input([2])], args: [0, 1, 1], error: ShapeError, message: "dim1 and dim2 are the same axis 1" }],
  },
  {
    name: "meshgrid",
    fn: (a: Tensor, b: Tensor, c: Tensor, indexing?: "ij" | "xy") => meshgrid([a, b, c], { indexing }),
    torch: 'torch.meshgrid(a, b, c, indexing="ij")',
    samples: [
      { inputs: [input([2]), input([3]), input([])] },
      { inputs: [input([2]), input([3]), input([4])], args: ["xy"], torch: 'torch.meshgrid(a, b, c, indexing="xy")' },
    ],
    errors: [{
      inputs: [input([2, 2]), input([3]), input([3])],
      error: ShapeError,
      message: "tensor 0 must have at most one axis, got [2, 2]",
    }],
  },
  {
    name: "cartesianProd",
    fn: cartesianProd,
    torch: "torch.cartesian_prod(a, b)",
    samples: [{ inputs: [input([2]), input([3], { seed: 2 })] }],
  },
];
