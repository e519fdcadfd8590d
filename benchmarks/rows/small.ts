/**
 * Single operations: what one costs by itself, a product and a convolution.
 *
 * @module
 */
import { nn, noGrad, scope } from "../../mod.ts";
import { forwardOnly, type Row, sampled, values } from "./row.ts";

/** The rows. */
export const smallRows: readonly Row[] = [
  {
    name: "tiny_add_1000",
    what: "1000 additions of 64 floats, recorded",
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
  forwardOnly("matmul_1024", "product of 1024x1024 matrices", (x, t) => x.matmul(t.g), {
    flops: 2 * 1024 ** 3,
    inputs: () => ({ x: values([1024, 1024]), g: values([1024, 1024], 2) }),
  }),
  {
    name: "conv3x3_forward",
    what: "3x3 convolution of 32x64x32x32 to 64 channels, forward",
    flops: 2 * 9 * 64 * 64 * 32 * 32 * 32,
    checks: 1,
    tolerance: 1e-3,
    inputs: () => ({ x: values([32, 64, 32, 32]), w: values([64, 64, 3, 3], 2) }),
    setup(t) {
      const x = t.x.channelsLast(), w = t.w.channelsLast(); // as they are between two layers of a network
      x.kept = w.kept = true;
      return { step: () => scope(() => noGrad(() => nn.functional.conv2d(x, w, null, { padding: 1 }))), check: (y) => sampled(y) };
    },
  },
];
