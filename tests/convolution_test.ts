import { assert, assertEquals } from "@std/assert";
import {
  channelsLast,
  conv1d,
  conv2d,
  conv3d,
  type ConvOptions,
  convTranspose1d,
  convTranspose2d,
  convTranspose3d,
  type ConvTransposeOptions,
  DTypeError,
  enableGrad,
  getThreads,
  grad,
  gradcheck,
  memory,
  scope,
  setThreads,
  ShapeError,
  type Tensor,
  zeros,
} from "../mod.ts";
import { libraryOf } from "../ffi/library.ts";
import { textOf } from "../tensor/shape.ts";
import { PatchGan, Pix2PixGenerator, resnet18, shufflenetV2X1_0, UNet } from "../vision/mod.ts";
import { numbers, relativeError, trio } from "./convolution_data.ts";
import { assertThrows, device } from "./device.ts";

interface Case {
  x: number[];
  w: number[];
  stride: number[];
  padding: number[];
  dilation: number[];
  groups: number;
}

/** The sum of the definition, in JavaScript. */
function direct(x: Tensor, w: Tensor, c: Case): { data: Float64Array; shape: number[] } {
  const axes = c.w.length - 2, three = (list: readonly number[], rest: number) => [...new Array(3 - axes).fill(rest), ...list];
  const input = three(c.x.slice(2), 1), kernel = three(c.w.slice(2), 1);
  const stride = three(c.stride, 1), padding = three(c.padding, 0), dilation = three(c.dilation, 1);
  const out = input.map((size, i) => Math.floor((size + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) / stride[i]) + 1);
  const [N, C] = c.x, O = c.w[0], perGroup = C / c.groups;
  const xs = x.data() as Float64Array, ws = w.data() as Float64Array, data = new Float64Array(N * O * out[0] * out[1] * out[2]);
  let at = 0;
  for (let n = 0; n < N; n++) {
    for (let o = 0; o < O; o++) {
      const first = Math.floor(o / (O / c.groups)) * perGroup;
      for (let z = 0; z < out[0]; z++) {
        for (let y = 0; y < out[1]; y++) {
          for (let v = 0; v < out[2]; v++, at++) {
            for (let k = 0; k < kernel[0] * kernel[1] * kernel[2]; k++) {
              const kx = k % kernel[2], ky = Math.floor(k / kernel[2]) % kernel[1], kz = Math.floor(k / kernel[2] / kernel[1]);
              const iz = z * stride[0] - padding[0] + kz * dilation[0], iy = y * stride[1] - padding[1] + ky * dilation[1];
              const ix = v * stride[2] - padding[2] + kx * dilation[2];
              if (iz < 0 || iy < 0 || ix < 0 || iz >= input[0] || iy >= input[1] || ix >= input[2]) continue;
              for (let i = 0; i < perGroup; i++) {
                data[at] += xs[(((n * C + first + i) * input[0] + iz) * input[1] + iy) * input[2] + ix] *
                  ws[(o * perGroup + i) * kernel[0] * kernel[1] * kernel[2] + k];
              }
            }
          }
        }
      }
    }
  }
  return { data, shape: [N, O, ...out.slice(3 - axes)] };
}

function convolution(axes: number): (x: Tensor, w: Tensor, b?: Tensor | null, options?: ConvOptions) => Tensor {
  return [conv1d, conv2d, conv3d][axes - 1];
}
function transposed(axes: number): (x: Tensor, w: Tensor, b?: Tensor | null, options?: ConvTransposeOptions) => Tensor {
  return [convTranspose1d, convTranspose2d, convTranspose3d][axes - 1];
}

const large = 400; // numbers beyond which differences take too long

const cases: Case[] = [
  { x: [2, 3, 9], w: [5, 3, 4], stride: [2], padding: [3], dilation: [1], groups: 1 },
  { x: [1, 4, 17], w: [6, 2, 3], stride: [1], padding: [2], dilation: [2], groups: 2 },
  { x: [2, 3, 7, 5], w: [4, 3, 3, 2], stride: [2, 1], padding: [1, 2], dilation: [1, 2], groups: 1 },
  { x: [1, 1, 5, 9], w: [33, 1, 3, 3], stride: [1, 1], padding: [1, 1], dilation: [1, 1], groups: 1 },
  { x: [1, 6, 6, 5], w: [6, 1, 3, 3], stride: [2, 2], padding: [1, 1], dilation: [1, 1], groups: 6 },
  { x: [1, 4, 5, 5], w: [8, 1, 3, 3], stride: [1, 1], padding: [1, 1], dilation: [1, 1], groups: 4 },
  { x: [1, 17, 4, 4], w: [3, 17, 1, 1], stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 },
  { x: [2, 36, 3, 5, 4], w: [40, 18, 1, 1, 1], stride: [2, 2, 3], padding: [0, 0, 0], dilation: [1, 1, 1], groups: 2 },
  { x: [1, 33, 5, 3], w: [17, 33, 1, 1], stride: [2, 3], padding: [0, 0], dilation: [1, 1], groups: 1 },
  { x: [1, 3, 6, 8], w: [5, 3, 2, 2], stride: [2, 2], padding: [0, 0], dilation: [1, 1], groups: 1 },
  { x: [1, 3, 3, 3], w: [2, 3, 2, 2], stride: [5, 4], padding: [2, 3], dilation: [1, 1], groups: 1 },
  { x: [1, 2, 4, 3, 5], w: [3, 2, 2, 3, 2], stride: [1, 2, 1], padding: [1, 1, 0], dilation: [2, 1, 1], groups: 1 },
  { x: [1, 4, 3, 4, 3], w: [4, 1, 1, 3, 3], stride: [1, 1, 1], padding: [0, 1, 1], dilation: [1, 1, 1], groups: 4 },
];

Deno.test("conv1d() conv2d() conv3d() equal the sum of their definition", () => {
  for (const c of cases) {
    scope(() => {
      const axes = c.w.length - 2, x = numbers(c.x, 1), w = numbers(c.w, 2), b = numbers([c.w[0]], 3);
      const expected = direct(x, w, c), area = expected.data.length / expected.shape[0] / expected.shape[1];
      const biases = b.data();
      const withBias = expected.data.map((v, i) => v + Number(biases[Math.floor(i / area) % c.w[0]]));
      for (const dtype of ["float64", "float32", "float16", "bfloat16"] as const) {
        const y = convolution(axes)(x.to(dtype), w.to(dtype), b.to(dtype), c);
        assertEquals([...y.shape], expected.shape);
        assertEquals(y.dtype, dtype);
        const tolerance = { float64: 1e-13, float32: 2e-6, float16: 3e-3, bfloat16: 3e-2 }[dtype];
        const error = relativeError(y, withBias);
        assert(error < tolerance, `${JSON.stringify(c)} ${dtype}: ${error}`);
      }
    });
  }
});

Deno.test("conv2d() takes any memory order and writes channels-last", () => {
  scope(() => {
    const c = cases[2], x = numbers(c.x, 1), w = numbers(c.w, 2), expected = conv2d(x, w, null, c);
    assertEquals(expected.strides[1], 1);
    const turned = numbers([5, 7, 3, 2], 9).permute([3, 2, 1, 0]);
    const straight = conv2d(turned.contiguous(), w, null, c).data();
    assertEquals(conv2d(turned, w, null, c).data(), straight);
    assertEquals(conv2d(channelsLast(x), channelsLast(w), null, c).data(), expected.data());
    const wide = zeros([2, 3, 14, 5], { dtype: "float64" });
    const every = wide.slice(2, 0, null, 2);
    assertEquals(conv2d(every, w, null, c).sum().item(), 0);
    assertEquals([...conv2d(x.select(0, 0), w, null, c).shape], expected.shape.slice(1));
    assertEquals(conv2d(x.select(0, 1), w, null, c).data(), expected.select(0, 1).data());
  });
});

Deno.test("convolutions give the same bits for either memory order of the weight, and gradients in that order", () => {
  const list: { x: number[]; w: number[]; options: ConvOptions }[] = [
    { x: [2, 16, 9, 9], w: [24, 16, 3, 3], options: { padding: 1 } },
    { x: [2, 16, 9, 9], w: [24, 16, 3, 3], options: { stride: 2, padding: 1 } },
    { x: [2, 32, 7, 6], w: [40, 16, 3, 2], options: { groups: 2, dilation: 2 } },
    { x: [1, 64, 8, 8], w: [64, 64, 1, 1], options: { stride: 2 } },
    { x: [2, 3, 11, 11], w: [8, 3, 4, 4], options: { stride: 2, padding: 1 } },
    { x: [2, 20, 8, 8], w: [33, 20, 3, 3], options: { padding: 1 } },
    { x: [2, 128, 6, 6], w: [70, 128, 3, 3], options: { padding: 1 } },
  ];
  for (const dtype of ["float32", "float64", "float16"] as const) {
    for (const { x: shape, w: weight, options } of list) {
      scope(() => {
        const x = channelsLast(numbers(shape, 1).to(dtype)), w = numbers(weight, 2).to(dtype);
        const results = [w, channelsLast(w)].map((order) => {
          const [a, b] = [x.detach().requiresGrad_(), order.detach().requiresGrad_()];
          const y = conv2d(a, b, null, options);
          y.mul(y.detach()).sum().backward();
          assertEquals(b.grad!.strides, b.strides);
          const t = convTranspose2d(y.detach(), b, null, { stride: options.stride, groups: options.groups } as ConvTransposeOptions);
          return [y, a.grad!, b.grad!, t].map((it) => it.contiguous().data());
        });
        assertEquals(results[1], results[0], `${dtype} ${weight} ${JSON.stringify(options)}`);
      });
    }
  }
});

Deno.test("conv1d() conv2d() conv3d() gradients by differences", () => {
  for (const c of cases) {
    scope(() => {
      const axes = c.w.length - 2, x = numbers(c.x, 1).requiresGrad_(), w = numbers(c.w, 2).requiresGrad_();
      if (x.numel() + w.numel() > large) return;
      const b = numbers([c.w[0]], 3).requiresGrad_();
      gradcheck((x, w, b) => convolution(axes)(x, w, b, c), [x, w, b]);
    });
  }
});

Deno.test("convTranspose2d() is the gradient of conv2d() and has its own", () => {
  for (const c of cases) {
    scope(() => {
      const axes = c.w.length - 2, x = numbers(c.x, 1).requiresGrad_(), w = numbers(c.w, 2), y = convolution(axes)(x, w, null, c);
      const dy = numbers(y.shape, 4);
      const [dx] = grad([y], [x], { gradOutputs: [dy] });
      const shape = (size: number, i: number) => (size - 1) * c.stride[i] - 2 * c.padding[i] + c.dilation[i] * (c.w[2 + i] - 1) + 1;
      const outputPadding = y.shape.slice(2).map((size, i) => c.x[2 + i] - shape(size, i));
      const again = transposed(axes)(dy, w, null, { ...c, outputPadding });
      assertEquals(again.data(), dx!.data());
      if (dy.numel() + w.numel() > large) return;
      const small = dy.narrow(0, 0, 1).clone().requiresGrad_(), weight = w.clone().requiresGrad_();
      const b = numbers([c.x[1]], 5).requiresGrad_();
      gradcheck((x, w, b) => transposed(axes)(x, w, b, { ...c, outputPadding }), [small, weight, b]);
    });
  }
});

Deno.test("conv2d() can be differentiated twice", () => {
  scope(() => {
    const c: Case = { ...cases[2], x: [1, 2, 4, 3], w: [2, 2, 3, 2] },
      x = numbers(c.x, 1).requiresGrad_(),
      w = numbers(c.w, 2).requiresGrad_();
    const penalty = (x: Tensor, w: Tensor) => {
      const y = conv2d(x, w, null, c), [dx, dw] = grad([y.mul(y).sum()], [x, w], { createGraph: true });
      return dx.mul(dx).sum().add(dw.mul(dw).sum());
    };
    gradcheck((x, w) => enableGrad(() => penalty(x, w)), [x, w]);
  });
});

Deno.test("conv2d() of every small size agrees with float64", () => {
  for (let size = 1; size <= 9; size++) {
    for (const [C, O, k, stride] of [[1, 17, 3, 1], [16, 16, 3, 1], [3, 5, 3, 2], [5, 33, 1, 2], [17, 3, 4, 2], [4, 1, 2, 2]]) {
      scope(() => {
        const options = { stride, padding: k >> 1 }, width = 10 - size;
        const exact = trio("float64", 2, C, O, size, width, options, k).map((v) => v.data() as Float64Array);
        trio("float32", 2, C, O, size, width, options, k).forEach((v, i) => {
          const error = relativeError(v, exact[i]);
          assert(error < 1e-5, `result ${i} of ${[C, O, k, stride, size]}: ${error}`);
        });
      });
    }
  }
});

Deno.test("conv2d() does not depend on the number of threads", () => {
  const threads = getThreads();
  const shapes: [number, number, number, number, number, ConvOptions, number][] = [
    [4, 32, 48, 12, 9, { padding: 1 }, 3],
    [4, 24, 40, 12, 9, { padding: 1, stride: 2 }, 3],
    [4, 40, 24, 34, 33, { padding: 1, stride: 2 }, 4],
    [3, 32, 48, 40, 41, { padding: 1 }, 3],
    [3, 80, 72, 40, 41, { padding: 1 }, 3],
    [3, 32, 72, 33, 31, { padding: 1 }, 4],
    [8, 3, 64, 17, 17, { padding: 1 }, 3],
    [8, 40, 24, 8, 8, {}, 1],
    [4, 2, 3, 30, 33, { padding: 1 }, 3],
    [9, 24, 24, 19, 17, { padding: 1, groups: 24 }, 3],
    [9, 24, 36, 19, 17, { padding: 1, groups: 6, stride: 2 }, 3],
  ];
  try {
    for (const [N, C, O, H, W, options, k] of shapes) {
      for (const dtype of ["float32", "float64"] as const) {
        scope(() => {
          setThreads(1);
          const one = trio(dtype, N, C, O, H, W, options, k).map((v) => v.data());
          setThreads(threads);
          trio(dtype, N, C, O, H, W, options, k).forEach((v, i) => assertEquals(v.data(), one[i]));
        });
      }
    }
  } finally {
    setThreads(threads);
  }
});

Deno.test("conv2d() padding same and valid", () => {
  scope(() => {
    const x = numbers([1, 2, 5, 6], 1), w = numbers([3, 2, 3, 2], 2);
    const same = conv2d(x, w, null, { padding: "same", dilation: [1, 1] });
    assertEquals([...same.shape], [1, 3, 5, 6]);
    // PyTorch pads an odd total once more behind than in front: columns 0 to 4 see what an unpadded one sees.
    const plain = conv2d(x, w, null, { padding: [1, 0] });
    assertEquals(same.narrow(3, 0, 5).contiguous().data(), plain.contiguous().data());
    assertEquals(conv2d(x, w, null, { padding: "valid" }).data(), conv2d(x, w).data());
    gradcheck((x, w) => conv2d(x, w, null, { padding: "same", dilation: 3 }), [x.requiresGrad_(), w.requiresGrad_()]);
    assertThrows(() => conv2d(x, w, null, { padding: "same", stride: 2 }), RangeError, 'padding "same" needs stride 1');
  });
});

Deno.test("conv2d() of an empty batch has zero gradients", () => {
  scope(() => {
    const x = zeros([0, 3, 4, 4]).requiresGrad_(), w = numbers([2, 3, 3, 3], 1, "float32").requiresGrad_(), b = zeros([2]).requiresGrad_();
    const y = conv2d(x, w, b);
    assertEquals([...y.shape], [0, 2, 2, 2]);
    const [dx, dw, db] = grad([y.sum()], [x, w, b]);
    assertEquals([...dx.shape], [0, 3, 4, 4]);
    assertEquals(dw.abs().sum().item(), 0);
    assertEquals(db.tolist(), [0, 0]);
  });
});

Deno.test("conv2d() and convTranspose2d() refuse what does not fit", () => {
  scope(() => {
    const x = zeros([1, 4, 5, 5]), w = zeros([2, 4, 3, 3]);
    assertThrows(
      () => conv2d(x, zeros([2, 3, 3, 3])),
      ShapeError,
      "the input has 4 channels, the weight [2, 3, 3, 3] with groups = 1 takes 3",
    );
    assertThrows(() => conv2d(x, w, zeros([3])), ShapeError, "the bias must be [2], got [3]");
    assertThrows(() => conv2d(x, zeros([2, 4, 6, 3])), ShapeError, "the kernel reaches over [6, 3]");
    assertThrows(() => conv2d(x, w, null, { stride: 0 }), RangeError, "stride must be whole numbers >= 1, got [0, 0]");
    assertThrows(() => conv2d(x, w, null, { padding: -1 }), RangeError, "padding must be whole numbers >= 0");
    assertThrows(() => conv2d(x, w, null, { padding: [1, 1, 1] }), ShapeError, "padding must be a number or 2 numbers");
    assertThrows(() => conv2d(x, w, null, { dilation: 1.5 }), RangeError, "dilation");
    assertThrows(() => conv2d(x, w, null, { groups: 3 }), ShapeError, "takes 12");
    assertThrows(() => conv2d(x, zeros([3, 2, 3, 3]), null, { groups: 2 }), ShapeError, "groups = 2 does not divide 3");
    assertThrows(() => conv2d(zeros([4, 5]), w), ShapeError, "the input must have 4 axes, or 3 without a batch, got [4, 5]");
    assertThrows(() => conv2d(x, zeros([2, 4, 3])), ShapeError, "the weight must be [O, I / groups, 2 kernel sizes]");
    assertThrows(() => conv2d(x, w.double()), DTypeError, "the weight is float64, the input float32");
    assertThrows(() => conv2d(x.int(), w.int()), DTypeError, "floating point");
    assertThrows(() => conv2d(x, zeros([2, 4, 0, 3])), ShapeError, "the kernel is empty");
    const t = zeros([4, 2, 3, 3]);
    assertThrows(() => convTranspose2d(x, t, null, { outputPadding: 1 }), RangeError, "outputPadding [1, 1] must be below stride [1, 1]");
    assertThrows(() => convTranspose2d(x, t, null, { padding: 4 }), ShapeError, "the output would be [-1, -1]");
    assertThrows(() => conv2d([[1]] as unknown as Tensor, w), TypeError, "the input must be a tensor");
  });
});

Deno.test("conv2d() leaves no tensor behind", () => {
  const before = memory.stats(device).bytes;
  scope(() => {
    const x = numbers([2, 3, 6, 6], 1, "float32"), w = numbers([4, 3, 3, 3], 2, "float32").requiresGrad_();
    conv2d(x, w, null, { padding: 1 }).sum().backward();
    w.grad!.dispose();
  });
  assertEquals(memory.stats(device).bytes, before);
});

Deno.test("conv2d() takes a slice of the channels where it lies", () => {
  const shapes: [number[], number, ConvOptions, number][] = [
    [[2, 40, 9, 8], 33, { padding: 1 }, 3], // Winograd
    [[2, 36, 9, 10], 16, { padding: 1, stride: 2 }, 4],
    [[2, 12, 6, 5], 7, {}, 1],
    [[1, 7, 6, 5], 3, { padding: 1 }, 3],
    [[2, 24, 7, 6], 24, { padding: 1, groups: 24 }, 3],
    [[2, 32, 8, 8], 64, { stride: 2 }, 2],
  ];
  for (const [[N, C, H, W], O, options, k] of shapes) {
    scope(() => {
      const whole = numbers([N, C + 9, H, W], 1, "float32").channelsLast(), w = numbers([O, C / (options.groups ?? 1), k, k], 2, "float32");
      const results = (copy: boolean): Tensor[] => {
        const slice = whole.narrow(1, 5, C), x = (copy ? slice.clone().channelsLast() : slice).detach().requiresGrad_();
        const v = w.detach().requiresGrad_(), y = conv2d(x, v, null, options);
        return [y.detach(), ...grad([y], [x, v], { gradOutputs: [numbers(y.shape, 4, "float32")] })];
      };
      const copied = results(true);
      results(false).forEach((v, i) => assertEquals(v.data(), copied[i].data(), `result ${i} of ${textOf([N, C, H, W, O, k])}`));
    });
  }
});

Deno.test({
  name: "ResNet, U-Net, PatchGAN, pix2pix's generator and ShuffleNet change no memory order",
  ignore: device.type !== "cpu", // the count is the CPU library's
  fn() {
    // deno-lint-ignore no-explicit-any
    const library = libraryOf(device) as any, copy = library.dg_copy;
    let copies = 0;
    library.dg_copy = (...args: unknown[]) => (copies++, copy(...args));
    const counted = <T>(fn: () => T): [T, number] => {
      const before = copies, result = fn();
      return [result, copies - before];
    };
    try {
      const reorders = library.dg_conv_reorders(), depth = 2;
      scope(() => {
        const x = numbers([2, 3, 16, 16], 1, "float32").channelsLast();
        const network = resnet18({ cifar: true, numClasses: 4 }), [y, forward] = counted(() => network.call(x));
        assertEquals(forward, 0);
        y.sum().backward();
        const model = new UNet({ inChannels: 3, outChannels: 2, baseChannels: 16, depth });
        const [z, joined] = counted(() => model.call(x));
        assertEquals(joined, 2 * depth); // what cat() writes
        const ones = z.mul(z).sum(), [, backward] = counted(() => ones.backward());
        assertEquals(backward, 0);
        const picture = (channels: number, size: number) => numbers([1, channels, size, size], 1, "float32").channelsLast();
        const judge = new PatchGan(), pair = picture(6, 64), [score, judged] = counted(() => judge.call(pair));
        assertEquals(judged, 0);
        const loss = score.mul(score).sum(), [, back] = counted(() => loss.backward());
        assertEquals(back, 0);
        // What cat() writes and, in ShuffleNet, the shuffle; their gradients are copied in the order that they have.
        const generator = new Pix2PixGenerator(), shuffled = shufflenetV2X1_0({ numClasses: 4 });
        for (const [other, size, joins] of [[generator, 256, 2 * 7], [shuffled, 64, 3 * 16]] as const) {
          const x = picture(3, size), [out, written] = counted(() => other.call(x));
          assertEquals(written, joins);
          out.mul(out).sum().backward();
        }
      });
      assertEquals(library.dg_conv_reorders(), reorders);
    } finally {
      library.dg_copy = copy;
    }
  },
});
