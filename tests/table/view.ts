import { cat, permute, reshape, ShapeError, slice, type Tensor } from "../../mod.ts";
import { input, type Row } from "../op_table.ts";

export const view: readonly Row[] = [
  {
    name: "reshape",
    fn: reshape,
    torch: "a.reshape(6, 4)",
    samples: [{ inputs: [input([2, 3, 4])], args: [[6, 4]] }, { inputs: [input([2, 3, 4])], args: [[-1, 4]] }],
    errors: [{ inputs: [input([5])], args: [[2, -1]], error: ShapeError, message: "reshape: [2, -1] does not fit 5 elements" }],
  },
  {
    name: "permute",
    fn: permute,
    torch: "a.permute(2, 0, 1)",
    samples: [{ inputs: [input([2, 3, 4])], args: [[2, 0, 1]] }],
    errors: [{ inputs: [input([2, 3])], args: [[0, 0]], error: ShapeError, message: "does not name each of the 2 axes once" }],
  },
  {
    name: "slice",
    fn: slice,
    torch: "a[:, 1:6:2]",
    samples: [{ inputs: [input([3, 7])], args: [1, 1, 6, 2] }],
    errors: [{ inputs: [input([3])], args: [0, 0, 2, 0], error: RangeError, message: "step must be a whole number >= 1, got 0" }],
  },
  {
    name: "cat",
    fn: (a: Tensor, b: Tensor) => cat([a, b], 1),
    torch: "torch.cat([a, b], 1)",
    samples: [{ inputs: [input([2, 3]), input([2, 4], { seed: 2 })] }],
    errors: [{
      inputs: [input([2, 3]), input([3, 3])],
      error: ShapeError,
      message: "cat: tensor 1 of [3, 3] does not join [2, 3] along axis 1",
    }],
  },
];
