import {
  DTypeError,
  embedding,
  embeddingBag,
  type EmbeddingBagOptions,
  type EmbeddingOptions,
  gather,
  index,
  indexAdd,
  indexCopy,
  indexFill,
  type IndexItem,
  indexPut,
  indexSelect,
  maskedFill,
  maskedScatter,
  maskedSelect,
  nonzero,
  oneHot,
  put,
  scatter,
  scatterAdd,
  scatterReduce,
  type ScatterReduction,
  ShapeError,
  take,
  takeAlongDim,
  type Tensor,
} from "../../mod.ts";
import { type BadCall, type Input, input, type Row, type Sample } from "../op_table.ts";

/** int64 indices with given elements. */
const at = (shape: readonly number[], ...values: number[]): Input => input(shape, { dtype: "int64", values });
const mask = (shape: readonly number[], ...values: number[]): Input => input(shape, { dtype: "bool", values });

const shape = [3, 4, 5];
/** Made indices into axis `dim`, with repeats. */
const made = (dim: number, to: readonly number[], dtype: "int64" | "int32" = "int64") => input(to, { dtype, low: 0, high: shape[dim] });

function along(torch: (dim: number) => string, source: boolean, args: readonly unknown[] = []): Sample[] {
  return [0, 1, 2].map((dim) => ({
    inputs: [input(shape), made(dim, [2, 3, 4]), ...(source ? [input([2, 3, 4], { seed: 2 })] : [])],
    args: [dim, ...args],
    torch: torch(dim),
  }));
}

const outside: BadCall[] = [
  {
    inputs: [input([3, 4]), at([1, 2], 0, 4)],
    args: [1],
    error: RangeError,
    message: "index 4 is outside axis 1 of size 4, allowed are 0 to 3",
  },
  { inputs: [input([3, 4]), at([1, 2], -1, 0)], args: [0], error: RangeError, message: "index -1 is outside axis 0 of size 3" },
  {
    inputs: [input([3, 4]), at([2], 0, 1)],
    args: [1],
    error: ShapeError,
    message: "the index [2] must have as many axes as the input [3, 4]",
  },
  { inputs: [input([3, 4]), at([4, 1], 0, 0, 0, 0)], args: [1], error: ShapeError, message: "exceeds the input [3, 4] in axis 0" },
  {
    inputs: [input([2]), input([1], { dtype: "uint8", values: [0] })],
    args: [0],
    error: DTypeError,
    message: "an index must be int64 or int32, got uint8",
  },
  { inputs: [input([2]), at([1], 0)], args: [1], error: RangeError, message: "dim 1 is outside -1 .. 0" },
];

/** `outside` with a source of the index's shape. */
const outsideWithSource = outside.map((bad): BadCall => ({ ...bad, inputs: [...bad.inputs, input(bad.inputs[1].shape)] }));

const unique = at([2, 3], 0, 3, 1, 2, 0, 3);
const four = [3, 4, 5, 2];
const indices: Readonly<Record<string, Input>> = {
  a: at([2, 2], 0, -1, 2, 1),
  b: at([2], 3, -4),
  b0: at([2], 2, -3),
  c: at([3, 1], 4, -5, 0),
  c1: at([1], 4),
  d: at([4], 0, -1, 1, 1),
  e: at([2, 2], 0, 1, 0, 1),
  f: at([3], 0, 2, 1),
  t: at([], 2),
  m: mask([4], 1, 0, 1, 1),
  n: mask([4, 5], ...Array.from({ length: 20 }, (_, i) => i * 7 % 5 === 0 ? 1 : 0)),
  full: mask([3, 4, 5, 2], ...Array.from({ length: 120 }, (_, i) => i * 7 % 11 === 0 ? 1 : 0)),
};
const patterns: readonly (readonly (string | number | null)[])[] = [
  ["a"],
  [null, "b"],
  ["a", "b"],
  ["a", null, "b"],
  [null, "a", "b"],
  [null, "a", "b", null],
  ["b0", null, null, "e"],
  [null, null, "c"],
  ["...", "d"],
  [1, null, "b"],
  ["b0", 2, "c"],
  [null, "n"],
  [null, "m"],
  ["f", "m"],
  ["a", "...", 1],
  [-1, "..."],
  ["t"],
  ["a", null, "c1"],
  ["full"],
];

/** Index items with the tensors put in, and the same in Python with the tensors named from `first` on. */
function pattern(items: readonly (string | number | null)[], first: string): { inputs: Input[]; torch: string } {
  const inputs: Input[] = [];
  const names = items.map((item) => {
    if (item === null) return ":";
    if (item === "..." || typeof item === "number") return `${item}`;
    inputs.push(indices[item]);
    return String.fromCharCode(first.charCodeAt(0) + inputs.length - 1);
  });
  return { inputs, torch: names.join(", ") };
}

/** Stands for a tensor that is missing where `null` would mean something. */
const given = (x: Tensor | null) => x ?? undefined as unknown as Tensor;

/** Tensors in the places of their names. */
function fill(items: readonly (string | number | null)[], tensors: readonly Tensor[]): IndexItem[] {
  let next = 0;
  return items.map((item) => typeof item === "string" && item !== "..." ? given(tensors[next++]) : item) as IndexItem[];
}

/** Splits the arguments of a row: tensors, then options. */
function parts<T>(all: readonly unknown[]): [Tensor[], T] {
  return [all.slice(0, -1) as Tensor[], all[all.length - 1] as T];
}

const python: Readonly<Record<string, string>> = {
  paddingIdx: "padding_idx",
  scaleGradByFreq: "scale_grad_by_freq",
  includeLastOffset: "include_last_offset",
  mode: "mode",
};
const keywords = (options: object) =>
  Object.entries(options).map(([key, value]) => `, ${python[key]}=${value === true ? "True" : JSON.stringify(value)}`).join("");
const ids = at([2, 3], 1, 5, 1, 0, 2, 1), table = input([6, 3]), flatIds = at([7], 1, 5, 1, 0, 2, 1, 4);

function bagSamples(mode: "sum" | "mean" | "max"): Sample[] {
  const options = (more: EmbeddingBagOptions = {}) => ({ mode, ...more });
  const sample = (inputs: Input[], it: object, offsets = ""): Sample => ({
    inputs,
    args: [it],
    torch: `F.embedding_bag(b, a${offsets}${keywords(it)})`,
  });
  return [
    sample([table, ids], options()),
    sample([table, flatIds, at([4], 0, 3, 3, 5)], options(), ", c"),
    sample([table, flatIds, at([4], 0, 3, 3, 5)], options({ paddingIdx: 1 }), ", c"),
    sample([table, flatIds, at([4], 0, 3, 3, 7)], options({ includeLastOffset: true }), ", c"),
  ];
}

const masks: Sample[] = [
  { inputs: [input([3, 4]), mask([3, 4], 1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0)] },
  { inputs: [input([2, 3, 1]), mask([3, 4], 1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0)] },
  { inputs: [input([0, 4]), mask([4], 1, 0, 1, 1)] },
  { inputs: [input([]), mask([], 1)] },
];

export const indexing: readonly Row[] = [
  {
    name: "gather",
    fn: (x: Tensor, i: Tensor, dim: number) => gather(x, dim, i),
    torch: "",
    samples: [
      ...along((dim) => `a.gather(${dim}, b)`, false),
      { inputs: [input([3, 4]), made(1, [3, 7], "int32")], args: [-1], torch: "a.gather(1, b.long())" },
      { inputs: [input([]), at([], 0)], args: [0], torch: "a.gather(0, b)" },
      { inputs: [input([0, 4]), input([0, 2], { dtype: "int64" })], args: [1], torch: "a.gather(1, b)" },
      { inputs: [input([5], { dtype: "int32", low: 0, high: 9 }), at([3], 4, 0, 0)], args: [0], torch: "a.gather(0, b)" },
    ],
    errors: outside,
  },
  {
    name: "scatter",
    fn: (x: Tensor, i: Tensor, ...rest: unknown[]) =>
      rest.length === 2 ? scatter(x, rest[1] as number, i, rest[0] as Tensor) : scatter(x, 1, i, 2.5),
    torch: "",
    samples: [
      { inputs: [input([3, 4]), unique, input([2, 3], { seed: 2 })], args: [1], torch: "a.scatter(1, b, c)" },
      { inputs: [input([4, 3]), at([3, 2], 0, 3, 1, 2, 3, 0), input([3, 2], { seed: 2 })], args: [0], torch: "a.scatter(0, b, c)" },
      { inputs: [input([3, 4]), unique], torch: "a.scatter(1, b, 2.5)" },
    ],
    errors: [
      ...outsideWithSource,
      {
        inputs: [input([3, 4]), unique, input([2, 2])],
        args: [1],
        error: ShapeError,
        message: "the index [2, 3] must not exceed the source [2, 2]",
      },
      {
        inputs: [input([3, 4]), unique, input([2, 3], { dtype: "int64", low: 0 })],
        args: [1],
        error: DTypeError,
        message: "the source must have the tensor's dtype float64, got int64",
      },
    ],
  },
  {
    name: "scatterAdd",
    fn: (x: Tensor, i: Tensor, source: Tensor, dim: number) => scatterAdd(x, dim, i, source),
    torch: "",
    samples: along((dim) => `a.scatter_add(${dim}, b, c)`, true),
    errors: outsideWithSource,
  },
  ...(["sum", "prod", "mean", "amax", "amin"] as const).map((reduce): Row => ({
    name: `scatterReduce ${reduce}`,
    fn: (x: Tensor, i: Tensor, source: Tensor, dim: number, how: ScatterReduction, self: boolean) =>
      scatterReduce(x, dim, i, source, how, { includeSelf: self }),
    torch: "",
    samples: [true, false].flatMap((self) =>
      along((dim) => `a.scatter_reduce(${dim}, b, c, "${reduce}", include_self=${self ? "True" : "False"})`, true, [reduce, self])
    ).concat(
      reduce === "prod" || reduce === "amax"
        ? {
          inputs: [input([3], { values: [2, 0, 3] }), at([5], 0, 0, 1, 2, 2), input([5], { values: [0, 5, 4, 0, 0] })],
          args: [0, reduce, true],
          torch: `a.scatter_reduce(0, b, c, "${reduce}")`,
          kink: true,
        }
        : [],
    ),
    errors: outsideWithSource.map((bad) => ({ ...bad, args: [bad.args![0], reduce, true] })),
  })),
  {
    name: "takeAlongDim",
    fn: (x: Tensor, i: Tensor, dim: number | null) => takeAlongDim(x, i, dim),
    torch: "",
    samples: [
      { inputs: [input(shape), made(1, [1, 2, 5])], args: [1], torch: "torch.take_along_dim(a, b, 1)" },
      { inputs: [input([1, 4]), made(1, [3, 2])], args: [1], torch: "torch.take_along_dim(a, b, 1)" },
      { inputs: [input(shape), at([2, 2], 3, 59, 0, 3)], args: [null], torch: "torch.take_along_dim(a, b).reshape(-1)" },
    ],
    errors: [outside[0]],
  },
  {
    name: "take",
    fn: take,
    torch: "a.take(b)",
    samples: [{ inputs: [input([3, 4]), at([2, 3], 0, -1, 5, 5, 11, -12)] }],
    errors: [{
      inputs: [input([3]), at([1], -4)],
      error: RangeError,
      message: "take: index -4 is outside axis 0 of size 3, allowed are -3 to 2",
    }],
  },
  {
    name: "put",
    fn: (x: Tensor, i: Tensor, source: Tensor, accumulate: boolean) => put(x, i, source, { accumulate }),
    torch: "",
    samples: [
      { inputs: [input([3, 4]), at([2, 2], 0, -1, 5, 10), input([2, 2], { seed: 2 })], args: [false], torch: "a.put(b, c)" },
      { inputs: [input([3, 4]), at([2, 2], 0, -1, 5, 0), input([2, 2], { seed: 2 })], args: [true], torch: "a.put(b, c, accumulate=True)" },
    ],
    errors: [{ inputs: [input([3]), at([2], 0, 1), input([3])], args: [false], error: ShapeError, message: "must have as many elements" }],
  },
  {
    name: "indexSelect",
    fn: (x: Tensor, i: Tensor, dim: number) => indexSelect(x, dim, i),
    torch: "",
    samples: [0, 1, 2].map((dim) => ({ inputs: [input(shape), made(dim, [6])], args: [dim], torch: `a.index_select(${dim}, b)` })),
    errors: [
      { inputs: [input([3, 4]), at([1], 4)], args: [1], error: RangeError, message: "indexSelect: index 4 is outside axis 1 of size 4" },
      { inputs: [input([3, 4]), at([1], -1)], args: [1], error: RangeError, message: "index -1 is outside axis 1" },
      { inputs: [input([3, 4]), at([1, 1], 0)], args: [1], error: ShapeError, message: "the index must have one axis, got [1, 1]" },
    ],
  },
  {
    name: "indexAdd",
    fn: (x: Tensor, i: Tensor, source: Tensor, dim: number) => indexAdd(x, dim, i, source, { alpha: 0.5 }),
    torch: "",
    samples: [0, 1, 2].map((dim) => ({
      inputs: [input(shape), made(dim, [6]), input(shape.map((n, i) => i === dim ? 6 : n), { seed: 2 })],
      args: [dim],
      torch: `a.index_add(${dim}, b, c, alpha=0.5)`,
    })),
    errors: [{
      inputs: [input([3, 4]), at([2], 0, 1), input([3, 3])],
      args: [1],
      error: ShapeError,
      message: "the source must be [3, 2] for [3, 4] and this index, got [3, 3]",
    }],
  },
  {
    name: "indexCopy",
    fn: (x: Tensor, i: Tensor, source: Tensor, dim: number) => indexCopy(x, dim, i, source),
    torch: "",
    samples: [0, 1, 2].map((dim) => ({
      inputs: [input(shape), at([2], 2, 0), input(shape.map((n, i) => i === dim ? 2 : n), { seed: 2 })],
      args: [dim],
      torch: `a.index_copy(${dim}, b, c)`,
    })),
    errors: [{
      inputs: [input([3]), at([1], 3), input([1])],
      args: [0],
      error: RangeError,
      message: "indexCopy: index 3 is outside axis 0 of size 3",
    }],
  },
  {
    name: "indexFill",
    fn: (x: Tensor, i: Tensor, ...rest: unknown[]) =>
      rest.length === 2 ? indexFill(x, rest[1] as number, i, rest[0] as Tensor) : indexFill(x, rest[0] as number, i, -1.5),
    torch: "",
    samples: [0, 1, 2].flatMap((dim): Sample[] => [
      { inputs: [input(shape), at([2], -1, 0)], args: [dim], torch: `a.index_fill(${dim}, b, -1.5)` },
      { inputs: [input(shape), at([2], 2, 0), input([])], args: [dim], torch: `a.index_fill(${dim}, b, c)` },
    ]),
    errors: [{ inputs: [input([3]), at([1], 3)], args: [0], error: RangeError, message: "indexFill: index 3 is outside axis 0 of size 3" }],
  },
  {
    name: "maskedSelect",
    fn: maskedSelect,
    torch: "a.masked_select(b)",
    samples: masks,
    errors: [
      { inputs: [input([3]), at([3], 0, 1, 1)], error: DTypeError, message: "the mask must be bool, got int64" },
      { inputs: [input([3]), mask([4], 0, 1, 1, 0)], error: ShapeError, message: "shapes do not broadcast: [3] and [4]" },
    ],
  },
  {
    name: "maskedFill",
    fn: (x: Tensor, m: Tensor, value: Tensor | number = 7) => maskedFill(x, m, value),
    torch: "a.masked_fill(b, 7)",
    samples: [
      ...masks,
      { inputs: [input([3, 4]), mask([4], 1, 0, 0, 1), input([])], torch: "a.masked_fill(b, c)" },
    ],
    errors: [
      { inputs: [input([3]), mask([3], 0, 1, 1), input([1])], error: ShapeError, message: "the value must have no axes, got [1]" },
      {
        inputs: [input([3], { dtype: "int32", low: 0 }), mask([3], 0, 1, 1)],
        args: [0.5],
        error: DTypeError,
        message: "0.5 cannot be stored in a tensor of int32",
      },
    ],
  },
  {
    name: "maskedScatter",
    fn: maskedScatter,
    torch: "a.masked_scatter(b, c)",
    samples: [{ inputs: [input([3, 4]), mask([3, 4], 1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0), input([10], { seed: 2 })] }],
    errors: [{
      inputs: [input([3]), mask([3], 1, 1, 1), input([2])],
      error: ShapeError,
      message: "the mask is true 3 times, the source [2] has 2 elements",
    }],
  },
  {
    name: "nonzero",
    fn: nonzero,
    torch: "a.nonzero()",
    gradient: false,
    samples: [
      { inputs: [at([2, 3], 0, 3, 0, 1, 0, 2)] },
      { inputs: [input([3], { values: [0, NaN, -0.5] })] },
      { inputs: [input([0, 3])] },
      { inputs: [at([], 5)] },
    ],
  },
  {
    name: "oneHot",
    fn: (x: Tensor, classes = -1) => oneHot(x, classes),
    torch: "F.one_hot(a)",
    samples: [{ inputs: [at([2, 2], 0, 3, 1, 2)] }, { inputs: [at([2], 0, 3)], args: [6], torch: "F.one_hot(a, 6)" }],
    errors: [
      { inputs: [at([2], 0, 6)], args: [6], error: RangeError, message: "oneHot: index 6 is outside axis 1 of size 6" },
      { inputs: [at([2], 0, -1)], error: RangeError, message: "index -1 is outside axis 1" },
      { inputs: [input([2])], error: DTypeError, message: "an index must be int64 or int32, got float64" },
    ],
  },
  {
    name: "index",
    fn: (x: Tensor, ...rest: unknown[]) => {
      const [tensors, items] = parts<(string | number | null)[]>(rest);
      return index(x, fill(items, tensors));
    },
    torch: "",
    samples: patterns.map((items) => {
      const { inputs, torch } = pattern(items, "b");
      return { inputs: [input(four), ...inputs], args: [items], torch: `a[${torch}].clone()` };
    }),
    errors: [
      {
        inputs: [input([3, 4]), at([1], 4)],
        args: [[null, "i"]],
        error: RangeError,
        message: "index: index 4 is outside axis 1 of size 4, allowed are -4 to 3",
      },
      { inputs: [input([3, 4])], args: [[3]], error: RangeError, message: "index: index 3 is outside axis 0 of size 3" },
      { inputs: [input([3, 4])], args: [[null, null, 0]], error: ShapeError, message: "3 axes are indexed of [3, 4], which has 2" },
      {
        inputs: [input([3, 4]), mask([4], 1, 0, 0, 0)],
        args: [["m"]],
        error: ShapeError,
        message: "a mask of [4] does not fit axes 0 .. of [3, 4]",
      },
      {
        inputs: [input([3, 4]), at([2], 0, 1), at([3], 0, 1, 2)],
        args: [["i", "j"]],
        error: ShapeError,
        message: "index: shapes do not broadcast",
      },
      {
        inputs: [input([3]), input([1], { dtype: "uint8", values: [0] })],
        args: [["i"]],
        error: DTypeError,
        message: "an index must be int64 or int32, got uint8",
      },
    ],
  },
  {
    name: "indexPut",
    fn: (x: Tensor, source: Tensor, ...rest: unknown[]) => {
      const [tensors, items] = parts<(string | number | null)[]>(rest);
      return indexPut(x, fill(items, tensors), source, { accumulate: true });
    },
    torch: "",
    samples: patterns.map((items) => {
      const { inputs, torch } = pattern(items, "c");
      const places = `torch.arange(a.numel()).reshape(a.shape)[${torch}]`;
      return {
        inputs: [input(four), input([1], { seed: 2 }), ...inputs],
        args: [items],
        torch: `a.reshape(-1).index_add(0, ${places}.reshape(-1), b.expand(${places}.shape).reshape(-1)).reshape(a.shape)`,
      };
    }),
  },
  {
    name: "indexPut assign",
    fn: (x: Tensor, source: Tensor, i: Tensor) => indexPut(x, [null, given(i), null, 1], source),
    torch: "a.permute(1, 3, 0, 2).index_put((c, torch.tensor(1)), b.permute(1, 0, 2)).permute(2, 0, 3, 1)",
    samples: [{ inputs: [input(four), input([3, 2, 5], { seed: 2 }), at([2], 0, 2)] }],
    errors: [{
      inputs: [input(four), input([2, 2, 5]), at([2], 0, 2)],
      error: ShapeError,
      message: "indexPut: shapes do not broadcast: [2, 2, 5] and [3, 2, 5]",
    }],
  },
  {
    name: "embedding",
    fn: (weight: Tensor, i: Tensor, options: EmbeddingOptions) => embedding(weight, i, options),
    torch: "",
    samples: [{}, { paddingIdx: 1 }, { paddingIdx: -6, scaleGradByFreq: true }].map((options) => ({
      inputs: [table, ids],
      args: [options],
      torch: `F.embedding(b, a${keywords(options)})`,
      kink: "scaleGradByFreq" in options || "paddingIdx" in options, // their gradients are not the function's derivative
    })),
    errors: [
      { inputs: [table, at([1], 6)], args: [{}], error: RangeError, message: "embedding: index 6 is outside axis 0 of size 6" },
      { inputs: [table, at([1], -1)], args: [{}], error: RangeError, message: "embedding: index -1 is outside axis 0 of size 6" },
      { inputs: [table, at([1], 0)], args: [{ paddingIdx: 6 }], error: RangeError, message: "paddingIdx 6 is outside the 6 rows" },
      { inputs: [input([3]), at([1], 0)], args: [{}], error: ShapeError, message: "the weight must be [rows, columns], got [3]" },
      { inputs: [table, input([2])], args: [{}], error: DTypeError, message: "an index must be int64 or int32" },
    ],
  },
  ...(["sum", "mean", "max"] as const).map((mode): Row => ({
    name: `embeddingBag ${mode}`,
    fn: (...all: unknown[]) => {
      const [[weight, i, offsets], options] = parts<EmbeddingBagOptions>(all);
      return embeddingBag(weight, i, offsets === undefined ? options : { ...options, offsets });
    },
    torch: "",
    samples: bagSamples(mode),
    errors: [
      { inputs: [table, flatIds, at([2], 1, 3)], args: [{ mode }], error: RangeError, message: "the first offset must be 0, got 1" },
      { inputs: [table, flatIds, at([3], 0, 5, 3)], args: [{ mode }], error: RangeError, message: "offset 5 at position 1 comes after 3" },
      { inputs: [table, at([2], 0, 6), at([1], 0)], args: [{ mode }], error: RangeError, message: "index 6 is outside axis 0 of size 6" },
    ],
  })),
  {
    name: "embeddingBag weighted",
    fn: (weight: Tensor, i: Tensor, offsets: Tensor, perSampleWeights: Tensor) =>
      embeddingBag(weight, i, { mode: "sum", offsets, perSampleWeights: perSampleWeights ?? 0 as unknown as Tensor }),
    torch: 'F.embedding_bag(b, a, c, mode="sum", per_sample_weights=d)',
    samples: [{ inputs: [table, flatIds, at([4], 0, 3, 3, 5), input([7], { seed: 2 })] }],
    errors: [{
      inputs: [table, flatIds, at([1], 0), input([6])],
      error: ShapeError,
      message: "perSampleWeights must have the shape of the indices [7], got [6]",
    }],
  },
];
