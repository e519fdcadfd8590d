import { type AttentionOptions, DTypeError, scaledDotProductAttention, ShapeError, type Tensor } from "../../mod.ts";
import { type Input, input, type Row, type Sample } from "../op_table.ts";

type Options = Omit<AttentionOptions, "attnMask"> & { python?: string };

/** Queries, keys and values; small, so that no weight is close to 0. */
const inputs = (q: readonly number[], k: readonly number[], v: readonly number[]): Input[] => [
  input(q, { low: -1, high: 1 }),
  input(k, { low: -1, high: 1, seed: 2 }),
  input(v, { seed: 3 }),
];

const sample = (q: readonly number[], k: readonly number[], v: readonly number[], options?: AttentionOptions, torch?: string): Sample => ({
  inputs: inputs(q, k, v),
  args: options ? [options] : [],
  torch: torch ? `F.scaled_dot_product_attention(a, b, c, ${torch})` : undefined,
});

const masked = (shape: readonly number[], mask: Input): Sample => ({
  inputs: [...inputs([2, 2, ...shape], [2, 2, shape[0] + 1, shape[1]], [2, 2, shape[0] + 1, 3]), mask],
  torch: "F.scaled_dot_product_attention(a, b, c, d)",
});

const pattern = (count: number) => Array.from({ length: count }, (_, i) => (i * 7 + 3) % 5 < 3 ? 1 : 0);

export const attention: readonly Row[] = [
  {
    name: "scaledDotProductAttention",
    fn: (q: Tensor, k: Tensor, v: Tensor, ...rest: unknown[]) => {
      const options = rest.at(-1) !== null && typeof rest.at(-1) === "object" && !("dtype" in (rest.at(-1) as object))
        ? rest.pop() as Options
        : {};
      return scaledDotProductAttention(q, k, v, { ...options, attnMask: rest[0] as Tensor | undefined });
    },
    torch: "F.scaled_dot_product_attention(a, b, c)",
    samples: [
      sample([2, 3, 4], [2, 5, 4], [2, 5, 3]),
      sample([3, 4], [5, 4], [5, 2]),
      sample([2, 2, 3, 4], [2, 2, 3, 4], [2, 2, 3, 4], { isCausal: true }, "is_causal=True"),
      sample([1, 5, 2], [1, 3, 2], [1, 3, 33], { isCausal: true, scale: 0.3 }, "is_causal=True, scale=0.3"),
      sample([1, 4, 3, 2], [1, 2, 3, 2], [1, 2, 3, 5], { enableGqa: true }, "enable_gqa=True"),
      sample([2, 1, 3, 2], [3, 4, 2], [1, 3, 4, 2]),
      sample([1, 33, 31], [1, 140, 31], [1, 140, 17]),
      sample([0, 3, 2], [0, 4, 2], [0, 4, 3]),
      masked([3, 2], input([3, 4], { dtype: "bool", values: pattern(12) })),
      masked([3, 2], input([2, 1, 1, 4], { dtype: "bool", values: pattern(8) })),
      masked([2, 5], input([2, 2, 2, 3], { grad: false, seed: 4 })),
      masked([2, 3], input([2, 3], { seed: 4 })), // a mask that learns
    ],
    errors: [
      { inputs: inputs([3, 4], [5, 3], [5, 2]), error: ShapeError, message: "last axes of query and key must be equal, got query [3, 4]" },
      { inputs: inputs([3, 4], [5, 4], [6, 2]), error: ShapeError, message: "key and value must have one length" },
      { inputs: inputs([4], [5, 4], [5, 2]), error: ShapeError, message: "at least 2 axes" },
      {
        inputs: inputs([2, 4, 3, 2], [2, 3, 3, 2], [2, 3, 3, 2]),
        args: [{ enableGqa: true }],
        error: ShapeError,
        message: "divide those of the query",
      },
      {
        inputs: inputs([2, 4, 3, 2], [2, 3, 3, 2], [2, 3, 3, 2]),
        error: ShapeError,
        message: "shapes do not broadcast: [2, 4] and [2, 3]",
      },
      {
        inputs: inputs([3, 4], [5, 4], [5, 2]),
        args: [{ dropoutP: 1.5 }],
        error: RangeError,
        message: "dropoutP must be in [0, 1], got 1.5",
      },
      {
        inputs: [...inputs([3, 4], [5, 4], [5, 2]), input([3, 5], { dtype: "bool", values: pattern(15) })],
        args: [{ isCausal: true }],
        error: TypeError,
        message: "attnMask and isCausal cannot both be given",
      },
      {
        inputs: [...inputs([3, 4], [5, 4], [5, 2]), input([3, 4], { dtype: "bool", values: pattern(12) })],
        error: ShapeError,
        message: "shapes do not broadcast: [3, 4] and [3, 5]",
      },
      {
        inputs: [...inputs([3, 4], [5, 4], [5, 2]), input([3, 5], { dtype: "int64", low: 0 })],
        error: DTypeError,
        message: "the mask must be bool, float32 or float64 as the query, got int64",
      },
      {
        inputs: [input([2, 3], { dtype: "int64" }), ...inputs([3, 4], [5, 4], [5, 2]).slice(1)],
        error: DTypeError,
        message: "floating point",
      },
    ],
  },
];
