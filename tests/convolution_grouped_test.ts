import { assert } from "@std/assert";
import { cat, conv2d, type ConvOptions, grad, scope, type Tensor } from "../mod.ts";
import { textOf } from "../tensor/shape.ts";
import { numbers, relativeError } from "./convolution_data.ts";
import "./device.ts";

/** N, C, O, H, W, groups, kernel and the other settings. */
const groupedShapes: [number, number, number, number, number, number, number[], ConvOptions][] = [
  [2, 37, 37, 7, 9, 37, [3, 3], { padding: 1 }], // depthwise
  [2, 16, 16, 8, 21, 16, [3, 3], { padding: 1, stride: 2 }],
  [1, 20, 20, 9, 10, 20, [5, 2], { padding: [2, 3], stride: [1, 3], dilation: [2, 1] }],
  [1, 12, 24, 5, 6, 12, [3, 3], { padding: 1 }], // two filters a channel
  [2, 24, 12, 6, 5, 12, [3, 1], { dilation: 2 }], // two channels a filter
  [1, 64, 64, 9, 8, 16, [3, 3], { padding: 1 }],
  [2, 15, 25, 6, 7, 5, [3, 3], { padding: 1, stride: 2 }],
  [1, 80, 4, 5, 4, 2, [2, 2], { stride: 2 }],
  [1, 8, 80, 4, 9, 4, [1, 1], {}],
  [1, 6, 6, 3, 40, 3, [1, 4], { padding: [0, 9], stride: [1, 5] }],
  [2, 34, 52, 9, 8, 2, [3, 3], { padding: 1 }], // Winograd in groups
  [2, 48, 32, 16, 9, 2, [4, 4], { padding: 1, stride: 2 }],
  [1, 60, 40, 5, 5, 2, [3, 2], { padding: 1 }],
];

Deno.test("conv2d() in groups is a convolution of each group", () => {
  for (const [N, C, O, H, W, groups, kernel, options] of groupedShapes) {
    scope(() => {
      const run = (dtype: "float32" | "float64", apart: boolean): Tensor[] => {
        const x = numbers([N, C, H, W], 1).to(dtype).requiresGrad_(), b = numbers([O], 3).to(dtype).requiresGrad_();
        const w = numbers([O, C / groups, ...kernel], 2).to(dtype).requiresGrad_();
        const parts = apart ? [x.chunk(groups, 1), w.chunk(groups, 0), b.chunk(groups, 0)] : [];
        const y = apart
          ? cat(parts[0].map((x, i) => conv2d(x, parts[1][i], parts[2][i], options)), 1)
          : conv2d(x, w, b, { ...options, groups });
        return [y.detach(), ...grad([y], [x, w, b], { gradOutputs: [numbers(y.shape, 4).to(dtype)] })];
      };
      const exact = run("float64", true).map((v) => v.data() as Float64Array);
      for (const dtype of ["float32", "float64"] as const) {
        run(dtype, false).forEach((v, i) => {
          const error = relativeError(v, exact[i]);
          assert(
            error < (dtype === "float32" ? 1e-5 : 1e-13),
            `${"y dx dw db".split(" ")[i]} of ${textOf([N, C, O, H, W, groups])} in ${dtype}: ${error}`,
          );
        });
      }
    });
  }
});
