import { DTypeError, glu, prelu, ShapeError, type Tensor } from "../../mod.ts";
import * as ops from "../../ops/mod.ts";
import { input, type Row, type Sample, shapes } from "../op_table.ts";

/** Samples between `low` and `high` with the op's arguments, and its kinks. */
function row(name: keyof typeof ops & string, torch: string, kinks: number[] = [], args: unknown[] = [], low = -4, high = 4): Row {
  const samples: Sample[] = shapes.map((shape) => ({ inputs: [input(shape, { low, high })], args }));
  if (kinks.length > 0) samples.push({ inputs: [input([kinks.length], { values: kinks })], args, kink: true });
  return {
    name,
    fn: ops[name] as (x: Tensor, ...args: unknown[]) => Tensor,
    torch,
    samples,
    errors: [{ inputs: [input([2], { dtype: "int64" })], error: DTypeError, message: `${name}: takes a floating point tensor, got int64` }],
  };
}

/** The samples of another row as well. */
function also(first: Row, ...others: Row[]): Row {
  return { ...first, samples: [first, ...others].flatMap((it) => it.samples.map((sample) => ({ ...sample, torch: it.torch }))) };
}

const ends = [-100, 100, Infinity, NaN];

export const activation: readonly Row[] = [
  row("relu", "F.relu(a)", [-1, 0, -0, 2, NaN]),
  also(row("leakyRelu", "F.leaky_relu(a)", [-1, 0, 2]), row("leakyRelu", "F.leaky_relu(a, 0.3)", [], [0.3])),
  also(row("elu", "F.elu(a)", [-1, 0, 2, -100]), row("elu", "F.elu(a, 0.5)", [0], [0.5])),
  row("selu", "F.selu(a)", [-1, 0, 2]),
  also(row("celu", "F.celu(a)", [-1, 0, 2]), row("celu", "F.celu(a, 1.5)", [0], [1.5])),
  also(
    row("gelu", "F.gelu(a)", [-10, 0, 10]),
    row("gelu", 'F.gelu(a, approximate="tanh")', [-10, 0, 10], [{ approximate: "tanh" }]),
  ),
  row("silu", "F.silu(a)", [-100, 0, 100]),
  row("mish", "F.mish(a)", [-100, 0, 100]),
  row("sigmoid", "torch.sigmoid(a)", ends),
  row("logSigmoid", "F.logsigmoid(a)", [-100, 0, 100]),
  also(row("softplus", "F.softplus(a)", [-100, 0, 19.5, 30]), row("softplus", "F.softplus(a, 2, 4)", [1.5, 3], [2, 4])),
  row("softsign", "F.softsign(a)", [0]),
  also(row("hardtanh", "F.hardtanh(a, -1.01, 1.01)", [0], [-1.01, 1.01]), {
    ...row("hardtanh", "F.hardtanh(a)"),
    samples: [{ inputs: [input([4], { values: [-1, 0, 1, 3] })], kink: true }],
  }, row("hardtanh", "F.hardtanh(a, -2.01, 0.51)", [0], [-2.01, 0.51])),
  { ...row("relu6", "F.relu6(a)", [0, 6, 7, -1]), errors: [] },
  row("hardsigmoid", "F.hardsigmoid(a)", [-3, 3, 5]),
  row("hardswish", "F.hardswish(a)", [-5, 0, 5]),
  row("tanhshrink", "F.tanhshrink(a)", [0]),
  also(row("softshrink", "F.softshrink(a)", [-0.5, 0.5, 0]), row("softshrink", "F.softshrink(a, 1.25)", [], [1.25])),
  also(row("hardshrink", "F.hardshrink(a)", [-0.5, 0.5, 0]), row("hardshrink", "F.hardshrink(a, 1.25)", [], [1.25])),
  also(row("threshold", "F.threshold(a, 0.13, 20)", [0], [0.13, 20]), {
    ...row("threshold", "F.threshold(a, 0.5, 20)"),
    samples: [{ inputs: [input([3], { values: [0.5, 0, 1] })], args: [0.5, 20], kink: true }],
  }),
  {
    name: "prelu",
    fn: prelu,
    torch: "F.prelu(a, b)",
    samples: [
      { inputs: [input([2, 3, 5]), input([3], { seed: 2 })] },
      { inputs: [input([33]), input([1], { seed: 2 })] },
      { inputs: [input([2, 4]), input([1], { seed: 2 })] },
      { inputs: [input([0, 3]), input([3], { seed: 2 })] },
      { inputs: [input([3], { values: [-1, 0, 2] }), input([1], { values: [0.25] })], kink: true },
    ],
    errors: [{
      inputs: [input([2, 3]), input([2])],
      error: ShapeError,
      message: "prelu: the weight has shape [2], expected [1] or [3] for an input [2, 3]",
    }],
  },
  {
    name: "glu",
    fn: glu,
    torch: "F.glu(a)",
    samples: [
      { inputs: [input([2, 6])] },
      { inputs: [input([4, 3])], args: [0], torch: "F.glu(a, 0)" },
      { inputs: [input([0, 4])] },
    ],
    errors: [{ inputs: [input([2, 3])], error: ShapeError, message: "glu: axis -1 of [2, 3] must have an even size" }],
  },
];
