/** The tiles of the CUDA convolution that the other tests are too small for, on the emulated library, beside the CPU's results. */
import { assert, assertEquals } from "@std/assert";
import { cuda, type DType, manualSeed, nn, rand, type Tensor } from "../mod.ts";
import { test as leavesNothing } from "./leaks.ts";

Deno.env.set("DINOGRAD_EMULATED_CUDA", "1");
// As tests/device.ts sets it: all test files share one process, and the emulator reads it once.
Deno.env.set("DINOGRAD_EMULATED_DEVICES", "4");

const test = (name: string, fn: () => void) => leavesNothing(name, fn, { ignore: !cuda.isAvailable() });

/** A convolution of `groups` groups: sizes of the input, filters in all, taps of an axis. */
interface Case {
  readonly what: string;
  readonly x: readonly number[];
  readonly filters: number;
  readonly kernel: number;
  readonly groups: number;
  /** Memory order of the weight: it is read in place, not packed first. */
  readonly channelsLast?: boolean;
  readonly stride?: number;
  readonly padding?: number;
  readonly dilation?: number;
  readonly dtypes: readonly DType[];
}

/**
 * Large tiles are for more than 32 columns and at least 264 tiles, or 2^26 products in the gradient of the weight. Many groups of few rows need the least work
 * for that. Rows and columns leave the last tiles partly empty, terms the last step. Packs of 16 bytes are read where the channels of a group are a multiple of
 * one, single elements otherwise, and terms are looked up one by one where a group has few channels. Coordinates beyond 2^30 have kernels of their own.
 */
const cases: readonly Case[] = [
  { what: "packs", x: [1, 2992, 11, 13], filters: 2992, kernel: 1, groups: 88, dtypes: ["float64"] },
  { what: "packs", x: [1, 3168, 11, 13], filters: 4752, kernel: 1, groups: 132, dtypes: ["float32"] },
  { what: "packs, weight too", x: [1, 2112, 12, 13], filters: 4752, kernel: 2, groups: 132, channelsLast: true, dtypes: ["float32"] },
  { what: "packs, weight too", x: [1, 5280, 12, 13], filters: 5280, kernel: 2, groups: 132, channelsLast: true, dtypes: ["bfloat16"] },
  { what: "elements", x: [1, 4488, 11, 13], filters: 4488, kernel: 1, groups: 132, dtypes: ["float32", "float16"] },
  { what: "elements", x: [1, 2904, 11, 13], filters: 3080, kernel: 1, groups: 88, dtypes: ["float64"] },
  { what: "terms", x: [1, 792, 8, 10], filters: 8712, kernel: 2, groups: 264, dtypes: ["float32"] },
  { what: "terms, backwards", x: [1, 8712, 7, 9], filters: 1584, kernel: 2, groups: 264, dtypes: ["float32"] },
  {
    what: "phases",
    x: [1, 1188, 23, 22],
    filters: 1188,
    kernel: 2,
    groups: 33,
    stride: 2,
    padding: 1,
    channelsLast: true,
    dtypes: ["float32"],
  },
  {
    what: "coordinates",
    x: [2, 8, 3, 3],
    filters: 12,
    kernel: 1,
    groups: 1,
    dilation: 2 ** 30,
    dtypes: ["float32", "float64", "bfloat16"],
  },
  { what: "weight, packs", x: [1, 16, 63, 63], filters: 128, kernel: 3, groups: 1, dtypes: ["float32", "bfloat16"] },
  { what: "weight, elements", x: [1, 17, 63, 63], filters: 123, kernel: 3, groups: 1, dtypes: ["float64"] },
  { what: "weight, elements, stride", x: [1, 190, 95, 95], filters: 190, kernel: 1, groups: 1, stride: 2, dtypes: ["float16"] },
  { what: "weight, elements, one part", x: [1, 1056, 17, 17], filters: 8712, kernel: 3, groups: 264, dtypes: ["float32"] },
  { what: "weight, coordinates", x: [2, 8, 3, 3], filters: 12, kernel: 1, groups: 1, dilation: 2 ** 30, dtypes: ["float32", "float16"] },
];

const tolerance: Partial<Record<DType, number>> = { float32: 1e-4, float64: 1e-11, float16: 4e-3, bfloat16: 3e-2 };

/** Distance of the largest deviation, in parts of the largest expected value. */
function distance(actual: Tensor, expected: Tensor): number {
  const want = expected.to("cpu").to("float64");
  return actual.to("cpu").to("float64").sub(want).abs().max().item() / want.abs().max().item();
}

/** The result and the gradients: of the weight and the bias where the case is about them, else of the input. The output's gradient is `dy`. */
function results(x: Tensor, w: Tensor, b: Tensor, dy: Tensor, it: Case): Tensor[] {
  const ofWeight = it.what.startsWith("weight");
  const leaves = [x, w, b].map((leaf, i) => leaf.detach().requiresGrad_((i > 0) === ofWeight));
  const { stride, padding, dilation, groups } = it;
  const y = nn.functional.conv2d(leaves[0], leaves[1], leaves[2], { stride, padding, dilation, groups });
  y.backward(dy);
  return [y.detach(), ...leaves.map((leaf) => leaf.grad).filter((grad) => grad !== null)];
}

for (const it of cases) {
  for (const dtype of it.dtypes) {
    test(`conv2d() on the emulated GPU is the CPU's: ${it.what}, ${dtype}`, () => {
      manualSeed(4);
      const draw = (shape: readonly number[]) => rand(shape).sub(0.5).to(dtype);
      const { stride = 1, padding = 0, dilation = 1, kernel } = it;
      const size = (i: number) => Math.floor((it.x[i] + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1;
      const x = draw(it.x), weight = draw([it.filters, it.x[1] / it.groups, kernel, kernel]), b = draw([it.filters]);
      const dy = draw([it.x[0], it.filters, size(2), size(3)]);
      const w = it.channelsLast ? weight.channelsLast() : weight;
      const want = results(x, w, b, dy, it), got = results(x.to("cuda"), w.to("cuda"), b.to("cuda"), dy.to("cuda"), it);
      assertEquals(got.map((t) => t.shape), want.map((t) => t.shape));
      got.forEach((t, i) => {
        const apart = distance(t, want[i]);
        assert(apart <= tolerance[dtype]!, `result ${i} (then gradients): ${apart} apart`);
      });
      [...got, ...want].forEach((t) => t.dispose());
    });
  }
}
