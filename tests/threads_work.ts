/** Work that threads share, for threads_test.ts: sums of whole numbers, exact in any order. */
import { arange, scope } from "../mod.ts";

/** The total of all rounds: reductions along both axes, a product of matrices and sorted rows. */
export function shared(rounds: number): number {
  let total = 0;
  for (let round = 0; round < rounds; round++) {
    scope(() => {
      const x = arange(0, 300 * 400, 1, { dtype: "float64", device: "cpu" }).remainder(7 + round % 3).reshape([300, 400]);
      total += x.sum().item() + x.sum(0).max().item() + x.matmul(x.transpose(0, 1)).sum().item();
      total += x.sort(1).values.slice(1, 0, 200).sum().item();
    });
  }
  return total;
}
