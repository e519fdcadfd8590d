/**
 * The dinograd side of the benchmarks: what each row computes, on inputs that both sides read from one file. `pytorch.py` holds the other side.
 *
 * @module
 */
import { nn, noGrad, optim, scope, type Tensor, tensor } from "../mod.ts";
import { resnet18, UNet } from "../vision/mod.ts";

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
  /** Name of the PyTorch side, if it differs. */
  readonly pytorch?: string;
  /** What is done, for the table. */
  readonly what: string;
  /** Bytes moved or operations done by one step, for GB/s or GFLOP/s. */
  readonly bytes?: number;
  readonly flops?: number;
  /** Steps per timing: enough that one timing is at least some milliseconds. */
  readonly steps: number;
  /** Steps of which the results are compared. */
  readonly checks: number;
  /** Largest relative difference that passes. */
  readonly tolerance: number;
  /** Inputs for both sides, by name; those of a model start with `model.`. */
  inputs(): Record<string, Tensor>;
  /** Sets the row up from its inputs. */
  setup(inputs: Record<string, Tensor>): Ready;
}

const N = 16 * 2 ** 20;

/** Deterministic numbers in [-1, 1) without structure. */
function numbers(count: number, salt = 1): Float32Array<ArrayBuffer> {
  const out = new Float32Array(count);
  let state = (salt * 2654435761) >>> 0;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    out[i] = state / 2 ** 31 - 1;
  }
  return out;
}

function values(shape: readonly number[], salt = 1): Tensor {
  return tensor(numbers(shape.reduce((a, b) => a * b, 1), salt)).reshape(shape).clone();
}

function labels(count: number, classes: number): Tensor {
  return tensor(BigInt64Array.from({ length: count }, (_, i) => BigInt((i * 7919) % classes)));
}

/** Sixteen elements of each, evenly spread. */
function sampled(...tensors: readonly Tensor[]): number[] {
  return tensors.flatMap((x) => {
    const flat = x.detach().reshape([-1]), step = Math.max(1, Math.floor(flat.shape[0] / 16));
    return [...flat.slice(0, null, null, step).slice(0, 0, 16).data()].map(Number);
  });
}

function bothWays(name: string, what: string, fn: (x: Tensor, t: Record<string, Tensor>) => Tensor, options: Partial<Row> = {}): Row {
  const shape = [4096, 4096];
  return {
    name,
    what,
    steps: 1,
    checks: 1,
    tolerance: 1e-3,
    inputs: () => ({ x: values(shape), g: values(shape, 2) }),
    setup(t) {
      const x = t.x.requiresGrad_();
      return {
        step: () =>
          scope(() => {
            x.grad?.dispose();
            x.grad = null;
            const y = fn(x, t);
            if (y.rank === 0) y.backward();
            else y.backward(t.g);
            return y.detach();
          }),
        check: (y) => sampled(y, x.grad!),
      };
    },
    ...options,
  };
}

function forwardOnly(name: string, what: string, fn: (x: Tensor, t: Record<string, Tensor>) => Tensor, bytes: number): Row {
  return {
    ...bothWays(name, what, fn),
    bytes,
    setup: (t) => ({ step: () => scope(() => noGrad(() => fn(t.x, t))), check: (y) => sampled(y) }),
  };
}

type Model = nn.Layer;
type MakeOptimizer = (model: Model) => { step(): void; zeroGrad(): void };

function training(
  name: string,
  what: string,
  make: () => Model,
  optimizer: MakeOptimizer,
  data: () => { x: Tensor; y: Tensor },
  options: Partial<Row>,
): Row {
  let model: Model;
  return {
    name,
    what,
    steps: 1,
    checks: 10,
    tolerance: 2e-2,
    inputs() {
      model = make();
      const state: Record<string, Tensor> = {};
      let index = 0;
      for (const [key, value] of Object.entries(model.stateDict())) state[`model.${String(index++).padStart(4, "0")}.${key}`] = value;
      return { ...state, ...data() };
    },
    setup(t) {
      const opt = optimizer(model);
      return {
        step: () =>
          scope(() => {
            opt.zeroGrad();
            const loss = nn.functional.crossEntropy(model.call(t.x), t.y);
            loss.backward();
            opt.step();
            return loss.detach();
          }),
        check: (loss) => [loss.item()],
      };
    },
    ...options,
  };
}

const sgd: MakeOptimizer = (model) => new optim.SGD(model.parameters(), { lr: 0.01, momentum: 0.9, weightDecay: 5e-4 });
const adamw: MakeOptimizer = (model) => new optim.AdamW(model.parameters(), { lr: 1e-3, weightDecay: 0.01 });

const mlp = () => new nn.Sequential(new nn.Linear(64, 64), new nn.ReLU(), new nn.Linear(64, 64), new nn.ReLU(), new nn.Linear(64, 10));
const images = () => ({ x: values([32, 3, 32, 32]), y: labels(32, 10) });
const resnet = () => resnet18({ cifar: true, numClasses: 10 });
const scans = () => ({ x: values([8, 3, 128, 128]), y: labels(8 * 128 * 128, 2).reshape([8, 128, 128]) });
const segmenter = () => new UNet({ inChannels: 3, outChannels: 2, baseChannels: 32, depth: 4 });

const normInputs = (channels: number) => () => ({
  x: values([32, channels, 64, N / 32 / channels / 64]),
  g: values([32, channels, 64, N / 32 / channels / 64], 2),
  w: values([channels], 3),
  b: values([channels], 4),
});

const batchNorm = (x: Tensor, t: Record<string, Tensor>) =>
  nn.functional.batchNorm(x, null, null, { weight: t.w, bias: t.b, training: true });

/** The rows, in the order of the table. */
export const rows: readonly Row[] = [
  {
    name: "tiny_add_1000",
    what: "1000 additions of 64 floats, recorded",
    steps: 20,
    checks: 1,
    tolerance: 1e-6,
    inputs: () => ({ x: values([64]), g: values([64], 2) }),
    setup(t) {
      const x = t.x.requiresGrad_();
      const step = () =>
        scope(() => {
          let r = x;
          for (let i = 0; i < 1000; i++) r = x.add(t.g);
          return r.detach();
        });
      return { step, check: (r) => sampled(r) };
    },
  },
  training("mlp_step", "MLP 64-64-64-10, batch 32, AdamW, training step", mlp, adamw, () => ({ x: values([32, 64]), y: labels(32, 10) }), {
    steps: 50,
    tolerance: 1e-3,
  }),
  training("resnet18_step", "ResNet-18, 32x3x32x32, SGD, training step; PyTorch in its default layout", resnet, sgd, images, {
    flops: 32 * 3 * 2 * 0.5556e9,
  }),
  training("resnet18_step_channels_last", "the same; PyTorch in channels-last", resnet, sgd, images, { flops: 32 * 3 * 2 * 0.5556e9 }),
  training("unet_step", "U-Net, 8x3x128x128, SGD, training step; PyTorch in its default layout", segmenter, sgd, scans, {}),
  training("unet_step_channels_last", "the same; PyTorch in channels-last", segmenter, sgd, scans, {}),
  forwardOnly("add_16m", "x + y, 16 M elements", (x, t) => x.add(t.g), 12 * N),
  forwardOnly("mul_16m", "x * y", (x, t) => x.mul(t.g), 12 * N),
  forwardOnly("exp_16m", "exp(x)", (x) => x.exp(), 8 * N),
  bothWays("relu_16m", "relu, forward and backward", (x) => x.relu(), { bytes: 20 * N }),
  bothWays("gelu_16m", "gelu, forward and backward", (x) => nn.functional.gelu(x), { bytes: 20 * N }),
  bothWays("tanh_16m", "tanh, forward and backward", (x) => x.tanh(), { bytes: 20 * N }),
  bothWays("sigmoid_16m", "sigmoid, forward and backward", (x) => x.sigmoid(), { bytes: 20 * N }),
  forwardOnly("sum_16m", "sum of all", (x) => x.sum(), 4 * N),
  forwardOnly("mean_rows_16m", "mean of each of 4096 rows", (x) => x.mean(1), 4 * N),
  bothWays("softmax_16m", "softmax over 4096, forward and backward", (x) => nn.functional.softmax(x, 1), { bytes: 20 * N }),
  bothWays("cross_entropy_16m", "cross entropy over 4096 classes, forward and backward", (x, t) => nn.functional.crossEntropy(x, t.y), {
    bytes: 12 * N,
    inputs: () => ({ x: values([4096, 4096]), y: labels(4096, 4096) }),
  }),
  bothWays("batch_norm_16m", "BatchNorm of 32x64x64x128, training, forward and backward", batchNorm, {
    bytes: 32 * N,
    inputs: normInputs(64),
  }),
  bothWays("batch_norm_16m_channels_last", "the same, both in channels-last", (x, t) => batchNorm(x, t), {
    bytes: 32 * N,
    inputs() {
      const made = normInputs(64)();
      return { ...made, x: made.x.channelsLast(), g: made.g.channelsLast() };
    },
  }),
  bothWays(
    "layer_norm_16m",
    "LayerNorm of rows of 4096, forward and backward",
    (x, t) => nn.functional.layerNorm(x, [4096], { weight: t.w, bias: t.b }),
    {
      bytes: 28 * N,
      inputs: () => ({ x: values([4096, 4096]), g: values([4096, 4096], 2), w: values([4096], 3), b: values([4096], 4) }),
    },
  ),
];
