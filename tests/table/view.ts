import {
  broadcastTensors,
  broadcastTo,
  cat,
  chunk,
  clone,
  diagonal,
  expand,
  flatten,
  movedim,
  narrow,
  permute,
  repeat,
  reshape,
  select,
  ShapeError,
  slice,
  split,
  squeeze,
  stack,
  type Tensor,
  transpose,
  unbind,
  unflatten,
  unsqueeze,
  view,
} from "../../mod.ts";
import { type BadCall, input, type Row } from "../op_table.ts";

function row(
  name: string,
  fn: Row["fn"],
  shape: number[],
  calls: readonly [args: unknown[], torch: string][],
  errors: readonly BadCall[] = [],
): Row {
  return { name, fn, torch: calls[0][1], samples: calls.map(([args, torch]) => ({ inputs: [input(shape)], args, torch })), errors };
}

function bad(shape: number[], args: unknown[], error: BadCall["error"], message: string): BadCall {
  return { inputs: [input(shape)], args, error, message };
}

export const viewFamily: readonly Row[] = [
  row("reshape", reshape, [2, 3, 4], [[[[6, 4]], "a.reshape(6, 4)"], [[[-1, 4]], "a.reshape(-1, 4)"]], [
    bad([5], [[2, -1]], ShapeError, "reshape: [2, -1] does not fit 5 elements"),
    bad([5], [[6]], ShapeError, "reshape: [6] has 6 elements, the tensor has 5"),
  ]),
  row("permute", permute, [2, 3, 4], [[[[2, 0, 1]], "a.permute(2, 0, 1)"]], [
    bad([2, 3], [[0, 0]], ShapeError, "does not name each of the 2 axes once"),
  ]),
  row("slice", slice, [3, 7], [[[1, 1, 6, 2], "a[:, 1:6:2]"], [[0, -2], "a[-2:]"], [[1, 5, 2], "a[:, 5:2]"]], [
    bad([3], [0, 0, 2, 0], RangeError, "step must be a whole number >= 1, got 0"),
  ]),
  row("transpose", transpose, [2, 3, 4], [[[0, -1], "a.transpose(0, -1)"]], [
    bad([2], [0, 1], RangeError, "transpose: dim 1 is outside -1 .. 0"),
  ]),
  row("movedim", movedim, [2, 3, 4], [[[0, 2], "a.movedim(0, 2)"], [[-1, 0], "a.movedim(-1, 0)"]]),
  row("flatten", flatten, [2, 3, 4], [[[], "a.flatten()"], [[1], "a.flatten(1)"], [[0, 1], "a.flatten(0, 1)"]], [
    bad([2, 3], [1, 0], RangeError, "flatten: startDim 1 comes after endDim 0"),
  ]),
  row("unflatten", unflatten, [2, 6], [[[1, [2, -1]], "a.unflatten(1, (2, -1))"]], [
    bad([2, 6], [1, [4, 2]], ShapeError, "unflatten: [4, 2] has 8 elements, the tensor has 6"),
  ]),
  row("squeeze", squeeze, [2, 1, 3, 1], [[[], "a.squeeze()"], [[1], "a.squeeze(1)"], [[0], "a.squeeze(0)"]]),
  row("unsqueeze", unsqueeze, [2, 3], [[[0], "a.unsqueeze(0)"], [[-1], "a.unsqueeze(-1)"]], [
    bad([2], [3], RangeError, "unsqueeze: dim 3 is outside"),
  ]),
  row("expand", expand, [2, 1, 3], [[[[4, 2, 5, 3]], "a.expand(4, 2, 5, 3)"], [[[-1, 2, -1]], "a.expand(-1, 2, -1)"]], [
    bad([2], [[3]], ShapeError, "expand: [2] does not expand to [3]"),
  ]),
  row("broadcastTo", broadcastTo, [1, 3], [[[[2, 3]], "a.broadcast_to(2, 3)"]]),
  row("narrow", narrow, [3, 5], [[[1, 1, 3], "a.narrow(1, 1, 3)"]], [
    bad([3], [0, 2, 2], RangeError, "narrow: 2 positions from 2 are not inside axis 0 of [3]"),
  ]),
  row("select", select, [3, 4], [[[0, 1], "a[1]"], [[1, -1], "a[:, -1]"]], [
    bad([3], [0, 3], RangeError, "select: index 3 is outside axis 0 of [3]"),
  ]),
  row("unbind", unbind, [2, 3], [[[], "a.unbind()"], [[1], "a.unbind(1)"]]),
  row("split", split, [5, 2], [[[2], "a.split(2)"], [[[1, 4]], "a.split([1, 4])"]], [
    bad([5], [[2, 2]], ShapeError, "split: sizes [2,2] add up to 4, axis 0 has 5"),
  ]),
  row("chunk", chunk, [5, 2], [[[2], "a.chunk(2)"], [[3, 1], "a.chunk(3, 1)"]], [
    bad([5], [0], RangeError, "chunk: chunks must be a whole number >= 1, got 0"),
  ]),
  row("diagonal", diagonal, [3, 4, 2], [[[], "a.diagonal()"], [[1], "a.diagonal(1)"], [[-1, 0, 2], "a.diagonal(-1, 0, 2)"]], [
    bad([3, 3], [0, 1, 1], ShapeError, "diagonal: dim1 and dim2 are the same axis"),
  ]),
  row("repeat", repeat, [2, 3], [[[[2, 1]], "a.repeat(2, 1)"], [[[2, 1, 3]], "a.repeat(2, 1, 3)"]], [
    bad([2, 2], [[2]], ShapeError, "must hold at least 2 whole numbers"),
  ]),
  row("clone", clone, [2, 3], [[[], "a.clone()"]]),
  {
    name: "view",
    fn: (x: Tensor) => view(x.contiguous(), [3, 4]),
    torch: "a.contiguous().view(3, 4)",
    samples: [{ inputs: [input([2, 6])] }],
  },
  {
    name: "broadcastTensors",
    fn: (a: Tensor, b: Tensor) => broadcastTensors(a, b),
    torch: "torch.broadcast_tensors(a, b)",
    samples: [{ inputs: [input([2, 1]), input([3], { seed: 2 })] }],
  },
  {
    name: "stack",
    fn: (a: Tensor, b: Tensor) => stack([a, b], 1),
    torch: "torch.stack([a, b], 1)",
    samples: [{ inputs: [input([2, 3]), input([2, 3], { seed: 2 })] }],
    errors: [{ inputs: [input([2]), input([3])], error: ShapeError, message: "stack: tensor 1 is [3], the first is [2]" }],
  },
  {
    name: "cat",
    fn: (a: Tensor, b: Tensor) => cat([a, b], 1),
    torch: "torch.cat([a, b], 1)",
    samples: [{ inputs: [input([2, 3]), input([2, 4], { seed: 2 })] }, { inputs: [input([2, 0]), input([2, 4], { seed: 2 })] }],
    errors: [{
      inputs: [input([2, 3]), input([3, 3])],
      error: ShapeError,
      message: "cat: tensor 1 of [3, 3] does not join [2, 3] along axis 1",
    }],
  },
];
