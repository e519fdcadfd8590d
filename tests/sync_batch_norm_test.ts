import { assert, assertEquals, assertThrows } from "@std/assert";
import { nn, randn, ShapeError, type Tensor } from "../mod.ts";
import { test } from "./leaks.ts";
import { runWorld } from "./world/mod.ts";

for (const size of [2, 3]) {
  Deno.test(`SyncBatchNorm on ${size} ranks equals BatchNorm on the joined batch`, () => runWorld(size, "syncBatchNorm"));
}

test("SyncBatchNorm without a process group is BatchNorm", () => {
  const sync = new nn.SyncBatchNorm(3), plain = new nn.BatchNorm2d(3), x = randn([2, 3, 4, 4]);
  for (const step of [1, 2]) {
    assertEquals(sync.call(x).tolist(), plain.call(x).tolist());
    assertEquals(sync.runningVar!.tolist(), plain.runningVar!.tolist());
    assertEquals(sync.numBatchesTracked!.item(), step);
  }
  assertEquals(sync.eval().call(x).tolist(), plain.eval().call(x).tolist());
  assertThrows(() => sync.train().call(randn([1, 3])), ShapeError, "more than 1 value per channel");
  sync.dispose();
  plain.dispose();
});

/** Layers in all the places where modules hold them. */
class Places extends nn.Module {
  firstNorm = new nn.BatchNorm1d(2, { momentum: null, eps: 0.5 });
  again = this.firstNorm;
  list = new nn.ModuleList([new nn.BatchNorm2d(2), new nn.ReLU()]);
  dict = new nn.ModuleDict({ a: new nn.BatchNorm3d(2, { affine: false }) });
  twice: nn.Sequential;
  none: nn.BatchNorm1d | null = null;
  constructor() {
    super();
    const shared = new nn.BatchNorm1d(2);
    this.twice = new nn.Sequential(shared, new nn.ReLU(), shared, new nn.GroupNorm(1, 2));
  }
}

test("convertSyncBatchNorm() replaces layers wherever they are, and keeps parameters, buffers and names", () => {
  const module = new Places(), before = module.stateDict(), weights = [...module.parameters()];
  module.firstNorm.eval();
  const converted = nn.SyncBatchNorm.convertSyncBatchNorm(module);
  assert(converted === module);
  assertEquals(Object.keys(module.stateDict()), Object.keys(before));
  assertEquals([...module.parameters()].every((p, i) => p === weights[i]), true);
  const layers = [module.firstNorm, module.list.at(0), module.dict.get("a"), module.twice.at(0), module.twice.at(2)];
  assertEquals(layers.map((it) => it instanceof nn.SyncBatchNorm), [true, true, true, true, true]);
  assert(module.again === module.firstNorm && module.twice.at(0) === module.twice.at(2));
  assert(module.twice.at(3) instanceof nn.GroupNorm);
  assertEquals([module.firstNorm.momentum, module.firstNorm.eps, module.firstNorm.training], [null, 0.5, false]);
  assertEquals([...module.buffers()].length, 12);
  const itself = new nn.BatchNorm1d(2), sync: nn.Module = nn.SyncBatchNorm.convertSyncBatchNorm(itself as nn.Module);
  assert(sync instanceof nn.SyncBatchNorm && sync.weight === itself.weight);
  assert(nn.SyncBatchNorm.convertSyncBatchNorm(sync) === sync);
  assertThrows(() => nn.SyncBatchNorm.convertSyncBatchNorm(3 as never), TypeError, "takes a Module, got number");
  class Hidden extends nn.Module {
    #layers = [new nn.BatchNorm1d(2)];
    protected override *members(): Iterable<readonly [string, unknown]> {
      yield ["inner", this.#layers[0]];
    }
    override forward(x: Tensor): Tensor {
      return this.#layers[0].call(x);
    }
  }
  const hidden = new Hidden();
  assertThrows(
    () => nn.SyncBatchNorm.convertSyncBatchNorm(hidden),
    TypeError,
    'Hidden holds its layer "inner" where it cannot be replaced',
  );
  for (const it of [module, sync, hidden]) it.dispose();
});
