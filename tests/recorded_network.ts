/** Whole networks against values recorded from PyTorch (`fixtures/record_vision.py`). */
import { nn, noGrad, type Tensor, tensor } from "@dinograd/dinograd";
import { assert, assertEquals } from "@std/assert";

interface Recorded {
  keys: string[];
  shape: number[];
  outputShape: number[];
  every: number;
  output: number[];
  evaluated: number[];
  grads: Record<string, [number, number]>;
}

const cases: Record<string, Recorded> = JSON.parse(Deno.readTextFileSync(new URL("./fixtures/vision.json", import.meta.url)));

/** The numbers of the recording script's formula, in [-1, 1). */
function fill(shape: readonly number[], salt: number): Float64Array<ArrayBuffer> {
  return Float64Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => {
    let h = Math.imul(i + salt * 1000003, 0x9E3779B1);
    h = Math.imul(h ^ (h >>> 15), 0x85EBCA6B);
    h = Math.imul(h ^ (h >>> 13), 0xC2B2AE35);
    return ((h ^ (h >>> 16)) >>> 0) / 2 ** 31 - 1;
  });
}

function filled(name: string, shape: readonly number[], salt: number): Tensor {
  const x = fill(shape, salt);
  if (shape.length > 1) {
    const scale = Math.sqrt(6 / shape.slice(1).reduce((a, b) => a * b, 1));
    return tensor(x.map((v) => v * scale)).reshape(shape);
  }
  return tensor(x.map((v) => /(weight|running_var)$/.test(name) ? 1 + 0.3 * v : 0.2 * v));
}

/** Within 1e-8 of the larger, or of 1. */
function close(actual: ArrayLike<number | bigint>, expected: readonly number[], what: string): void {
  assertEquals(actual.length, expected.length, what);
  expected.forEach((value, i) => {
    const off = Math.abs(Number(actual[i]) - value) / Math.max(1, Math.abs(value));
    assert(off < 1e-8, `${what}: [${i}] is ${actual[i]}, PyTorch's ${value}`);
  });
}

/** Forward in both modes and all gradients, in float64. */
export function checkRecorded(name: string, model: nn.Layer): void {
  const it = cases[name];
  model.double();
  const state = model.stateDict();
  assertEquals(Object.keys(state), it.keys);
  const entries = Object.entries(state).map(([key, value], i) => [key, value.rank === 0 ? value : filled(key, value.shape, i)]);
  model.loadStateDict(Object.fromEntries(entries));
  const x = tensor(fill(it.shape, 1001)).reshape(it.shape).clone().requiresGrad_();
  const y = model.train().call(x);
  assertEquals(y.shape, it.outputShape);
  y.backward(tensor(fill(y.shape, 1002)).reshape(y.shape));
  const sample = (t: Tensor) => t.detach().flatten().slice(0, null, null, it.every).data();
  close(sample(y), it.output, "output in training mode");
  for (const [key, parameter] of [["x", x] as const, ...model.namedParameters()]) {
    const grad = parameter.grad!.reshape([-1]);
    const product = grad.mul(tensor(fill(parameter.shape, 1003))).sum(), norm = grad.square().sum().sqrt();
    close([product.item(), norm.item()], it.grads[key], `gradient of ${key}`);
  }
  close(sample(noGrad(() => model.eval().call(x))), it.evaluated, "output in evaluation mode");
  x.grad!.dispose();
}
