import {
  batchNorm,
  DTypeError,
  groupNorm,
  instanceNorm,
  layerNorm,
  localResponseNorm,
  normalize,
  rmsNorm,
  ShapeError,
  type Tensor,
} from "../../mod.ts";
import { input, type Row, type Sample } from "../op_table.ts";

const affine = (shape: readonly number[], parameters: readonly number[], rest: Partial<Sample>): Sample => ({
  inputs: [input(shape), input(parameters, { seed: 2 }), input(parameters, { seed: 3 })],
  ...rest,
});
const integer = [input([2, 3], { dtype: "int64" })];

// The first sample of each has the one input that may not be absent.
export const normalization: readonly Row[] = [
  {
    name: "batchNorm",
    fn: (x: Tensor, weight?: Tensor, bias?: Tensor) => batchNorm(x, null, null, { weight, bias }),
    torch: "F.batch_norm(a, None, None, b, c, True)",
    samples: [
      { inputs: [input([5, 4])], torch: "F.batch_norm(a, None, None, None, None, True)" },
      ...[[4, 3], [31, 2], [2, 33, 2], [2, 3, 3, 2], [2, 2, 2, 1, 3]].map((shape) => affine(shape, [shape[1]], {})),
    ],
    errors: [
      { inputs: [input([1, 3])], error: ShapeError, message: "more than 1 value per channel when training, got input size [1, 3]" },
      { inputs: integer, error: DTypeError, message: "batchNorm: takes a floating point tensor, got int64" },
    ],
  },
  {
    name: "layerNorm",
    fn: (x: Tensor, ...rest: unknown[]) => {
      const shape = rest.pop() as number[], [weight, bias] = rest as Tensor[];
      return layerNorm(x, shape, { weight, bias });
    },
    torch: "F.layer_norm(a, a.shape[-1:], b, c)",
    samples: [
      { inputs: [input([31])], args: [[31]], torch: "F.layer_norm(a, (31,))" },
      affine([3, 5], [5], { args: [[5]] }),
      affine([2, 2, 33], [33], { args: [[33]] }),
      affine([70, 3], [3], { args: [[3]] }),
      affine([2, 3, 4], [3, 4], { args: [[3, 4]], torch: "F.layer_norm(a, (3, 4), b, c)" }),
      { inputs: [input([0, 3])], args: [[3]], torch: "F.layer_norm(a, (3,))" },
    ],
    errors: [
      { inputs: [input([2, 3])], args: [[4]], error: ShapeError, message: "last axes of the input must be [4], got an input of [2, 3]" },
      { inputs: integer, args: [[3]], error: DTypeError, message: "layerNorm: takes a floating point tensor" },
    ],
  },
  {
    name: "rmsNorm",
    fn: (x: Tensor, ...rest: unknown[]) => rmsNorm(x, rest.pop() as number[], { weight: rest[0] as Tensor, eps: 1e-6 }),
    torch: "F.rms_norm(a, a.shape[-1:], b, 1e-6)",
    samples: [
      { inputs: [input([2, 2, 3])], args: [[2, 3]], torch: "F.rms_norm(a, (2, 3), None, 1e-6)" },
      { inputs: [input([3, 5]), input([5], { seed: 2 })], args: [[5]] },
      { inputs: [input([2, 33]), input([33], { seed: 2 })], args: [[33]] },
    ],
    errors: [{ inputs: integer, args: [[3]], error: DTypeError, message: "rmsNorm: takes a floating point tensor" }],
  },
  {
    name: "groupNorm",
    fn: (x: Tensor, ...rest: unknown[]) => {
      const groups = rest.pop() as number, [weight, bias] = rest as Tensor[];
      return groupNorm(x, groups, { weight, bias });
    },
    torch: "F.group_norm(a, 2, b, c)",
    samples: [
      { inputs: [input([2, 4, 3])], args: [4], torch: "F.group_norm(a, 4)" },
      affine([3, 4], [4], { args: [2] }),
      affine([2, 6, 5], [6], { args: [2] }),
      affine([2, 4, 3, 11], [4], { args: [2] }),
    ],
    errors: [
      { inputs: [input([2, 3])], args: [2], error: ShapeError, message: "must be divisible by the groups, got 3 channels and 2 groups" },
      { inputs: integer, args: [3], error: DTypeError, message: "groupNorm: takes a floating point tensor" },
    ],
  },
  {
    name: "instanceNorm",
    fn: (x: Tensor, weight?: Tensor, bias?: Tensor) => instanceNorm(x, { weight, bias }),
    torch: "F.instance_norm(a, None, None, b, c)",
    samples: [
      { inputs: [input([2, 3, 4])], torch: "F.instance_norm(a)" },
      affine([2, 3, 5], [3], {}),
      affine([2, 2, 3, 4], [2], {}),
    ],
    errors: [
      { inputs: [input([2, 3, 1])], error: ShapeError, message: "more than 1 spatial element when training, got input size [2, 3, 1]" },
      { inputs: [input([2, 3])], error: ShapeError, message: "at least 3 axes" },
    ],
  },
  {
    name: "localResponseNorm",
    fn: (x: Tensor, size: number) => localResponseNorm(x, size, { alpha: 0.1, k: 2 }),
    torch: "F.local_response_norm(a, 3, alpha=0.1, k=2)",
    samples: [
      { inputs: [input([2, 5, 4])], args: [3] },
      { inputs: [input([2, 4, 2, 3])], args: [2], torch: "F.local_response_norm(a, 2, alpha=0.1, k=2)" },
    ],
    errors: [{ inputs: [input([2, 3, 4])], args: [0], error: RangeError, message: "size must be a whole number >= 1, got 0" }],
  },
  {
    name: "normalize",
    fn: (x: Tensor, options?: { p?: number; dim?: number }) => normalize(x, options),
    torch: "F.normalize(a)",
    samples: [
      { inputs: [input([3, 5])] },
      { inputs: [input([2, 3, 4])], args: [{ dim: -1 }], torch: "F.normalize(a, dim=-1)" },
      { inputs: [input([33])], args: [{ p: 3, dim: 0 }], torch: "F.normalize(a, p=3.0, dim=0)" },
    ],
    errors: [{ inputs: [input([3])], args: [{ dim: 1 }], error: RangeError, message: "normalize" }],
  },
];
