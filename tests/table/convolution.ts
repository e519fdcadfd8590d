import {
  conv1d,
  conv2d,
  conv3d,
  type ConvOptions,
  convTranspose1d,
  convTranspose2d,
  convTranspose3d,
  type ConvTransposeOptions,
  DTypeError,
  ShapeError,
  type Tensor,
} from "../../mod.ts";
import { input, type Row, type Sample } from "../op_table.ts";

type Options = ConvOptions & Pick<ConvTransposeOptions, "outputPadding">;
// deno-lint-ignore no-explicit-any
type Function = (x: Tensor, w: Tensor, b?: Tensor | null, options?: any) => Tensor;

/** A sample: shapes of input and weight, and options. */
type Given = [x: number[], w: number[], options?: Options, bias?: boolean];

function python(value: unknown): string {
  return typeof value === "string" ? `"${value}"` : Array.isArray(value) ? `(${value.join(", ")},)` : String(value);
}

// Winograd's rounding error is relative to the largest outputs, not to each: 4e-5 of single elements where outputs cancel.
const WINOGRAD = 4e-5;

function row(name: string, fn: Function, torch: string, transposed: boolean, given: readonly Given[], tolerance?: number): Row {
  const samples: Sample[] = given.map(([x, w, options, bias = true]) => {
    const filters = transposed ? w[1] * (options?.groups ?? 1) : w[0];
    const inputs = [input(x), input(w, { seed: 2, low: -1, high: 1 }), ...(bias ? [input([filters], { seed: 3, optional: true })] : [])];
    const named = Object.entries(options ?? {}).map(([key, value]) =>
      `, ${key.replace("outputPadding", "output_padding")}=${python(value)}`
    );
    return { inputs, args: bias ? [options] : [null, options], torch: `${torch}(a, b, ${bias ? "c" : "None"}${named.join("")})` };
  });
  const [x, w] = given[0];
  return {
    name,
    fn,
    torch: `${torch}(a, b, c)`,
    tolerance,
    samples,
    errors: [
      { inputs: [input(x, { dtype: "int64" }), input(w)], error: DTypeError, message: `${name}: takes a floating point tensor, got int64` },
      { inputs: [input([2]), input(w)], error: ShapeError, message: `${name}: the input must have` },
      { inputs: [input(x), input(x.slice(1))], error: ShapeError, message: `${name}: the weight must be` },
      { inputs: [input(x), input(w), input([1])], error: ShapeError, message: `${name}: the bias must be` },
      {
        inputs: [input(x), input(w)],
        args: [null, { stride: 0 }],
        error: RangeError,
        message: `${name}: stride must be whole numbers >= 1`,
      },
      { inputs: [input(x), input(w)], args: [null, { groups: 0 }], error: RangeError, message: `${name}: groups must be` },
    ],
  };
}

export const convolution: readonly Row[] = [
  row("conv1d", conv1d, "F.conv1d", false, [
    [[2, 3, 7], [2, 3, 3]],
    [[3, 5], [4, 3, 2], { stride: 2, padding: 1 }],
    [[2, 4, 6], [4, 2, 3], { groups: 2, dilation: 2, padding: "same" }],
    [[1, 2, 5], [3, 2, 4], { padding: "same" }, false],
    [[0, 2, 5], [3, 2, 2]],
  ]),
  row("conv2d", conv2d, "F.conv2d", false, [
    [[2, 3, 5, 4], [2, 3, 3, 3]],
    [[3, 4, 5], [5, 3, 3, 3], { padding: 1 }],
    [[1, 4, 6, 5], [4, 1, 3, 3], { groups: 4, stride: 2, padding: 1 }],
    [[1, 4, 3, 4], [6, 2, 2, 2], { groups: 2, padding: "same" }, false],
    [[2, 2, 7, 6], [3, 2, 3, 2], { stride: [3, 2], padding: [2, 1], dilation: [2, 3] }],
    [[1, 5, 3, 3], [3, 5, 1, 1], { stride: 2 }, false],
    [[1, 17, 5, 4], [18, 17, 3, 3], { padding: 1 }],
    [[1, 1, 4, 4], [2, 1, 4, 4], { stride: 2, padding: 1 }],
    [[1, 2, 2, 3], [2, 2, 2, 2], { padding: "valid" }],
  ], WINOGRAD),
  row("conv3d", conv3d, "F.conv3d", false, [
    [[1, 2, 3, 4, 3], [3, 2, 2, 3, 2]],
    [[2, 3, 4, 4], [2, 2, 1, 2, 3], { padding: [1, 0, 1], stride: [1, 2, 1] }],
    [[1, 4, 3, 3, 3], [4, 2, 2, 2, 2], { groups: 2, dilation: [1, 2, 1], padding: "same" }, false],
  ]),
  row("convTranspose1d", convTranspose1d, "F.conv_transpose1d", true, [
    [[2, 3, 4], [3, 2, 3]],
    [[2, 5], [2, 3, 4], { stride: 3, padding: 1, outputPadding: 2 }],
    [[1, 4, 3], [4, 2, 2], { groups: 2, dilation: 2, outputPadding: 1 }, false],
  ]),
  row("convTranspose2d", convTranspose2d, "F.conv_transpose2d", true, [
    [[2, 3, 3, 4], [3, 2, 2, 2], { stride: 2 }],
    [[3, 3, 4], [3, 2, 3, 3], { padding: 1 }],
    [[1, 4, 3, 2], [4, 1, 3, 2], { groups: 4, stride: [2, 3], padding: [1, 0], outputPadding: [1, 2] }],
    [[1, 2, 3, 3], [2, 3, 1, 1], { stride: 3, outputPadding: 1 }, false],
    [[1, 2, 3, 3], [2, 3, 3, 2], { stride: 1, dilation: [3, 2], outputPadding: [2, 1] }],
    [[1, 18, 3, 4], [18, 17, 3, 3], { padding: 1 }],
  ], WINOGRAD),
  row("convTranspose3d", convTranspose3d, "F.conv_transpose3d", true, [
    [[1, 2, 2, 3, 2], [2, 3, 2, 2, 3], { stride: [2, 1, 2], padding: [0, 1, 1], outputPadding: [1, 0, 1] }],
    [[4, 2, 2, 2], [4, 1, 2, 2, 1], { groups: 2 }, false],
  ]),
];
