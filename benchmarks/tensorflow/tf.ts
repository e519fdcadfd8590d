/**
 * TensorFlow.js, from npm, and the part of its types that is used here: so that types are checked without it.
 *
 * @module
 */
import "./threads.ts";

/** A tensor of TensorFlow.js. */
export interface Tensor {
  readonly rank: number;
  dataSync(): Float32Array | Int32Array;
  dispose(): void;
}

/** A tensor that can be overwritten. */
export interface Variable extends Tensor {
  assign(value: Tensor): void;
}

type Unary = (x: Tensor) => Tensor;
type Binary = (a: Tensor, b: Tensor | number) => Tensor;
type Shape = readonly number[];

/** What it asks of the run time. */
interface Platform {
  fetch: typeof fetch;
  now(): number;
  encode(text: string): Uint8Array;
  decode(bytes: Uint8Array): string;
  isTypedArray(value: unknown): boolean;
}

/** `@tensorflow/tfjs`. */
export interface Core {
  readonly version: { "tfjs-core": string };
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
  env(): { getAsync(flag: string): Promise<boolean>; setPlatform(name: string, platform: Platform): void };
  tensor(values: Float32Array | Int32Array, shape: Shape, dtype?: string): Tensor;
  variable(value: Tensor): Variable;
  ones(shape: Shape): Tensor;
  tidy<T>(fn: () => T): T;
  dispose(value: unknown): void;
  grad(fn: Unary): Unary;
  valueAndGrad(fn: Unary): (x: Tensor, dy?: Tensor) => { value: Tensor; grad: Tensor };
  variableGrads(fn: () => Tensor): { value: Tensor; grads: Record<string, Tensor> };
  train: { adam(rate: number, beta1: number, beta2: number, epsilon: number): { applyGradients(grads: Record<string, Tensor>): void } };
  losses: { softmaxCrossEntropy: Binary };
  oneHot(indices: Tensor, depth: number): Tensor;
  transpose(x: Tensor, order?: Shape): Tensor;
  matMul: Binary;
  add: Binary;
  mul: Binary;
  exp: Unary;
  relu: Unary;
  erf: Unary;
  tanh: Unary;
  sigmoid: Unary;
  sum: Unary;
  mean(x: Tensor, axes: number | Shape): Tensor;
  softmax(x: Tensor, axis: number): Tensor;
  maxPool(x: Tensor, size: number, stride: number, padding: number): Tensor;
  conv2d(x: Tensor, w: Tensor, stride: number, padding: number, format: string, dilation: number, rounding: string): Tensor;
  batchNorm(x: Tensor, mean: Tensor, variance: Tensor, summand: Tensor, factor: Tensor, epsilon: number): Tensor;
}

/** `@tensorflow/tfjs-backend-wasm`. */
export interface Wasm {
  setThreadsCount(count: number): void;
  getThreadsCount(): number;
}

const version = "4.22.0";
/** The core, from the package that has the derivatives, too. */
export const tf: Core = await import(`npm:@tensorflow/tfjs@${version}`);
/** The WebAssembly back end. */
export const wasm: Wasm = await import(`npm:@tensorflow/tfjs-backend-wasm@${version}`);

tf.env().setPlatform("deno", {
  fetch,
  now: () => performance.now(),
  encode: (text) => new TextEncoder().encode(text),
  decode: (bytes) => new TextDecoder().decode(bytes),
  isTypedArray: (value) => ArrayBuffer.isView(value) && !(value instanceof DataView),
});
