/**
 * What an operation costs by itself.
 *
 * @module
 */
import { scope } from "../../mod.ts";
import { type Row, sampled, values } from "./row.ts";

/** The rows. */
export const smallRows: readonly Row[] = [
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
];
