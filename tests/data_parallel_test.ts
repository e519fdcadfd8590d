import { assert, assertEquals, assertThrows } from "@std/assert";
import { arange, type DeviceLike, distributed, manualSeed, memory, nn, optim, randn, scope, type Tensor } from "../mod.ts";
import { device } from "./device.ts";

const { DataParallel } = distributed, { gather, scatter } = distributed.parallel;
/** Four places of the device under test: of the CPU four times the same. `DINOGRAD_EMULATED_DEVICES` is read when the first of them is used. */
const devices = [0, 1, 2, 3].map((i): DeviceLike => device.type === "cpu" ? "cpu" : `cuda:${i}`);

function close(actual: Tensor, expected: Tensor, bound: number, what: string): void {
  assertEquals(actual.shape, expected.shape, what);
  const distance = actual.to("cpu").sub(expected.to("cpu")).abs().max().item();
  assert(distance <= bound, `${what}: ${distance} apart`);
}

class Net extends nn.Module {
  body = new nn.Sequential(new nn.Linear(6, 16), new nn.Tanh(), new nn.Linear(16, 3));
  scale = new nn.Parameter(randn([3]));
  calls = 0;
  override forward(x: Tensor, options?: { shift?: Tensor; factor?: number }): Tensor {
    this.calls++;
    const y = this.body.call(x).mul(this.scale).mul(options?.factor ?? 1);
    return options?.shift === undefined ? y : y.add(options.shift);
  }
}

Deno.test("scatter() splits nested tensors and hands everything else to every device", () =>
  scope(() => {
    const pieces = scatter(
      { x: arange(10).reshape([5, 2]), rest: [arange(5), 7], by: new Map([["y", arange(5)]]) },
      devices.slice(0, 2),
    ) as {
      x: Tensor;
      rest: [Tensor, number];
      by: Map<string, Tensor>;
    }[];
    assertEquals(pieces.length, 2);
    assertEquals(pieces.map((it) => it.x.shape), [[3, 2], [2, 2]]);
    assertEquals(pieces[1].rest[0].tolist(), [3, 4]);
    assertEquals(pieces[1].rest[1], 7);
    assertEquals(pieces[0].by.get("y")!.tolist(), [0, 1, 2]);
    assertEquals(scatter([arange(2)], devices).length, 2); // fewer rows than devices
    assertEquals(scatter(["no tensors"], devices), [["no tensors"]]);
    assertEquals((scatter([arange(8).reshape([2, 4])], devices, 1) as Tensor[][]).map(([x]) => x.shape), Array(4).fill([2, 1]));
    assertThrows(() => scatter(arange(3).sum(), devices), RangeError, "without axes");
    assertThrows(() => scatter([arange(3)], []), RangeError, "no devices");
  }));

Deno.test("gather() concatenates or stacks nested outputs and refuses different ones", () =>
  scope(() => {
    const parts = [[arange(2), { n: 1 }], [arange(2).add(2), { n: 1 }]];
    const joined = gather(parts.map(([x, o]) => [x, o]), devices[0]) as [Tensor, { n: number }];
    assertEquals(joined[0].shape, [4]);
    assertEquals(joined[1], { n: 1 });
    assertEquals((gather([arange(3), arange(3)], devices[0], { join: "stack", dim: 1 }) as Tensor).tolist(), [[0, 0], [1, 1], [2, 2]]);
    assertEquals((gather([arange(3).sum(), arange(4).sum()], devices[0]) as Tensor).tolist(), [3, 6]);
    assertThrows(() => gather([{ a: arange(1) }, { b: arange(1) }], devices[0]), TypeError, "differs between devices");
    assertThrows(() => gather([1, 2], devices[0]), TypeError, "the output differs between devices");
    assertThrows(() => gather([], devices[0]), RangeError, "no outputs");
    assertThrows(() => gather([1], devices[0], { join: "sum" as never }), TypeError, `"cat" or "stack"`);
  }));

for (const rows of [8, 5, 2]) {
  Deno.test(`DataParallel trains as one device does: ${rows} rows on ${devices.length} devices`, () => {
    const before = memory.stats().tensors;
    scope(() => {
      manualSeed(3);
      const [alone, shared] = [new Net(), new Net()].map((it) => it.double().to(devices[0]));
      shared.loadStateDict(alone.stateDict());
      const parallel = new DataParallel(shared, { devices });
      const optimizers = [
        new optim.SGD(alone.parameters(), { lr: 0.02, momentum: 0.9 }),
        new optim.SGD(parallel.parameters(), { lr: 0.02, momentum: 0.9 }),
      ];
      for (let step = 0; step < 5; step++) {
        const x = randn([rows, 6]).to({ dtype: "float64", device: devices[0] }),
          shift = randn([rows, 3]).to({ dtype: "float64", device: devices[0] });
        const outputs = [alone.call(x, { shift, factor: 2 }), parallel.call(x, { shift, factor: 2 }) as Tensor];
        close(outputs[1], outputs[0], 1e-12, "the output");
        for (const [i, y] of outputs.entries()) {
          optimizers[i].zeroGrad();
          y.square().mean().backward();
          optimizers[i].step();
        }
      }
      const [first, second] = [alone, shared].map((it) => [...it.parameters()]);
      for (let i = 0; i < first.length; i++) {
        close(second[i], first[i], 1e-12, `parameter ${i}`);
        assertEquals(second[i].device, first[i].device);
      }
      assertEquals(shared.calls, 5); // the replicas' counting is lost
      for (const it of [alone, shared]) it.dispose();
      for (const optimizer of optimizers) optimizer.zeroGrad();
    });
    assertEquals(memory.stats().tensors - before, 10, "the optimisers' momenta alone are left");
  });
}

Deno.test("DataParallel keeps the first device's running statistics and loses the others'", () =>
  scope(() => {
    using norm = new nn.BatchNorm1d(4).to(devices[0]);
    using expected = new nn.BatchNorm1d(4).to(devices[0]);
    const x = randn([12, 4]).to(devices[0]);
    const parallel = new DataParallel(norm, { devices });
    parallel.call(x);
    expected.call(x.narrow(0, 0, 3)); // what the first of four devices sees
    close(norm.runningMean!, expected.runningMean!, 0, "running mean");
    close(norm.runningVar!, expected.runningVar!, 0, "running variance");
    assertEquals(norm.numBatchesTracked!.item(), 1);
  }));

Deno.test("DataParallel joins nested outputs and stacks where asked", () =>
  scope(() => {
    class Two extends nn.Module {
      weight = new nn.Parameter(randn([2, 2]));
      override forward(x: Tensor) {
        return { mean: x.mean(), all: [x.matmul(this.weight), "text"] };
      }
    }
    using model = new Two().to(devices[0]);
    const x = randn([4, 2]).to(devices[0]);
    const out = new DataParallel(model, { devices }).call(x) as { mean: Tensor; all: [Tensor, string] };
    assertEquals(out.mean.shape, [4]);
    assertEquals(out.all[0].shape, [4, 2]);
    assertEquals(out.all[1], "text");
    class One extends nn.Module {
      weight = new nn.Parameter(randn([2, 2]));
      override forward(x: Tensor) {
        return x.matmul(this.weight);
      }
    }
    using one = new One().to(devices[0]);
    assertEquals((new DataParallel(one, { devices, join: "stack" }).call(x) as Tensor).shape, [4, 1, 2]);
  }));

Deno.test("DataParallel puts the module back when forward throws", () =>
  scope(() => {
    class Failing extends nn.Module {
      weight = new nn.Parameter(randn([2]));
      turn = 0;
      override forward(x: Tensor): Tensor {
        if (++this.turn === 2) throw new RangeError("on purpose");
        return x.mul(this.weight);
      }
    }
    using model = new Failing().to(devices[0]);
    const { storage } = model.weight, parallel = new DataParallel(model, { devices });
    model.turn = 1;
    assertThrows(() => parallel.call(randn([4, 2]).to(devices[0])), RangeError, "on purpose");
    assert(model.weight.storage === storage);
    assertEquals(model.turn, 1);
    model.turn = 5;
    assertEquals((parallel.call(randn([4, 2]).to(devices[0])) as Tensor).shape, [4, 2]);
  }));

Deno.test("DataParallel's state dict has PyTorch's prefix; bad arguments are refused", () => {
  using model = new Net().to(devices[0]);
  const parallel = new DataParallel(model, { devices });
  assertEquals(Object.keys(parallel.stateDict())[0], "module.scale");
  assertThrows(() => new DataParallel(5 as never), TypeError, "takes a Module");
  assertThrows(() => new DataParallel(model, { devices: [] }), RangeError, "at least one device");
});
