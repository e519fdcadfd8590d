/** What is particular to CUDA devices, on the emulated library with two of them: copies, page-locked memory, streams, events, graphs, statistics. */
import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertStrictEquals, assertThrows } from "@std/assert";
import {
  ArrayDataset,
  backends,
  cuda,
  DataLoader,
  defaultGenerator,
  device,
  DeviceError,
  DisposedError,
  type DType,
  fromArray,
  manualSeed,
  memory,
  nn,
  ones,
  optim,
  OutOfMemoryError,
  pinMemory,
  rand,
  randn,
  scope,
  ShapeError,
  type Tensor,
  tensor,
  zeros,
} from "../mod.ts";
import { test as leavesNothing } from "./leaks.ts";

Deno.env.set("DINOGRAD_EMULATED_CUDA", "1");
// As tests/device.ts sets it: all test files share one process, and the emulator reads it once.
const COUNT = 4;
Deno.env.set("DINOGRAD_EMULATED_DEVICES", String(COUNT));

/** The emulated library is not built by every task. */
const ignore = !cuda.isAvailable();

const test = (name: string, fn: () => void | Promise<void>) => leavesNothing(name, fn, { ignore });

/** Frees the gradient, which no scope does. */
function forget(x: Tensor): void {
  x.grad?.dispose();
  x.grad = null;
}

const numbers = (x: Tensor) => Array.from(x.data(), Number);

/** Runs a program in a process of its own with other settings. */
async function program(code: string, env: Record<string, string>): Promise<string> {
  const script = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(script, `import * as dg from ${JSON.stringify(new URL("../mod.ts", import.meta.url).href)};\n${code}`);
  const config = new URL("../deno.json", import.meta.url).pathname;
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: ["run", "-A", "--config", config, script], env }).output();
  await Deno.remove(script);
  return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
}

const probe = `try { dg.ones([1], { device: "cuda" }); } catch (error) { console.log(error.name, error.message); }
console.log(dg.cuda.isAvailable(), dg.cuda.deviceCount());
dg.backends.cuda.allowTf32 = true;
console.log(dg.backends.cuda.allowTf32);`;

Deno.test("without a CUDA library the error says how to build it, and nothing else fails", async () => {
  const text = await program(probe, { DINOGRAD_CUDA_LIBRARY: "", DINOGRAD_LIBRARY_DIR: "/nonexistent", DINOGRAD_EMULATED_CUDA: "0" });
  assert(
    /^LibraryNotFoundError the native cuda library is not built .*deno task build --cuda-toolkit=pip\nfalse 0\nfalse\n/.test(text),
    text,
  );
});

Deno.test("a file that is no library is named with the reason", async () => {
  const file = await Deno.makeTempFile();
  const text = await program(probe, { DINOGRAD_CUDA_LIBRARY: file, DINOGRAD_LIBRARY_DIR: "/nonexistent" });
  await Deno.remove(file);
  assert(text.startsWith("LibraryNotFoundError the native cuda library does not fit") && text.includes(file), text);
});

Deno.test({ name: "without a device the error says what is missing", ignore, fn: noDevice });

async function noDevice(): Promise<void> {
  const text = await program(probe, { DINOGRAD_CUDA_LIBRARY: "", DINOGRAD_EMULATED_CUDA: "1", DINOGRAD_EMULATED_DEVICES: "0" });
  assert(/^DeviceError cuda: .*no CUDA-capable device is detected.*\nfalse 0\n/.test(text), text);
}

test("a device that does not exist is an error that counts those that do", () => {
  assertEquals(cuda.deviceCount(), COUNT);
  assert(cuda.isAvailable());
  assertThrows(() => ones([1], { device: `cuda:${COUNT}` }), DeviceError, `cuda:${COUNT} does not exist: there are ${COUNT} CUDA devices`);
  assertEquals(ones([1], { device: "cuda:1" }).device, device("cuda:1"));
});

test("to() copies between devices in every dtype, keeping the memory order", () => {
  for (const dtype of ["float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool"] as DType[]) {
    const x = tensor([[0, 1, 2], [3, 4, 5]]).to(dtype), there = x.to("cuda");
    assertStrictEquals(there.device, device("cuda:0"));
    assertEquals(there.dtype, dtype);
    const back = there.to("cuda:1").cpu();
    assertEquals(numbers(back), numbers(x));
    assertEquals(back.device, device("cpu"));
  }
  const order = rand([2, 3, 4, 5]).channelsLast(), moved = order.to("cuda");
  assertEquals(moved.strides, order.strides);
  assertEquals(numbers(moved.to("cuda:1").to("cpu")), numbers(order));
});

test("to() copies views, empty tensors, arrays of the program, and more than a piece", () => {
  const x = rand([6, 5]);
  for (const view of [x.T, x.slice(1, 1, 4), x.select(0, 2), x.slice(0, 1, 6, 2), x.expand([2, 6, 5]), zeros([0, 3]), tensor(7)]) {
    const there = view.to("cuda");
    assertEquals(there.shape, view.shape);
    assertEquals(numbers(there.cpu()), numbers(view));
  }
  const whole = x.to("cuda");
  assertEquals(numbers(whole.select(0, 2).cpu()), numbers(x.select(0, 2)));
  assertEquals(numbers(whole.T.to("cuda:1").cpu()), numbers(x.T));
  const array = new Float32Array([1, 2, 3, 4, 5, 6]), lent = fromArray(array, [2, 3]);
  assertEquals(numbers(lent.select(0, 1).to("cuda")), [4, 5, 6]);
  const large = rand([3, 1_000_000]);
  assertEquals(large.to("cuda").cpu().data(), large.data());
});

test("to() passes gradients back to the first device", () => {
  const x = tensor([1, 2, 3], { requiresGrad: true });
  const y = x.to("cuda");
  y.mul(y).sum().backward();
  assertStrictEquals(x.grad!.device, device("cpu"));
  assertEquals(numbers(x.grad!), [2, 4, 6]);
  forget(x);
  assertThrows(() => x.add(y), DeviceError, 'expected cpu: move it with .to("cpu")');
});

test("copy_() takes a source of any device, dtype and shape that broadcasts", () => {
  const x = zeros([2, 3], { device: "cuda" }), row = tensor([1, 2, 3]);
  x.copy_(row);
  assertEquals(numbers(x), [1, 2, 3, 1, 2, 3]);
  x.copy_(tensor([[1, 2, 3], [4, 5, 6]], { dtype: "int64" }));
  assertEquals(numbers(x), [1, 2, 3, 4, 5, 6]);
  x.T.copy_(tensor([[1, 2], [3, 4], [5, 6]]));
  assertEquals(numbers(x), [1, 3, 5, 2, 4, 6]);
  const here = zeros([2, 3]).copy_(x);
  assertEquals(numbers(here), numbers(x));
  const w = tensor([1, 2, 3], { requiresGrad: true });
  zeros([2, 3], { device: "cuda" }).copy_(w).sum().backward();
  assertEquals(numbers(w.grad!), [2, 2, 2]);
  forget(w);
});

test("ids of both libraries are told apart, in errors about memory too", () => {
  const here = Array.from({ length: 5 }, (_, i) => tensor([i])), there = here.map((x) => x.to("cuda"));
  here.forEach((x) => x.dispose());
  assertEquals(there.map((x) => x.item()), [0, 1, 2, 3, 4]);
  memory.setLimit(memory.stats("cuda").bytes + 2 ** 20, "cuda");
  try {
    const held = zeros([200_000], { device: "cuda" });
    const error = assertThrows(() => zeros([200_000], { device: "cuda" }), OutOfMemoryError);
    assert(error.message.includes("1 x [200000] of 800000 bytes"), error.message);
    held.dispose();
  } finally {
    memory.setLimit(0, "cuda");
  }
  const before = memory.stats("cuda").bytes;
  const x = ones([1000], { device: "cuda" });
  assertEquals(memory.stats("cuda").bytes - before, 4000);
  x.dispose();
  assertEquals(memory.stats("cuda").bytes, before);
});

test("pinMemory() copies into page-locked memory, which is used again", () => {
  const x = rand([3, 4, 5, 6]).channelsLast(), locked = x.pinMemory();
  assert(locked.isPinned && locked.select(0, 1).isPinned && !x.isPinned);
  assertEquals(locked.strides, x.strides);
  assertStrictEquals(pinMemory(locked), locked);
  assertEquals(numbers(locked), numbers(x));
  assertEquals(numbers(locked.to("cuda", { nonBlocking: true })), numbers(x));
  assertEquals(numbers(locked.to("cuda:1")), numbers(x));
  assertEquals(numbers(zeros([3, 4, 5, 6], { device: "cuda" }).copy_(locked, { nonBlocking: true })), numbers(x));
  locked.dispose();
  for (let i = 0; i < 10; i++) {
    const again = tensor([i, i + 1]).pinMemory();
    const there = again.to({ device: "cuda", dtype: "float64" }, { nonBlocking: true });
    again.dispose();
    assertEquals(numbers(there), [i, i + 1]);
  }
  assertThrows(() => ones([1], { device: "cuda" }).pinMemory(), DeviceError, "the tensor is on cuda:0");
  assertEquals(tensor([]).pinMemory().numel(), 0);
  const w = tensor([2, 3], { requiresGrad: true });
  w.pinMemory().to("cuda").square().sum().backward();
  assertEquals(numbers(w.grad!), [4, 6]);
  forget(w);
  memory.releaseCache();
});

test("DataLoader puts batches into page-locked memory", async () => {
  const samples = Array.from({ length: 5 }, (_, i) => ({ x: tensor([i, 2 * i]), label: i, name: `${i}` }));
  const sums: number[] = [];
  for await (const { x, label, name } of new DataLoader(new ArrayDataset(samples), { batchSize: 2, pinMemory: true })) {
    assert(x.isPinned && label.isPinned);
    assertEquals(name.length, label.numel());
    sums.push(x.to("cuda", { nonBlocking: true }).sum().item());
  }
  assertEquals(sums, [3, 15, 12]);
});

test("a module moves, and an optimiser's state lies with its parameters", () => {
  const model = new nn.Linear(3, 2).cuda(), x = rand([4, 3], { device: "cuda" });
  assertEquals([...model.parameters()].map((p) => `${p.device}`), ["cuda:0", "cuda:0"]);
  using optimizer = new optim.Adam(model.parameters(), { lr: 0.1 });
  model.call(x).square().sum().backward();
  optimizer.step();
  const state = optimizer.stateDict();
  assertEquals(`${(state.state[0].exp_avg as Tensor).device}`, "cuda:0");
  const twin = new nn.Linear(3, 2);
  twin.loadStateDict(model.stateDict());
  assertEquals(numbers(twin.weight), numbers(model.weight));
  using other = new optim.Adam(twin.parameters(), { lr: 0.1 });
  other.loadStateDict(state);
  const loaded = other.stateDict().state[0].exp_avg as Tensor;
  assertEquals(`${loaded.device}`, "cpu");
  assertEquals(numbers(loaded), numbers(state.state[0].exp_avg as Tensor));
  model.zeroGrad();
  model.dispose();
  twin.dispose();
});

test("properties(), synchronize() and runtimeStats() tell of the device", () => {
  const found = cuda.properties("cuda:1");
  assert(found.name.length > 0 && found.totalMemory >= found.freeMemory && found.totalMemory > 0, JSON.stringify(found));
  assert(found.computeCapability[0] >= 8 && found.multiprocessors > 0 && found.sharedMemoryPerBlock > 0);
  const x = ones([1000], { device: "cuda" });
  cuda.synchronize();
  const before = cuda.runtimeStats();
  x.exp();
  const between = cuda.runtimeStats();
  assertEquals(between.launches - before.launches, 1);
  assertEquals(between.synchronisations, before.synchronisations);
  x.data();
  const after = cuda.runtimeStats("cuda");
  assertEquals(after.bytesFromDevice - between.bytesFromDevice, 4000);
  assert(after.synchronisations > between.synchronisations);
  x.copy_(ones([1000]));
  assertEquals(cuda.runtimeStats().bytesToDevice - after.bytesToDevice, 4000);
  cuda.synchronize("cpu");
});

test("an error that only the device sees comes out when it is waited for", () => {
  const x = rand([3, 4], { device: "cuda" }), index = tensor([[5]], { dtype: "int64", device: "cuda" });
  x.gather(1, index);
  assertThrows(() => cuda.synchronize(), RangeError, "5");
  cuda.synchronize();
});

test("Event: record, query, wait, elapsed, dispose", () => {
  const start = new cuda.Event(), end = new cuda.Event("cuda:0");
  assertThrows(() => start.elapsed(end), RangeError, "recorded");
  start.record();
  ones([10], { device: "cuda" }).exp();
  end.record();
  end.wait();
  end.synchronize();
  assert(end.query());
  assert(start.elapsed(end) >= 0);
  start.dispose();
  start.dispose();
  assertThrows(() => start.record(), DisposedError, "event");
  assertThrows(() => end.elapsed(start), DisposedError, "event");
  end[Symbol.dispose]();
  using here = new cuda.Event("cpu");
  here.record();
  assert(here.query());
  assertThrows(() => new cuda.Event("cuda:7"), DeviceError, "does not exist");
});

test("withStream() orders by events what two streams share, nests, and comes back after an error", () => {
  const locked = rand([100]).pinMemory();
  using copied = new cuda.Event();
  const y = cuda.withStream("cuda", "communication", () => {
    const there = locked.to("cuda", { nonBlocking: true });
    cuda.withStream("cuda", "computation", () => ones([2], { device: "cuda" }).exp());
    copied.record();
    return there;
  });
  copied.wait();
  assertEquals(numbers(y.neg()), numbers(locked.neg()));
  assertThrows(
    () =>
      cuda.withStream("cuda", "communication", () => {
        throw new ShapeError("inside");
      }),
    ShapeError,
    "inside",
  );
  assertThrows(() => cuda.withStream("cuda", "other" as "communication", () => 1), RangeError, "communication");
  assertThrows(() => cuda.withStream("cuda", "computation", () => Promise.resolve()), TypeError, "asynchronous");
  assertEquals(numbers(ones([2], { device: "cuda" }).neg()), [-1, -1]);
});

test("capture() runs nothing; each replay works on what the inputs hold then", () => {
  const x = tensor([1, 2, 3], { device: "cuda" });
  const before = memory.stats().tensors;
  const step = cuda.capture("cuda", () => ({ square: x.square(), total: x.square().add(1).sum() }));
  assertStrictEquals(step.device, device("cuda"));
  assertEquals(memory.stats().tensors, before + 2);
  step.replay();
  assertEquals([numbers(step.result.square), step.result.total.item()], [[1, 4, 9], 17]);
  const graphs = cuda.runtimeStats().graphLaunches;
  for (let i = 0; i < 3; i++) {
    x.copy_(tensor([i, i, i]));
    ones([1000], { device: "cuda" }).exp().dispose(); // takes no memory of the graph
    step.replay();
    assertEquals([numbers(step.result.square), step.result.total.item()], [[i * i, i * i, i * i], 3 * (i * i + 1)]);
  }
  assertEquals(cuda.runtimeStats().graphLaunches - graphs, 3);
  const held = memory.stats().tensors;
  step.dispose();
  step.dispose();
  assertEquals(memory.stats().tensors, held - 2);
  assertThrows(() => step.replay(), DisposedError, "captured step");
  assertThrows(() => step.result.total.item(), DisposedError);
});

test("capture(): random numbers go on as if the function had run each time", () => {
  const draw = () => [rand([5], { device: "cuda" }), nn.functional.dropout(ones([9], { device: "cuda" }), 0.5)];
  manualSeed(3);
  const expected = Array.from({ length: 4 }, () => draw().map(numbers));
  const end = defaultGenerator.getState();
  manualSeed(3);
  using step = cuda.capture("cuda", draw);
  assertEquals(defaultGenerator.getState().offset, 0);
  for (const want of expected.slice(0, 3)) {
    step.replay();
    assertEquals(step.result.map(numbers), want);
  }
  assertEquals(draw().map(numbers), expected[3]);
  assertEquals(defaultGenerator.getState(), end);
});

test("capture(): a training step follows the steps run one by one", () => {
  const train = (captured: boolean) => {
    manualSeed(5);
    const first = new nn.Linear(4, 8), last = new nn.Linear(8, 1);
    const model = new nn.Sequential(first, new nn.Tanh(), last).cuda();
    const optimizers = [
      new optim.AdamW(first.parameters(), { lr: 0.05 }),
      new optim.SGD(last.parameters(), { lr: 0.01, momentum: 0.9 }),
    ];
    const x = zeros([16, 4], { device: "cuda" }), batches = Array.from({ length: 6 }, () => randn([16, 4]));
    const once = () => {
      optimizers.forEach((it) => it.zeroGrad());
      const loss = model.call(x).sub(1).square().mean();
      loss.backward();
      optimizers.forEach((it) => it.step());
      return loss.detach();
    };
    const losses: number[] = [];
    const eager = (batch: Tensor) => {
      x.copy_(batch);
      losses.push(scope(() => once().item()));
    };
    eager(batches[0]);
    if (captured) {
      using step = cuda.capture("cuda", once);
      for (const batch of batches.slice(1, 5)) {
        x.copy_(batch);
        step.replay();
        losses.push(step.result.item());
      }
    } else {
      batches.slice(1, 5).forEach(eager);
    }
    eager(batches[5]);
    const steps = optimizers[0].stateDict().state[0].step;
    const weights = [...model.parameters()].map(numbers);
    optimizers.forEach((it) => it.dispose());
    model.dispose();
    return { losses, steps, weights };
  };
  const want = train(false), got = train(true);
  assertEquals(got.steps, 6);
  assertEquals(want.steps, 6);
  got.losses.forEach((loss, i) => assertAlmostEquals(loss, want.losses[i], 1e-6, `loss ${i}`));
  got.weights.flat().forEach((w, i) => assertAlmostEquals(w, want.weights.flat()[i], 1e-6, `weight ${i}`));
});

test("capture() that fails ends, rethrows, and leaves all as it was", () => {
  const x = ones([3], { device: "cuda" });
  manualSeed(8);
  assertThrows(
    () =>
      cuda.capture("cuda", () => {
        rand([4], { device: "cuda" });
        throw new ShapeError("of the function");
      }),
    ShapeError,
    "of the function",
  );
  assertEquals(defaultGenerator.getState().offset, 0);
  assertThrows(() => cuda.capture("cuda", () => x.sum().item()), DeviceError, "captured");
  assertThrows(() => cuda.capture("cuda", () => Promise.resolve(x.exp())), TypeError, "asynchronous");
  assertThrows(() => cuda.capture("cuda", () => cuda.capture("cuda", () => x.exp())), DeviceError, "already");
  assertThrows(() => cuda.capture("cuda", () => manualSeed(1)), DeviceError, "seeded");
  const w = ones([3], { device: "cuda", requiresGrad: true });
  using optimizer = new optim.Adam([w]);
  const train = () => {
    w.square().sum().backward();
    optimizer.step();
  };
  assertThrows(() => cuda.capture("cuda", train), DeviceError, "take a step before");
  forget(w);
  using adagrad = new optim.Adagrad([w], { lrDecay: 0.1 });
  w.square().sum().backward();
  adagrad.step();
  assertThrows(() => cuda.capture("cuda", () => adagrad.step()), DeviceError, "lrDecay");
  assertThrows(() => cuda.capture("cpu", () => x), DeviceError, "graphs");
  assertEquals(numbers(x.exp().log()).map(Math.round), [1, 1, 1]);
  forget(w);
});

test("backends.cuda.allowTf32 is off until it is set", () => {
  assertEquals(backends.cuda.allowTf32, false);
  backends.cuda.allowTf32 = true;
  assertEquals(backends.cuda.allowTf32, true);
  backends.cuda.allowTf32 = false;
  assertNotEquals(backends.cuda.allowTf32, true);
});
