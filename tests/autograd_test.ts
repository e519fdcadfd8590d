import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  AutogradError,
  detectAnomaly,
  enableGrad,
  grad,
  gradcheck,
  isGradEnabled,
  noGrad,
  ones,
  registerPostAccumulateGradHook,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from "../mod.ts";
import { assertThrows } from "./device.ts";
import { test } from "./leaks.ts";

/** Forgets gradients, which no scope frees. */
function clear(...tensors: Tensor[]): void {
  for (const x of tensors) {
    x.grad?.dispose();
    x.grad = null;
  }
}

const leaf = (values: number[] | number[][]) => tensor(values, { requiresGrad: true });

test("backward() accumulates into leaves", () => {
  const x = leaf([1, 2]);
  x.mul(3).sum().backward();
  x.mul(x).sum().backward();
  assertEquals(x.grad!.tolist(), [5, 7]);
  clear(x);
});

test("backward() follows what the code did this time", () => {
  const x = leaf([2]);
  for (const branch of [true, false]) {
    const y = branch ? x.mul(5) : x.mul(x);
    y.backward();
    assertEquals(x.grad!.tolist(), [branch ? 5 : 4]);
    clear(x);
  }
});

test("backward() needs a gradient for an output of several elements, of its shape", () => {
  const x = leaf([1, 2]);
  assertThrows(() => x.mul(2).backward(), ShapeError, "must be given");
  assertThrows(() => x.mul(2).backward(ones([3])), ShapeError, "a gradient of shape [3] was given for an output of shape [2]");
  assertThrows(() => ones([1]).backward(), AutogradError, "does not require a gradient");
});

test("backward() a second time through freed memory is refused, with retainGraph it is not", () => {
  const x = leaf([3]);
  const y = x.mul(x);
  y.backward(null, { retainGraph: true });
  y.backward();
  assertEquals(x.grad!.tolist(), [12]);
  assertThrows(() => y.backward(), AutogradError, "retainGraph");
  clear(x);
});

test("detach() and noGrad() cut the graph", () => {
  const x = leaf([1, 2]);
  assert(!x.mul(2).detach().requiresGrad);
  assert(!noGrad(() => x.mul(2)).requiresGrad);
  assert(noGrad(() => enableGrad(() => x.mul(2))).requiresGrad);
  x.detach().mul(x).sum().backward();
  assertEquals(x.grad!.tolist(), [1, 2]);
  clear(x);
});

Deno.test("noGrad() lasts until an asynchronous function ends and does not leak into others", async () => {
  const tick = () => new Promise((done) => setTimeout(done, 1));
  const inside = noGrad(async () => {
    await tick();
    return isGradEnabled();
  });
  await Promise.resolve();
  assert(isGradEnabled());
  assertEquals(await inside, false);
  assert(isGradEnabled());
});

test("requiresGrad of integers and of results is refused", () => {
  assertThrows(() => tensor([1], { dtype: "int64", requiresGrad: true }), AutogradError, "only floating point");
  assertThrows(() => leaf([1]).mul(2).requiresGrad_(false), AutogradError, "detach()");
});

test("retainGrad() keeps the gradient of an intermediate result", () => {
  const x = leaf([1, 2]), y = x.mul(3);
  y.retainGrad();
  y.mul(y).sum().backward();
  assertEquals(y.grad!.tolist(), [6, 12]);
  assertEquals(x.grad!.tolist(), [18, 36]);
  clear(x, y);
});

test("registerHook() sees and replaces gradients of leaves and results, and can be removed", () => {
  const x = leaf([1, 2]), seen: number[] = [];
  const handle = x.registerHook((g) => void seen.push(g.sum().item()));
  const y = x.mul(2);
  y.registerHook((g) => g.mul(10));
  y.sum().backward();
  assertEquals(seen, [40]);
  assertEquals(x.grad!.tolist(), [20, 20]);
  handle.remove();
  x.mul(2).sum().backward();
  assertEquals(seen.length, 1);
  clear(x);
  x.registerHook(() => ones([5]));
  assertThrows(() => x.mul(2).sum().backward(), ShapeError, "a hook returned [5] for a gradient of [2]");
  clear(x);
});

test("registerPostAccumulateGradHook() sees the whole gradient once a pass", () => {
  const x = leaf([1, 2]), unused = leaf([1]), seen: unknown[] = [];
  const handle = x.registerPostAccumulateGradHook((it) => void seen.push(it === x && it.grad!.tolist()));
  unused.registerPostAccumulateGradHook(() => void seen.push("unused"));
  x.mul(x).add(x.mul(3)).sum().backward();
  assertEquals(seen, [[5, 7]]);
  x.sum().backward();
  assertEquals(seen[1], [6, 8]);
  // A branch that is in the graph but gets no gradient is waited for, too.
  const [first, second] = x.mul(2).split(1);
  first.add(x.select(0, 0)).sum().backward();
  assertEquals(seen[2], [9, 8]);
  second.dispose();
  grad(x.mul(2).sum(), [x]);
  assertEquals(seen.length, 3);
  handle.remove();
  x.sum().backward();
  assertEquals([seen.length, x.accumulateHooks], [3, null]);
  const one = leaf([1]);
  one.registerPostAccumulateGradHook((it) => void seen.push(it.grad!.item()));
  one.backward();
  assertEquals(seen[3], 1);
  one.registerPostAccumulateGradHook(() => {
    throw new RangeError("from a hook");
  });
  assertThrows(() => one.mul(2).sum().backward(), RangeError, "from a hook");
  assertThrows(() => registerPostAccumulateGradHook(x.mul(2), () => {}), AutogradError, "only leaves accumulate gradients");
  assertThrows(() => tensor([1]).registerPostAccumulateGradHook(() => {}), AutogradError, "does not require a gradient");
  assertThrows(() => x.registerPostAccumulateGradHook(3 as never), TypeError, "must be a function");
  clear(x, one);
});

test("registerHook() may keep the gradient it is shown", () => {
  const x = leaf([1, 2]);
  let kept: Tensor | null = null;
  const y = x.mul(2);
  y.registerHook((g) => void (kept = g));
  y.sum().backward();
  assertEquals(kept!.tolist(), [1, 1]);
  clear(x);
});

test("grad() returns gradients of leaves and results without touching grad", () => {
  const x = leaf([1, 2]), y = x.mul(3), unused = leaf([1]);
  const [gx, gy] = grad(y.mul(y).sum(), [x, y], { retainGraph: true });
  assertEquals([gx.tolist(), gy.tolist()], [[18, 36], [6, 12]]);
  assertEquals(x.grad, null);
  assertThrows(() => grad(y.sum(), [unused], { retainGraph: true }), AutogradError, "do not depend on input 0");
  assertEquals(grad(y.sum(), [unused], { allowUnused: true }), [null]);
});

test("createGraph gives third derivatives", () => {
  const x = tensor(2, { dtype: "float64", requiresGrad: true });
  let d = x.pow(4);
  for (let order = 0; order < 3; order++) [d] = grad(d, [x], { createGraph: true });
  assertEquals(d.item(), 48);
});

test("an in-place change of what backward needs is an error", () => {
  const x = leaf([1, 2]), y = x.mul(2), z = y.mul(y);
  y.add_(1);
  assertThrows(() => z.sum().backward(), AutogradError, "changed in place");
});

test("a leaf that requires a gradient, and its views, cannot be changed in place while recording", () => {
  const x = leaf([1, 2]);
  assertThrows(() => x.add_(1), AutogradError, "a leaf tensor");
  assertThrows(() => x.select(0, 0).fill_(1), AutogradError, "a view of a leaf tensor");
  noGrad(() => x.add_(1));
  assertEquals(x.tolist(), [2, 3]);
});

test("in-place operations differentiate", () => {
  const x = tensor([[0.5, 1.5], [2, 3]], { dtype: "float64", requiresGrad: true });
  const w = tensor([[2, -1], [0.5, 4]], { dtype: "float64", requiresGrad: true });
  const operations: Record<string, (y: Tensor, w: Tensor) => Tensor> = {
    add_: (y, w) => y.add_(w, { alpha: 2 }),
    sub_: (y, w) => y.sub_(w),
    mul_: (y, w) => y.mul_(w),
    div_: (y, w) => y.div_(w),
    copy_: (y, w) => y.copy_(w.mul(w)),
    fill_: (y) => y.fill_(3).mul(w),
    clamp_: (y) => y.clamp_(1, 2.5).mul(w),
    relu_: (y) => y.sub_(1).relu_(),
    exp_: (y) => y.exp_(),
    sqrt_: (y) => y.sqrt_(),
    neg_: (y, w) => y.neg_().mul(w),
  };
  for (const fn of Object.values(operations)) gradcheck((x, w) => fn(x.mul(1), w), [x, w]);
});

test("in-place changes through a view reach the base's gradient", () => {
  const x = tensor([[1, 2], [3, 4]], { dtype: "float64", requiresGrad: true });
  const w = tensor([5, 6], { dtype: "float64", requiresGrad: true });
  gradcheck((x, w) => {
    const y = x.mul(2);
    y.select(1, 0).mul_(w);
    y.select(0, 1).add_(w);
    return y.mul(y);
  }, [x, w]);
  gradcheck((x) => {
    const y = x.mul(2), row = y.select(0, 0);
    row.mul_(3);
    return row.mul(y.sum());
  }, [x]);
  gradcheck((w) => {
    const out = zeros([2, 2], { dtype: "float64" });
    out.select(0, 1).copy_(w.mul(w));
    return out;
  }, [w]);
});

test("a view taken before its base changed in place says so when used", () => {
  const x = leaf([1, 2]), y = x.mul(1), view = y.slice(0, 0, 1);
  y.mul_(2);
  assertThrows(() => view.mul(2), AutogradError, "take the view or alias again");
});

test("writing to an expanded tensor is refused with the reference's meaning", () => {
  const x = ones([1, 3]).expand([4, 3]);
  assertThrows(() => x.add_(1), ShapeError, "more than one element of the written-to tensor");
  assertThrows(() => x.add_(1), ShapeError, "clone() first");
  assertEquals(x.clone().add_(1).sum().item(), 24);
});

test("in-place operations refuse results that the tensor cannot hold", () => {
  const counts = tensor([1, 2], { dtype: "int64" });
  assertThrows(() => counts.add_(0.5), Error, "0.5 cannot be stored in a tensor of int64");
  assertThrows(() => counts.mul_(tensor([0.5])), Error, "a result of float32 cannot be stored in a tensor of int64");
  assertThrows(() => counts.div_(2), Error, "a quotient cannot be stored");
  assertThrows(() => ones([2]).add_(ones([3, 2])), ShapeError, "does not broadcast to the tensor's own [2]");
});

test("overlapping operands of an in-place operation are read before they change", () => {
  const x = tensor([1, 2, 3, 4]);
  x.slice(0, 1).add_(x.slice(0, 0, 3));
  assertEquals(x.tolist(), [1, 3, 5, 7]);
});

test("detectAnomaly() names the forward operation whose backward made a NaN, with its stack", () => {
  const error = assertThrows(
    () =>
      detectAnomaly(() => {
        const x = leaf([0]);
        x.sqrt().mul(0).sum().backward();
      }),
    AutogradError,
    "sqrt returned NaN gradients",
  );
  assertMatch(error.message, /autograd_test\.ts/);
});

test("gradcheck() finds a wrong derivative", () => {
  const x = tensor([1, 2], { dtype: "float64", requiresGrad: true });
  assertThrows(() => gradcheck((x) => x.mul(x.detach()), [x]), AutogradError, "element 0 of input 0");
});

test("gradients of broadcast operands are summed and keep their dtype", () => {
  const x = leaf([[1, 2], [3, 4]]), w = tensor([2], { dtype: "float64", requiresGrad: true });
  x.mul(w).sum().backward();
  assertEquals([w.grad!.tolist(), w.grad!.dtype, x.grad!.dtype], [[10], "float64", "float32"]);
  clear(x, w);
});
