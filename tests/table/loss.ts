import {
  binaryCrossEntropy,
  binaryCrossEntropyWithLogits,
  crossEntropy,
  DTypeError,
  huberLoss,
  klDiv,
  l1Loss,
  mseLoss,
  nllLoss,
  ShapeError,
  smoothL1Loss,
  type Tensor,
} from "../../mod.ts";
import { input, type Row, type Sample } from "../op_table.ts";

const python = (options: Record<string, unknown>): string =>
  Object.entries(options).map(([key, value]) => {
    const name = key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
    return `, ${name}=${typeof value === "string" ? `"${value}"` : value === true ? "True" : value}`;
  }).join("");

const reductions = ["mean", "sum", "none"] as const;

/** Samples of a loss of two tensors: every reduction, a broadcast, size 0, and the given kinks. */
function pairSamples(call: string, options: Record<string, unknown> = {}, kinks: readonly [number[], number[]][] = []): Sample[] {
  const sample = (a: number[], b: number[], given: Record<string, unknown>): Sample => ({
    kink: a.includes(0), // the mean of nothing is NaN
    inputs: [input(a), input(b, { seed: 2 })],
    args: [given],
    torch: `F.${call}(a, b${python(given)})`,
  });
  return [
    ...reductions.map((reduction) => sample([3, 5], [3, 5], { ...options, reduction })),
    sample([33], [33], options),
    sample([2, 3, 5], [2, 3, 5], options),
    sample([2, 3], [3], options),
    sample([], [], options),
    sample([0, 3], [0, 3], options),
    sample([0, 3], [0, 3], { ...options, reduction: "sum" }),
    ...kinks.map(([a, b]): Sample => ({
      inputs: [input([a.length], { values: a }), input([b.length], { values: b })],
      args: [{ ...options, reduction: "none" }],
      torch: `F.${call}(a, b${python({ ...options, reduction: "none" })})`,
      kink: true,
    })),
  ];
}

const labels = (shape: number[], values: number[]) => input(shape, { dtype: "int64", values });
const scores = (shape: number[]) => input(shape, { low: -3, high: 3 });
const weight = (classes: number) => input([classes], { low: 0.25, high: 2, seed: 3, grad: false });

/** Samples of a loss of class labels; the third input, if any, is the weight. */
function labelSamples(call: string, more: Record<string, unknown>[]): Sample[] {
  const sample = (shape: number[], target: number[], values: number[], options: Record<string, unknown>, weighted = false): Sample => ({
    kink: values.every((label) => label === -100), // the mean of nothing is NaN
    inputs: [scores(shape), labels(target, values), ...(weighted ? [weight(shape[shape.length === 1 ? 0 : 1])] : [])],
    args: [options],
    torch: `F.${call}(a, b${weighted ? ", weight=c" : ""}${python(options)})`,
  });
  const all = [{}, ...more];
  return [
    ...all.flatMap((extra) =>
      reductions.flatMap((reduction) => [
        sample([4, 3], [4], [0, 2, -100, 1], { ...extra, reduction }),
        sample([4, 3], [4], [0, 2, 1, 1], { ...extra, reduction, ignoreIndex: 1 }, true),
      ])
    ),
    ...all.flatMap((extra) => [
      sample([2, 3, 4], [2, 4], [0, 1, 2, -100, 2, 1, 0, 0], extra, true),
      sample([2, 3, 2, 2], [2, 2, 2], [0, 1, 2, -100, 2, 1, 0, 0], { ...extra, reduction: "none" }, true),
      sample([5], [], [3], extra, true),
      sample([5], [], [3], { ...extra, reduction: "none" }),
      sample([2, 33], [2], [32, 0], extra),
      sample([2, 3], [2], [-100, -100], extra), // nothing left: NaN
      sample([2, 3], [2], [-100, -100], { ...extra, reduction: "sum" }),
      sample([0, 3], [0], [], extra),
      sample([0, 3], [0], [], { ...extra, reduction: "sum" }),
    ]),
  ];
}

/** The third input of a sample is the weight in the options. */
const withWeight = (loss: (x: Tensor, target: Tensor, options?: Record<string, unknown>) => Tensor) => (...all: unknown[]): Tensor => {
  const tensors = all.filter((x): x is Tensor => x === null || (x as Tensor).shape !== undefined), [x, target, w] = tensors;
  const options = all[tensors.length] as Record<string, unknown> | undefined;
  if (tensors.length > 2 && w === null) throw new TypeError("weight must be a tensor");
  return loss(x, target, w === undefined ? options : { ...options, weight: w });
};

const labelErrors = (name: string): Row["errors"] => [
  {
    inputs: [scores([2, 3]), labels([2], [1, 3])],
    error: RangeError,
    message: `${name}: label 3 is outside 0 .. 2: the input has 3 classes`,
  },
  { inputs: [scores([2, 3]), labels([2], [-1, 7])], error: RangeError, message: `${name}: label -1 is outside 0 .. 2` },
  {
    inputs: [scores([2, 3]), labels([3], [0, 0, 0])],
    error: ShapeError,
    message: `${name}: [2, 3] ([N, C, ...]) takes labels of [2], got [3]`,
  },
  {
    inputs: [scores([2, 3]), input([2], { dtype: "bool", low: 0, high: 2 })],
    error: DTypeError,
    message: "labels must be integers, got bool",
  },
  {
    inputs: [scores([2, 3]), labels([2], [0, 1]), weight(2)],
    error: ShapeError,
    message: `${name}: the weight must have one element a class, [3], got [2]`,
  },
  {
    inputs: [scores([2, 3]), labels([2], [0, 1])],
    args: [{ reduction: "average" }],
    error: RangeError,
    message: `${name}: reduction must be "mean", "sum" or "none", got "average"`,
  },
];

const probabilities = (shape: number[], seed = 1) => input(shape, { low: 0.02, high: 0.97, seed });

function binarySamples(call: string, prediction: typeof probabilities, posWeight: boolean): Sample[] {
  return [
    ...reductions.map((reduction): Sample => ({
      inputs: [prediction([3, 5]), probabilities([3, 5], 2)],
      args: [{ reduction }],
      torch: `F.${call}(a, b, reduction="${reduction}")`,
    })),
    { inputs: [prediction([33]), probabilities([33], 2)], torch: `F.${call}(a, b)` },
    { kink: true, inputs: [prediction([0]), probabilities([0], 2)], torch: `F.${call}(a, b)` },
    ...reductions.map((reduction): Sample => ({
      inputs: [prediction([3, 5]), probabilities([3, 5], 2), input([5], { low: 0.5, high: 2, seed: 3, grad: false })],
      args: [{ reduction }, "weight"],
      torch: `F.${call}(a, b, weight=c, reduction="${reduction}")`,
    })),
    ...(posWeight
      ? reductions.map((reduction): Sample => ({
        inputs: [prediction([3, 5]), probabilities([3, 5], 2), input([5], { low: 0.5, high: 2, seed: 3, grad: false })],
        args: [{ reduction }, "posWeight"],
        torch: `F.${call}(a, b, pos_weight=c, reduction="${reduction}")`,
      }))
      : []),
  ];
}

/** The third input is the option that the last argument names. */
const withOption = (loss: (x: Tensor, target: Tensor, options?: Record<string, unknown>) => Tensor) => (...all: unknown[]): Tensor => {
  const name = all.at(-1);
  if (typeof name !== "string") return loss(all[0] as Tensor, all[1] as Tensor, all[2] as Record<string, unknown>);
  return loss(all[0] as Tensor, all[1] as Tensor, { ...all[3] as Record<string, unknown>, [name]: all[2] });
};

export const loss: readonly Row[] = [
  {
    name: "crossEntropy",
    fn: withWeight(crossEntropy),
    torch: "",
    tolerance: 2e-5,
    samples: [
      ...labelSamples("cross_entropy", [{ labelSmoothing: 0.1 }]),
      // Probabilities as targets.
      ...[{}, { reduction: "sum" }, { reduction: "none" }, { labelSmoothing: 0.2 }].map((options): Sample => ({
        inputs: [scores([4, 3]), probabilities([4, 3], 2)],
        args: [options],
        torch: `F.cross_entropy(a, b${python(options)})`,
      })),
      { inputs: [scores([2, 3, 2]), probabilities([2, 3, 2], 2), weight(3)], torch: "F.cross_entropy(a, b, weight=c)" },
      { inputs: [scores([3]), probabilities([3], 2)], torch: "F.cross_entropy(a, b)" },
      // An impossible class and large scores.
      {
        inputs: [input([2, 3], { values: [-Infinity, 1, 2, 200, 201, -200] }), labels([2], [1, 0])],
        torch: "F.cross_entropy(a, b)",
        kink: true,
      },
    ],
    errors: [
      ...labelErrors("crossEntropy")!,
      {
        inputs: [scores([2, 3]), scores([2])],
        error: ShapeError,
        message: "probabilities must have the shape [2, 3] of the input, got [2]",
      },
      {
        inputs: [scores([2, 3]), labels([2], [0, 1])],
        args: [{ labelSmoothing: 2 }],
        error: RangeError,
        message: "labelSmoothing must be 0 to 1, got 2",
      },
    ],
  },
  {
    name: "nllLoss",
    fn: withWeight(nllLoss),
    torch: "",
    samples: labelSamples("nll_loss", []),
    errors: labelErrors("nllLoss"),
  },
  {
    name: "mseLoss",
    fn: mseLoss,
    torch: "",
    tolerance: 2e-5,
    samples: pairSamples("mse_loss", {}, [[[1, -2], [1, 3]]]),
    errors: [
      { inputs: [input([2]), input([3])], error: ShapeError, message: "mseLoss: shapes do not broadcast: [2] and [3]" },
      { inputs: [input([2]), labels([2], [0, 1])], error: DTypeError, message: "mseLoss: takes a floating point tensor, got int64" },
    ],
  },
  { name: "l1Loss", fn: l1Loss, torch: "", samples: pairSamples("l1_loss", {}, [[[1, -2, 3], [1, 3, -1]]]) },
  {
    name: "smoothL1Loss",
    fn: smoothL1Loss,
    torch: "",
    tolerance: 2e-5,
    samples: [
      ...pairSamples("smooth_l1_loss", {}, [[[0, 1, -1, 3], [0, 0, 0, 0]]]),
      ...pairSamples("smooth_l1_loss", { beta: 0.5 }).slice(0, 2),
      ...pairSamples("smooth_l1_loss", { beta: 0 }, [[[0, 1], [0, 0]]]).slice(-1),
    ],
    errors: [{
      inputs: [input([2]), input([2])],
      args: [{ beta: -1 }],
      error: RangeError,
      message: "smoothL1Loss: beta must be >= 0, got -1",
    }],
  },
  {
    name: "huberLoss",
    fn: huberLoss,
    torch: "",
    tolerance: 2e-5,
    samples: [...pairSamples("huber_loss", {}, [[[0, 1, -1, 3], [0, 0, 0, 0]]]), ...pairSamples("huber_loss", { delta: 0.5 }).slice(0, 2)],
    errors: [{
      inputs: [input([2]), input([2])],
      args: [{ delta: NaN }],
      error: RangeError,
      message: "huberLoss: delta must be > 0, got NaN",
    }],
  },
  {
    name: "binaryCrossEntropy",
    fn: withOption(binaryCrossEntropy),
    torch: "",
    tolerance: 2e-5,
    samples: [
      ...binarySamples("binary_cross_entropy", probabilities, false),
      {
        inputs: [input([4], { values: [0, 1, 0, 1] }), input([4], { values: [0, 1, 1, 0], grad: false })],
        args: [{ reduction: "none" }],
        torch: 'F.binary_cross_entropy(a, b, reduction="none")',
        kink: true,
      },
    ],
    errors: [
      { inputs: [input([2], { values: [0.5, 1.5] }), input([2])], error: RangeError, message: "must be a probability between 0 and 1" },
      {
        inputs: [probabilities([2]), probabilities([1])],
        error: ShapeError,
        message: "the target must have the shape [2] of the input, got [1]",
      },
    ],
  },
  {
    name: "binaryCrossEntropyWithLogits",
    fn: withOption(binaryCrossEntropyWithLogits),
    torch: "",
    tolerance: 2e-5,
    samples: [
      ...binarySamples("binary_cross_entropy_with_logits", (shape, seed = 1) => input(shape, { low: -4, high: 4, seed }), true),
      {
        inputs: [input([3], { values: [1000, -1000, 0] }), input([3], { values: [1, 1, 0.5] })],
        torch: "F.binary_cross_entropy_with_logits(a, b)",
      },
    ],
    errors: [{ inputs: [input([2]), input([1])], error: ShapeError, message: "the target must have the shape [2] of the input, got [1]" }],
  },
  {
    name: "klDiv",
    fn: klDiv,
    torch: "",
    tolerance: 2e-5,
    samples: [
      ...[...reductions, "batchmean"].map((reduction): Sample => ({
        inputs: [input([3, 4]), probabilities([3, 4], 2)],
        args: [{ reduction }],
        torch: `F.kl_div(a, b, reduction="${reduction}")`,
      })),
      { inputs: [input([3, 4]), input([3, 4], { seed: 2 })], args: [{ logTarget: true }], torch: "F.kl_div(a, b, log_target=True)" },
      { inputs: [input([3]), input([3], { values: [0, 1, 0.5], grad: false })], torch: "F.kl_div(a, b)" },
      { inputs: [input([0, 3]), input([0, 3])], args: [{ reduction: "sum" }], torch: 'F.kl_div(a, b, reduction="sum")' },
    ],
    errors: [{
      inputs: [input([2]), input([2])],
      args: [{ reduction: "avg" }],
      error: RangeError,
      message: 'klDiv: reduction must be "mean"',
    }],
  },
];
