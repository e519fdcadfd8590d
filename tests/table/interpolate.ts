import { interpolate, ShapeError } from "../../mod.ts";
import { input, type Row } from "../op_table.ts";

// Every combination is in tests/interpolate_test.ts; these are the samples that run through the table's other checks.
const image = input([2, 3, 5, 4]);

export const interpolation: readonly Row[] = [
  {
    name: "interpolate",
    fn: interpolate,
    torch: "F.interpolate(a, scale_factor=2)",
    tolerance: 2e-5,
    samples: [
      { inputs: [image], args: [{ scaleFactor: 2 }] },
      { inputs: [input([1, 70, 2, 3])], args: [{ size: 5 }], torch: "F.interpolate(a, size=5)" },
      {
        inputs: [image],
        args: [{ size: [3, 7], mode: "bilinear", alignCorners: true }],
        torch: 'F.interpolate(a, size=(3, 7), mode="bilinear", align_corners=True)',
      },
      {
        inputs: [input([1, 70, 2, 3])],
        args: [{ scaleFactor: 2, mode: "bilinear" }],
        torch: 'F.interpolate(a, scale_factor=2, mode="bilinear")',
      },
      { inputs: [image], args: [{ scaleFactor: 1.5, mode: "bicubic" }], torch: 'F.interpolate(a, scale_factor=1.5, mode="bicubic")' },
      {
        inputs: [image],
        args: [{ size: [2, 3], mode: "bicubic", antialias: true }],
        torch: 'F.interpolate(a, size=(2, 3), mode="bicubic", antialias=True)',
      },
      { inputs: [input([2, 2, 7])], args: [{ size: 4, mode: "linear" }], torch: 'F.interpolate(a, size=4, mode="linear")' },
      {
        inputs: [input([1, 2, 3, 2, 4])],
        args: [{ size: [2, 3, 5], mode: "trilinear" }],
        torch: 'F.interpolate(a, size=(2, 3, 5), mode="trilinear")',
      },
      { inputs: [image], args: [{ size: 3, mode: "area" }], torch: 'F.interpolate(a, size=3, mode="area")' },
    ],
    errors: [{ inputs: [input([4])], args: [{ size: 2 }], error: ShapeError, message: 'mode "nearest" takes 3, 4, 5 axes' }],
  },
];
