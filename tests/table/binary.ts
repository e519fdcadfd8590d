import * as dg from "../../mod.ts";
import { type DType, DTypeError, ShapeError } from "../../mod.ts";
import { binarySamples, input, type InputOptions, type Row, type Sample } from "../op_table.ts";

const positive: InputOptions = { low: 0.25, high: 3 };
const whole: InputOptions = { dtype: "int64", low: -9, high: 10 };
const divisor: InputOptions = { dtype: "int64", low: 1, high: 5 };
const mismatch = (name: string) => ({
  inputs: [input([2, 3]), input([4])],
  error: ShapeError,
  message: `${name}: shapes do not broadcast: [2, 3] and [4] differ in axis -1 (3 and 4)`,
});
const noDivision = {
  inputs: [input([2], { dtype: "int32", low: 1, high: 5 })],
  args: [0],
  error: RangeError,
  message: "integer division by zero",
};

function integers(first: InputOptions = whole, second: InputOptions = whole): Sample[] {
  return [
    { inputs: [input([2, 9], first), input([2, 9], { ...second, seed: 2 })] },
    { inputs: [input([2, 9], { ...first, dtype: "int32" }), input([9], { ...second, dtype: "int32", seed: 2 })] },
  ];
}
const number = (value: number, torch: string, options: InputOptions = {}, kink = false): Sample => ({
  inputs: [input([2, 17], options)],
  args: [value],
  torch,
  kink,
});
const bytes = (dtype: DType): Sample => ({
  inputs: [
    input([20], { dtype, low: 0, high: dtype === "bool" ? 2 : 256 }),
    input([20], { dtype, low: 0, high: dtype === "bool" ? 2 : 256, seed: 2 }),
  ],
});

function bitwise(name: "bitwiseAnd" | "bitwiseOr" | "bitwiseXor", operator: string): Row {
  return {
    name,
    fn: dg[name],
    torch: `a ${operator} b`,
    samples: [...integers(), bytes("uint8"), bytes("bool"), number(5, `a ${operator} 5`, whole)],
    errors: [{ inputs: [input([2]), input([2])], error: DTypeError, message: `${name}: takes integer or bool tensors` }],
  };
}

function shift(name: "bitwiseLeftShift" | "bitwiseRightShift", operator: string): Row {
  return {
    name,
    fn: dg[name],
    torch: `a ${operator} b`,
    samples: [...integers(whole, divisor), number(3, `a ${operator} 3`, whole)],
    errors: [{ inputs: [input([2])], args: [1], error: DTypeError, message: `${name}: takes an integer or bool tensor` }],
  };
}

function comparison(name: "eq" | "ne" | "lt" | "le" | "gt" | "ge"): Row {
  const ties: Sample = {
    inputs: [input([6], { values: [1, 2, 3, NaN, 0, Infinity] }), input([6], { values: [1, 3, 2, NaN, -0, Infinity] })],
  };
  return {
    name,
    fn: dg[name],
    torch: `torch.${name}(a, b)`,
    gradient: false,
    samples: [
      ...binarySamples(),
      ties,
      ...integers(),
      bytes("bool"),
      number(0.5, `torch.${name}(a, 0.5)`),
      number(0.5, `torch.${name}(a, 0.5)`, whole),
    ],
    errors: [mismatch(name)],
  };
}

function logical(name: "logicalAnd" | "logicalOr" | "logicalXor", python: string): Row {
  const samples = [{ inputs: [input([6], { values: [0, 0, 1, 2, NaN, 0] }), input([6], { values: [0, 1, 0, 3, 0, NaN] })] }];
  return { name, fn: dg[name], torch: `torch.${python}(a, b)`, gradient: false, samples: [...samples, ...integers(), bytes("bool")] };
}

export const binary: readonly Row[] = [
  {
    name: "add",
    fn: dg.add,
    torch: "a + b",
    samples: [
      ...binarySamples(),
      ...integers(),
      bytes("bool"),
      number(2.5, "a + 2.5"),
      number(2.5, "a + 2.5", whole),
      { inputs: [input([7]), input([7], { seed: 2 })], args: [{ alpha: -2 }], torch: "torch.add(a, b, alpha=-2)" },
    ],
    errors: [mismatch("add")],
  },
  {
    name: "sub",
    fn: dg.sub,
    torch: "a - b",
    samples: [...binarySamples(), ...integers(), bytes("uint8"), number(2.5, "a - 2.5")],
    errors: [mismatch("sub"), {
      inputs: [input([2], { dtype: "bool" }), input([2], { dtype: "bool" })],
      error: DTypeError,
      message: "logicalXor",
    }],
  },
  { name: "rsub", fn: dg.rsub, torch: "2.5 - a", samples: [number(2.5, "2.5 - a")] },
  {
    name: "mul",
    fn: dg.mul,
    torch: "a * b",
    samples: [...binarySamples(), ...integers(), bytes("uint8"), bytes("bool"), number(2.5, "a * 2.5")],
    errors: [mismatch("mul")],
  },
  {
    name: "div",
    fn: dg.div,
    torch: "a / b",
    samples: [
      ...binarySamples({}, positive),
      ...integers(whole, divisor),
      number(2.5, "a / 2.5"),
      {
        inputs: [input([9]), input([9], positive)],
        args: [{ rounding: "floor" }],
        torch: 'torch.div(a, b, rounding_mode="floor")',
        kink: true,
      },
      {
        inputs: [input([9]), input([9], positive)],
        args: [{ rounding: "trunc" }],
        torch: 'torch.div(a, b, rounding_mode="trunc")',
        kink: true,
      },
      { inputs: [input([9], whole), input([9], divisor)], args: [{ rounding: "trunc" }], torch: 'torch.div(a, b, rounding_mode="trunc")' },
      { inputs: [input([4], { values: [1, -1, 0, 5] }), input([4], { values: [0, 0, 0, Infinity] })], kink: true },
    ],
    errors: [mismatch("div")],
  },
  { name: "rdiv", fn: dg.rdiv, torch: "2.5 / a", samples: [number(2.5, "2.5 / a", positive)] },
  {
    name: "pow",
    fn: dg.pow,
    torch: "a ** b",
    samples: [
      ...binarySamples(positive, {}),
      ...[2, 3, 0.5, -1, 1.7, 0, -2].map((p) => number(p, `a ** ${p}`, positive)),
      { inputs: [input([4], { values: [0, 0, -2, 2] }), input([4], { values: [0, 2, 2, 0] })], kink: true },
      ...integers({ dtype: "int64", low: -4, high: 5 }, { dtype: "int64", low: 0, high: 4 }),
    ],
    errors: [mismatch("pow")],
  },
  {
    name: "floorDivide",
    fn: dg.floorDivide,
    torch: "torch.floor_divide(a, b)",
    samples: [...integers(whole, divisor), {
      inputs: [input([20], { dtype: "uint8", low: 0, high: 256 }), input([20], { dtype: "uint8", low: 200, high: 256, seed: 2 })],
    }],
    errors: [noDivision],
  },
  {
    name: "remainder",
    fn: dg.remainder,
    torch: "torch.remainder(a, b)",
    samples: [
      ...binarySamples({}, positive),
      ...integers(whole, divisor),
      number(-0.77, "torch.remainder(a, -0.77)"),
      number(-3, "torch.remainder(a, -3)", whole),
    ],
    errors: [noDivision],
    dtypes: ["float32"],
  },
  {
    name: "fmod",
    fn: dg.fmod,
    torch: "torch.fmod(a, b)",
    samples: [...binarySamples({}, positive), ...integers(whole, divisor), number(0.77, "torch.fmod(a, 0.77)")],
    errors: [noDivision],
    dtypes: ["float32"],
  },
  {
    name: "atan2",
    fn: dg.atan2,
    torch: "torch.atan2(a, b)",
    samples: binarySamples(positive, positive),
    errors: [mismatch("atan2")],
  },
  {
    name: "maximum",
    fn: dg.maximum,
    torch: "torch.maximum(a, b)",
    samples: [...binarySamples(), ...integers(), {
      inputs: [input([4], { values: [1, 2, NaN, 3] }), input([4], { values: [1, 5, 0, NaN] })],
      kink: true,
    }],
    errors: [mismatch("maximum")],
  },
  {
    name: "minimum",
    fn: dg.minimum,
    torch: "torch.minimum(a, b)",
    samples: [...binarySamples(), ...integers(), {
      inputs: [input([4], { values: [1, 2, NaN, 3] }), input([4], { values: [1, 5, 0, NaN] })],
      kink: true,
    }],
    errors: [mismatch("minimum")],
  },
  bitwise("bitwiseAnd", "&"),
  bitwise("bitwiseOr", "|"),
  bitwise("bitwiseXor", "^"),
  shift("bitwiseLeftShift", "<<"),
  shift("bitwiseRightShift", ">>"),
  ...(["eq", "ne", "lt", "le", "gt", "ge"] as const).map(comparison),
  logical("logicalAnd", "logical_and"),
  logical("logicalOr", "logical_or"),
  logical("logicalXor", "logical_xor"),
  {
    name: "where",
    fn: dg.where,
    torch: "torch.where(a, b, c)",
    samples: [
      { inputs: [input([2, 3], { dtype: "bool", low: 0, high: 2 }), input([3]), input([2, 1], { seed: 2 })] },
      { inputs: [input([2, 3], { dtype: "bool", low: 0, high: 2 }), input([2, 3])], args: [0.5], torch: "torch.where(a, b, 0.5)" },
    ],
    errors: [{
      inputs: [input([2]), input([2]), input([2])],
      error: DTypeError,
      message: "where: the condition must be bool, got float64",
    }],
  },
  {
    name: "lerp",
    fn: dg.lerp,
    torch: "torch.lerp(a, b, c)",
    samples: [{ inputs: [input([7]), input([7], { seed: 2 }), input([7], { seed: 3, low: 0, high: 1 })] }],
  },
];
