/**
 * What a row of the benchmarks is, and what rows are made of.
 *
 * @module
 */
import { type nn, noGrad, scope, type Tensor, tensor } from "../../mod.ts";

/** A row ready to run. */
export interface Ready {
  /** Does the work once; what it returns is compared, not timed. */
  step(): Tensor;
  /** Numbers to compare after a step. */
  check(result: Tensor): number[];
}

/** A row of the benchmark. */
export interface Row {
  readonly name: string;
  /** What is done, for the table. */
  readonly what: string;
  /** Bytes moved or operations done by one step, for GB/s or GFLOP/s. */
  readonly bytes?: number;
  readonly flops?: number;
  /** Steps of which the results are compared. */
  readonly checks: number;
  /** Largest relative difference that passes. */
  readonly tolerance: number;
  /** Inputs for both sides, by name; those of a model start with `model.`. */
  inputs(): Record<string, Tensor>;
  /** Sets the row up from its inputs. */
  setup(inputs: Record<string, Tensor>): Ready;
}

/** Elements of the large rows. */
export const N = 16 * 2 ** 20;

/** Deterministic numbers in [-1, 1) without structure. */
export function numbers(count: number, salt = 1): Float32Array<ArrayBuffer> {
  const out = new Float32Array(count);
  let state = (salt * 2654435761) >>> 0;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    out[i] = state / 2 ** 31 - 1;
  }
  return out;
}

/** Deterministic numbers of a shape. */
export function values(shape: readonly number[], salt = 1): Tensor {
  return tensor(numbers(shape.reduce((a, b) => a * b, 1), salt)).reshape(shape).clone();
}

/** Classes that follow no order. */
export function labels(count: number, classes: number): Tensor {
  return tensor(BigInt64Array.from({ length: count }, (_, i) => BigInt((i * 7919) % classes)));
}

/** Sixteen elements of each, evenly spread. */
export function sampled(...tensors: readonly Tensor[]): number[] {
  return tensors.flatMap((x) => {
    const flat = x.detach().reshape([-1]), step = Math.max(1, Math.floor(flat.shape[0] / 16));
    return [...flat.slice(0, null, null, step).slice(0, 0, 16).data()].map(Number);
  });
}

/** A row of `fn` (of the first of `leaves`, by default `x`) and the gradients of the leaves, on 16 M elements unless `options.inputs` says otherwise. */
export function bothWays(
  name: string,
  what: string,
  fn: (x: Tensor, t: Record<string, Tensor>) => Tensor,
  { leaves = ["x"], ...options }: Partial<Row> & { leaves?: readonly string[] } = {},
): Row {
  const shape = [4096, 4096];
  return {
    name,
    what,
    checks: 1,
    tolerance: 1e-3,
    inputs: () => ({ x: values(shape), g: values(shape, 2) }),
    setup(t) {
      const wanted = leaves.map((name) => t[name].requiresGrad_());
      return {
        step: () =>
          scope(() => {
            for (const leaf of wanted) {
              leaf.grad?.dispose();
              leaf.grad = null;
            }
            const y = fn(wanted[0], t);
            if (y.rank === 0) y.backward();
            else y.backward(t.g);
            return y.detach();
          }),
        check: (y) => sampled(y, ...wanted.map((leaf) => leaf.grad!)),
      };
    },
    ...options,
  };
}

/** A row of `fn` without its derivative; a number counts the bytes. */
export function forwardOnly(
  name: string,
  what: string,
  fn: (x: Tensor, t: Record<string, Tensor>) => Tensor,
  options: number | Partial<Row>,
): Row {
  return {
    ...bothWays(name, what, fn, typeof options === "number" ? { bytes: options } : options),
    setup: (t) => ({ step: () => scope(() => noGrad(() => fn(t.x, t))), check: (y) => sampled(y) }),
  };
}

/** Parameters and buffers of models under the names that a row gives them: in order, so that PyTorch takes them by position. */
export function stateOf(...models: readonly nn.Module[]): Record<string, Tensor> {
  const entries = models.flatMap((model) => Object.entries(model.stateDict()));
  return Object.fromEntries(entries.map(([key, value], i) => [`model.${String(i).padStart(4, "0")}.${key}`, value]));
}
