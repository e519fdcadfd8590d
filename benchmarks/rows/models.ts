/**
 * Training steps of whole models, and inference.
 *
 * @module
 */
import { compile, nn, noGrad, optim, scope, type Tensor } from "../../mod.ts";
import { resnet18, shufflenetV2X1_0, UNet } from "../../vision/mod.ts";
import { pix2pixRow } from "./pix2pix.ts";
import { labels, type Row, sampled, stateOf, values } from "./row.ts";

type Model = nn.Layer;
type MakeOptimizer = (model: Model) => { step(): void; zeroGrad(): void };

/** A row of training steps. */
export function training(
  name: string,
  what: string,
  make: () => Model,
  optimizer: MakeOptimizer,
  data: () => { x: Tensor; y: Tensor },
  options: Partial<Row>,
  compiled = false,
): Row {
  let model: Model;
  return {
    name,
    what,
    checks: 10,
    tolerance: 2e-2,
    inputs() {
      model = make();
      return { ...stateOf(model), ...data() };
    },
    setup(t) {
      const opt = optimizer(model);
      const step = (x: Tensor, y: Tensor) => {
        opt.zeroGrad();
        const loss = nn.functional.crossEntropy(model.call(x), y);
        loss.backward();
        opt.step();
        return loss.detach();
      };
      const fast = compile(step, { fullGraph: true });
      return { step: () => compiled ? fast(t.x, t.y) : scope(() => step(t.x, t.y)), check: (loss) => [loss.item()] };
    },
    ...options,
  };
}

function inference(name: string, what: string, make: () => Model, shape: readonly number[], options: Partial<Row>): Row {
  let model: Model;
  return {
    name,
    what,
    checks: 1,
    tolerance: 1e-3,
    inputs() {
      model = make();
      model.eval();
      return { ...stateOf(model), x: values(shape) };
    },
    setup: (t) => ({ step: () => scope(() => noGrad(() => model.call(t.x))), check: (y) => sampled(y) }),
    ...options,
  };
}

const sgd: MakeOptimizer = (model) => new optim.SGD(model.parameters(), { lr: 0.01, momentum: 0.9, weightDecay: 5e-4 });
/** Fifty times slower: at 0.01 the losses of PyTorch's own two layouts differ by 3 % after ten steps. */
const slowSgd: MakeOptimizer = (model) => new optim.SGD(model.parameters(), { lr: 0.0002, momentum: 0.9, weightDecay: 5e-4 });
/** AdamW with a rate for small models. */
export const adamw: MakeOptimizer = (model) => new optim.AdamW(model.parameters(), { lr: 1e-3, weightDecay: 0.01 });

const mlp = () => new nn.Sequential(new nn.Linear(64, 64), new nn.ReLU(), new nn.Linear(64, 64), new nn.ReLU(), new nn.Linear(64, 10));
const images = () => ({ x: values([32, 3, 32, 32]), y: labels(32, 10) });
const resnet = () => resnet18({ cifar: true, numClasses: 10 });
const scans = () => ({ x: values([8, 3, 128, 128]), y: labels(8 * 128 * 128, 2).reshape([8, 128, 128]) });
const segmenter = () => new UNet({ inChannels: 3, outChannels: 2, baseChannels: 32, depth: 4 });

const thumbnails = () => ({ x: values([32, 3, 64, 64]), y: labels(32, 10) });
const shuffled = () => shufflenetV2X1_0({ numClasses: 10 });

/** The rows. `flops`: two for a multiplication and addition of convolutions and products, as PyTorch's FlopCounterMode counts them. */
export const modelRows: readonly Row[] = [
  training("mlp_step", "MLP 64-64-64-10, batch 32, AdamW, training step", mlp, adamw, () => ({ x: values([32, 64]), y: labels(32, 10) }), {
    tolerance: 1e-3,
  }),
  training("mlp_step_compiled", "the same, compile()", mlp, adamw, () => ({ x: values([32, 64]), y: labels(32, 10) }), {
    tolerance: 1e-3,
  }, true),
  training("resnet18_step", "ResNet-18, 32x3x32x32, SGD, training step", resnet, sgd, images, {
    flops: 106.5e9,
  }),
  training("resnet18_step_compiled", "the same, compile()", resnet, sgd, images, { flops: 106.5e9 }, true),
  training("unet_step", "U-Net, 8x3x128x128, SGD, training step", segmenter, sgd, scans, { flops: 144.7e9 }),
  pix2pixRow,
  training("shufflenet_step", "ShuffleNet V2, 32x3x64x64, SGD, training step", shuffled, slowSgd, thumbnails, { flops: 3 * 0.752e9 }),
  inference("resnet18_infer_32", "ResNet-18, 1x3x32x32, inference", resnet, [1, 3, 32, 32], { flops: 1.111e9 }),
  inference("resnet18_infer_224", "ResNet-18, 1x3x224x224, inference", () => resnet18(), [1, 3, 224, 224], { flops: 3.628e9 }),
];
