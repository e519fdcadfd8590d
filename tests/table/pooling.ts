import {
  adaptiveAvgPool1d,
  adaptiveAvgPool2d,
  adaptiveAvgPool3d,
  adaptiveMaxPool1d,
  adaptiveMaxPool2d,
  adaptiveMaxPool3d,
  avgPool1d,
  avgPool2d,
  avgPool3d,
  DTypeError,
  maxPool1d,
  maxPool2d,
  maxPool3d,
  maxUnpool1d,
  maxUnpool2d,
  maxUnpool3d,
  ShapeError,
} from "../../mod.ts";
import { input, type Row } from "../op_table.ts";

const line = input([2, 3, 9]), image = input([2, 3, 7, 6]), volume = input([1, 2, 5, 4, 6]);
const wide = input([1, 70, 3, 5]); // more channels than a block
const nan = input([1, 1, 3, 4], { values: [1, 5, 5, 0, NaN, 5, 2, 2, 0, 0, -Infinity, 3] });
const ties = input([1, 2, 2, 4], { values: [1, 1, 1, 1, 1, 1, 1, 1, 3, 0, 2, 2, 0, 3, 2, 2] });
const infinite = input([1, 1, 2, 2], { values: [-Infinity, -Infinity, -Infinity, -Infinity] });
const badRank = { inputs: [input([4])], args: [2], error: ShapeError, message: "takes 4 axes, or 3 without a batch, got [4]" };
const badDType = {
  inputs: [input([1, 1, 4, 4], { dtype: "int64" })],
  args: [2],
  error: DTypeError,
  message: "takes a floating point tensor, got int64",
};

export const pooling: readonly Row[] = [
  {
    name: "maxPool1d",
    fn: maxPool1d,
    torch: "F.max_pool1d(a, 2)",
    samples: [
      { inputs: [line], args: [2] },
      { inputs: [input([3, 9])], args: [3, { stride: 2, padding: 1 }], torch: "F.max_pool1d(a, 3, 2, 1)" },
      {
        inputs: [line],
        args: [3, { stride: 2, dilation: 2, ceilMode: true, returnIndices: true }],
        torch: "F.max_pool1d(a, 3, 2, 0, 2, ceil_mode=True, return_indices=True)",
      },
    ],
  },
  {
    name: "maxPool2d",
    fn: maxPool2d,
    torch: "F.max_pool2d(a, 2)",
    samples: [
      { inputs: [image], args: [2] },
      { inputs: [wide], args: [2, { stride: 1 }], torch: "F.max_pool2d(a, 2, 1)" },
      {
        inputs: [image],
        args: [3, { stride: 2, padding: 1, returnIndices: true }],
        torch: "F.max_pool2d(a, 3, 2, 1, return_indices=True)",
      },
      {
        inputs: [input([3, 7, 6])],
        args: [[3, 2], { stride: [2, 3], padding: [1, 0], ceilMode: true, returnIndices: true }],
        torch: "F.max_pool2d(a, (3, 2), (2, 3), (1, 0), ceil_mode=True, return_indices=True)",
      },
      { inputs: [image], args: [2, { stride: 1, padding: 1, dilation: [3, 2] }], torch: "F.max_pool2d(a, 2, 1, 1, (3, 2))" },
      { inputs: [input([1, 2, 20, 19])], args: [17, { stride: 1, padding: 3 }], torch: "F.max_pool2d(a, 17, 1, 3)" },
      { inputs: [input([0, 3, 4, 4])], args: [2] },
      { inputs: [nan], args: [2, { stride: 1, returnIndices: true }], torch: "F.max_pool2d(a, 2, 1, return_indices=True)", kink: true },
      { inputs: [ties], args: [2, { stride: 1, returnIndices: true }], torch: "F.max_pool2d(a, 2, 1, return_indices=True)", kink: true },
      {
        inputs: [infinite],
        args: [2, { padding: 1, returnIndices: true }],
        torch: "F.max_pool2d(a, 2, 2, 1, return_indices=True)",
        kink: true,
      },
    ],
    errors: [
      badRank,
      badDType,
      { inputs: [image], args: [0], error: RangeError, message: "kernelSize must be whole numbers >= 1" },
      { inputs: [image], args: [[2, 2, 2]], error: RangeError, message: "kernelSize must be a number or 2 of them" },
      { inputs: [image], args: [2, { stride: 0 }], error: RangeError, message: "stride must be whole numbers >= 1" },
      { inputs: [image], args: [2, { padding: 2 }], error: RangeError, message: "padding must be at most half of the window, got 2" },
      { inputs: [image], args: [9], error: ShapeError, message: "a window of 9 does not fit an axis of 7" },
      { inputs: [input([2, 0, 4, 4])], args: [2], error: ShapeError, message: "only the batch may be empty" },
    ],
  },
  {
    name: "maxPool3d",
    fn: maxPool3d,
    torch: "F.max_pool3d(a, 2)",
    samples: [
      { inputs: [volume], args: [2] },
      {
        inputs: [input([2, 5, 4, 6])],
        args: [[3, 2, 3], { stride: [2, 1, 2], padding: [1, 1, 0], ceilMode: true, returnIndices: true }],
        torch: "F.max_pool3d(a, (3, 2, 3), (2, 1, 2), (1, 1, 0), ceil_mode=True, return_indices=True)",
      },
    ],
  },
  {
    name: "avgPool1d",
    fn: avgPool1d,
    torch: "F.avg_pool1d(a, 2)",
    samples: [
      { inputs: [line], args: [2] },
      {
        inputs: [input([3, 9])],
        args: [4, { stride: 3, padding: 2, ceilMode: true, countIncludePad: false }],
        torch: "F.avg_pool1d(a, 4, 3, 2, True, False)",
      },
    ],
  },
  {
    name: "avgPool2d",
    fn: avgPool2d,
    torch: "F.avg_pool2d(a, 2)",
    samples: [
      { inputs: [image], args: [2] },
      { inputs: [wide], args: [2, { stride: 1 }], torch: "F.avg_pool2d(a, 2, 1)" },
      { inputs: [image], args: [3, { stride: 2, padding: 1, ceilMode: true }], torch: "F.avg_pool2d(a, 3, 2, 1, True)" },
      {
        inputs: [image],
        args: [[3, 2], { stride: [2, 3], padding: 1, ceilMode: true, countIncludePad: false }],
        torch: "F.avg_pool2d(a, (3, 2), (2, 3), 1, True, False)",
      },
      { inputs: [input([3, 7, 6])], args: [3, { divisorOverride: -2.0 }], torch: "F.avg_pool2d(a, 3, divisor_override=-2)" },
      { inputs: [input([0, 3, 4, 4])], args: [2] },
    ],
    errors: [
      badRank,
      badDType,
      { inputs: [image], args: [2, { divisorOverride: 0 }], error: RangeError, message: "divisorOverride must be a number other than 0" },
      { inputs: [image], args: [3, { padding: 2 }], error: RangeError, message: "padding must be at most half of the window" },
    ],
  },
  {
    name: "avgPool3d",
    fn: avgPool3d,
    torch: "F.avg_pool3d(a, 2)",
    samples: [
      { inputs: [volume], args: [2] },
      {
        inputs: [input([2, 5, 4, 6])],
        args: [[3, 2, 3], { stride: 2, padding: 1, ceilMode: true, countIncludePad: false }],
        torch: "F.avg_pool3d(a, (3, 2, 3), 2, 1, True, False)",
      },
    ],
  },
  {
    name: "adaptiveAvgPool1d",
    fn: adaptiveAvgPool1d,
    torch: "F.adaptive_avg_pool1d(a, 4)",
    samples: [{ inputs: [line], args: [4] }, { inputs: [input([3, 9])], args: [4] }],
  },
  {
    name: "adaptiveAvgPool2d",
    fn: adaptiveAvgPool2d,
    torch: "F.adaptive_avg_pool2d(a, 1)",
    samples: [
      { inputs: [image], args: [1] },
      { inputs: [image], args: [[3, null]], torch: "F.adaptive_avg_pool2d(a, (3, None))" },
      { inputs: [input([3, 7, 6])], args: [[9, 4]], torch: "F.adaptive_avg_pool2d(a, (9, 4))" },
    ],
    errors: [badRank, { inputs: [image], args: [0], error: RangeError, message: "outputSize must be whole numbers >= 1" }],
  },
  {
    name: "adaptiveAvgPool3d",
    fn: adaptiveAvgPool3d,
    torch: "F.adaptive_avg_pool3d(a, (2, 3, 4))",
    samples: [{ inputs: [volume], args: [[2, 3, 4]] }],
  },
  {
    name: "adaptiveMaxPool1d",
    fn: adaptiveMaxPool1d,
    torch: "F.adaptive_max_pool1d(a, 4, return_indices=True)",
    samples: [{ inputs: [line], args: [4, { returnIndices: true }] }],
  },
  {
    name: "adaptiveMaxPool2d",
    fn: adaptiveMaxPool2d,
    torch: "F.adaptive_max_pool2d(a, (3, 4), return_indices=True)",
    samples: [
      { inputs: [image], args: [[3, 4], { returnIndices: true }] },
      { inputs: [input([3, 7, 6])], args: [[3, 4], { returnIndices: true }] },
      { inputs: [wide], args: [[2, 7]], torch: "F.adaptive_max_pool2d(a, (2, 7))" },
      { inputs: [ties], args: [1, { returnIndices: true }], torch: "F.adaptive_max_pool2d(a, 1, return_indices=True)", kink: true },
    ],
    errors: [badDType],
  },
  {
    name: "adaptiveMaxPool3d",
    fn: adaptiveMaxPool3d,
    torch: "F.adaptive_max_pool3d(a, (2, 3, 4), return_indices=True)",
    samples: [{ inputs: [volume], args: [[2, 3, 4], { returnIndices: true }] }],
  },
  {
    name: "maxUnpool1d",
    fn: maxUnpool1d,
    torch: "F.max_unpool1d(a, b, 2)",
    samples: [{ inputs: [input([2, 3]), input([2, 3], { dtype: "int64", values: [1, 2, 5, 0, 3, 4] })], args: [{ kernelSize: 2 }] }],
  },
  {
    name: "maxUnpool2d",
    fn: maxUnpool2d,
    torch: "F.max_unpool2d(a, b, 2)",
    samples: [
      {
        inputs: [input([1, 2, 2, 2]), input([1, 2, 2, 2], { dtype: "int64", values: [0, 3, 9, 14, 5, 6, 12, 11] })],
        args: [{ kernelSize: 2 }],
      },
      {
        inputs: [input([2, 2, 2]), input([2, 2, 2], { dtype: "int64", values: [0, 3, 9, 14, 5, 6, 12, 24] })],
        args: [{ kernelSize: 2, outputSize: [5, 5] }],
        torch: "F.max_unpool2d(a, b, 2, output_size=(5, 5))",
      },
    ],
    errors: [
      {
        inputs: [input([1, 1, 1, 2]), input([1, 1, 1, 2], { dtype: "int64", values: [0, 8] })],
        args: [{ kernelSize: 2 }],
        error: RangeError,
        message: "an index is outside 0 .. 7",
      },
      {
        inputs: [input([1, 1, 1, 2]), input([1, 1, 1, 2], { dtype: "int32", values: [0, 7] })],
        args: [{ kernelSize: 2 }],
        error: DTypeError,
        message: "indices must be int64, got int32",
      },
      {
        inputs: [input([1, 1, 1, 2]), input([1, 1, 2], { dtype: "int64", values: [0, 7] })],
        args: [{ kernelSize: 2 }],
        error: ShapeError,
        message: "indices are [1, 1, 2], the input is [1, 1, 1, 2]",
      },
      {
        inputs: [input([1, 1, 1, 2]), input([1, 1, 1, 2], { dtype: "int64", values: [0, 7] })],
        args: [{ kernelSize: 2, outputSize: [4, 4] }],
        error: RangeError,
        message: "outputSize must end in sizes less than [2, 2] away from [2, 4]",
      },
    ],
  },
  {
    name: "maxUnpool3d",
    fn: maxUnpool3d,
    torch: "F.max_unpool3d(a, b, 2)",
    samples: [{
      inputs: [input([1, 1, 1, 2, 2]), input([1, 1, 1, 2, 2], { dtype: "int64", values: [0, 31, 9, 14] })],
      args: [{ kernelSize: 2 }],
    }],
  },
];
