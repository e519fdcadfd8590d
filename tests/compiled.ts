/** What the tests of `compile` have in common. */
import { type Compiled, Generator, nn, optim, randn, type Tensor, tensor } from "../mod.ts";
import { device } from "./device.ts";

/** Runs `fn` with a compiled function that is disposed afterwards. */
export function using_<A extends unknown[], R>(compiled: Compiled<A, R>, fn: (compiled: Compiled<A, R>) => void): void {
  try {
    fn(compiled);
  } finally {
    compiled.dispose();
  }
}

/** Inputs and labels, the same for a number in every run. */
export const batch = (i: number, classes = 5, size = 6, features = 8): [Tensor, Tensor] => {
  const generator = new Generator(100 + i);
  return [
    randn([size, features], { generator }),
    tensor(BigInt64Array.from({ length: size }, (_, k) => BigInt((k * 7 + i) % classes))).to(device),
  ];
};

/** A small network with dropout. */
export const mlp = () =>
  new nn.Sequential(new nn.Linear(8, 16), new nn.ReLU(), new nn.Dropout(0.3), new nn.Linear(16, 5)).to(device) as nn.Sequential;

/** A training step. */
export function trainer(model: nn.Layer, optimizer: optim.Optimizer, between: () => void = () => {}): (x: Tensor, y: Tensor) => Tensor {
  return (x, y) => {
    optimizer.zeroGrad();
    const loss = nn.functional.crossEntropy(model.call(x), y);
    loss.backward();
    between();
    optimizer.step();
    return loss.detach();
  };
}
