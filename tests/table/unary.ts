import * as dg from "../../mod.ts";
import { DTypeError, type Unary } from "../../mod.ts";
import { input, type InputOptions, type Row, type Sample, unarySamples } from "../op_table.ts";

const kink = (...values: number[]): Sample => ({ inputs: [input([values.length], { values })], kink: true });
const integers = (options: InputOptions = {}): Sample => ({ inputs: [input([2, 9], { dtype: "int64", low: -9, high: 9, ...options })] });

/** A function that is smooth between `low` and `high`. */
function smooth(name: keyof typeof dg & string, low = -2, high = 2, more: Sample[] = [], rest: Partial<Row> = {}): Row {
  return { name, fn: dg[name] as Unary, torch: `torch.${name}(a)`, samples: [...unarySamples(low, high), ...more], ...rest };
}

/** A function to whole numbers or truth values: nothing to differentiate. */
function step(name: keyof typeof dg & string, python: string, more: Sample[]): Row {
  return {
    name,
    fn: dg[name] as Unary,
    torch: `torch.${python}(a)`,
    samples: [...unarySamples(-2.9, 2.9).map((it) => ({ ...it, kink: true })), ...more],
  };
}

const ends = kink(0, -0, Infinity, -Infinity, NaN);

export const unary: readonly Row[] = [
  smooth("neg", -2, 2, [integers(), ends]),
  smooth("abs", 0.25, 2, [integers(), kink(-1, 0, 2)]),
  smooth("square", -2, 2, [integers()]),
  smooth("sqrt", 0.25, 4, [integers({ low: 0 })]),
  smooth("rsqrt", 0.25, 4),
  smooth("reciprocal", 0.25, 4, [integers({ low: 1 })]),
  smooth("exp", -2, 2, [kink(88, -100, 710, Infinity, -Infinity, NaN)], { dtypes: ["float32"] }),
  smooth("exp2"),
  smooth("expm1", -2, 2, [kink(1e-8, -1e-8, 0, -30)]),
  smooth("log", 0.25, 4, [kink(0, -1, Infinity, NaN)]),
  smooth("log2", 0.25, 4),
  smooth("log10", 0.25, 4),
  smooth("log1p", -0.5, 4, [kink(1e-8, -1e-8, 0, -1, -2)]),
  smooth("sin", -4, 4, [kink(1e6, 2 ** 66, Infinity, NaN)], { dtypes: ["float32"] }),
  smooth("cos", -4, 4),
  smooth("tan", -1.25, 1.25),
  smooth("asin", -0.75, 0.75),
  smooth("acos", -0.75, 0.75),
  smooth("atan"),
  smooth("sinh"),
  smooth("cosh"),
  smooth("tanh", -3, 3, [kink(20, -20, 0, Infinity, NaN)]),
  smooth("asinh"),
  smooth("acosh", 1.25, 3),
  smooth("atanh", -0.75, 0.75),
  smooth("erf", -3, 3),
  smooth("erfc", -3, 3),
  step("sign", "sign", [integers(), kink(0, -0, NaN)]),
  step("ceil", "ceil", [integers(), ends]),
  step("floor", "floor", [integers(), ends]),
  step("round", "round", [integers(), kink(0.5, 1.5, 2.5, -0.5, -1.5)]),
  step("trunc", "trunc", [integers(), ends]),
  smooth("frac", 0.25, 0.75, [kink(-1.5, 2.25)]),
  step("isnan", "isnan", [integers(), ends]),
  step("isinf", "isinf", [integers(), ends]),
  step("isfinite", "isfinite", [integers(), ends]),
  step("logicalNot", "logical_not", [integers(), { inputs: [input([5], { dtype: "bool", low: 0, high: 2 })] }]),
  {
    name: "clamp",
    fn: dg.clamp,
    torch: "torch.clamp(a, -0.5, 1)",
    samples: [
      { inputs: [input([2, 9])], args: [-0.5, 1] },
      { inputs: [input([2, 9])], args: [-0.5], torch: "torch.clamp(a, min=-0.5)" },
      { inputs: [input([2, 9])], args: [null, 1], torch: "torch.clamp(a, max=1)" },
      { inputs: [input([4], { values: [-0.5, 1, 0, 3] })], args: [-0.5, 1], kink: true },
      { inputs: [input([9], { dtype: "int64", low: -9, high: 9 })], args: [-3, 4], torch: "torch.clamp(a, -3, 4)" },
    ],
    errors: [
      { inputs: [input([2])], args: [null, null], error: RangeError, message: "at least one of min and max" },
      { inputs: [input([2])], args: [NaN], error: RangeError, message: "a bound is NaN" },
    ],
  },
  {
    name: "bitwiseNot",
    fn: dg.bitwiseNot,
    torch: "torch.bitwise_not(a)",
    samples: [
      { inputs: [input([5], { dtype: "int32", low: -9, high: 9 })] },
      { inputs: [input([5], { dtype: "uint8", low: 0, high: 256 })] },
      { inputs: [input([5], { dtype: "bool", low: 0, high: 2 })] },
    ],
    errors: [{ inputs: [input([2])], error: DTypeError, message: "got float64" }],
  },
];
