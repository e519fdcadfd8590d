import { channelShuffle, fold, pad, pixelShuffle, pixelUnshuffle, ShapeError, unfold } from "../../mod.ts";
import { input, type Row } from "../op_table.ts";

const image = input([2, 3, 4, 5]), whole = input([2, 4, 2, 2], { dtype: "int64", low: -9, high: 9 });

export const shuffle: readonly Row[] = [
  {
    name: "pixelShuffle",
    fn: pixelShuffle,
    torch: "F.pixel_shuffle(a, 2)",
    samples: [
      { inputs: [input([2, 8, 3, 2])], args: [2] },
      { inputs: [input([9, 2, 1])], args: [3], torch: "F.pixel_shuffle(a, 3)" },
      { inputs: [input([2, 1, 4, 2, 3])], args: [2] },
      { inputs: [whole], args: [2] },
    ],
    errors: [
      { inputs: [input([1, 6, 2, 2])], args: [2], error: ShapeError, message: "6 channels are not a multiple of upscaleFactor squared, 4" },
      { inputs: [input([6, 2])], args: [2], error: ShapeError, message: "takes at least 3 axes, got [6, 2]" },
      { inputs: [image], args: [0], error: RangeError, message: "upscaleFactor must be a whole number >= 1, got 0" },
    ],
  },
  {
    name: "pixelUnshuffle",
    fn: pixelUnshuffle,
    torch: "F.pixel_unshuffle(a, 2)",
    samples: [{ inputs: [input([2, 3, 4, 6])], args: [2] }, { inputs: [input([2, 2, 4])], args: [2] }, { inputs: [whole], args: [2] }],
    errors: [{ inputs: [image], args: [2], error: ShapeError, message: "sizes 4 and 5 are not multiples of downscaleFactor 2" }],
  },
  {
    name: "channelShuffle",
    fn: channelShuffle,
    torch: "torch.channel_shuffle(a, 2)",
    samples: [
      { inputs: [input([2, 6, 3, 2])], args: [2] },
      { inputs: [input([2, 6, 3])], args: [3], torch: "torch.channel_shuffle(a, 3)" },
      { inputs: [input([1, 6, 2, 1, 3])], args: [2] },
      { inputs: [whole], args: [2] },
    ],
    errors: [
      { inputs: [image], args: [2], error: ShapeError, message: "2 groups do not divide 3 channels of [2, 3, 4, 5]" },
      { inputs: [image], args: [-1], error: RangeError, message: "groups must be a whole number >= 1" },
    ],
  },
  {
    name: "pad",
    fn: pad,
    torch: "F.pad(a, (1, 2))",
    samples: [
      { inputs: [input([3])], args: [[1, 2]] },
      { inputs: [image], args: [[1, 2, 0, 3], { value: 1.5 }], torch: "F.pad(a, (1, 2, 0, 3), value=1.5)" },
      { inputs: [image], args: [[-1, 2, 1, -3]], torch: "F.pad(a, (-1, 2, 1, -3))" },
      { inputs: [image], args: [[0, 0, 0, 0, 1, 1, 0, 1]], torch: "F.pad(a, (0, 0, 0, 0, 1, 1, 0, 1))" },
      { inputs: [whole], args: [[1, 1], { value: 7 }], torch: "F.pad(a, (1, 1), value=7)" },
      { inputs: [input([2, 3, 4])], args: [[3, 1], { mode: "reflect" }], torch: 'F.pad(a, (3, 1), mode="reflect")' },
      { inputs: [input([3, 4])], args: [[3, 1], { mode: "circular" }], torch: 'F.pad(a, (3, 1), mode="circular")' },
      { inputs: [image], args: [[2, 1, 3, 0], { mode: "reflect" }], torch: 'F.pad(a, (2, 1, 3, 0), mode="reflect")' },
      { inputs: [image], args: [[2, 7, 3, 0], { mode: "replicate" }], torch: 'F.pad(a, (2, 7, 3, 0), mode="replicate")' },
      { inputs: [image], args: [[5, 1, 3, 0], { mode: "circular" }], torch: 'F.pad(a, (5, 1, 3, 0), mode="circular")' },
      {
        inputs: [input([1, 2, 2, 3, 2])],
        args: [[1, 1, 2, 0, 1, 1], { mode: "reflect" }],
        torch: 'F.pad(a, (1, 1, 2, 0, 1, 1), mode="reflect")',
      },
      {
        inputs: [input([2, 2, 3, 2])],
        args: [[1, 1, 2, 0, 1, 1], { mode: "replicate" }],
        torch: 'F.pad(a, (1, 1, 2, 0, 1, 1), mode="replicate")',
      },
    ],
    errors: [
      { inputs: [image], args: [[1]], error: RangeError, message: "pads are whole numbers, two an axis" },
      { inputs: [input([3])], args: [[1, 1, 1, 1]], error: ShapeError, message: "4 pads are more than two an axis of [3]" },
      { inputs: [input([3])], args: [[-2, -2]], error: ShapeError, message: "would make [-1] of [3]" },
      {
        inputs: [image],
        args: [[5, 0, 0, 0], { mode: "reflect" }],
        error: ShapeError,
        message: "adds at most 4 positions to an axis of 5",
      },
      {
        inputs: [image],
        args: [[6, 0, 0, 0], { mode: "circular" }],
        error: ShapeError,
        message: "adds at most 5 positions to an axis of 5",
      },
      { inputs: [image], args: [[-1, 0, 0, 0], { mode: "replicate" }], error: RangeError, message: "takes counts >= 0" },
      { inputs: [image], args: [[1, 1], { mode: "reflect" }], error: ShapeError, message: "takes 2 or 3 axes" },
      { inputs: [image], args: [[1, 1, 1, 1], { mode: "mirror" }], error: RangeError, message: "mode must be constant, reflect" },
      {
        inputs: [image],
        args: [[1, 1, 1, 1], { mode: "reflect", value: 2 }],
        error: RangeError,
        message: 'value goes with mode "constant"',
      },
    ],
  },
  {
    name: "unfold",
    fn: unfold,
    torch: "F.unfold(a, 2)",
    samples: [
      { inputs: [image], args: [2] },
      {
        inputs: [input([2, 5, 6])],
        args: [[2, 3], { dilation: [2, 1], padding: [1, 2], stride: [1, 2] }],
        torch: "F.unfold(a, (2, 3), (2, 1), (1, 2), (1, 2))",
      },
    ],
    errors: [
      { inputs: [input([4, 4])], args: [2], error: ShapeError, message: "takes [N, C, H, W] or [C, H, W], got [4, 4]" },
      { inputs: [image], args: [7], error: ShapeError, message: "a window of [7, 7] does not fit [4, 5]" },
    ],
  },
  {
    name: "fold",
    fn: fold,
    torch: "F.fold(a, (4, 5), 2)",
    samples: [
      { inputs: [input([2, 8, 12])], args: [{ outputSize: [4, 5], kernelSize: 2 }] },
      {
        inputs: [input([12, 20])],
        args: [{ outputSize: [5, 6], kernelSize: [2, 3], dilation: [2, 1], padding: [1, 2], stride: [1, 2] }],
        torch: "F.fold(a, (5, 6), (2, 3), (2, 1), (1, 2), (1, 2))",
      },
    ],
    errors: [
      { inputs: [input([7, 12])], args: [{ outputSize: [4, 5], kernelSize: 2 }], error: ShapeError, message: "7 rows are not a multiple" },
      {
        inputs: [input([8, 11])],
        args: [{ outputSize: [4, 5], kernelSize: 2 }],
        error: ShapeError,
        message: "11 columns, expected 12 (3 x 4 windows)",
      },
    ],
  },
];
