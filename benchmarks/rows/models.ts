/**
 * Training steps of whole models.
 *
 * @module
 */
import { nn, optim, scope, type Tensor } from "../../mod.ts";
import { resnet18, UNet } from "../../vision/mod.ts";
import { labels, type Row, values } from "./row.ts";

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

/** The rows. */
export const modelRows: readonly Row[] = [
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
];
