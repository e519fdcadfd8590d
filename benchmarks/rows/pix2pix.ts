/**
 * The training step of pix2pix: the discriminator, then the generator.
 *
 * @module
 */
import { cat, nn, ones, optim, scope, stack, type Tensor, zeros } from "../../mod.ts";
import { PatchGan, Pix2PixGenerator } from "../../vision/mod.ts";
import { type Row, stateOf, values } from "./row.ts";

let generator: Pix2PixGenerator, judge: PatchGan;

/** Without dropout, which draws other numbers on the other side. Operations: generator three times, discriminator eight. */
export const pix2pixRow: Row = {
  name: "pix2pix_step",
  what: "pix2pix, generator and discriminator, 1x3x256x256, Adam, training step",
  flops: 86.9e9,
  checks: 10,
  tolerance: 2e-2,
  inputs() {
    generator = new Pix2PixGenerator({ dropout: false });
    judge = new PatchGan();
    return { ...stateOf(generator, judge), x: values([1, 3, 256, 256]), y: values([1, 3, 256, 256], 2) };
  },
  setup({ x, y }) {
    const options = { lr: 2e-4, betas: [0.5, 0.999] as const };
    const forG = new optim.Adam(generator.parameters(), options), forD = new optim.Adam(judge.parameters(), options);
    const bce = (scores: Tensor, real: boolean) =>
      nn.functional.binaryCrossEntropyWithLogits(scores, real ? ones(scores.shape) : zeros(scores.shape));
    const score = (picture: Tensor) => judge.call(cat([x, picture], 1));
    return {
      step: () =>
        scope(() => {
          const made = generator.call(x);
          for (const p of judge.parameters()) p.requiresGrad = true;
          forD.zeroGrad();
          const lossD = bce(score(y), true).add(bce(score(made.detach()), false)).mul(0.5);
          lossD.backward();
          forD.step();
          for (const p of judge.parameters()) p.requiresGrad = false;
          forG.zeroGrad();
          const lossG = bce(score(made), true).add(nn.functional.l1Loss(made, y).mul(100));
          lossG.backward();
          forG.step();
          return stack([lossD.detach(), lossG.detach()]);
        }),
      check: (losses) => [...losses.data()].map(Number),
    };
  },
};
