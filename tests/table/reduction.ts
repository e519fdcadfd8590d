import * as dg from "../../mod.ts";
import { DTypeError, ShapeError, type Tensor } from "../../mod.ts";
import { input, type InputOptions, type Row, type Sample } from "../op_table.ts";

const ints = ["float32", "float16", "bfloat16"] as const;

/** A reduction over all axes, one, several, and kept ones; `call` is the PyTorch method, `extra` its further arguments. */
function samples(call: string, extra = "", options: InputOptions = {}, before: readonly unknown[] = []): Sample[] {
  const of = (shape: readonly number[], args: readonly unknown[], python: string): Sample => ({
    inputs: [input(shape, options)],
    args: [...before, ...args],
    torch: `${call}(${["a", python, extra].filter((part) => part !== "").join(", ")})`,
  });
  return [
    of([2, 3, 5], [null], "dim=(0, 1, 2)"),
    of([33], [0], "dim=0"),
    of([3, 31], [1], "dim=1"),
    of([31, 3], [0], "dim=0"),
    of([2, 3, 2, 4], [[0, 2]], "dim=(0, 2)"),
    of([2, 3, 2, 4], [[-1, 1], { keepdim: true }], "dim=(-1, 1), keepdim=True"),
  ];
}

function single(call: string, options: InputOptions = {}): Sample[] {
  const of = (shape: readonly number[], args: readonly unknown[], python: string): Sample => ({
    inputs: [input(shape, options)],
    args,
    torch: `${call}(a, ${python})`,
  });
  return [
    of([33], [0], "dim=0"),
    of([3, 31], [1], "dim=1"),
    of([31, 3], [0, { keepdim: true }], "dim=0, keepdim=True"),
    of([2, 3, 4], [1], "dim=1"),
    of([2, 9, 2, 9], [-3], "dim=-3"),
  ];
}

const integers = { dtype: "int64", low: -4, high: 5 } as const;
const truths = { dtype: "bool", low: 0, high: 2 } as const;
const pair = (fn: (x: Tensor, ...args: never[]) => { values: Tensor; indices: Tensor }) => (x: Tensor, ...args: unknown[]): Tensor[] => {
  const { values, indices } = fn(x, ...args as never[]);
  return [values, indices];
};
const outside = { inputs: [input([2, 3])], args: [2], error: RangeError, message: "dim 2 is outside -2 .. 1" };
const nothing = { inputs: [input([0, 3])], args: [0], error: ShapeError, message: "no elements to choose from in [0, 3]" };
const whole = { inputs: [input([3], integers)], error: DTypeError, message: "takes a floating point tensor, got int64" };

export const reduction: readonly Row[] = [
  {
    name: "sum",
    fn: dg.sum,
    torch: "torch.sum(a)",
    samples: [...samples("torch.sum"), { inputs: [input([])] }, { inputs: [input([0, 3])], args: [0], torch: "torch.sum(a, 0)" }, {
      inputs: [input([2, 9], integers)],
      args: [1],
      torch: "torch.sum(a, 1)",
    }, { inputs: [input([2, 9], truths)] }],
    errors: [outside, { inputs: [input([2, 3])], args: [[0, 0]], error: ShapeError, message: "sum: an axis appears twice" }],
  },
  {
    name: "mean",
    fn: dg.mean,
    torch: "torch.mean(a)",
    samples: [...samples("torch.mean"), { inputs: [input([])] }, {
      inputs: [input([0, 3])],
      args: [0],
      torch: "torch.mean(a, 0)",
      kink: true,
    }],
    errors: [outside, whole],
  },
  {
    name: "nansum",
    fn: dg.nansum,
    torch: "torch.nansum(a)",
    samples: [...samples("torch.nansum"), { inputs: [input([4], { values: [1, NaN, 2, NaN] })], kink: true }],
  },
  {
    name: "prod",
    fn: dg.prod,
    torch: "torch.prod(a)",
    samples: [
      ...single("torch.prod", { low: 0.5, high: 1.5 }),
      { inputs: [input([2, 5])] },
      { inputs: [input([2, 3], { values: [2, 0, 3, 0, 4, 0] })], args: [1], torch: "torch.prod(a, 1)", kink: true },
      { inputs: [input([2, 4], integers)] },
    ],
    errors: [outside],
  },
  {
    name: "amax",
    fn: dg.amax,
    torch: "torch.amax(a)",
    samples: [...samples("torch.amax"), { inputs: [input([4], { values: [2, 1, 2, 0] })], kink: true }, {
      inputs: [input([4], { values: [2, NaN, 2, 0] })],
      kink: true,
    }, { inputs: [input([2, 9], integers)], args: [0], torch: "torch.amax(a, 0)" }],
    errors: [outside, nothing],
  },
  {
    name: "amin",
    fn: dg.amin,
    torch: "torch.amin(a)",
    samples: [...samples("torch.amin"), {
      inputs: [input([2, 2], { values: [2, 1, 1, 1] })],
      args: [1],
      torch: "torch.amin(a, 1)",
      kink: true,
    }],
    errors: [outside, nothing],
  },
  {
    name: "max",
    fn: (x: Tensor, ...args: number[]) => args.length === 0 ? dg.max(x) : pair(dg.max)(x, ...args),
    torch: "torch.max(a)",
    samples: [
      ...single("torch.max"),
      { inputs: [input([5, 3])] },
      { inputs: [input([2, 4], { values: [1, 3, 3, 0, NaN, 1, NaN, 2] })], args: [1], torch: "torch.max(a, 1)", kink: true },
      { inputs: [input([3], { values: [2, 2, 1] })], kink: true },
      { inputs: [input([4, 3], integers)], args: [1], torch: "torch.max(a, 1)" },
    ],
    errors: [outside, nothing, { inputs: [input([0])], error: ShapeError, message: "no elements" }],
  },
  {
    name: "min",
    fn: (x: Tensor, ...args: number[]) => args.length === 0 ? dg.min(x) : pair(dg.min)(x, ...args),
    torch: "torch.min(a)",
    samples: [...single("torch.min"), { inputs: [input([5, 3])] }, {
      inputs: [input([2, 4], { values: [1, 0, 3, 0, NaN, 1, NaN, 2] })],
      args: [1],
      torch: "torch.min(a, 1)",
      kink: true,
    }],
    errors: [outside, nothing],
  },
  {
    name: "argmax",
    fn: dg.argmax,
    torch: "torch.argmax(a)",
    gradient: false,
    samples: [...single("torch.argmax"), { inputs: [input([5, 3])] }, { inputs: [input([])] }],
    errors: [outside, nothing],
  },
  {
    name: "argmin",
    fn: dg.argmin,
    torch: "torch.argmin(a)",
    gradient: false,
    samples: [...single("torch.argmin"), { inputs: [input([5, 3])] }],
    errors: [outside, nothing],
  },
  {
    name: "variance",
    fn: dg.variance,
    torch: "torch.var(a)",
    samples: [...samples("torch.var"), {
      inputs: [input([3, 5])],
      args: [1, { correction: 0, keepdim: true }],
      torch: "torch.var(a, 1, correction=0, keepdim=True)",
    }],
    errors: [outside, whole, {
      inputs: [input([2])],
      args: [0, { correction: NaN }],
      error: RangeError,
      message: "correction must be a finite number",
    }],
  },
  {
    name: "std",
    fn: dg.std,
    torch: "torch.std(a)",
    samples: [...samples("torch.std"), {
      inputs: [input([3, 5])],
      args: [1, { correction: 2 }],
      torch: "torch.std(a, 1, correction=2)",
    }, { inputs: [input([3], { values: [2, 2, 2] })], kink: true }],
    errors: [outside, whole],
  },
  {
    name: "varMean",
    fn: (x: Tensor, dim?: number) => {
      const both = dg.varMean(x, dim ?? null);
      return [both.var, both.mean];
    },
    torch: "torch.var_mean(a)",
    samples: [{ inputs: [input([2, 7])] }, { inputs: [input([7, 3])], args: [0], torch: "torch.var_mean(a, 0)" }],
    errors: [outside, whole],
  },
  {
    name: "norm",
    fn: dg.norm,
    torch: "torch.norm(a)",
    samples: [
      ...([2, 1, 3, 1.5, 0.5, Infinity, -Infinity, 0] as const).flatMap((p) =>
        samples("torch.linalg.vector_norm", `ord=float("${p}")`, {}, [p]).slice(p === 2 ? 0 : 4).map((it) => ({ ...it, kink: p === 0 }))
      ),
      { inputs: [input([3], { values: [0, 0, 0] })], kink: true },
    ],
    errors: [whole, { inputs: [input([2])], args: [NaN], error: RangeError, message: "norm: the order must be a number" }],
  },
  {
    name: "any",
    fn: dg.any,
    torch: "torch.any(a)",
    gradient: false,
    samples: [...single("torch.any", truths), {
      inputs: [input([2, 3], { values: [0, 0, 0, 0, NaN, 0] })],
      args: [1],
      torch: "torch.any(a, 1)",
    }],
    errors: [outside],
  },
  {
    name: "all",
    fn: dg.all,
    torch: "torch.all(a)",
    gradient: false,
    samples: [...single("torch.all", truths), { inputs: [input([0, 2])], args: [0], torch: "torch.all(a, 0)" }],
    errors: [outside],
  },
  {
    name: "countNonzero",
    fn: dg.countNonzero,
    torch: "torch.count_nonzero(a)",
    gradient: false,
    samples: [{ inputs: [input([3, 9], integers)] }, { inputs: [input([3, 9], truths)], args: [1], torch: "torch.count_nonzero(a, 1)" }],
    errors: [outside],
  },
  {
    name: "cumsum",
    fn: dg.cumsum,
    torch: "torch.cumsum(a, 0)",
    samples: [
      { inputs: [input([33])], args: [0], torch: "torch.cumsum(a, 0)" },
      { inputs: [input([3, 5])], args: [1], torch: "torch.cumsum(a, 1)" },
      { inputs: [input([5, 9])], args: [0], torch: "torch.cumsum(a, 0)" },
      { inputs: [input([2, 3, 4])], args: [-2], torch: "torch.cumsum(a, -2)" },
      { inputs: [input([])], args: [0], torch: "torch.cumsum(a, 0)" },
      { inputs: [input([0, 2])], args: [0], torch: "torch.cumsum(a, 0)" },
      { inputs: [input([7], truths)], args: [0], torch: "torch.cumsum(a, 0)" },
    ],
    dtypes: ints,
    errors: [outside],
  },
  {
    name: "cumprod",
    fn: dg.cumprod,
    torch: "torch.cumprod(a, 0)",
    samples: [
      { inputs: [input([7], { low: 0.5 })], args: [0], torch: "torch.cumprod(a, 0)" },
      { inputs: [input([3, 5])], args: [1], torch: "torch.cumprod(a, 1)" },
      { inputs: [input([4, 9], { low: 0.5 })], args: [0], torch: "torch.cumprod(a, 0)" },
      { inputs: [input([5], { values: [2, 0, 3, 0, 4] })], args: [0], torch: "torch.cumprod(a, 0)", kink: true },
      { inputs: [input([5], integers)], args: [0], torch: "torch.cumprod(a, 0)" },
    ],
    errors: [outside],
  },
];
