/**
 * The op table: one row per operation. `tests/ops_test.ts` runs every row forward and backward, on views, in every dtype, with one and with all
 * threads, and against values recorded from PyTorch (`tests/fixtures/record_ops.ts` evaluates the row's `torch` expression on the same inputs).
 */
import { type DType, Tensor, tensor } from "../mod.ts";

/** An input of a sample: its elements are made from the options, the same in every run. */
export interface Input {
  readonly shape: readonly number[];
  /** float64 is replaced by the dtype under test; integer and bool inputs stay as they are. */
  readonly dtype: DType;
  readonly values: readonly number[];
  /** Whether a gradient is asked for. */
  readonly grad: boolean;
  /** Whether the operation takes `null` in its place. */
  readonly optional: boolean;
}

/** One way to call an operation. */
export interface Sample {
  /** Tensors, named a, b, c, ... in the `torch` expression. */
  readonly inputs: readonly Input[];
  /** Further arguments of `fn`. */
  readonly args?: readonly unknown[];
  /** Python expression, if it differs from the row's. */
  readonly torch?: string;
  /** The sample sits on a kink: no central differences (recorded gradients are still compared). */
  readonly kink?: boolean;
}

/** A wrong call and the error it must give. */
export interface BadCall {
  readonly inputs: readonly Input[];
  readonly args?: readonly unknown[];
  // deno-lint-ignore no-explicit-any
  readonly error: new (...args: any[]) => Error;
  /** Part of the message. */
  readonly message: string;
}

/** An operation and how to test it. */
export interface Row {
  /** Exported name. */
  readonly name: string;
  /** The operation; gets the input tensors, then `args`. */
  // deno-lint-ignore no-explicit-any
  readonly fn: (...args: any[]) => Tensor | readonly Tensor[];
  /** The same in PyTorch: an expression over `a`, `b`, `c`, ..., `torch` and `F`; a tensor or a tuple. */
  readonly torch: string;
  readonly samples: readonly Sample[];
  /** dtypes in which the forward is compared besides float64. Default: float32, float16, bfloat16. */
  readonly dtypes?: readonly DType[];
  /** Relative (and absolute) tolerance in float32. Default 1e-5. */
  readonly tolerance?: number;
  /** False when the derivative is one fused kernel that refuses a second derivative. Default true. */
  readonly second?: boolean;
  /** False for operations without a derivative. Default: true if an input wants a gradient. */
  readonly gradient?: boolean;
  readonly errors?: readonly BadCall[];
}

/** Options of {@linkcode input}. */
export interface InputOptions {
  low?: number;
  high?: number;
  dtype?: DType;
  /** Given elements instead of made ones. */
  values?: readonly number[];
  grad?: boolean;
  optional?: boolean;
  /** Another order of the same elements. */
  seed?: number;
}

/**
 * An input of `shape` with distinct elements spread evenly over `[low, high]` (default -2 to 2) in a shuffled order: no ties by accident. Elements
 * are multiples of 1/64, which every floating-point dtype holds exactly, or where they lie closer of 1/1024, which float16 does. Integers: whole numbers in `[low, high)`.
 */
export function input(shape: readonly number[], options: InputOptions = {}): Input {
  const { low = -2, high = 2, dtype = "float64", seed = 1 } = options;
  const floating = dtype === "float64";
  const count = shape.reduce((a, b) => a * b, 1);
  let values = options.values;
  if (values === undefined) {
    let state = (seed * 2654435761 + count * 40503 + 12345) >>> 0;
    const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
    if (floating) {
      const step = (high - low) / Math.max(count, 1);
      const grid = Array.from({ length: count }, (_, i) => {
        const value = low + (i + 0.5 + 0.1 * seed) * step; // another seed, other values: no ties between inputs
        const unit = step >= 1 / 64 ? 64 : 1024;
        return Math.round(value * unit) / unit;
      });
      for (let i = count - 1; i > 0; i--) {
        const j = Math.floor(next() * (i + 1));
        [grid[i], grid[j]] = [grid[j], grid[i]];
      }
      values = grid;
    } else {
      values = Array.from({ length: count }, () => Math.floor(low + next() * (high - low)));
    }
  }
  return { shape, dtype, values, grad: options.grad ?? floating, optional: options.optional ?? false };
}

/** The tensor of an input, floating-point ones in `dtype`. */
export function build(it: Input, dtype: DType = "float64", requiresGrad = false): Tensor {
  const floating = it.dtype === "float64";
  const flat = tensor(new Float64Array(it.values));
  const x = flat.to(floating ? dtype : it.dtype).reshape(it.shape).clone().detach();
  return requiresGrad && it.grad && floating ? x.requiresGrad_() : x;
}

/** Shapes for elementwise functions: 0-d, odd sizes around vector widths, size 0, several axes. */
export const shapes: readonly (readonly number[])[] = [[], [1], [31], [33], [0, 3], [2, 3, 5], [2, 3, 2, 4]];

/** Samples of a unary function over a range where it is smooth. */
export function unarySamples(low = -2, high = 2): Sample[] {
  return shapes.map((shape) => ({ inputs: [input(shape, { low, high })] }));
}

/** Samples of a binary function: equal shapes, broadcasts, size 0. */
export function binarySamples(first: InputOptions = {}, second: InputOptions = {}): Sample[] {
  const pairs: [number[], number[]][] = [[[7], [7]], [[2, 3], [2, 3]], [[2, 3], [3]], [[2, 1, 4], [3, 1]], [[], [4]], [[0, 3], [3]], [
    [33],
    [1],
  ]];
  return pairs.map(([a, b]) => ({ inputs: [input(a, first), input(b, { seed: 2, ...second })] }));
}

/** A result as a list. */
export function list(result: Tensor | readonly Tensor[]): readonly Tensor[] {
  return result instanceof Tensor ? [result] : result;
}

/** Weight of element `i` of output `k` in the scalar that is differentiated: no pattern, never all equal. */
export function weight(i: number, k: number): number {
  return 0.25 + (((i + 1) * 7919 + k * 104729) % 1009) / 1009;
}
